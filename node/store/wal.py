"""The write-ahead log: what this validator signed and saw at the present height, on disk before it is sent.

File: 8 bytes of magic, then records::

    length (4 bytes, big-endian) | CRC-32 of the length (4) | payload | CRC-32 of the payload (4) | 0xff

A crash during a write leaves a *torn tail*: the file ends inside the last record, or the part that never
reached the disk reads as zeros. It was not synced, so nobody relied on it, and opening cuts it off. A process
that ends without a crash of the machine leaves whole records that were not synced either: who opens the log reads
them and will rely on them, so opening puts them on the disk first. The
last byte of a record is never zero, and a length is checked before it is believed, so every other damage
is told from a torn tail and raises Corrupt: dropping a synced record could make the validator sign twice.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from koinon.errors import Corrupt, Exhausted, KoinonError, Unavailable
from koinon.files import sync

_MAGIC = b"koinwal1"
_HEADER_BYTES = 8
_TRAILER_BYTES = 5
_END = b"\xff"
_IN_MEMORY = Path("(in memory)")


class WriteAheadLog(Protocol):
    """An append-only list of byte strings. Raises Corrupt, Exhausted, Unavailable; once failed it stays failed."""

    def append(self, record: bytes) -> None:
        """Add a record; it survives a crash only after ``sync()``."""
        ...

    def sync(self) -> None:
        """Once this returns, everything appended survives a crash."""
        ...

    def records(self) -> list[bytes]:
        """All records, oldest first, those not yet synced included."""
        ...

    def reset(self, records: Iterable[bytes] = ()) -> None:
        """Start anew with these records, synced. Atomic: after a crash the log is the old one or the new one."""
        ...

    def close(self) -> None: ...


class MemoryWal:
    """A WriteAheadLog whose disk is a byte string, in FileWal's format; ``crash`` and ``damage`` a real one lacks."""

    def __init__(self) -> None:
        self.reset()

    def append(self, record: bytes) -> None:
        self._disk += _encode(record)
        self._ends.append(len(self._disk))

    def sync(self) -> None:
        self._synced = len(self._ends) - 1

    def records(self) -> list[bytes]:
        return list(_decode(bytes(self._disk), _IN_MEMORY))

    def reset(self, records: Iterable[bytes] = ()) -> None:
        self._disk = bytearray(_MAGIC)
        self._ends = [len(_MAGIC)]  # of the records so far
        for record in records:
            self.append(record)
        self.sync()

    def close(self) -> None:
        pass

    def crash(self, survivors: int = 0, torn: int = 0, zeros: int = 0) -> None:
        """Lose what was appended since the last sync, but for the first ``survivors`` records.

        Of the record after those, ``torn`` bytes reached the disk, and ``zeros`` instead of others: opening cuts both.
        """
        kept = min(self._synced + survivors, len(self._ends) - 1)
        following = self._ends[kept + 1] if kept + 1 < len(self._ends) else self._ends[kept]
        tail = self._disk[self._ends[kept] : following]
        torn = min(torn, max(len(tail) - 1, 0))  # all of it would be no tear
        self._disk[self._ends[kept] :] = tail[:torn] + bytes(min(zeros, len(tail) - torn))
        del self._disk[_intact(bytes(self._disk), _IN_MEMORY) :]
        self._ends = [end for end in self._ends if end <= len(self._disk)]
        self.sync()

    def damage(self, at: int) -> None:
        """Change one bit of what is on the disk; ``at`` counts bytes, modulo their number."""
        self._disk[at % len(self._disk)] ^= 1


def read(path: Path) -> list[bytes]:
    """The records of a log that may be in use: nothing is changed, a torn tail is left out. Raises Corrupt, OSError."""
    return list(_decode(path.read_bytes(), path))


class FileWal:
    """A WriteAheadLog in one file, made if it is missing."""

    def __init__(self, path: Path) -> None:
        """Opens the log, cuts off a torn tail and syncs the rest. Raises Corrupt, Exhausted or Unavailable."""
        self._path = path
        self._unwritten = bytearray()
        self._failed: KoinonError | None = None
        self._file = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._open()
            else:
                self._create()
        except OSError as error:
            raise self._typed(error) from error

    def append(self, record: bytes) -> None:
        self._unwritten += _encode(record)

    def sync(self) -> None:
        self._check_usable()
        try:
            self._flush()
            os.fdatasync(self._file)
        except OSError as error:
            # After a failed fsync the kernel may drop the pages and report success the next time
            # (LWN 752063), so the log stays failed until it is opened again.
            self._failed = self._typed(error)
            raise self._failed from error

    def records(self) -> list[bytes]:
        self._check_usable()
        try:
            self._flush()
            return list(_decode(self._path.read_bytes(), self._path))
        except OSError as error:
            raise self._typed(error) from error

    def reset(self, records: Iterable[bytes] = ()) -> None:
        self._check_usable()
        self._unwritten.clear()
        try:
            os.close(self._file)
            self._file = -1
            self._create(_MAGIC + b"".join(map(_encode, records)))
        except OSError as error:
            self._failed = self._typed(error)
            raise self._failed from error

    def close(self) -> None:
        if self._file >= 0:
            if self._failed is None:
                self.sync()
            os.close(self._file)
            self._file = -1

    def _create(self, content: bytes = _MAGIC) -> None:
        """Put a log of this content in place, with a rename so that a crash leaves no half-made file."""
        new = self._path.with_name(self._path.name + ".new")
        self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _write_all(self._file, content)
        os.fsync(self._file)
        new.replace(self._path)
        sync(self._path.parent)

    def _open(self) -> None:
        """Written anew, not synced: after a sync that failed, pages pass for clean that are on no disk (LWN 752063)."""
        data = self._path.read_bytes()
        self._create(data[: _intact(data, self._path)])

    def _flush(self) -> None:
        if self._unwritten:
            _write_all(self._file, self._unwritten)
            self._unwritten.clear()

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._file < 0:
            raise Unavailable("the write-ahead log is closed", hint="open it again")

    def _typed(self, error: OSError) -> KoinonError:
        text = f"the write-ahead log {self._path} cannot be written: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Exhausted(text, rule="disk-full", hint="free some space, then restart")
        if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
            return Unavailable(
                text,
                rule="disk-read-only",
                hint="give the node's user write permission there, or mount the disk for writing",
            )
        return Unavailable(text, rule="disk-error", hint="check the disk and the system log, then restart")


def _write_all(file: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def _encode(record: bytes) -> bytes:
    length = len(record).to_bytes(4, "big")
    return length + _crc(length) + record + _crc(record) + _END


def _intact(data: bytes, path: Path) -> int:
    """How many bytes of a log are left when its torn tail is cut off. Raises Corrupt."""
    return len(_MAGIC) + sum(_HEADER_BYTES + len(record) + _TRAILER_BYTES for record in _decode(data, path))


def _decode(data: bytes, path: Path) -> Iterator[bytes]:
    """The intact records; stops at a torn tail. Raises Corrupt."""

    def damaged(at: int) -> Corrupt:
        return Corrupt(
            f"the write-ahead log {path} is damaged at byte {at}",
            hint="move it away, never an older copy into its place, and start the node: without its signing state it "
            "observes until it is safe to vote again",
        )

    if not data.startswith(_MAGIC):  # never torn: _create renames a finished file into place
        raise damaged(0)
    at = len(_MAGIC)
    while at < len(data):
        body = at + _HEADER_BYTES
        if len(data) < body:
            return
        length = data[at : at + 4]
        if _crc(length) != data[at + 4 : body]:
            if any(data[body:]):
                raise damaged(at)
            return
        end = body + int.from_bytes(length, "big")
        after = end + _TRAILER_BYTES
        if len(data) < after:
            return
        record = data[body:end]
        if data[end:after] != _crc(record) + _END:
            if any(data[after - 1 :]):
                raise damaged(at)
            return
        yield record
        at = after
