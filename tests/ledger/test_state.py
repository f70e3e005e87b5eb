"""The overlay against the dumbest possible twin: a dictionary copied at every savepoint."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from node.ledger.state import State
from node.store.memory import MemoryStore

KEYS = st.binary(min_size=1, max_size=3).map(lambda key: bytes(byte % 3 for byte in key))
VALUES = st.binary(max_size=2)


class Overlay(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.state = State(self.store.get, self.store.scan)
        self.model: dict[bytes, bytes] = {}
        self.saved: list[dict[bytes, bytes]] = []

    @initialize(stored=st.dictionaries(KEYS, VALUES, max_size=12))
    def begin(self, stored: dict[bytes, bytes]) -> None:
        self.store.write(stored.items(), sync=True)
        self.model = dict(stored)

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.state.put(key, value)
        self.model[key] = value

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        self.state.delete(key)
        self.model.pop(key, None)

    @rule()
    def savepoint(self) -> None:
        self.state.savepoint()
        self.saved.append(dict(self.model))

    @precondition(lambda self: self.saved)
    @rule()
    def rollback(self) -> None:
        self.state.rollback()
        self.model = self.saved.pop()

    @precondition(lambda self: self.saved)
    @rule()
    def release(self) -> None:
        self.state.release()
        self.saved.pop()

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.state.get(key) == self.model.get(key)

    @rule(prefix=st.just(b"") | KEYS, start=KEYS, reverse=st.booleans())
    def scan(self, prefix: bytes, start: bytes, reverse: bool) -> None:
        inside = sorted((entry for entry in self.model.items() if entry[0].startswith(prefix)), reverse=reverse)
        assert list(self.state.scan(prefix, reverse=reverse)) == inside
        if start.startswith(prefix):
            beyond = [entry for entry in inside if (entry[0] <= start if reverse else entry[0] >= start)]
            assert list(self.state.scan(prefix, start=start, reverse=reverse)) == beyond

    @precondition(lambda self: not self.saved)
    @rule()
    def commit(self) -> None:
        """Writing what changed makes the store what the view was; no write is superfluous."""
        changes = self.state.changes()
        assert [key for key, _, _ in changes] == sorted({key for key, _, _ in changes})
        assert all(before != after and before == self.store.get(key) for key, before, after in changes)
        assert self.state.writes() == [(key, after) for key, _, after in changes]
        self.store.write(self.state.writes(), sync=True)
        self.state = State(self.store.get, self.store.scan)

    @invariant()
    def all_keys_agree(self) -> None:
        assert dict(self.state.scan(b"")) == self.model


TestOverlay = Overlay.TestCase
TestOverlay.settings = settings(max_examples=40, stateful_step_count=30)


def test_the_store_is_not_touched() -> None:
    store = MemoryStore()
    state = State(store.get, store.scan)
    state.put(b"a", b"1")
    assert store.get(b"a") is None
    assert state.writes() == [(b"a", b"1")]


def test_an_ended_savepoint_cannot_end_twice() -> None:
    store = MemoryStore()
    state = State(store.get, store.scan)
    state.savepoint()
    state.release()
    with pytest.raises(IndexError):
        state.rollback()


def test_changes_of_half_a_transaction_are_not_given_out() -> None:
    store = MemoryStore()
    state = State(store.get, store.scan)
    state.savepoint()
    with pytest.raises(AssertionError):
        state.changes()
