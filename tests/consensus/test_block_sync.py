"""The production engine fetches a recorded ledger from several peers, of whom one is honest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random

import pytest

from koinon.v1.peer_pb2 import BlockResponse, DeliverRequest, Hello
from node.abci import Finalized
from node.application import Application
from node.consensus.events import Timer
from node.engine import Engine, EngineConfig
from node.journal import Journal
from node.ledger.blocks import ParsedBlock
from node.neighbours import Neighbours
from node.ports import Alarm, Wake
from node.store.memory import MemoryStore
from node.store.wal import MemoryWal
from tests.contracts.consortium import key, publication
from tests.node.recorded_ledger import RecordedLedger

HEIGHT = 240  # several ranges for each peer
PEERS = ("case", "iu", "uk")
Bend = Callable[[BlockResponse], BlockResponse | None]


@pytest.fixture(scope="module")
def ledger() -> RecordedLedger:
    ledger = RecordedLedger(MemoryStore())
    for number in range(HEIGHT):
        ledger.decide(*([ledger.envelope("um/operator", publication(f"um.a.t{number}"))] if number % 10 == 0 else []))
    return ledger


class Joiner:
    """um's engine, and peers that answer from the recorded ledger, each in its own way."""

    def __init__(self, ledger: RecordedLedger, bends: dict[str, Bend]) -> None:
        self.ledger = ledger
        self.bends = bends
        self.store, self.wal = MemoryStore(), MemoryWal()
        Journal.create(self.wal, key("um validator").public_key)
        self.asked: list[tuple[str, int]] = []
        self.committed: list[int] = []
        self.warnings: list[str] = []
        self.queue: deque[tuple[str, DeliverRequest]] = deque()
        self.adopt: deque[Wake] = deque()
        self.fails_after: int | None = None  # writes until the disk is gone
        self.start()

    def start(self) -> None:
        ledger = self.ledger
        self.engine = Engine(
            EngineConfig("um", ledger.app.chain_id, ledger.genesis.time_ms),
            transport=self,
            clock=self,
            timers=self,
            wal=self.wal,
            store=self.store,
            app=Application(self.store, ledger.genesis),
            pool=self,
            signer=key("um validator"),
            log=self,
            listeners=[self],
        )
        self.engine.start()

    # --- ports

    def send(self, institution: str, message: DeliverRequest) -> None:
        if message.HasField("block_request"):
            self.asked.append((institution, message.block_request.from_height))
            self.queue.append((institution, message))

    def broadcast(self, message: DeliverRequest) -> None: ...

    def now_ms(self) -> int:
        return self.ledger.chain.time_ms

    def schedule(self, delay_ms: int, timer: Timer | Wake) -> None:
        if isinstance(timer, Wake) and timer.alarm is Alarm.ADOPT:
            self.adopt.append(timer)

    def __len__(self) -> int:
        return 0

    def reap(self, max_bytes: int, max_count: int) -> Sequence[bytes]:
        return []

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        assert self.store.get(b"m/chain") is not None
        assert not self.store._unsynced, "announced before it was synced"
        self.committed.append(height)

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None:
        self.warnings.append(f"{event} {fields}")

    # --- the world

    def interval(self) -> None:
        for peer in PEERS:
            self.engine.on_message(peer, DeliverRequest(hello=Hello(institution=peer, height=HEIGHT)))
        self.engine.on_timer(Wake(Alarm.GOSSIP, 0))
        while self.queue or self.adopt:
            if self.queue:
                peer, message = self.queue.popleft()
                answer = self.answer(message.block_request.from_height, message.block_request.count)
                bent = self.bends[peer](answer) if peer in self.bends else answer
                if bent is not None:
                    self.engine.on_message(peer, DeliverRequest(block_response=bent))
            elif self.adopt:
                self.engine.on_timer(self.adopt.popleft())

    def answer(self, start: int, count: int) -> BlockResponse:
        response = BlockResponse()
        blocks = self.ledger.blocks
        for height in range(start, min(start + min(count, 16), HEIGHT + 1)):
            response.blocks.add(block=blocks.block(height), commit=blocks.commit(height))
        return response

    def run(self, intervals: int) -> None:
        for _ in range(intervals):
            if self.engine.chain.height == HEIGHT:
                return
            self.interval()


_rng = Random(3)


def _edit_block(response: BlockResponse) -> BlockResponse:
    item = _rng.choice(response.blocks)
    data = bytearray(item.block)
    data[_rng.randrange(len(data))] ^= 1 << _rng.randrange(8)
    item.block = bytes(data)
    return response


def _forge_certificate(response: BlockResponse) -> BlockResponse:
    response.blocks[-1].commit.signatures[0].signature = bytes(64)
    return response


def _pad_certificate(response: BlockResponse) -> BlockResponse:
    """Attaches what this version does not know, to be kept for ever."""
    response.blocks[0].commit.MergeFromString(b"\x7a\x02ab" * 1_000)  # a field 15
    return response


def _too_few(response: BlockResponse) -> BlockResponse:
    del response.blocks[0].commit.signatures[2:]
    return response


def _other_heights(response: BlockResponse) -> BlockResponse:
    response.blocks.reverse()
    return response


def _gap(response: BlockResponse) -> BlockResponse:
    del response.blocks[1:2]
    return response


def _garbage(response: BlockResponse) -> BlockResponse:
    response.blocks[0].block = b"\xff" * 50
    return response


def _shifted(response: BlockResponse) -> BlockResponse:
    """Claims to be what was asked for; is the certificate of something else."""
    for item in response.blocks:
        item.commit.height += 1
    return response


def _nothing(_: BlockResponse) -> None:
    return None


def _pruned(_: BlockResponse) -> BlockResponse:
    return BlockResponse(first_height=HEIGHT - 5)


def _one_by_one(response: BlockResponse) -> BlockResponse:
    del response.blocks[1:]
    return response


BENDS = {
    "edited block": _edit_block,
    "forged certificate": _forge_certificate,
    "padded certificate": _pad_certificate,
    "too few signatures": _too_few,
    "other heights": _other_heights,
    "gap": _gap,
    "garbage": _garbage,
    "shifted": _shifted,
    "silent": _nothing,
    "pruned": _pruned,
    "one by one": _one_by_one,
}


@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS)
def test_one_honest_peer_among_three_is_enough(ledger: RecordedLedger, bend: Bend) -> None:
    joiner = Joiner(ledger, {"case": bend, "uk": bend})
    joiner.run(60)
    assert joiner.engine.chain == ledger.chain
    assert joiner.committed == list(range(1, HEIGHT + 1))
    assert dict(joiner.store.scan(b"s/")) == dict(ledger.store.scan(b"s/"))
    assert max(len(commit) for _, commit in joiner.store.scan(b"c/")) < 1_000


def test_all_peers_are_asked_for_different_ranges_at_once(ledger: RecordedLedger) -> None:
    joiner = Joiner(ledger, {})
    joiner.run(2)
    assert {peer for peer, _ in joiner.asked} == set(PEERS)
    starts = [start for _, start in joiner.asked]
    assert len(set(starts)) == len(starts)


def test_a_crash_while_blocks_are_followed_loses_nothing_that_was_announced(ledger: RecordedLedger) -> None:
    """The disk fails at any write within a range; whatever prefix of it survives, the node goes on from there."""
    for survivors in (0, 1, 5, 100):
        joiner = Joiner(ledger, {})
        write, left = joiner.store.write, 57 + survivors

        def failing(writes: object, *, sync: bool) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError("the power is gone")
            write(writes, sync=sync)  # type: ignore[arg-type]  # noqa: B023 - of this round

        joiner.store.write = failing  # type: ignore[method-assign]
        with pytest.raises(OSError, match="power"):
            joiner.run(5)
        announced = list(joiner.committed)
        del joiner.store.write
        joiner.store.crash(survivors)
        joiner.queue.clear()
        joiner.adopt.clear()
        joiner.start()
        assert joiner.engine.chain.height >= len(announced)
        joiner.committed = list(range(1, joiner.engine.chain.height + 1))
        joiner.run(60)
        assert joiner.engine.chain == ledger.chain


def test_who_waits_for_a_snapshot_asks_for_no_blocks(ledger: RecordedLedger) -> None:
    joiner = Joiner(ledger, {})
    joiner.engine.wait_for_snapshot(True)
    joiner.interval()
    assert not joiner.asked
    assert joiner.engine.needs_snapshot()
    joiner.engine.wait_for_snapshot(False)
    joiner.run(20)
    assert joiner.engine.chain.height == HEIGHT
    assert not joiner.engine.needs_snapshot()


def test_where_nobody_keeps_the_next_block_a_snapshot_is_needed(ledger: RecordedLedger) -> None:
    joiner = Joiner(ledger, dict.fromkeys(PEERS, _pruned))
    joiner.store.write([], sync=True)
    joiner.interval()
    assert joiner.engine.needs_snapshot()
    assert isinstance(joiner.engine._neighbours, Neighbours)
    assert joiner.engine._neighbours.nobody_keeps_next()


def test_a_ledger_is_not_given_up_for_a_snapshot_on_one_peer_s_word(ledger: RecordedLedger) -> None:
    joiner = Joiner(ledger, {})
    joiner.run(20)
    assert joiner.engine.chain.height == HEIGHT
    for peer, believed in (("case", False), ("iu", True)):
        joiner.engine.on_message(peer, DeliverRequest(hello=Hello(institution=peer, height=HEIGHT + 50)))
        joiner.engine.on_message(peer, DeliverRequest(block_response=BlockResponse(first_height=HEIGHT + 40)))
        assert joiner.engine.needs_snapshot() is believed


def test_a_peer_that_claims_and_is_silent_does_not_keep_a_node_from_the_snapshot_it_needs(
    ledger: RecordedLedger,
) -> None:
    joiner = Joiner(ledger, {})
    joiner.run(20)
    for peer in PEERS:
        joiner.engine.on_message(peer, DeliverRequest(hello=Hello(institution=peer, height=HEIGHT + 50)))
    for peer in ("case", "iu"):
        joiner.engine.on_message(peer, DeliverRequest(block_response=BlockResponse(first_height=HEIGHT + 40)))
    assert not joiner.engine.needs_snapshot()  # uk may send the next block
    for _ in range(30):
        joiner.queue.clear()  # and does not
        joiner.engine.on_timer(Wake(Alarm.GOSSIP, 0))
    assert joiner.engine.needs_snapshot()
