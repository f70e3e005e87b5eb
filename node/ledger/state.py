"""The state as one block sees it: what is stored, under what the block has changed so far.

Nothing here touches the store; ``changes()`` says at the end what to write. Savepoints nest, so that a
transaction's operations, or a transaction within a block, are applied all or none.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Protocol

from node.abci import Write

Reader = Callable[[bytes], bytes | None]
"""The stored value of a key, or None."""

Change = tuple[bytes, bytes | None, bytes | None]
"""A key, its value before the block and its value after it; None where there is none."""

_UNCHANGED = object()  # in the journal: the key was not in the overlay


class Scanner(Protocol):
    """Ordered scan of what is stored, as node.store.kv.KeyValueStore.scan does it."""

    def __call__(
        self, prefix: bytes, *, start: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]: ...


class State:
    """A mutable view over a store that does not change underneath; begin each block with a new one."""

    def __init__(self, reader: Reader, scanner: Scanner) -> None:
        self._read = reader
        self._scan = scanner
        self._overlay: dict[bytes, bytes | None] = {}  # None: deleted
        self._keys: list[bytes] = []  # of _overlay, sorted
        self._journal: list[tuple[bytes, object]] = []  # (key, what the overlay held before), since the first savepoint
        self._savepoints: list[int] = []  # lengths of the journal, ascending

    def get(self, key: bytes) -> bytes | None:
        """The value as of now, or None."""
        if key in self._overlay:
            return self._overlay[key]
        return self._read(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._set(key, value)

    def delete(self, key: bytes) -> None:
        """Deleting what does not exist is no change."""
        self._set(key, None)

    def scan(self, prefix: bytes, *, start: bytes = b"", reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix``, in order, as they are when it is called; ``start`` as in KeyValueStore."""
        stored = self._scan(prefix, start=start, reverse=reverse)
        return _merged(stored, self._changed(prefix, start, reverse), reverse)

    def savepoint(self) -> None:
        """Mark the present; to be ended by exactly one ``rollback()`` or ``release()``. They nest."""
        self._savepoints.append(len(self._journal))

    def rollback(self) -> None:
        """Undo everything since the last open savepoint, and end it."""
        mark = self._savepoints.pop()
        while len(self._journal) > mark:
            key, before = self._journal.pop()
            if before is _UNCHANGED:
                del self._overlay[key]
                del self._keys[bisect_left(self._keys, key)]
            else:
                self._overlay[key] = before  # type: ignore[assignment]  # the journal holds what the overlay held

    def release(self) -> None:
        """Keep everything since the last open savepoint, and end it; an enclosing one may still undo it."""
        self._savepoints.pop()
        if not self._savepoints:
            self._journal.clear()

    def changes(self) -> list[Change]:
        """What differs from the store, ascending by key. Every savepoint must have ended."""
        assert not self._savepoints
        found = ((key, self._read(key), self._overlay[key]) for key in self._keys)
        return [(key, before, after) for key, before, after in found if before != after]

    def overlay(self) -> list[Write]:
        """Everything put or deleted, ascending by key, whether it differs from the store or not."""
        assert not self._savepoints
        return [(key, self._overlay[key]) for key in self._keys]

    def writes(self) -> list[Write]:
        """The writes that make the store what this view is, ascending by key."""
        return [(key, after) for key, _, after in self.changes()]

    def _set(self, key: bytes, value: bytes | None) -> None:
        before = self._overlay.get(key, _UNCHANGED)
        if self._savepoints:
            self._journal.append((key, before))
        if before is _UNCHANGED:
            insort(self._keys, key)
        self._overlay[key] = value

    def _changed(self, prefix: bytes, start: bytes, reverse: bool) -> list[tuple[bytes, bytes | None]]:
        """The overlay's part of a scan."""
        found = []
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                break
            if not start or (key <= start if reverse else key >= start):
                found.append((key, self._overlay[key]))
        return found[::-1] if reverse else found


def _merged(
    stored: Iterator[tuple[bytes, bytes]], changed: list[tuple[bytes, bytes | None]], reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    """What is stored, with changes laid over it; both in the same order."""
    entry = next(stored, None)
    for key, value in changed:
        while entry is not None and (entry[0] > key if reverse else entry[0] < key):
            yield entry
            entry = next(stored, None)
        if entry is not None and entry[0] == key:
            entry = next(stored, None)
        if value is not None:
            yield key, value
    while entry is not None:
        yield entry
        entry = next(stored, None)
