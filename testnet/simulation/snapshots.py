"""Snapshots on simulated time: cut now and then, offered and served in memory, fetched by whoever lacks a ledger.

Behind them old blocks are pruned, where the node does that. Manifests, the conversation, the joiner's search, the
restoring and the pruner are the production code (node.snapshot, node.snapshot_exchange, node.snapshot_join,
node.restore, node.pruning); files, threads and the process's restart, which node.snapshots adds to them, are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon import canonical
from koinon.errors import Corrupt
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.snapshot_pb2 import SnapshotManifest
from node import restore, snapshot
from node.engine import Engine
from node.ports import Log
from node.pruning import Pruner
from node.receipts import Receipts
from node.snapshot_exchange import Exchange
from node.snapshot_join import Joiner
from node.store.memory import MemoryStore

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

EVERY_BLOCKS = 5
SEGMENT_BLOCKS = 2  # pruned together
_INTERVAL_MS = 250
_KEPT = 2  # so that whoever began to fetch one can finish
_PAUSE_INTERVALS = 12  # shorter than in earnest, as the runs are


class SimSnapshots:
    """One process's snapshots, and what it prunes behind them; what it has fetched ends with it."""

    def __init__(self, node: SimNode, engine: Engine, genesis: Genesis, log: Log) -> None:
        self._node = node
        self._genesis = genesis
        self._life = node.lives
        self._cut = node.disk.snapshots
        self._chunks: dict[bytes, bytes] = {}
        self._joiner = Joiner(genesis, node, self, log, engine.chain.height)
        self.exchange = Exchange(
            self,
            self._joiner,
            engine=engine,
            receipts=Receipts(node.app, engine.blocks, node.validators, genesis),
            transport=node,
            log=log,
            pause_intervals=_PAUSE_INTERVALS,
        )
        self._pruner = Pruner(
            engine.blocks,
            node.disk.store,
            node.keep_blocks,
            lambda: node.app.parameters().block_retention_ms,
            SEGMENT_BLOCKS,
        )
        self._node.world.schedule(_INTERVAL_MS, self._interval)

    # --- fetched chunks, for the joiner

    def get(self, digest: bytes) -> bytes | None:
        return self._chunks.get(digest)

    def put(self, digest: bytes, data: bytes) -> None:
        self._chunks[digest] = data

    def clear(self) -> None:
        self._chunks.clear()

    # --- cut ones, for the others

    def on_committed(self, height: int) -> None:
        node = self._node
        assert node.engine is not None
        if height % EVERY_BLOCKS or height != node.engine.chain.height:
            return
        audit_log = node.app.audit_log
        chunks = list(snapshot.state_chunks(node.disk.files[1].scan(b"s/")))
        digests = map(canonical.snapshot_chunk, chunks)
        self._cut[height] = snapshot.manifest_of(height, digests, audit_log, audit_log.size), chunks
        for old in sorted(self._cut)[:-_KEPT]:
            del self._cut[old]

    def newest(self, below: int) -> tuple[int, bytes] | None:
        height = max((height for height in self._cut if height < below), default=None)
        return None if height is None else (height, self._cut[height][0])

    def chunk(self, height: int, index: int) -> bytes:
        if height not in self._cut:
            return b""
        data, chunks = self._cut[height]
        if index < len(chunks):
            return chunks[index]
        size = int(SnapshotManifest.FromString(data).audit_size)
        return snapshot.audit_chunk(self._node.app.audit_log.record, index - len(chunks), size)

    # --- joining

    def _interval(self) -> None:
        node = self._node
        if node.engine is None or node.lives != self._life:
            return
        node.world.schedule(_INTERVAL_MS, self._interval)
        node.enter(self._look_on)

    def _look_on(self) -> None:
        node = self._node
        others = {other.institution for other in node.network.nodes.values() if other.up} - {node.institution}
        if node.up and self.exchange.interval_ended(len(others)):
            self._restore()
        if node.up and node.lives == self._life:
            newest = self.exchange.newest()
            self._pruner.step(newest[0] if newest else 0)
            node.checkers.on_upkeep(node)

    def _restore(self) -> None:
        """Build the ledger aside; where it is sound, the process ends, and finds it when it starts again."""
        if not self._node.knows(self._joiner.plan.height):
            return  # an attacker was quicker than everybody who can be asked
        store = MemoryStore()
        try:
            restore.build(self._genesis, self._joiner.plan, self._joiner.chunk, store)
        except Corrupt as error:
            self._joiner.not_restored(error)
            return
        self._node.adopt_restored(store, self._joiner.plan.height)
