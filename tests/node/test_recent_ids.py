"""A filter in front of the look-up of ids must never say no to one that could be replayed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from koinon.limits import MAX_EXPIRY_MS
from node.recent_ids import RecentIds


def digest(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


@given(st.lists(st.integers(0, MAX_EXPIRY_MS), max_size=30), st.integers(0, MAX_EXPIRY_MS))
def test_every_id_is_known_until_it_has_expired(pauses: Sequence[int], begin: int) -> None:
    recent, time_ms = RecentIds(begin), begin
    decided: list[tuple[int, bytes]] = []
    for number, pause in enumerate(pauses):
        time_ms += pause
        recent.add([digest(number)], time_ms)
        decided.append((time_ms + MAX_EXPIRY_MS, digest(number)))
        assert all(recent.may_have(item) for expires_at_ms, item in decided if expires_at_ms > time_ms)


def test_ids_that_were_never_added_are_nearly_never_looked_up() -> None:
    recent = RecentIds(0)
    recent.add(map(digest, range(50_000)), 1)
    assert sum(recent.may_have(digest(number)) for number in range(50_000, 60_000)) < 10


def test_ids_long_past_are_forgotten() -> None:
    recent = RecentIds(0)
    recent.add([digest(1)], 0)
    for time_ms in (MAX_EXPIRY_MS, 2 * MAX_EXPIRY_MS):
        recent.add([], time_ms)
    assert not recent.may_have(digest(1))
