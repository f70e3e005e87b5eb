"""Dropping old block bodies, so that the disk does not fill for ever.

Kept of every block: its header and certificate, hence every receipt for audit records and tokens and every proof for
light clients; all audit records; every transaction's result. Dropped: the transactions themselves, and with them
receipts for transactions of those blocks, and replay. Whole segments go, then LevelDB compacts their range, and the
space is free.
"""

from __future__ import annotations

import asyncio

from koinon.limits import MAX_BLOCK_BYTES
from node.ports import Log
from node.store.blocks import BLOCKS, BlockStore
from node.store.kv import KeyValueStore, height_key
from node.store.leveldb import LevelStore

SEGMENT_BLOCKS = 1_000
_STEP_BLOCKS = 64


def boundary(height: int, keep_blocks: int) -> int:
    """Below which height blocks may be pruned: whole segments, and at least the newest ``keep_blocks`` stay."""
    return max(0, height - keep_blocks) // SEGMENT_BLOCKS * SEGMENT_BLOCKS


def step(store: KeyValueStore, blocks: BlockStore, below: int) -> bool:
    """Prune a few of the oldest blocks below a height, in a few milliseconds; returns whether there may be more.

    On disk with the next synced write: after a crash before that, the blocks are there and are pruned again. Raises
    Corrupt.
    """
    first, size = blocks.first(), 0
    height = first
    while height < min(below, first + _STEP_BLOCKS) and size < MAX_BLOCK_BYTES:
        size += len(blocks.block(height) or b"")
        store.write(blocks.prune_writes(height), sync=False)
        height += 1
    return height < below


def give_back(store: LevelStore, below: int) -> None:
    """Give the space of pruned blocks back to the disk. Takes a while: on a thread, where others wait."""
    store.compact(BLOCKS, height_key(BLOCKS, below))


class Upkeep:
    """Prunes as a running node's retention says, a little at a time, and never what a joiner would need.

    A joiner needs all blocks behind a snapshot: nothing is pruned above the newest one that this node offers.
    """

    def __init__(self, blocks: BlockStore, store: KeyValueStore, level: LevelStore, keep_blocks: int, log: Log) -> None:
        """``keep_blocks``: the newest that stay; 0 for all."""
        self._blocks = blocks
        self._store = store
        self._level = level
        self._keep_blocks = keep_blocks
        self._log = log
        self._below = 0  # being pruned up to here
        self._compacting: asyncio.Task[None] | None = None

    async def step(self, snapshot_height: int) -> None:
        """Called a few times a second. Raises Corrupt, and as the store."""
        if not self._keep_blocks or self._compacting is not None:
            return
        below = boundary(min(self._blocks.height(), snapshot_height + self._keep_blocks), self._keep_blocks)
        if below <= self._below or self._blocks.first() >= below:
            self._below = max(self._below, below)
            return
        if not step(self._store, self._blocks, below):
            self._below = below
            self._compacting = asyncio.create_task(self._give_back(below), name="compact pruned blocks")

    async def stop(self) -> None:
        """Wait for what is under way."""
        if self._compacting is not None:
            await asyncio.wait([self._compacting])

    async def _give_back(self, below: int) -> None:
        try:
            await asyncio.to_thread(give_back, self._level, below)
            self._log.info("blocks pruned", below=below)
        finally:
            self._compacting = None
