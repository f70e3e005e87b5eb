"""Which transactions may have been decided lately: nearly always known without asking the store.

A Bloom filter (Bloom, CACM 1970) of two bits per id. It never says no to one that was added; where it says maybe, the
store knows. Nearly every id that a node looks up is new, and what does not exist costs LevelDB most to look up: more
with every level, and each such look-up counts as a reason to merge tables.

Ids need to be known until they expire. There are two generations of bits, each filled for the longest time that a
transaction may take to expire; the older is dropped when the newer is full of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from koinon.limits import MAX_EXPIRY_MS

_BITS = 25  # of a place: 4 MiB per generation; of 1.5 million ids 1 in 100 is asked for in vain
_SHIFT = 32 - _BITS
_two_words = struct.Struct("<II").unpack_from  # ids are digests: their bytes are places already


class RecentIds:
    """Ids of 32 bytes, each the digest of a transaction."""

    def __init__(self, time_ms: int) -> None:
        """Empty at this block time."""
        self._since_ms = time_ms
        self._newer, self._older = _bits(), _bits()

    def add(self, ids: Iterable[bytes], time_ms: int) -> None:
        """These were decided by the block of this time, which is not before that of any block before."""
        if time_ms >= self._since_ms + MAX_EXPIRY_MS:
            self._newer, self._older, self._since_ms = _bits(), self._newer, time_ms
        bits = self._newer
        for item in ids:
            for word in _two_words(item):
                place = word >> _SHIFT
                bits[place >> 3] |= 1 << (place & 7)

    def may_have(self, item: bytes) -> bool:
        """False only for an id that was not added, or has expired at the time of the last block."""
        first, second = _two_words(item)
        first >>= _SHIFT
        second >>= _SHIFT
        newer, older = self._newer, self._older
        return bool(
            newer[first >> 3] >> (first & 7) & newer[second >> 3] >> (second & 7) & 1
            or older[first >> 3] >> (first & 7) & older[second >> 3] >> (second & 7) & 1
        )


def _bits() -> bytearray:
    return bytearray(1 << (_BITS - 3))
