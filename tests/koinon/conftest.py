"""A scripted node and its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import koinon
from koinon.client import Client
from tests.koinon.fake_node import FakeNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with FakeNode(tmp_path) as fake:
        yield fake


@pytest.fixture
def client(node: FakeNode) -> Iterator[Client]:
    with koinon.connect(node.profile) as connected:
        yield connected
