"""Cheap tests first: those that start whole networks run last, so that a slip shows within seconds."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

_LAST = ("simulation", "node", "testnet", "bench", "docs")


def _cost(item: pytest.Item) -> int:
    area = item.path.parent.name
    return _LAST.index(area) + 1 if area in _LAST else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by cost; within an area, the order of the files stays."""
    items.sort(key=_cost)


# Whoever starts the tests in the background may have SIGINT ignored, which children inherit: they are interrupted here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something of the machine only. A fixture that examples share, they may share.
_OF_NO_INTEREST = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile("any machine", deadline=None, suppress_health_check=_OF_NO_INTEREST)
settings.load_profile("any machine")
