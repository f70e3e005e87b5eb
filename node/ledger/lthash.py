"""The state commitment: a homomorphic hash of all key/value pairs, updated in microseconds per write.

LtHash16 (Bellare and Micciancio, EUROCRYPT 1997, section 5; Lewi, Kim, Maykov and Weis, "Securing update
propagation with homomorphic hashing", IACR ePrint 2019/227): each pair is expanded to 1024 lanes of 16
bits, and the hash of a set is the lane-wise sum modulo 2^16. Adding and removing commute, so the hash
depends on the set alone, not on how it came about. Finding two sets of one hash is finding a short vector
of a lattice: over 200 bits of security at this size (section 4 there). Every key has one value, so no pair
is ever twice in the set.

The paper expands with BLAKE2Xb; here it is SHAKE128 (FIPS 202), which Python's standard library has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from koinon import canonical
from node.damage import damaged
from node.ledger.state import Change

LANES = 1024
STATE_BYTES = 2 * LANES

_BATCH = 64  # pairs summed at a time: 128 KiB, which stays in the processor's cache


class LtHash:
    """The hash of a set of key/value pairs; starts empty."""

    def __init__(self) -> None:
        self._lanes: NDArray[np.uint16] = np.zeros(LANES, dtype="<u2")

    @classmethod
    def from_bytes(cls, data: bytes) -> LtHash:
        """Continue from ``to_bytes()``. Raises Corrupt."""
        if len(data) != STATE_BYTES:
            raise damaged(f"a stored state commitment has {len(data)} bytes, not {STATE_BYTES}")
        result = cls()
        result._lanes = np.frombuffer(data, dtype="<u2").copy()
        return result

    def to_bytes(self) -> bytes:
        """The lanes, 16 bits each, little-endian."""
        return self._lanes.tobytes()

    def digest(self) -> bytes:
        """The 32 bytes that go into a block header."""
        return canonical.state_commitment(self.to_bytes())

    def add(self, key: bytes, value: bytes) -> None:
        """Put a pair into the set; it must not be in it."""
        self.update([(key, None, value)])

    def remove(self, key: bytes, value: bytes) -> None:
        """Take a pair out of the set; it must be in it."""
        self.update([(key, value, None)])

    def update(self, changes: Iterable[Change]) -> None:
        """Apply what a block changed: take out the pairs before, put in the pairs after."""
        added: list[bytes] = []
        removed: list[bytes] = []
        for key, before, after in changes:
            if before is not None:
                removed.append(canonical.state_entry(key, before))
            if after is not None:
                added.append(canonical.state_entry(key, after))
        self._lanes += _sum(added)
        self._lanes -= _sum(removed)


def _sum(entries: list[bytes]) -> NDArray[np.uint16]:
    """Lane-wise sum modulo 2^16 of the expanded entries."""
    total: NDArray[np.uint16] = np.zeros(LANES, dtype="<u2")
    for start in range(0, len(entries), _BATCH):
        expanded = b"".join(hashlib.shake_128(entry).digest(STATE_BYTES) for entry in entries[start : start + _BATCH])
        total += np.frombuffer(expanded, dtype="<u2").reshape(-1, LANES).sum(axis=0, dtype="<u2")
    return total
