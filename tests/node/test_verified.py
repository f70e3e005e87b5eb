"""No signature is verified twice, on whatever thread; and memory is bounded by the pool's bounds."""

from __future__ import annotations

import threading

import pytest

from koinon import envelope
from koinon.envelope import InvalidTransaction, SignedTransaction
from koinon.keys import SigningKey
from koinon.v1.identity_pb2 import RevokePerson
from koinon.v1.transaction_pb2 import Operation
from node import verified
from node.verified import VerifiedTransactions

CHAIN = "test-0123456789abcdef"
KEY = SigningKey(b"k" * 32)


def signed(number: int) -> bytes:
    operation = Operation(revoke_person=RevokePerson(person_id="um/somebody"))
    return envelope.sign(CHAIN, [operation], KEY, 1_000, number.to_bytes(16, "big"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Envelopes whose signature was really verified."""
    seen: list[bytes] = []

    def verify(chain_id: str, data: bytes) -> SignedTransaction:
        seen.append(data)
        return envelope.verify(chain_id, data)

    monkeypatch.setattr(verified, "verify", verify)
    return seen


def test_many_are_verified_in_order_and_each_once(calls: list[bytes]) -> None:
    known = VerifiedTransactions(CHAIN)
    mixed = [b"garbage" if number % 7 == 0 else signed(number) for number in range(50)]
    for _ in range(2):
        outcomes = known.verify_many(mixed)
        for data, outcome in zip(mixed, outcomes, strict=True):
            if data == b"garbage":
                assert isinstance(outcome, InvalidTransaction)
            else:
                assert isinstance(outcome, SignedTransaction)
                assert outcome.id == envelope.identify(data)
    assert len([data for data in calls if data != b"garbage"]) == 42
    assert known.verify_many([]) == []


def test_what_a_thread_has_verified_so_far_is_known_while_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposal need not wait for the end of a batch, nor verify it again."""
    reached, go_on = threading.Event(), threading.Event()

    def verify(chain_id: str, data: bytes) -> SignedTransaction:
        if data == second:
            reached.set()
            assert go_on.wait(30)
        return envelope.verify(chain_id, data)

    monkeypatch.setattr(verified, "verify", verify)
    first, second = signed(1), signed(2)
    known = VerifiedTransactions(CHAIN)
    thread = threading.Thread(target=known.verify_many, args=([first, second],))
    thread.start()
    assert reached.wait(30)
    assert known.get(first) is not None
    assert known.get(second) is None
    go_on.set()
    thread.join()
    assert known.get(second) is not None


def test_what_was_forgotten_is_verified_again(calls: list[bytes]) -> None:
    known = VerifiedTransactions(CHAIN)
    known.verify(signed(1))
    known.forget(signed(1))
    known.forget(signed(2))
    assert known.get(signed(1)) is None
    known.verify(signed(1))
    assert len(calls) == 2


@pytest.mark.parametrize("bound", ["MAX_POOL_TRANSACTIONS", "MAX_POOL_BYTES"])
def test_the_oldest_are_forgotten_beyond_the_bounds(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    size = len(signed(0))
    monkeypatch.setattr(verified, bound, 3 if bound == "MAX_POOL_TRANSACTIONS" else 3 * size + 1)
    known = VerifiedTransactions(CHAIN)
    for number in range(10):
        known.verify(signed(number))
    assert [number for number in range(10) if known.get(signed(number))] == [7, 8, 9]
