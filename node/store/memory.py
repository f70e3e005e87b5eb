"""The in-memory twin of LevelStore, for simulation and tests: it can lose what was not synced."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

from koinon.errors import Unavailable
from node.abci import Write
from node.store.kv import end_of_prefix


class MemoryStore:
    """A KeyValueStore whose disk is a dictionary. ``crash()`` and ``reopen()`` are what a real one cannot offer."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []  # of _values, sorted
        self._unsynced: list[list[Write]] = []  # per batch since the last sync: the writes that undo it
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        self._check_open()
        return self._values.get(key)

    def scan(self, prefix: bytes, *, start: bytes = b"", reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self._check_open()
        end = end_of_prefix(prefix)
        low = bisect_left(self._keys, prefix)
        high = len(self._keys) if end is None else bisect_left(self._keys, end)
        if start and reverse:
            high = min(high, bisect_right(self._keys, start))
        elif start:
            low = max(low, bisect_left(self._keys, start))
        keys = self._keys[low:high]
        if reverse:
            keys.reverse()
        return iter([(key, self._values[key]) for key in keys])

    def write(self, writes: Iterable[Write], *, sync: bool) -> None:
        self._check_open()
        undo = [(key, self._apply(key, value)) for key, value in writes]
        self._unsynced.append(undo[::-1])
        if sync:
            self._unsynced.clear()

    def close(self) -> None:
        self._closed = True

    def crash(self, survivors: int = 0) -> None:
        """Lose the batches written since the last sync, but for the first ``survivors`` of them; open again.

        A real log is written in order, so what survives a crash is always a prefix.
        """
        while len(self._unsynced) > survivors:
            for key, value in self._unsynced.pop():
                self._apply(key, value)
        self._unsynced.clear()
        self._closed = False

    def reopen(self) -> None:
        """Open again after ``close()``, with everything that was written."""
        self._closed = False

    def _apply(self, key: bytes, value: bytes | None) -> bytes | None:
        """Perform one write and return the value it replaced."""
        before = self._values.get(key)
        if value is None:
            if before is not None:
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]
        else:
            if before is None:
                insort(self._keys, key)
            self._values[key] = value
        return before

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed", hint="open it again")
