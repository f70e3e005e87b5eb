"""One node's disk: log and store in memory, with everything that goes wrong with real ones.

A crash loses what was not synced and may leave a torn record; a bit may rot, in the log or in the store; the disk may
be full, or slow. What production code would see of it, it sees here: FileWal's format with its checksums, and the
errors that LevelDB's driver raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random

from koinon.errors import Corrupt, Exhausted
from node.abci import Write
from node.store.memory import MemoryStore
from node.store.wal import MemoryWal


class Disk:
    """What survives a process. ``wal`` and ``store`` are ports for its engine."""

    def __init__(self, rng: Random, operation: Callable[[], None], on_logged: Callable[[bytes], None]) -> None:
        """``operation`` is called before every operation, and ends the process at some of them.

        ``on_logged`` is told each record of the log.
        """
        self.full = False
        self.slow_ms = 0  # what a sync may take at most
        self.spent_ms = 0  # waiting for syncs, since this was last set to 0
        self.damaged: set[bytes] = set()  # keys of the store whose checksum does not hold
        self.wal_is_damaged = False
        self.snapshots: dict[int, tuple[bytes, list[bytes]]] = {}  # synced, by height: manifest, chunks of the state
        self.rng = rng
        self.operation = operation
        self.on_logged = on_logged
        self.files = (MemoryWal(), MemoryStore())
        self.wal = _Wal(self)
        self.store = _Store(self)

    def open(self) -> None:
        """A process opens it. FileWal syncs what it finds; LevelDB moves what its log holds to a table, synced."""
        self.files[0].sync()
        self.files[1].write((), sync=True)

    def crash(self) -> None:
        """The machine loses its power."""
        rng = self.rng
        wal, store = self.files
        if not self.wal_is_damaged:
            wal.crash(
                survivors=rng.choice((0, 0, 1, 2, 100)), torn=rng.choice((0, 3, 11, 60)), zeros=rng.choice((0, 40))
            )
        store.crash(survivors=rng.choice((0, 1, 3, 100)))

    def lose_wal(self) -> None:
        self.files = (MemoryWal(), self.files[1])
        self.wal_is_damaged = False

    def lose_store(self) -> None:
        self.files = (self.files[0], MemoryStore())
        self.damaged.clear()
        self.snapshots.clear()

    def rot_wal(self) -> None:
        """A bit changes of what was synced long ago."""
        self.wal_is_damaged = True
        self.files[0].damage(self.rng.randrange(10_000))

    def rot_store(self) -> None:
        keys = [key for key, _ in self.files[1].scan(b"")]
        self.damaged.update(self.rng.sample(keys, min(3, len(keys))))

    def sync(self) -> None:
        """A sync, which may take its time or find no space."""
        self.operation()
        if self.slow_ms:
            self.spent_ms += self.rng.randint(0, self.slow_ms)
        if self.full:
            raise Exhausted("no space left on this disk", rule="disk-full", hint="free some space, then restart")

    def check(self, key: bytes) -> None:
        if key in self.damaged:
            raise Corrupt("the ledger store is damaged", hint="remove the directory and start the node")


class _Wal:
    """The node's log; the process may end before and after every call."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def append(self, record: bytes) -> None:
        self._disk.operation()
        self._disk.files[0].append(record)
        self._disk.on_logged(record)

    def sync(self) -> None:
        self._disk.sync()
        self._disk.files[0].sync()
        self._disk.operation()

    def records(self) -> list[bytes]:
        return self._disk.files[0].records()

    def reset(self, records: Iterable[bytes] = ()) -> None:
        self._disk.sync()
        kept = list(records)
        self._disk.files[0].reset(kept)
        for record in kept:
            self._disk.on_logged(record)
        self._disk.operation()

    def close(self) -> None:
        pass


class _Store:
    """The node's store; the process may end before and after every write."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def get(self, key: bytes) -> bytes | None:
        if self._disk.damaged:
            self._disk.check(key)
        return self._disk.files[1].get(key)

    def scan(self, prefix: bytes, *, start: bytes = b"", reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._disk.files[1].scan(prefix, start=start, reverse=reverse):
            if self._disk.damaged:
                self._disk.check(key)
            yield key, value

    def write(self, writes: Iterable[Write], *, sync: bool) -> None:
        disk, batch = self._disk, list(writes)
        if sync:
            disk.sync()
        else:
            disk.operation()
        disk.files[1].write(batch, sync=sync)
        if disk.damaged:
            disk.damaged.difference_update(key for key, _ in batch)
        disk.operation()

    def close(self) -> None:
        pass
