"""Dropping old block bodies, so that the disk does not fill for ever.

Kept of every block: its header and certificate, hence every receipt for audit records and tokens and every proof for
light clients; all audit records; every transaction's result. Dropped: the transactions themselves, and with them
receipts for transactions of those blocks, and replay. Whole segments go, then LevelDB compacts their range, and the
space is free.

The members may demand blocks of a time (parameter ``block_retention_ms``): a node keeps these and its own newest,
whichever are more. That is a rule for honest nodes: nobody can prove what another has on its disk.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable

from koinon.limits import MAX_BLOCK_BYTES
from node.ports import Log
from node.store.blocks import BLOCKS, BlockStore
from node.store.kv import KeyValueStore, height_key
from node.store.leveldb import LevelStore

SEGMENT_BLOCKS = 1_000
_STEP_BLOCKS = 64


def boundary(height: int, keep_blocks: int, segment_blocks: int = 0) -> int:
    """Below which height blocks may be pruned: whole segments, and at least the newest ``keep_blocks`` stay."""
    segment = segment_blocks or SEGMENT_BLOCKS
    return max(0, height - keep_blocks) // segment * segment


def demanded(blocks: BlockStore, retention_ms: int) -> int:
    """From which height on the members demand whole blocks: those of the last ``retention_ms``, by block time.

    The next block's height where nothing is demanded; the one below the first that is here where earlier ones are
    demanded, too, whichever they are. Raises Corrupt.
    """
    last = blocks.height()
    if not retention_ms or not last:
        return last + 1
    first, since_ms = blocks.first(), blocks.time_ms(last) - retention_ms
    demanded_from = first + bisect_left(range(first, last + 1), since_ms, key=blocks.time_ms)
    if demanded_from == first > 1:  # of what a snapshot left out, not even the time is known
        unknown = blocks.header(first - 1) is None
        return first - (unknown or blocks.time_ms(first - 1) >= since_ms)
    return demanded_from


def allowed(blocks: BlockStore, height: int, keep_blocks: int, retention_ms: int, segment_blocks: int = 0) -> int:
    """The ``boundary`` that the members' demand leaves. Raises Corrupt."""
    own = boundary(height, keep_blocks, segment_blocks)
    if own <= blocks.first():
        return own
    return min(own, boundary(demanded(blocks, retention_ms), 0, segment_blocks))


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


class Pruner:
    """Prunes as configuration and members say, a little at a time, and never what a joiner would need.

    A joiner needs all blocks behind a snapshot: nothing is pruned above the newest one that this node offers.
    """

    def __init__(
        self,
        blocks: BlockStore,
        store: KeyValueStore,
        keep_blocks: int,
        retention_ms: Callable[[], int],
        segment_blocks: int = 0,
    ) -> None:
        """``keep_blocks``: the newest that stay; 0 for all. ``retention_ms``: what the members demand now.

        ``segment_blocks``: how many go together, where not SEGMENT_BLOCKS.
        """
        self._blocks = blocks
        self._store = store
        self._keep_blocks = keep_blocks
        self._retention_ms = retention_ms
        self._segment_blocks = segment_blocks
        self._below = 0  # being pruned up to here

    def step(self, snapshot_height: int) -> int:
        """Called a few times a second. Returns below which height the last of some blocks is gone now; 0 for none.

        Raises Corrupt, and as the store.
        """
        if not self._keep_blocks:
            return 0
        height = min(self._blocks.height(), snapshot_height + self._keep_blocks)
        below = allowed(self._blocks, height, self._keep_blocks, self._retention_ms(), self._segment_blocks)
        if below <= self._below or self._blocks.first() >= below:
            self._below = max(self._below, below)
            return 0
        if step(self._store, self._blocks, below):
            return 0
        self._below = below
        return below


class Upkeep:
    """A pruner that gives space back to the disk, on the event loop."""

    def __init__(
        self,
        blocks: BlockStore,
        store: KeyValueStore,
        level: LevelStore,
        keep_blocks: int,
        retention_ms: Callable[[], int],
        log: Log,
    ) -> None:
        """As ``Pruner``, and where the space is."""
        self._pruner = Pruner(blocks, store, keep_blocks, retention_ms)
        self._level = level
        self._log = log
        self._compacting: asyncio.Task[None] | None = None

    async def step(self, snapshot_height: int) -> None:
        """Called a few times a second. Raises Corrupt, and as the store."""
        if self._compacting is not None:
            if not self._compacting.done():
                return
            compacting, self._compacting = self._compacting, None
            compacting.result()
        below = self._pruner.step(snapshot_height)
        if below:
            self._compacting = asyncio.create_task(self._give_back(below), name="compact pruned blocks")

    async def stop(self) -> None:
        """Wait for what is under way."""
        if self._compacting is not None:
            await asyncio.wait([self._compacting])

    async def _give_back(self, below: int) -> None:
        await asyncio.to_thread(give_back, self._level, below)
        self._log.info("blocks pruned", below=below)
