"""What nodes say to one another about snapshots: offers and chunks for whoever asks, and questions of their own.

Sans-IO, like the engine. In ABCI 2.0's names ``offer`` answers list_snapshots, ``Shelf.chunk`` load_snapshot_chunk;
offer_snapshot and apply_snapshot_chunk are node.snapshot_join.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from koinon.errors import KoinonError
from koinon.v1.peer_pb2 import DeliverRequest
from koinon.v1.snapshot_pb2 import ChunkRequest, ChunkResponse, SnapshotOffer
from node.engine import Engine
from node.ports import Log, Transport
from node.receipts import Receipts
from node.snapshot_join import PAUSE_INTERVALS, Joiner, Search

MESSAGES = ("snapshot_request", "snapshot_offer", "chunk_request", "chunk_response")
"""Kinds of messages between nodes that are about snapshots."""

_ANSWERS_PER_INTERVAL = 64  # chunks to one peer: up to 256 MB/s are read for it


class Shelf(Protocol):
    """The snapshots that a node has cut and keeps."""

    def newest(self, below: int) -> tuple[int, bytes] | None:
        """Height and manifest of the newest snapshot below a height."""

    def chunk(self, height: int, index: int) -> bytes:
        """A chunk of a snapshot that is kept; empty where it is not. Raises KoinonError where it is damaged."""


class Exchange:
    """Both sides of one node's conversation with the others."""

    def __init__(
        self,
        shelf: Shelf,
        joiner: Joiner,
        *,
        engine: Engine,
        receipts: Receipts,
        transport: Transport,
        log: Log,
        pause_intervals: int = PAUSE_INTERVALS,
    ) -> None:
        """``pause_intervals``: after a search in vain."""
        self._shelf = shelf
        self._joiner = joiner
        self._engine = engine
        self._receipts = receipts
        self._transport = transport
        self._log = log
        self._search = Search(joiner, engine, pause_intervals)
        self._answers: Counter[str] = Counter()  # by peer, in this interval

    def received(self, peer: str, message: DeliverRequest) -> None:
        """A message about snapshots from an authenticated member; its content is not trusted."""
        match message.WhichOneof("message"):
            case "snapshot_request":
                if self._may_answer(peer):
                    self._transport.send(peer, DeliverRequest(snapshot_offer=self.offer()))
            case "chunk_request":
                if self._may_answer(peer):
                    self._transport.send(peer, DeliverRequest(chunk_response=self._chunk(message.chunk_request)))
            case "snapshot_offer":
                self._joiner.on_offer(peer, message.snapshot_offer)
            case "chunk_response":
                self._joiner.on_chunk(peer, message.chunk_response)
            case _:
                pass

    def on_hello(self, peer: str) -> None:
        """A member's stream to us is open."""
        self._joiner.on_hello(peer)

    def interval_ended(self, reachable: int) -> bool:
        """Called every INTERVAL_S; returns whether a snapshot is here. ``reachable`` is how many peers hear us."""
        self._answers.clear()
        return self._search.interval_ended(reachable)

    def newest(self) -> tuple[int, bytes] | None:
        """Height and manifest of the newest snapshot that this node offers: the header after it is there."""
        return self._shelf.newest(self._engine.chain.height)

    def offer(self) -> SnapshotOffer:
        """The newest snapshot, and the headers that prove it; empty where there is none."""
        found = self.newest()
        if found is None:
            return SnapshotOffer()
        height, manifest = found
        try:
            return SnapshotOffer(
                manifest=manifest,
                validator_changes=self._receipts.way(height),
                last=self._receipts.signed_header(height),
                head=self._receipts.signed_header(height + 1),
            )
        except KoinonError as error:
            self._log.warning("snapshot not offered", height=height, reason=error.message)
            return SnapshotOffer()

    def _may_answer(self, peer: str) -> bool:
        self._answers[peer] += 1
        return self._answers[peer] <= _ANSWERS_PER_INTERVAL

    def _chunk(self, request: ChunkRequest) -> ChunkResponse:
        try:
            data = self._shelf.chunk(int(request.height), request.index)
        except KoinonError as error:
            self._log.warning("snapshot damaged", height=request.height, reason=error.message)
            data = b""
        return ChunkResponse(height=request.height, index=request.index, chunk=data)
