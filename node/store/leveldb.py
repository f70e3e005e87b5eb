"""The ledger on disk: LevelDB through plyvel.

LevelDB changes to a new log file without syncing the old one, so that after a power cut a synced write may be there
while an unsynced one before it is not. Here nothing is there without what came before it: writes without a sync are
held in memory, seen by readers, and go to the disk in one batch with the next synced write.

LevelDB takes a directory without the file CURRENT for a new store, and deletes every table that it finds there. A
ledger that lost that file would be gone once anybody looked at it: so whoever opens it is told that it is damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock

import plyvel

from koinon.errors import Corrupt, Exhausted, KoinonError, Unavailable
from node.abci import Write
from node.ledger.state import State
from node.store.kv import end_of_prefix

_WRITE_BUFFER_BYTES = 16 * 1024 * 1024  # several blocks per level-0 file
_CACHE_BYTES = 32 * 1024 * 1024
_HELD_BYTES = 1024 * 1024  # of unsynced writes; with more they are synced: to keep many in order costs more than that
_BLOOM_BITS = 10  # 1 % false positives: most names that are looked up before they are published are not there
_COMPRESSION = None  # tables would be compressed anew whenever they are merged: most of what merging costs


def holds_data(path: Path) -> bool:
    """Is there anything of a store in the directory? A store whose making was interrupted has none yet."""
    return any(path.glob("*.ldb")) or any(path.glob("*.log"))


class LevelStore:
    """A KeyValueStore in the directory ``path``, made if it is missing; one process at a time."""

    def __init__(self, path: Path) -> None:
        """Raises Unavailable (in use, not writable), Exhausted (disk full) or Corrupt."""
        self._path = path
        self._failed: KoinonError | None = None
        self._held = State(self._stored, self._scan_stored)  # what was written since the last sync
        self._held_bytes = 0
        self._turn = Lock()  # of whoever writes, and of threads that begin to scan
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / "CURRENT").exists() and holds_data(path):
                raise self._damaged("its file CURRENT is missing")
            self._db = plyvel.DB(
                str(path),
                create_if_missing=True,
                paranoid_checks=True,
                write_buffer_size=_WRITE_BUFFER_BYTES,
                lru_cache_size=_CACHE_BYTES,
                bloom_filter_bits=_BLOOM_BITS,
                compression=_COMPRESSION,
            )
        except (plyvel.Error, OSError) as error:
            raise self._typed(error) from error

    def get(self, key: bytes) -> bytes | None:
        return self._held.get(key) if self._held_bytes else self._stored(key)

    def scan(self, prefix: bytes, *, start: bytes = b"", reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        with self._turn:
            scan = self._held.scan if self._held_bytes else self._scan_stored
            return scan(prefix, start=start, reverse=reverse)

    def write(self, writes: Iterable[Write], *, sync: bool) -> None:
        with self._turn:
            self._put(writes, sync)

    def _put(self, writes: Iterable[Write], sync: bool) -> None:
        if self._failed is not None:
            raise self._failed
        if not sync or self._held_bytes:
            for key, value in writes:
                self._held_bytes += len(key) + len(value or b"")
                if value is None:
                    self._held.delete(key)
                else:
                    self._held.put(key, value)
            if not sync and self._held_bytes < _HELD_BYTES:
                return
            writes = self._held.overlay()
        self._write(writes)
        self._held, self._held_bytes = State(self._stored, self._scan_stored), 0

    def compact(self, prefix: bytes, end: bytes) -> None:
        """Give back the disk space of what was deleted from ``prefix`` up to ``end``. Takes a while; on any thread."""
        try:
            self._db.compact_range(start=prefix, stop=end)
        except (plyvel.Error, RuntimeError) as error:
            raise self._typed(error) from error

    def _stored(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key, verify_checksums=True)
        except (plyvel.Error, RuntimeError) as error:
            raise self._typed(error) from error
        return value

    def _scan_stored(
        self, prefix: bytes, *, start: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        first: bytes | None = max(prefix, start)
        stop = end_of_prefix(prefix)
        if reverse:
            # plyvel loses the last key of a reverse scan when it equals the lower bound (its pull request 28),
            # so it gets none; _entries ends at the prefix.
            first = None
            if start and (stop is None or start < stop):
                stop = start + b"\0"  # the smallest key after it
        try:  # here, not in the generator: LevelDB takes its snapshot now
            entries = self._db.iterator(start=first, stop=stop, reverse=reverse, verify_checksums=True)
        except (plyvel.Error, RuntimeError) as error:
            raise self._typed(error) from error
        return self._entries(entries, prefix)

    def _write(self, writes: Iterable[Write]) -> None:
        try:
            batch = self._db.write_batch(sync=True)
            for key, value in writes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            batch.write()
        except (plyvel.Error, RuntimeError) as error:
            # Half a record may be in LevelDB's log; a later one appended behind it could be lost at the
            # next recovery although its write had succeeded. So nothing is written behind a failure.
            self._failed = self._typed(error)
            raise self._failed from error

    def close(self) -> None:
        if self._held_bytes and self._failed is None and not self._db.closed:
            self.write((), sync=True)
        self._db.close()

    def _entries(self, entries: plyvel._plyvel.Iterator, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            with entries:
                for key, value in entries:
                    if key < prefix:
                        return
                    yield key, value
        except (plyvel.Error, RuntimeError) as error:
            raise self._typed(error) from error

    def _damaged(self, problem: str) -> Corrupt:
        return Corrupt(
            f"the ledger store {self._path} is damaged: {problem}",
            hint="stop the node, then: koinon node repair --home HOME. The node fetches the ledger from its peers",
        )

    def _typed(self, error: Exception) -> KoinonError:
        """The typed error for one of LevelDB's, which differ only in their text."""
        said = error.args[0] if error.args else ""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
        # A table that was cut is read beyond its end, which LevelDB reports as the system does.
        if isinstance(error, plyvel.CorruptionError) or ".ldb: Invalid argument" in text:
            return self._damaged(text)
        if "No space left" in text or "quota exceeded" in text.lower():
            return Exhausted(
                f"no space left on the disk of {self._path}", rule="disk-full", hint="free some space, then restart"
            )
        if "already held" in text or "Resource temporarily unavailable" in text:
            return Unavailable(
                f"the ledger store {self._path} is in use",
                rule="store-locked",
                hint="a node, or another command, works on it: stop that first",
            )
        if "ermission denied" in text or "Read-only" in text:
            return Unavailable(
                f"the ledger store {self._path} cannot be written: {text}",
                rule="disk-read-only",
                hint="give the node's user write permission there, or mount the disk for writing",
            )
        return Unavailable(
            f"the ledger store {self._path} does not work: {text}",
            rule="disk-error",
            hint="check the disk and the system log, then restart",
        )
