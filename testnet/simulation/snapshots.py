"""Snapshots on simulated time: cut now and then, offered and served in memory, fetched by whoever lacks a ledger.

Manifests, proofs, the joiner's search and the restoring are the production code (node.snapshot, node.snapshot_join,
node.restore); files, threads and the process's restart, which node.snapshots adds to them, are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon import canonical
from koinon.errors import Corrupt
from koinon.limits import SNAPSHOT_AUDIT_RECORDS
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.peer_pb2 import DeliverRequest
from koinon.v1.snapshot_pb2 import ChunkRequest, ChunkResponse, SnapshotManifest, SnapshotOffer
from node import restore, snapshot
from node.engine import Engine
from node.ports import Log
from node.snapshot import InvalidSnapshot
from node.snapshot_join import Joiner, Search
from node.store.memory import MemoryStore

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

EVERY_BLOCKS = 5
_INTERVAL_MS = 250
_KEPT = 2  # so that whoever began to fetch one can finish
_PAUSE_INTERVALS = 12  # shorter than in earnest, as the runs are


class SimSnapshots:
    """Both sides of one process; what it has cut and fetched ends with it."""

    def __init__(self, node: SimNode, engine: Engine, genesis: Genesis, log: Log) -> None:
        self._node = node
        self._genesis = genesis
        self._life = node.lives
        self._cut: dict[int, tuple[bytes, list[bytes]]] = {}  # by height: the manifest, and chunks of the state
        self._chunks: dict[bytes, bytes] = {}
        self._joiner = Joiner(genesis, node, self, log)
        self._search = Search(self._joiner, engine, _PAUSE_INTERVALS)
        self._node.world.schedule(_INTERVAL_MS, self._interval)

    # --- fetched chunks, for the joiner

    def get(self, digest: bytes) -> bytes | None:
        return self._chunks.get(digest)

    def put(self, digest: bytes, data: bytes) -> None:
        self._chunks[digest] = data

    # --- cutting and offering

    def on_committed(self, height: int) -> None:
        node = self._node
        assert node.engine is not None
        if height % EVERY_BLOCKS or height != node.engine.chain.height:
            return
        audit_log = node.app.audit_log
        chunks = list(snapshot.state_chunks(node.disk.files[1].scan(b"s/")))
        manifest = SnapshotManifest(
            height=height,
            state_chunks=[canonical.snapshot_chunk(chunk) for chunk in chunks],
            audit_size=audit_log.size,
            audit_chunks=audit_log.roots(audit_log.size, SNAPSHOT_AUDIT_RECORDS),
        )
        self._cut[height] = manifest.SerializeToString(deterministic=True), chunks
        for old in sorted(self._cut)[:-_KEPT]:
            del self._cut[old]

    def received(self, peer: str, message: DeliverRequest) -> None:
        """A message about snapshots."""
        match message.WhichOneof("message"):
            case "snapshot_request":
                self._node.send(peer, DeliverRequest(snapshot_offer=self.offer()))
            case "chunk_request":
                self._node.send(peer, DeliverRequest(chunk_response=self._chunk(message.chunk_request)))
            case "snapshot_offer":
                self._joiner.on_offer(peer, message.snapshot_offer)
            case _:
                self._joiner.on_chunk(peer, message.chunk_response)

    def offer(self) -> SnapshotOffer:
        """The newest snapshot under a header of the chain; empty where there is none."""
        node = self._node
        heights = [height for height in self._cut if node.engine is not None and height < node.engine.chain.height]
        if not heights:
            return SnapshotOffer()
        height = max(heights)
        return SnapshotOffer(
            manifest=self._cut[height][0],
            validator_changes=[self._signed_header(end) for end in node.validators.last_heights(height)],
            last=self._signed_header(height),
            head=self._signed_header(height + 1),
        )

    def _signed_header(self, height: int) -> SignedHeader:
        engine = self._node.engine
        assert engine is not None
        header, commit = engine.blocks.header(height), engine.blocks.commit(height)
        return SignedHeader(header=header or b"", commit=commit, validators=self._node.validators.at(height).to_proto())

    def state_chunk(self, height: int, index: int) -> bytes:
        """A chunk of the state that was cut at this height; empty where there is none."""
        _, chunks = self._cut.get(height, (b"", []))
        return chunks[index] if index < len(chunks) else b""

    def _chunk(self, request: ChunkRequest) -> ChunkResponse:
        height, index = int(request.height), int(request.index)
        data = self.state_chunk(height, index)
        if height in self._cut and not data:
            manifest = SnapshotManifest.FromString(self._cut[height][0])
            first = len(manifest.state_chunks)
            data = snapshot.audit_chunk(self._node.app.audit_log.record, index - first, int(manifest.audit_size))
        return ChunkResponse(height=height, index=index, chunk=data)

    # --- joining

    def _interval(self) -> None:
        node = self._node
        if node.engine is None or node.lives != self._life:
            return
        node.world.schedule(_INTERVAL_MS, self._interval)
        node.enter(self._look_on)

    def _look_on(self) -> None:
        if self._node.engine is not None and self._search.interval_ended(len(self._node.network.institutions) - 1):
            self._restore()

    def _restore(self) -> None:
        """Build the ledger aside; where it is sound, the process ends, and finds it when it starts again."""
        if not self._node.knows(self._joiner.plan.height):
            return  # an attacker was quicker than everybody who can be asked
        store = MemoryStore()
        try:
            restore.build(self._genesis, self._joiner.plan, self._joiner.chunk, store)
        except (InvalidSnapshot, Corrupt) as error:
            self._joiner.reject(error)
            return
        self._node.adopt_restored(store, self._joiner.plan.height)
