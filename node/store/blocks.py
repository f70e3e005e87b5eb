"""Blocks and their commit certificates, by height."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from koinon.errors import Corrupt
from koinon.v1.consensus_pb2 import Commit
from node.abci import Write
from node.store.kv import KeyValueStore, height_key

_BLOCKS = b"b/"
_COMMITS = b"c/"


class BlockStore:
    """Reads blocks from a store; makes the writes that add one, for the caller's batch."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    def height(self) -> int:
        """Height of the last block; 0 when there is none."""
        for key, _ in self._store.scan(_BLOCKS, reverse=True):
            return int.from_bytes(key[len(_BLOCKS) :], "big")
        return 0

    def first(self) -> int:
        """The lowest height whose block is kept; 1 when there is none."""
        for key, _ in self._store.scan(_BLOCKS):
            return int.from_bytes(key[len(_BLOCKS) :], "big")
        return 1

    def block(self, height: int) -> bytes | None:
        """The serialised Block at ``height``, as it was decided."""
        return self._store.get(height_key(_BLOCKS, height))

    def commit(self, height: int) -> Commit | None:
        """The commit *for* the block at ``height``. Raises Corrupt."""
        data = self._store.get(height_key(_COMMITS, height))
        if data is None:
            return None
        try:
            return Commit.FromString(data)
        except DecodeError as error:
            raise Corrupt(
                f"the stored commit for height {height} is damaged",
                hint="remove the ledger directory and start the node: it fetches the ledger from its peers",
            ) from error

    def writes(self, height: int, block: bytes, commit: Commit) -> list[Write]:
        """What to write, in one batch with the block's effects, to add the block at ``height``."""
        return [
            (height_key(_BLOCKS, height), block),
            (height_key(_COMMITS, height), commit.SerializeToString(deterministic=True)),
        ]
