"""Offers whoever has no ledger a snapshot of another one, and serves its chunks."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from koinon import canonical
from koinon.v1.peer_pb2 import DeliverRequest
from koinon.v1.snapshot_pb2 import ChunkResponse, SnapshotManifest, SnapshotOffer, StateChunk
from testnet.simulation.attackers.attacker import Attacker, Outgoing

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class SnapshotForger(Attacker):
    """Its manifests are in form and its chunks fit; only the chain's headers say otherwise. Or its chunks are false."""

    period_ms = 300

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._offers: dict[int, SnapshotOffer] = {}  # by height: one lie, told to all
        self._forged: dict[int, bytes] = {}  # the first chunk of the state, by height

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        if message.snapshot_offer.manifest:
            return [(0, self._offer(node, message.snapshot_offer))]
        if message.HasField("chunk_response"):
            return [(0, DeliverRequest(chunk_response=self._chunk(message.chunk_response)))]
        return [(0, message)]

    def act(self, node: SimNode) -> None:
        """Offers come before anyone asks: a joiner hears each member once."""
        if node.snapshots is not None and node.engine is not None:
            offer = node.snapshots.exchange.offer()
            for institution in node.network.institutions if offer.manifest else ():
                if institution != node.institution:
                    node.post(institution, self._offer(node, offer))

    def _offer(self, node: SimNode, true: SnapshotOffer) -> DeliverRequest:
        height = int(SnapshotManifest.FromString(true.manifest).height)
        if height not in self._offers:
            self._offers[height] = self._forge(node, true)
        return DeliverRequest(snapshot_offer=self._offers[height])

    def _forge(self, node: SimNode, true: SnapshotOffer) -> SnapshotOffer:
        forged, manifest = SnapshotOffer(), SnapshotManifest.FromString(true.manifest)
        forged.CopyFrom(true)
        match self.rng.randrange(6):
            case 0:
                manifest.audit_size += 1
            case 1:
                manifest.state_chunks[0] = self.rng.randbytes(canonical.HASH_BYTES)
            case 2:
                forged.head.header = forged.head.header[:-1] + bytes([forged.head.header[-1] ^ 1])
            case 3:
                pass  # its chunks are false
            case _:
                manifest.state_chunks[0] = self._other_state(node, int(manifest.height))
        forged.manifest = manifest.SerializeToString(deterministic=True)
        return forged

    def _other_state(self, node: SimNode, height: int) -> bytes:
        """Forge the first chunk: somebody has other points, or an entry is missing. Returns its digest."""
        assert node.snapshots is not None
        chunk = StateChunk.FromString(node.snapshots.chunk(height, 0))
        chosen = self.rng.randrange(len(chunk.entries))
        if self.rng.random() < 0.5:
            del chunk.entries[chosen]
        else:
            chunk.entries[chosen].value += b"\x10\x01"
        data = chunk.SerializeToString(deterministic=True)
        self._forged[height] = data
        return canonical.snapshot_chunk(data)

    def _chunk(self, true: ChunkResponse) -> ChunkResponse:
        chunk = self._forged.get(int(true.height), true.chunk[:-1]) if true.index == 0 else true.chunk
        return ChunkResponse(height=true.height, index=true.index, chunk=chunk)
