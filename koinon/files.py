"""Small files that a person handles: read whole and bounded, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from koinon.errors import Exhausted, InvalidFile

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_UNREAD = {
    errno.ENOENT: "check the path; if it is a link, what it leads to must be there",
    errno.EISDIR: "a file is needed: name one, or restore it where the directory is",
    errno.EACCES: "run this as the user whose file it is, who may read it; ls -l shows both",
}


def read_text(path: Path, what: str, max_bytes: int) -> str:
    """The UTF-8 text of a file from anywhere; ``what`` names it for a person ("genesis file"). Raises InvalidFile."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidFile(f"the {what} {path} cannot be read: {error.strerror}", hint=unread(error)) from error
    except ValueError as error:  # a zero byte, from a path that a file names
        raise InvalidFile(f"{str(path)!a} is no path: {error}", hint="name a file") from error
    if len(data) > max_bytes:
        raise InvalidFile(
            f"the {what} {path} is larger than {max_bytes} bytes", hint=f"this is not a {what}: check the path"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidFile(
            f"the {what} {path} is not UTF-8 text (byte {error.start})", hint=f"this is not a {what}: check the path"
        ) from error


def unread(error: OSError) -> str:
    """What to do about a file that the system does not let us read."""
    return _UNREAD.get(error.errno or 0, "check the path and its permissions")


def digest(content: bytes | str | os.PathLike[str]) -> bytes:
    """SHA-256 of bytes, or of a file of any size. Raises InvalidFile."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    try:
        with Path(content).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InvalidFile(f"{content} cannot be read: {error.strerror}", hint="give the path of a file") from error


def write_new(path: Path, text: str, what: str, *, private: bool = False) -> None:
    """Write a file that must not exist yet, readable by its owner alone when ``private``; missing directories are made.

    After a failure there is no file. Raises InvalidFile (it exists, or may not be written) or Exhausted (disk full).
    """
    with creating(path, what, private=private) as file:
        file.write(text.encode("utf-8"))


def make_private(path: Path, what: str) -> None:
    """A directory that only its owner may enter, where there is none yet. Raises InvalidFile or Exhausted."""
    with _refusing(path, what):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def creating(path: Path, what: str, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file that must not exist yet, to be written in the block; it appears, whole and synced, at the block's end.

    After a failure, the block's own included, there is no file. Raises as ``write_new``.
    """
    written = path.with_name(f".{path.name}.{os.getpid()}")
    with _refusing(path, what):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.link(written, path)  # unlike a rename, fails when the file exists
        finally:
            written.unlink()
        sync(path.parent)  # what an archive holds may be deleted next


@contextmanager
def _refusing(path: Path, what: str) -> Iterator[None]:
    """What the system says against writing ``path``, said so that it helps. Raises as ``write_new``."""
    try:
        yield
    except FileExistsError as error:
        raise InvalidFile(
            f"the {what} {path} exists", rule="already-exists", hint="choose another path, or move the file away"
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise Exhausted(
                f"no space left to write the {what} {path}", rule="disk-full", hint="free some space, then try again"
            ) from error
        raise InvalidFile(
            f"the {what} {path} cannot be written: {error.strerror}",
            rule="disk-read-only" if error.errno in _READ_ONLY else "disk-error",
            hint="check the path and its permissions",
        ) from error


def sync(path: Path) -> None:
    """Put on the disk what a file holds, or a directory's names: a power cut takes none of it. Raises OSError."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows, which cannot, and keeps names by itself
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
