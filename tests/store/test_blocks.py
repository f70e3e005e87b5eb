from __future__ import annotations

import pytest

from koinon.errors import Corrupt
from koinon.v1.consensus_pb2 import Commit, CommitSignature
from node.store.blocks import BlockStore
from node.store.memory import MemoryStore


def commit(height: int) -> Commit:
    signature = CommitSignature(institution="um", time_ms=5, signature=bytes(64))
    return Commit(height=height, round=1, block_hash=bytes(32), signatures=[signature])


def test_blocks_and_their_commits_are_found_by_height() -> None:
    store = MemoryStore()
    blocks = BlockStore(store)
    assert blocks.height() == 0
    assert blocks.block(1) is None
    assert blocks.commit(1) is None
    for height in (1, 2, 255, 256, 257):
        store.write(blocks.writes(height, b"block %d" % height, commit(height)), sync=True)
        assert blocks.height() == height
    assert blocks.block(256) == b"block 256"
    assert blocks.commit(256) == commit(256)
    assert blocks.block(258) is None


def test_a_damaged_commit_is_told() -> None:
    store = MemoryStore()
    blocks = BlockStore(store)
    writes = blocks.writes(1, b"block", commit(1))
    store.write([(key, b"\xff" if key.startswith(b"c/") else value) for key, value in writes], sync=True)
    with pytest.raises(Corrupt):
        blocks.commit(1)
