"""What the ledger asks of a key-value store, and how its keys are laid out.

=====  =================================================================
space  contents
=====  =================================================================
s/     state: what the contracts read and write, covered by the state commitment
b/     blocks, by height
h/     headers of blocks that are no longer kept whole, by height
c/     the commit for each block, by height
l/     audit log: records and complete subtrees
t/     transaction index
v/     validators, by the height from which they vote
m/     meta: where the application stands
=====  =================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from node.abci import Write


class KeyValueStore(Protocol):
    """Ordered byte strings; one writer, any number of readers.

    Raises (every method): Exhausted when the disk is full, Unavailable when it cannot be written or was
    closed, Corrupt when it contradicts its own checksums. After a write has failed the store refuses
    further writes until it is opened again: what reached the disk is unknown.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes, *, start: bytes = b"", reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix``, ascending (``reverse``: descending), as they were when scan was called.

        ``start``, when given, is a key inside the prefix: the scan begins there, that key included.
        """
        ...

    def write(self, writes: Iterable[Write], *, sync: bool) -> None:
        """Apply all or none, in order. With ``sync`` they, and all before them, survive a crash once this returns."""
        ...

    def close(self) -> None: ...


def height_key(space: bytes, height: int) -> bytes:
    """``space`` followed by the height (or index) as 8 bytes, big-endian: byte order is numeric order."""
    return space + height.to_bytes(8, "big")


def end_of_prefix(prefix: bytes) -> bytes | None:
    """The smallest key after all that begin with ``prefix``; None when there is none (all bytes 0xff)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None
