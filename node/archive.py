"""A chain in one file: its genesis, and every block with its certificate. Enough to replay it, and nothing more.

=========  ==========================================================================
part       contents (integers big-endian)
=========  ==========================================================================
begin      ``koinon-archive/1`` and a line feed; length (4 bytes) and serialised Genesis
block      per height from 1: length (4), serialised Block, length (4), serialised Commit
end        four zero bytes (no block is empty), the last height (8), nothing behind it
=========  ==========================================================================

Only the framing is checked here; node.replay proves the contents. The end tells a whole archive from one that
was cut between two blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError

from koinon import genesis as genesis_file
from koinon.errors import Corrupt, InvalidFile
from koinon.files import creating
from koinon.limits import MAX_BLOCK_BYTES, MAX_COMMIT_BYTES, MAX_GENESIS_BYTES
from koinon.v1.consensus_pb2 import Commit
from koinon.v1.identity_pb2 import Genesis

MAGIC = b"koinon-archive/1\n"
_LENGTH_BYTES, _HEIGHT_BYTES = 4, 8


@dataclass(frozen=True, slots=True)
class Decided:
    """A block as it is kept, and the certificate for it. Not trusted."""

    block: bytes
    commit: Commit


def write(path: Path, genesis: Genesis, blocks: Iterable[Decided]) -> int:
    """Write a new archive of the blocks from height 1 on, one in memory at a time; returns the last height.

    After a failure there is no file. Raises InvalidFile (it exists, or cannot be written), Exhausted (disk full), and
    what ``blocks`` raises.
    """
    height = 0
    with creating(path, "archive") as file:
        file.write(MAGIC)
        _write_part(file, genesis_file.genesis_bytes(genesis))
        for decided in blocks:
            _write_part(file, decided.block)
            _write_part(file, decided.commit.SerializeToString(deterministic=True))
            height += 1
        _write_part(file, b"")
        file.write(height.to_bytes(_HEIGHT_BYTES, "big"))
    return height


def _write_part(file: BinaryIO, data: bytes) -> None:
    file.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)


class Archive:
    """An archive from anywhere."""

    def __init__(self, path: Path) -> None:
        """Reads the genesis and the last height. Raises InvalidFile, Corrupt."""
        self._path = path
        with self._open() as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise InvalidFile(f"{path} is no archive of a ledger", hint="koinon ledger export makes one")
            try:
                self.genesis = Genesis.FromString(self._part(file, "the genesis", MAX_GENESIS_BYTES))
            except DecodeError:
                raise self._damaged("the genesis") from None
            genesis_file.validate(self.genesis)
            self._begin = file.tell()

    def blocks(self) -> Iterator[Decided]:
        """Those from height 1 on. Raises Corrupt, InvalidFile."""
        height = 0
        with self._open() as file:
            file.seek(self._begin)
            while block := self._part(file, f"block {height + 1}", MAX_BLOCK_BYTES):
                height += 1
                what = f"the certificate for block {height}"
                try:
                    commit = Commit.FromString(self._part(file, what, MAX_COMMIT_BYTES))
                except DecodeError:
                    raise self._damaged(what) from None
                yield Decided(block, commit)
            end = int.from_bytes(self._read(file, "the end", _HEIGHT_BYTES), "big")
            if end != height or file.read(1):
                raise self._damaged(f"the end behind block {height}")

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise InvalidFile(
                f"the archive {self._path} cannot be read: {error.strerror}", hint="check the path and its permissions"
            ) from error

    def _part(self, file: BinaryIO, what: str, most: int) -> bytes:
        length = int.from_bytes(self._read(file, what, _LENGTH_BYTES), "big")
        if length > most:
            raise self._damaged(what)
        return self._read(file, what, length)

    def _read(self, file: BinaryIO, what: str, size: int) -> bytes:
        try:
            data = file.read(size)
        except OSError as error:
            raise InvalidFile(
                f"the archive {self._path} cannot be read: {error.strerror}", rule="disk-error", hint="check the disk"
            ) from error
        if len(data) != size:
            raise Corrupt(f"the archive {self._path} was cut short: it ends within {what}", hint=_HINT)
        return data

    def _damaged(self, what: str) -> Corrupt:
        return Corrupt(f"the archive {self._path} is damaged: {what} is not in form", hint=_HINT)


_HINT = "export the ledger again, on this node or another member's"
