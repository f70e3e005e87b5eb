"""The audit log: an append-only RFC 6962 Merkle tree over audit records, kept in the ledger's store.

Stored: every record, and the root of every *complete* subtree of two leaves or more (as many nodes as
records). From these come the root and the proofs of any size the log ever had, in a logarithmic number
of reads. In memory: the frontier, the complete subtrees that make up the present tree.

====================================  =======================================================
key                                   value
====================================  =======================================================
``l/s``                               number of records, 8 bytes
``l/r`` index (8)                     record
``l/n`` level (1) index (8)           root over the leaves [index * 2^level, (index + 1) * 2^level)
====================================  =======================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from koinon import merkle
from koinon.errors import Corrupt
from node.abci import Write
from node.damage import damaged

SIZE = b"l/s"
RECORDS = b"l/r"
_NODES = b"l/n"
_SIZE_BYTES = 8


class AuditLog:
    """The log in a store. ``append`` moves on at once; proofs need its writes to be in the store."""

    def __init__(self, reader: Callable[[bytes], bytes | None]) -> None:
        """Recovers the frontier from what the store holds. Raises Corrupt."""
        self._read = reader
        size = reader(SIZE)
        if size is not None and len(size) != _SIZE_BYTES:
            raise _lacks(SIZE)
        self._size = int.from_bytes(size or b"", "big")
        self._frontier: list[bytes] = []  # complete subtrees left to right, hence largest first
        end = 0
        for level in reversed(range(self._size.bit_length())):
            if self._size >> level & 1:
                self._frontier.append(self._subtree(end, end + (1 << level)))
                end += 1 << level

    @property
    def size(self) -> int:
        """Number of records."""
        return self._size

    def root(self) -> bytes:
        """Root over all records, those whose writes are still on their way included."""
        if not self._frontier:
            return merkle.EMPTY_ROOT
        *lefts, result = self._frontier
        for left in reversed(lefts):
            result = merkle.node_hash(left, result)
        return result

    def append(self, records: Iterable[bytes]) -> list[Write]:
        """Add serialised AuditRecords; what to write, in one batch with the block that caused them."""
        writes: list[Write] = []
        for record in records:
            writes.append((_record_key(self._size), record))
            node, level, index = merkle.leaf_hash(record), 0, self._size
            while index & 1:  # a left sibling waits: the parent is complete
                node = merkle.node_hash(self._frontier.pop(), node)
                level, index = level + 1, index >> 1
                writes.append((_node_key(level, index), node))
            self._frontier.append(node)
            self._size += 1
        if writes:
            writes.append((SIZE, self._size.to_bytes(_SIZE_BYTES, "big")))
        return writes

    def record(self, index: int) -> bytes | None:
        """The serialised record at ``index``; None beyond the end."""
        return self._read(_record_key(index)) if 0 <= index < self._size else None

    def root_at(self, size: int) -> bytes:
        """Root when the log had ``size`` records, 0 <= size <= self.size. Raises Corrupt."""
        assert 0 <= size <= self._size
        return self._subtree(0, size) if size else merkle.EMPTY_ROOT

    def roots(self, size: int, width: int) -> list[bytes]:
        """Roots over the records [0, width), [width, 2 * width) … of the log that had ``size``.

        ``width`` is a power of two. Raises Corrupt.
        """
        assert 0 <= size <= self._size
        return [self._subtree(start, min(start + width, size)) for start in range(0, size, width)]

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """That record ``index`` is in the log of ``size`` records; 0 <= index < size <= self.size. Raises Corrupt."""
        assert 0 <= index < size <= self._size
        return merkle.inclusion_proof(index, size, self._subtree)

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """That the log only grew from ``first`` to ``second`` records; 0 < first <= second <= self.size.

        Raises Corrupt.
        """
        assert 0 < first <= second <= self._size
        return merkle.consistency_proof(first, second, self._subtree)

    def _subtree(self, start: int, end: int) -> bytes:
        """Root over the records [start, end), which must begin where a subtree of the tree begins."""
        count = end - start
        if count == 1:
            return merkle.leaf_hash(self._stored(_record_key(start)))
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            return self._stored(_node_key(level, start >> level))
        split = start + merkle.split_point(count)
        return merkle.node_hash(self._subtree(start, split), self._subtree(split, end))

    def _stored(self, key: bytes) -> bytes:
        value = self._read(key)
        if value is None:
            raise _lacks(key)
        return value


def _record_key(index: int) -> bytes:
    return RECORDS + index.to_bytes(8, "big")


def _node_key(level: int, index: int) -> bytes:
    return _NODES + bytes([level]) + index.to_bytes(8, "big")


def _lacks(key: bytes) -> Corrupt:
    return damaged(f"the audit log lacks the entry {key.hex()}")
