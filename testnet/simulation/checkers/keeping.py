"""What a node keeps, whatever it prunes: all headers with their certificates, and the blocks that somebody may need.

Blocks go in whole segments, none of which may reach into the newest that the node is to keep, into what the members
demand by block time, or behind the newest snapshot that the node offers. Audit records, results and state are held
against all nodes alike, pruned or not (``contents``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from koinon.v1 import consensus_pb2 as pb
from testnet.simulation.checkers.chain import Chain
from testnet.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class Keeping:
    """The blocks of all nodes."""

    def __init__(self, chain: Chain, retention_ms: int, segment_blocks: int) -> None:
        """``retention_ms``: what the members demand; ``segment_blocks``: how many go together."""
        self.dropped = 0  # by all nodes
        self._chain = chain
        self._retention_ms = retention_ms
        self._segment_blocks = segment_blocks
        self._first: dict[str, int] = {}  # by node: the lowest block that was here when it was last looked at

    def on_start(self, node: SimNode) -> None:
        """A process finds this ledger; the one before may have ended while it pruned."""
        self._first.pop(node.name, None)
        self.check(node)

    def on_upkeep(self, node: SimNode) -> None:
        """A node may have pruned."""
        last = node.app.info().height
        first = min(_heights(node, b"b/"), default=last + 1)
        before = self._first.setdefault(node.name, first)
        if first > before:
            self.dropped += first - before
            self._first[node.name] = first
            offered = max((height for height in node.disk.snapshots if height < last), default=0)
            if self._end(first - 1) > offered:
                raise Violation(f"{node.name} drops block {first - 1}, and offers no snapshot after {offered}")
            self.check(node)

    def check(self, node: SimNode) -> None:
        """Is all there that must be?"""
        whole, last = set(_heights(node, b"b/")), node.app.info().height
        times = {height: self._header(node, height) for height in range(node.restored_height + 1, last + 1)}
        if whole != set(range(min(whole, default=last + 1), last + 1)):
            raise Violation(f"{node.name} keeps blocks {sorted(whole)} of {last}")
        for height in times.keys() - whole:
            end = self._end(height)
            if not node.keep_blocks or end > last - node.keep_blocks:
                raise Violation(f"{node.name} drops block {height} of {last}, and is to keep {node.keep_blocks}")
            if self._retention_ms and times[end] >= times[last] - self._retention_ms:
                raise Violation(f"{node.name} drops block {height}, which the members demand")

    def _end(self, height: int) -> int:
        """The last height of its segment."""
        return height - height % self._segment_blocks + self._segment_blocks - 1

    def _header(self, node: SimNode, height: int) -> int:
        """Check what is kept of this block for ever; returns its time."""
        name, store = height.to_bytes(8, "big"), node.disk.files[1]
        header, block, commit = store.get(b"h/" + name), store.get(b"b/" + name), store.get(b"c/" + name)
        if header is None and block is not None:
            header = pb.Block.FromString(block).header
        if header is None or commit is None:
            raise Violation(f"{node.name} has lost the header of block {height}, or its certificate")
        decided = self._chain.decided.get(height)
        block_hash = hashlib.sha256(b"koinon/v1/header\0" + header).digest()
        if decided not in (None, block_hash) or pb.Commit.FromString(commit).block_hash != block_hash:
            raise Violation(f"{node.name} keeps another header of block {height}, or another certificate")
        return pb.Header.FromString(header).time_ms


def _heights(node: SimNode, prefix: bytes) -> list[int]:
    return [int.from_bytes(key[len(prefix) :], "big") for key, _ in node.disk.files[1].scan(prefix)]
