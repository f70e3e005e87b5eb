"""The pool: what enters, what is refused and why, what is told to peers, and that everything is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from koinon import envelope
from koinon.envelope import SignedTransaction, identify
from koinon.keys import SigningKey
from koinon.limits import MAX_ENVELOPE_BYTES, MAX_POOL_BYTES
from koinon.v1.identity_pb2 import RevokePerson
from koinon.v1.transaction_pb2 import Operation, Refusal
from node import pool as pools
from node.pool import PENDING, REJECTED, Pool
from node.verified import VerifiedTransactions
from tests.waiting import until

CHAIN = "test-0123456789abcdef"
KEYS = [SigningKey(bytes([number]) * 32) for number in range(3)]


def signed(number: int, key: SigningKey = KEYS[0], expires_at_ms: int = 1_000, chain: str = CHAIN) -> bytes:
    operation = Operation(revoke_person=RevokePerson(person_id="um/somebody"))
    return envelope.sign(chain, [operation], key, expires_at_ms, number.to_bytes(16, "big"))


class Host:
    """Whoever owns the pool."""

    def __init__(self) -> None:
        self.announced: list[list[bytes]] = []
        self.entered = 0
        self.refuses: Callable[[SignedTransaction], Refusal | None] = lambda _: None
        self.verified = VerifiedTransactions(CHAIN)
        self.pool = Pool(
            self.verified,
            lambda transaction: self.refuses(transaction),
            lambda key: "iu" if key == KEYS[2].public_key else "um",
            self.announced.append,
            self._enter,
        )

    def _enter(self) -> None:
        self.entered += 1


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    made = Host()
    yield made
    made.pool.close()


async def test_what_enters_waits_in_order_and_is_told_together(host: Host) -> None:
    envelopes = [signed(number) for number in range(40)]
    infos = await host.pool.submit(envelopes)
    assert [info.status for info in infos] == [PENDING] * 40
    assert [info.transaction_id for info in infos] == [identify(data) for data in envelopes]
    assert host.pool.reap(1_000_000, 100) == envelopes
    assert host.pool.reap(1_000_000, 3) == envelopes[:3]
    assert host.pool.reap(len(envelopes[0]) + len(envelopes[1]), 100) == envelopes[:2]
    await until(lambda: host.announced == [envelopes])
    assert host.entered == 1


async def test_what_a_peer_told_is_not_told_again(host: Host) -> None:
    envelopes = [signed(number) for number in range(5)]
    host.pool.receive(envelopes)
    await until(lambda: len(host.pool) == 5 and host.entered > 0)
    again = await host.pool.submit(envelopes)
    assert [info.status for info in again] == [PENDING] * 5
    assert len(host.pool) == 5
    assert host.announced == []


async def test_no_signature_is_verified_that_a_proposal_brought(host: Host) -> None:
    envelopes = [signed(number) for number in range(5)]
    forged = [data[:-1] + bytes([data[-1] ^ 1]) for data in envelopes]
    for data, other in zip(envelopes[:4], forged[:4], strict=True):  # what is known is believed: nobody looks again
        host.verified.remember(other, envelope.verify(CHAIN, data))
    host.pool.receive(forged)
    await until(lambda: len(host.pool) == 4 and not host.pool._backlog)
    assert host.pool.reap(1_000_000, 100) == forged[:4]
    (info,) = await host.pool.submit(forged[4:])
    assert info.refusal.rule == "bad-signature"


async def test_what_is_refused_is_not_held(host: Host) -> None:
    """Whoever signs well what nobody admits cannot push out what waits."""
    host.refuses = lambda _: Refusal(rule="unknown-key")
    await host.pool.submit([signed(1)])
    assert host.verified.get(signed(1)) is None


async def test_what_a_block_decided_is_no_longer_waited_to_be_verified(host: Host) -> None:
    envelopes = [signed(number) for number in range(5)]
    host.pool.receive([*envelopes, envelopes[0]])
    host.pool.committed(envelopes[:3], map(identify, envelopes[:3]), time_ms=0)
    assert list(host.pool._backlog) == envelopes[3:]
    assert host.pool._backlog_bytes == sum(map(len, envelopes[3:]))
    await until(lambda: len(host.pool) == 2)


async def test_garbage_from_a_peer_costs_nothing_but_its_check(host: Host) -> None:
    host.pool.receive([b"", b"garbage", signed(1, chain="other-0123456789abcdef"), signed(2)])
    await until(lambda: len(host.pool) == 1)
    assert host.pool.reap(1_000_000, 100) == [signed(2)]


async def test_every_envelope_is_answered_for_itself(host: Host) -> None:
    host.refuses = lambda transaction: (
        Refusal(rule="unknown-key") if transaction.sender_key != KEYS[0].public_key else None
    )
    forged = bytearray(signed(3))
    forged[-1] ^= 1
    infos = await host.pool.submit([signed(1), b"garbage", signed(2, KEYS[1]), bytes(forged), signed(4)])
    assert [info.status for info in infos] == [PENDING, REJECTED, REJECTED, REJECTED, PENDING]
    assert [info.refusal.rule for info in infos[1:4]] == ["malformed-transaction", "unknown-key", "bad-signature"]
    refused = host.pool.status(infos[2].transaction_id)
    assert refused is not None
    assert refused.refusal.rule == "unknown-key"


async def test_what_was_decided_before_is_not_remembered_as_rejected(host: Host) -> None:
    """The ledger may not hold its result: then nothing is known, and nothing must be said."""
    host.refuses = lambda _: Refusal(rule="replayed-transaction")
    (info,) = await host.pool.submit([signed(1)])
    assert info.refusal.rule == "replayed-transaction"
    assert host.pool.status(info.transaction_id) is None


async def test_what_left_does_not_wait_in_memory_for_its_expiry(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_STALE_EXPIRIES", 10)
    await host.pool.submit([signed(0, expires_at_ms=2_000)])
    for number in range(1, 60):
        data = signed(number, expires_at_ms=3_000)
        await host.pool.submit([data])
        host.pool.committed([data], [identify(data)], time_ms=1_000)
        assert len(host.pool._expiries) <= 12
    host.pool.committed([], [], time_ms=2_000)
    assert len(host.pool) == 0, "what stayed still expires"


async def test_what_a_block_decided_leaves_and_so_does_what_it_made_too_old(host: Host) -> None:
    decided, expired, waiting = signed(1), signed(2, expires_at_ms=500), signed(3, expires_at_ms=501)
    await host.pool.submit([decided, expired, waiting])
    host.pool.committed([decided], [identify(decided), b"unknown here".ljust(32)], time_ms=500)
    assert host.pool.reap(1_000_000, 100) == [waiting]
    assert host.pool.status(identify(decided)) is None
    info = host.pool.status(identify(expired))
    assert info is not None
    assert info.refusal.rule == "transaction-expired"


async def test_no_institution_and_no_flood_fills_the_pool_beyond_its_bounds(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "MAX_POOL_PER_INSTITUTION", 3)
    monkeypatch.setattr(pools, "MAX_POOL_TRANSACTIONS", 5)
    infos = await host.pool.submit([signed(number, KEYS[number % 2]) for number in range(4)])
    assert [info.refusal.rule for info in infos] == ["", "", "", "pool-full"]
    infos = await host.pool.submit([signed(number, KEYS[2]) for number in range(4)])
    assert [info.refusal.rule for info in infos] == ["", "", "pool-full", "pool-full"]
    host.pool.committed([signed(0)], [identify(signed(0))], time_ms=0)
    (info,) = await host.pool.submit([signed(9)])
    assert info.status == PENDING


async def test_what_waits_under_a_key_that_was_revoked_is_in_nobodys_way(host: Host) -> None:
    """Else it would be all that is proposed, and no block could hold it, until it expires."""
    stale = [signed(number) for number in range(3)]
    others = [signed(number, KEYS[1]) for number in range(2)]
    await host.pool.submit([*stale, *others])
    revoked = Refusal(rule="revoked-key")
    host.refuses = lambda transaction: revoked if transaction.sender_key == KEYS[0].public_key else None
    assert host.pool.reap(1_000_000, 2) == others
    assert len(host.pool) == 2
    info = host.pool.status(identify(stale[2]))
    assert info is not None
    assert (info.status, info.refusal.rule) == (REJECTED, "revoked-key")
    (again,) = await host.pool.submit([signed(9, KEYS[2])])
    assert again.status == PENDING


async def test_refusals_are_forgotten_oldest_first(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_REFUSALS_REMEMBERED", 2)
    host.refuses = lambda _: Refusal(rule="unknown-key")
    infos = await host.pool.submit([signed(number) for number in range(3)])
    known = [host.pool.status(info.transaction_id) is not None for info in infos]
    assert known == [False, True, True]


@pytest.mark.parametrize("bound", ["MAX_POOL_BACKLOG", "MAX_POOL_BACKLOG_BYTES"])
async def test_what_peers_tell_faster_than_it_is_verified_is_forgotten_oldest_first(
    host: Host, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    envelopes = [signed(number) for number in range(10)]
    monkeypatch.setattr(pools, bound, 3 if bound == "MAX_POOL_BACKLOG" else 3 * len(envelopes[0]))
    host.pool.receive(envelopes)
    assert len(host.pool._backlog) == 3
    await until(lambda: len(host.pool) == 3)
    assert host.pool.reap(1_000_000, 100) == envelopes[-3:]
    host.pool.receive(envelopes[:3])
    await until(lambda: len(host.pool) == 6)


async def test_one_envelope_larger_than_the_backlog_leaves_nothing_behind(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "MAX_POOL_BACKLOG_BYTES", len(signed(0)))
    host.pool.receive([bytes(10_000), signed(1)])
    await until(lambda: len(host.pool) == 1)


async def test_bytes_are_bounded_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_POOL_BYTES", 2 * len(signed(0)))
    infos = await host.pool.submit([signed(number) for number in range(3)])
    assert [info.refusal.rule for info in infos] == ["", "", "pool-full"]


async def test_nor_does_an_institution_fill_it_with_few_large_ones(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_BYTES_PER_INSTITUTION", 2 * len(signed(0)))
    infos = await host.pool.submit([signed(number) for number in range(3)])
    assert [info.refusal.rule for info in infos] == ["", "", "pool-full"]
    (info,) = await host.pool.submit([signed(3, KEYS[2])])
    assert info.status == PENDING
    host.pool.committed([signed(0)], [identify(signed(0))], time_ms=0)
    (info,) = await host.pool.submit([signed(4)])
    assert info.status == PENDING


def test_an_institution_has_the_same_part_of_the_bytes_as_of_the_transactions() -> None:
    assert MAX_ENVELOPE_BYTES < pools._BYTES_PER_INSTITUTION < MAX_POOL_BYTES / 2


async def test_large_batches_are_told_in_bounded_messages(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_GOSSIP_BYTES", 3 * len(signed(0)))
    envelopes = [signed(number) for number in range(7)]
    await host.pool.submit(envelopes)
    await until(lambda: sum(map(len, host.announced)) == 7)
    assert host.announced == [envelopes[:3], envelopes[3:6], envelopes[6:]]
