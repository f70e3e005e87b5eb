"""Which transactions may have been decided lately: nearly always known without asking the store.

A Bloom filter of two bits per id, both in one word (blocked: Putze, Sanders, Singler, *Cache-, Hash- and
Space-Efficient Bloom Filters*, 2007), so that a look-up waits for memory once per generation. It never says no to one
that was added; where it says maybe, the store knows. Nearly every id that a node looks up is new, and what does not
exist costs LevelDB most to look up: more with every level, and each such look-up counts as a reason to merge tables.

Ids need to be known until they expire. There are two generations of bits, each filled for the longest time that a
transaction may take to expire; the older is dropped when the newer is full of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from mmap import mmap

from koinon.limits import MAX_EXPIRY_MS

_WORDS = 19  # bits of a word's number: 4 MiB per generation; of 1.5 million ids 1 in 100 is asked for in vain
_SHIFT = 32 - _WORDS
_places = struct.Struct("<IBB").unpack_from  # ids are digests: their bytes are places already


class RecentIds:
    """Ids of 32 bytes, each the digest of a transaction."""

    def __init__(self, time_ms: int) -> None:
        """Empty at this block time."""
        self._since_ms = time_ms
        self._newer, self._older = _words(), _words()

    def add(self, ids: Iterable[bytes], time_ms: int) -> None:
        """These were decided by the block of this time, which is not before that of any block before."""
        if time_ms >= self._since_ms + MAX_EXPIRY_MS:
            self._newer, self._older, self._since_ms = _words(), self._newer, time_ms
        words = self._newer
        for item in ids:
            word, first, second = _places(item)
            words[word >> _SHIFT] |= 1 << (first & 63) | 1 << (second & 63)

    def may_have(self, item: bytes) -> bool:
        """False only for an id that was not added, or has expired at the time of the last block."""
        word, first, second = _places(item)
        word >>= _SHIFT
        bits = 1 << (first & 63) | 1 << (second & 63)
        return bool(self._newer[word] & bits == bits or self._older[word] & bits == bits)


def _words() -> memoryview:
    """Words of 64 bits, all 0; a page of them takes memory from when it is first changed."""
    return memoryview(mmap(-1, 8 << _WORDS)).cast("Q")
