"""A fresh consortium for each test."""

from __future__ import annotations

import pytest

from tests.contracts.consortium import Consortium


@pytest.fixture
def consortium() -> Consortium:
    return Consortium()
