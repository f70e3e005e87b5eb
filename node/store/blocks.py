"""Blocks, their headers and commit certificates, by height.

A block is kept whole until it is pruned; header and certificate are kept for ever. Of the time before a snapshot from
which this node began, only the headers are there that lead from the genesis to it.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from koinon.errors import Corrupt
from koinon.v1.consensus_pb2 import Block, Commit, Header
from node.abci import Write
from node.store.kv import KeyValueStore, height_key

BLOCKS = b"b/"
_HEADERS = b"h/"
_COMMITS = b"c/"


class BlockStore:
    """Reads blocks from a store; makes the writes that add or prune one, for the caller's batch."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    def height(self) -> int:
        """Height of the last block; 0 when there is none."""
        for key, _ in self._store.scan(_COMMITS, reverse=True):
            return int.from_bytes(key[len(_COMMITS) :], "big")
        return 0

    def heights(self) -> Iterator[int]:
        """Ascending: every height whose certificate, hence whose header, is kept."""
        return (int.from_bytes(key[len(_COMMITS) :], "big") for key, _ in self._store.scan(_COMMITS))

    def first(self) -> int:
        """The lowest height whose block is kept whole; the next block's when there is none."""
        for key, _ in self._store.scan(BLOCKS):
            return int.from_bytes(key[len(BLOCKS) :], "big")
        return self.height() + 1

    def block(self, height: int) -> bytes | None:
        """The serialised Block at ``height``, as it was decided; None where it is not kept whole."""
        return self._store.get(height_key(BLOCKS, height))

    def header(self, height: int) -> bytes | None:
        """The serialised Header at ``height``. Raises Corrupt."""
        data = self._store.get(height_key(_HEADERS, height))
        block = self.block(height) if data is None else None
        if block is None:
            return data
        try:
            return Block.FromString(block).header
        except DecodeError as error:
            raise _damaged("block", height) from error

    def time_ms(self, height: int) -> int:
        """Time of the block at ``height``. Raises Corrupt, also where its header is not there."""
        try:
            header = self.header(height)
            if header is not None:
                return Header.FromString(header).time_ms
        except DecodeError:
            pass
        raise _damaged("header", height)

    def commit(self, height: int) -> Commit | None:
        """The commit *for* the block at ``height``. Raises Corrupt."""
        data = self._store.get(height_key(_COMMITS, height))
        if data is None:
            return None
        try:
            return Commit.FromString(data)
        except DecodeError as error:
            raise _damaged("commit", height) from error

    def writes(self, height: int, block: bytes, commit: Commit) -> list[Write]:
        """What to write, in one batch with the block's effects, to add the block at ``height``."""
        return [
            (height_key(BLOCKS, height), block),
            (height_key(_COMMITS, height), commit.SerializeToString(deterministic=True)),
        ]

    def header_writes(self, height: int, header: bytes, commit: Commit) -> list[Write]:
        """What to write to keep a header without its block."""
        return [
            (height_key(_HEADERS, height), header),
            (height_key(_COMMITS, height), commit.SerializeToString(deterministic=True)),
        ]

    def prune_writes(self, height: int) -> list[Write]:
        """What to write to keep of the block at ``height`` its header and certificate only. Raises Corrupt."""
        header = self.header(height)
        if header is None:
            return []
        return [(height_key(_HEADERS, height), header), (height_key(BLOCKS, height), None)]


def _damaged(what: str, height: int) -> Corrupt:
    return Corrupt(
        f"the stored {what} at height {height} is damaged", hint="stop the node, then: koinon node repair --home HOME"
    )
