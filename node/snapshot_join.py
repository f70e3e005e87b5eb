"""Fetching a snapshot from several peers, none of whom is trusted. Pure.

1. *Seek*: ask all for their newest snapshot. An offer counts when its headers lead there from the genesis
   (node.snapshot); whoever offers what does not hold is disbelieved.
2. *Choose* what most peers offer, the newest of these: correct members cut the same bytes at the same height, so a
   forged manifest stands alone.
3. *Fetch* chunks from all who offer it, a few of each at a time. A chunk that is not what the manifest names is
   dropped, its sender disbelieved, and the chunk asked of another; so it is when it does not come in time. Chunks are
   kept by digest, so that a restart, or another snapshot, begins with those that are there. When nobody has the
   snapshot any more, seek again: a few times, unless each time less is missing than ever before. Whoever sends slowly
   cannot hold us: a snapshot has a minute, then others that are offered have their turn, and it twice as long again.
4. *Complete*: node.restore compares everything with the signed header. If it differs, the manifest was forged: all who
   offered it are disbelieved, and what they sent is dropped. If a chunk was lost on our own disk meanwhile, nobody is.
   Either way, seek again.

If nobody offers anything, or snapshots are gone sooner than they are fetched, the node fetches blocks instead (Search).
Memory: one offer per peer, chunks in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from koinon.errors import Corrupt
from koinon.limits import MAX_SNAPSHOT_CHUNKS
from koinon.v1 import peer_pb2
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.snapshot_pb2 import ChunkRequest, ChunkResponse, SnapshotOffer, SnapshotRequest
from node import snapshot
from node.engine import Engine
from node.ports import Log, Transport
from node.snapshot import InvalidSnapshot, Plan

PAUSE_INTERVALS = 40  # after a search in vain, in which blocks are fetched
_ATTEMPTS = 3  # to fetch a snapshot of which no less is missing than of those before
_SEEK_INTERVALS = 8  # to wait for offers, unless all who hear us have answered
_PATIENCE_INTERVALS = 20  # to wait for a chunk: those in flight take three seconds at 10 Mbit/s
_TURN_INTERVALS = 240  # of a snapshot, while others are offered; each turn is twice as long as its last
_CHUNKS_IN_FLIGHT = 4  # per peer; a peer's queue takes eight messages of this size
_CHUNKS_PER_INTERVAL = 32  # asked of one peer: it sends twice as many


class Chunks(Protocol):
    """Where fetched chunks are kept, by digest. May lose them, and may return what was not put: it is checked."""

    def get(self, digest: bytes) -> bytes | None: ...

    def put(self, digest: bytes, data: bytes) -> None: ...

    def clear(self) -> None: ...


class Phase(Enum):
    """Where a joiner stands."""

    IDLE = "idle"
    SEEKING = "seeking"
    FETCHING = "fetching"
    COMPLETE = "complete"


_OPEN_TO_OFFERS = (Phase.SEEKING, Phase.FETCHING)


@dataclass(slots=True)
class _Fetch:
    plan: Plan
    offerers: frozenset[str]  # of this snapshot, when it was chosen
    sources: set[str]  # those of them who have not failed since
    missing: set[int]  # chunks neither here nor asked for
    turn: int  # intervals left
    asked: dict[int, tuple[str, int]] = field(default_factory=dict)  # chunk: of whom, and intervals since


class Joiner:
    """One node's search for a snapshot."""

    def __init__(self, genesis: Genesis, transport: Transport, chunks: Chunks, log: Log, above: int) -> None:
        """``above``: height of our own last block."""
        self._genesis = genesis
        self._transport = transport
        self._chunks = chunks
        self._log = log
        self._plans: dict[str, Plan] = {}  # by peer: what it offers, proved
        self._answered: set[str] = set()
        self._liars: set[str] = set()
        self._failures: Counter[str] = Counter()  # by peer: how often it was a source, and then no longer
        self._turns: Counter[str] = Counter()  # by peer: how often a snapshot that it offered took longer than a turn
        self._asks: Counter[str] = Counter()  # by peer, in this interval
        self._intervals = 0
        self._above = above
        self._attempts = 0  # since less was missing than ever before
        self._least_missing = MAX_SNAPSHOT_CHUNKS + 1
        self._fetch: _Fetch | None = None
        self.phase = Phase.IDLE

    # --- 1. seek

    def seek(self, above: int = 0) -> None:
        """Begin: a snapshot of a greater height than this, our last, would help."""
        self._above = max(self._above, above)
        self._attempts, self._least_missing = 0, MAX_SNAPSHOT_CHUNKS + 1
        self._seek()

    def _seek(self) -> None:
        self.phase, self._fetch, self._intervals = Phase.SEEKING, None, 0
        self._plans.clear()
        self._ask_for_offers()

    def _ask_for_offers(self) -> None:
        self._answered.clear()
        self._transport.broadcast(peer_pb2.DeliverRequest(snapshot_request=SnapshotRequest()))

    def on_hello(self, peer: str) -> None:
        """A peer's stream to us is open only now: what it answered before is lost."""
        if self.phase in _OPEN_TO_OFFERS and peer not in self._answered:
            self._transport.send(peer, peer_pb2.DeliverRequest(snapshot_request=SnapshotRequest()))

    def on_offer(self, peer: str, offer: SnapshotOffer) -> None:
        """What a peer offers; nothing of it is trusted."""
        if self.phase not in _OPEN_TO_OFFERS or peer in self._answered:
            return
        self._answered.add(peer)
        if not offer.manifest or peer in self._liars:
            return
        try:
            plan = snapshot.plan(self._genesis, offer)
        except Corrupt as error:
            self._disbelieve(peer, error)
            return
        if plan.height > self._above:
            self._plans[peer] = plan

    def interval_ended(self, reachable: int) -> None:
        """Called a few times a second; ``reachable`` is how many peers hear us."""
        self._asks.clear()
        match self.phase:
            case Phase.SEEKING:
                self._intervals += 1
                if self._intervals > _SEEK_INTERVALS or (self._answered and len(self._answered) >= reachable):
                    self._choose(self._plans)
            case Phase.FETCHING:
                self._give_up_on_late()
                self._take_turns()
            case _:
                pass

    def _give_up_on_late(self) -> None:
        """Whoever did not send a chunk in time no longer is a source."""
        fetch, late = self._fetch, set()
        assert fetch is not None
        for index, (peer, intervals) in fetch.asked.items():
            fetch.asked[index] = peer, intervals + 1
            if intervals >= _PATIENCE_INTERVALS:
                late.add(peer)
        for peer in sorted(late):
            self._lost(peer)
        if self._fetch is fetch:  # else all were late
            self._ask()

    def _take_turns(self) -> None:
        """A snapshot that takes long makes room for one that others offer; if nobody does, it goes on."""
        fetch = self._fetch
        if fetch is None:
            return
        fetch.turn -= 1
        if fetch.turn == _SEEK_INTERVALS:
            self._ask_for_offers()
        if fetch.turn:
            return
        self._failures.update(fetch.sources)
        self._turns.update(fetch.sources)
        fetch.turn = self._turn_of(fetch.sources)
        different = {peer for peer, plan in self._plans.items() if plan.manifest != fetch.plan.manifest}
        if others := different - fetch.sources:
            self._choose(others)

    def _turn_of(self, peers: Collection[str]) -> int:
        return _TURN_INTERVALS << min(self._turns[peer] for peer in peers)

    # --- 2. choose

    def _choose(self, among: Collection[str]) -> None:
        """Of what these peers offer, the snapshot that most peers offer, the newest of these; none ends the search.

        But first those that somebody offers who failed seldom: what is offered and not sent is chosen once.
        """
        if not among:
            self._end()
            return
        offerers: dict[bytes, set[str]] = {}
        for peer, plan in self._plans.items():
            offerers.setdefault(plan.manifest, set()).add(peer)

        def worth(plan: Plan) -> tuple[int, int, int, bytes]:
            peers = offerers[plan.manifest]
            return -min(self._failures[peer] for peer in peers), len(peers), plan.height, plan.manifest

        chosen = max((self._plans[peer] for peer in among), key=worth)
        sources = offerers[chosen.manifest]
        missing = {index for index in range(len(chosen.digests)) if self._kept(chosen, index) is None}
        self._attempts = 1 if len(missing) < self._least_missing else self._attempts + 1
        self._least_missing = min(self._least_missing, len(missing))
        self._fetch = _Fetch(chosen, frozenset(sources), sources, missing, self._turn_of(sources))
        self.phase = Phase.FETCHING
        self._log.info(
            "snapshot chosen",
            height=chosen.height,
            chunks=len(chosen.digests),
            missing=len(missing),
            peers=sorted(sources),
        )
        self._ask()

    def _kept(self, plan: Plan, index: int) -> bytes | None:
        """A chunk, if it is here as it was fetched."""
        data = self._chunks.get(plan.digests[index])
        if data is None:
            return None
        try:
            plan.check(index, data)
        except InvalidSnapshot:
            return None
        return data

    # --- 3. fetch

    def _ask(self) -> None:
        fetch = self._fetch
        assert fetch is not None
        if not fetch.missing and not fetch.asked:
            self.phase = Phase.COMPLETE
            return
        flying = Counter(peer for peer, _ in fetch.asked.values())
        for index in sorted(fetch.missing):
            able = [
                peer
                for peer in fetch.sources
                if flying[peer] < _CHUNKS_IN_FLIGHT and self._asks[peer] < _CHUNKS_PER_INTERVAL
            ]
            if not able:
                break
            peer = min(able, key=lambda name: (flying[name], name))
            flying[peer] += 1
            self._asks[peer] += 1
            fetch.missing.remove(index)
            fetch.asked[index] = peer, 0
            request = ChunkRequest(height=fetch.plan.height, index=index)
            self._transport.send(peer, peer_pb2.DeliverRequest(chunk_request=request))

    def on_chunk(self, peer: str, response: ChunkResponse) -> None:
        """A chunk, if it was asked for."""
        fetch = self._fetch
        if fetch is None or response.height != fetch.plan.height:
            return
        asked = fetch.asked.get(response.index)
        if asked is None or asked[0] != peer:
            return
        if not response.chunk:  # it cut a newer one meanwhile
            self._lost(peer)
            return
        try:
            fetch.plan.check(response.index, response.chunk)
        except Corrupt as error:
            self._disbelieve(peer, error)
            self._lost(peer)
            return
        del fetch.asked[response.index]
        self._chunks.put(fetch.plan.digests[response.index], response.chunk)
        self._ask()

    def _lost(self, peer: str) -> None:
        """This peer no longer is a source: ask the others for what it was asked; without any, seek again or give up."""
        fetch = self._fetch
        if fetch is None:
            return
        fetch.sources.discard(peer)
        self._failures[peer] += 1
        for index in [index for index, (name, _) in fetch.asked.items() if name == peer]:
            del fetch.asked[index]
            fetch.missing.add(index)
        if fetch.sources:
            self._ask()
        else:
            self._seek_again()

    def _seek_again(self) -> None:
        if self._attempts < _ATTEMPTS:
            self._seek()
        else:
            self._log.warning("snapshot given up", height=self.plan.height)
            self._end()

    def _end(self) -> None:
        self.phase, self._fetch = Phase.IDLE, None

    def reached(self, height: int) -> None:
        """Blocks came up to this height: a snapshot that is not newer is no help any more.

        Nor are chunks that an earlier search left, once blocks come without one: they would stay for ever.
        """
        if height <= self._above:
            return
        self._above = height
        self._plans = {peer: plan for peer, plan in self._plans.items() if plan.height > height}
        if self._fetch is not None and self._fetch.plan.height <= height:
            self._end()
        if self.phase is Phase.IDLE:
            self._chunks.clear()

    # --- 4. complete

    @property
    def plan(self) -> Plan:
        """The snapshot chosen; there is one while fetching and when complete."""
        assert self._fetch is not None
        return self._fetch.plan

    def chunk(self, index: int) -> bytes:
        """A chunk as it was fetched. Raises Corrupt, which is nobody's lie, where it no longer is here."""
        data = self._kept(self.plan, index)
        if data is None:
            raise Corrupt(
                f"chunk {index} of the snapshot at {self.plan.height} was lost or damaged on our own disk",
                hint="nothing: it is fetched again. If this comes again, examine the disk",
            )
        return data

    @property
    def progress(self) -> tuple[int, int]:
        """Chunks that are here, and how many there are; (0, 0) before one is chosen."""
        fetch = self._fetch
        if fetch is None:
            return 0, 0
        count = len(fetch.plan.digests)
        return count - len(fetch.missing) - len(fetch.asked), count

    def not_restored(self, error: Corrupt) -> None:
        """Restoring failed. Where the whole is not what the header states, whoever offered it made it up.

        Any other damage was done on our own disk, and nobody else is to blame: what is missing is fetched again.
        """
        if not isinstance(error, InvalidSnapshot):
            self._log.warning("snapshot damaged here", rule=error.rule, reason=error.message)
            self._seek_again()
            return
        fetch = self._fetch
        assert fetch is not None
        for peer in sorted(fetch.offerers):
            self._disbelieve(peer, error)
        self._chunks.clear()  # which of them were made up nobody knows, and a restart would begin with them
        self.seek()

    def _disbelieve(self, peer: str, error: Corrupt) -> None:
        self._log.warning("snapshot dropped", sender=peer, rule=error.rule, reason=error.message)
        self._liars.add(peer)
        self._plans.pop(peer, None)


class Search:
    """When to search for a snapshot, and when to fetch blocks instead.

    A search in vain is followed by a pause in which blocks are fetched. Another comes only if a snapshot is needed even
    then: not a single block came, or nobody keeps the next.
    """

    def __init__(self, joiner: Joiner, engine: Engine, pause_intervals: int = PAUSE_INTERVALS) -> None:
        self._joiner = joiner
        self._engine = engine
        self._pause_intervals = pause_intervals
        self._pause = 0  # intervals left
        self._searching = False
        engine.wait_for_snapshot(engine.chain.height == 0)

    def interval_ended(self, reachable: int) -> bool:
        """Called a few times a second; returns whether a snapshot is here. ``reachable`` is as for the joiner."""
        joiner, engine = self._joiner, self._engine
        self._pause = max(0, self._pause - 1)
        joiner.reached(engine.chain.height)
        joiner.interval_ended(reachable)
        idle = joiner.phase is Phase.IDLE
        if idle and self._searching:  # it was in vain
            self._searching, self._pause = False, self._pause_intervals
        elif idle and not self._pause and engine.needs_snapshot():
            self._searching = True
            joiner.seek(engine.chain.height)
        engine.wait_for_snapshot(self._searching or (engine.chain.height == 0 and not self._pause))
        return joiner.phase is Phase.COMPLETE
