"""The institution's own files: taken in, inspected, found again by commitment, checked before every use.

A file is staged by its operator and kept under its *commitment* (koinon.canonical.content_commitment), which is all
that the ledger ever learns of its content. Nothing has to happen when a publication commits: a catalog entry carries
the commitment, and the commitment finds the file.

::

    DIRECTORY/incoming-<random>/      being received or inspected; removed at start
    DIRECTORY/<commitment in hex>/    complete: ``content`` and ``metadata.json``

A directory gets its final name by one rename after both files are on disk, so a crash leaves either nothing or
everything. Only the node's user may enter it. The salt in ``metadata.json`` is secret: whoever has it can test guesses
of the content against the commitment.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from koinon import canonical
from koinon.errors import Corrupt, Exhausted, InvalidFile, KoinonError, Refused, Unavailable
from koinon.files import sync
from koinon.limits import MAX_CHUNK_BYTES, MAX_STAGED_BYTES
from koinon.v1.catalog_pb2 import Column, Dataset
from koinon.v1.services_pb2 import CodelistProposal, StageDatasetResponse
from mpc.engines import FORMATS, Inspection, TableFile
from node.publication import check_publication

SALT_BYTES = 32
STAGED_KEPT_S = 24 * 60 * 60  # how long a staged file waits for its publication, and a withdrawn one for its removal
MIN_FREE_BYTES = 256 * 1024**2  # left to the ledger when files come in
INSPECTION_TIMEOUT_S = 900

_PLACE = "HOME/datasets"
_INCOMING = "incoming-"
_READ_BYTES = 1024 * 1024
_ERRORS = {error.default_rule: error for error in (InvalidFile, Exhausted)} | {"memory-limit": Exhausted}


@dataclass(frozen=True, slots=True)
class Staged:
    """A file that was taken in: what the engine found, for the operator's eyes, and its commitment."""

    commitment: bytes
    inspection: Inspection

    def response(self) -> StageDatasetResponse:
        """As the answer of DatasetService.StageDataset; codelists are proposals only."""
        columns = self.inspection.columns
        return StageDatasetResponse(
            columns=[Column(name=c.name, type=c.type, nullable=c.nullable) for c in columns],
            row_count=self.inspection.row_count,
            commitment=self.commitment,
            proposed_codelists=[
                CodelistProposal(column=c.name, codes=c.codes, smallest_count=c.smallest_count)
                for c in columns
                if c.codes is not None
            ],
        )


class DatasetStore:
    """One per node. On its event loop anything may run beside anything; ``table_for`` also on other threads."""

    def __init__(self, directory: Path, *, inspection_memory_mb: int = 1024) -> None:
        """Makes the directory, readable by its owner only, and removes what an earlier process left half received.

        Raises Exhausted or Unavailable when the disk does not let it.
        """
        self._directory = directory
        self._memory_mb = inspection_memory_mb
        self._inspecting = asyncio.Lock()  # one table at a time: it takes memory
        self._verified: dict[bytes, tuple[int, int, int]] = {}  # commitment -> identity of the file last hashed
        with _disk():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in directory.glob(f"{_INCOMING}*"):
                shutil.rmtree(left)

    def require_room(self, size: int) -> None:
        """Refuse a file of this many bytes before it comes. Raises Exhausted or Unavailable."""
        if size > MAX_STAGED_BYTES:
            raise _too_large()
        with _disk():
            _refuse_full(self._directory, size)

    async def stage(self, file_format: str, chunks: AsyncIterable[bytes]) -> Staged:
        """Take in a file. ``chunks`` come from an authenticated operator, but are otherwise untrusted.

        Raises InvalidFile when the content is no table, Exhausted when it is too large, or disk or memory do not
        suffice, Unavailable when the disk cannot be written. After any failure nothing is kept.
        """
        if file_format not in FORMATS:
            raise InvalidFile(f"{file_format!a} is no format of a table", hint=f"use one of {', '.join(FORMATS)}")
        with _disk():
            incoming = self._directory / f"{_INCOMING}{secrets.token_hex(8)}"
            incoming.mkdir(mode=0o700)
            try:
                digest, size = await self._receive(incoming / "content", chunks)
                async with self._inspecting:
                    inspection = await self._inspect(incoming / "content", file_format)
                salt = secrets.token_bytes(SALT_BYTES)
                commitment = canonical.content_commitment(salt, digest)
                metadata = {
                    "format": file_format,
                    "salt": salt.hex(),
                    "sha256": digest.hex(),
                    "bytes": size,
                    "inspection": inspection.to_json(),
                }
                _write_synced(incoming / "metadata.json", json.dumps(metadata).encode())
                sync(incoming)
                incoming.rename(self._directory / commitment.hex())
                sync(self._directory)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
        return Staged(commitment, inspection)

    def table_for(self, dataset: Dataset) -> TableFile:
        """The file behind a catalog entry of this institution, for the engine. Reads the whole file the first time.

        Raises Refused: dataset-missing when this node does not hold it, dataset-changed when it is not what was
        committed to, dataset-mismatch when the entry says something else than the content.
        """
        published = dataset.published
        directory = self._directory / published.commitment.hex()
        with _disk():
            file_format, salt, inspection = _read_metadata(directory, published.name)
            self._verify(directory / "content", salt, published.commitment, published.name)
        check_publication(published, inspection)
        return TableFile(
            path=str((directory / "content").resolve()),
            format=file_format,
            columns=tuple(column.name for column in inspection.columns),
            types=tuple((column.name, column.type) for column in published.columns),
        )

    def sweep(self, referenced: Collection[bytes], now_s: float) -> None:
        """Remove files that no published dataset or open task refers to, once they are STAGED_KEPT_S old.

        Args:
            referenced: commitments to keep, whatever their age.
            now_s: Unix time; of the last block, so that a publication not seen yet cannot lose its file.
        """
        keep = {commitment.hex() for commitment in referenced}
        with _disk():
            for entry in sorted(self._directory.iterdir()):
                if entry.name in keep or entry.name.startswith(_INCOMING):
                    continue
                if entry.stat().st_mtime < now_s - STAGED_KEPT_S:
                    shutil.rmtree(entry)

    async def _receive(self, path: Path, chunks: AsyncIterable[bytes]) -> tuple[bytes, int]:
        digest, size, checked = hashlib.sha256(), 0, 0
        with path.open("xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if len(chunk) > MAX_CHUNK_BYTES or size > MAX_STAGED_BYTES:
                    raise _too_large()
                if size >= checked:
                    checked = size + 16 * MAX_CHUNK_BYTES
                    _refuse_full(self._directory)
                digest.update(chunk)
                file.write(chunk)
            await asyncio.to_thread(_sync, file)
        return digest.digest(), size

    async def _inspect(self, path: Path, file_format: str) -> Inspection:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mpc.engines.inspect_process",
            str(path),
            file_format,
            str(self._memory_mb),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(INSPECTION_TIMEOUT_S):
                output, _ = await process.communicate()
        except TimeoutError:
            raise Exhausted("inspecting the file took too long", rule="memory-limit", hint="split the table") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _read_report(output)

    def _verify(self, path: Path, salt: bytes, commitment: bytes, name: str) -> None:
        """Compare content and commitment; a file hashed before is hashed again only if it was touched since."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._verified.get(commitment) == identity:
                return
            digest = hashlib.file_digest(file, "sha256").digest()
        if canonical.content_commitment(salt, digest) != commitment:
            raise Refused(
                f"the content of {name} on this disk is not what was published",
                rule="dataset-changed",
                hint="publish the dataset again from the original file",
            )
        self._verified[commitment] = identity


def _read_metadata(directory: Path, name: str) -> tuple[str, bytes, Inspection]:
    """Format, salt, and what the engine found. Raises Refused, Corrupt."""
    try:
        metadata = json.loads((directory / "metadata.json").read_bytes())
        return str(metadata["format"]), bytes.fromhex(metadata["salt"]), Inspection.from_json(metadata["inspection"])
    except FileNotFoundError:
        raise Refused(
            f"this node does not hold the content of {name}",
            rule="dataset-missing",
            hint="publish the dataset again from the original file",
        ) from None
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise Corrupt(f"the metadata of {name} are damaged", hint="publish the dataset again") from error


def _read_report(output: bytes) -> Inspection:
    """What the inspecting process said; one that died said nothing."""
    try:
        report = json.loads(output)
    except ValueError:
        raise InvalidFile(
            "the file could not be inspected: the engine gave up on it", hint="export the table again, or use CSV"
        ) from None
    if "inspection" in report:
        return Inspection.from_json(report["inspection"])
    kind: type[KoinonError] = _ERRORS.get(report["rule"], InvalidFile)
    raise kind(report["error"], rule=report["rule"], hint=report["hint"])


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _too_large() -> Exhausted:
    return Exhausted(
        f"the file, or one piece of it, is larger than allowed ({MAX_STAGED_BYTES} bytes)",
        hint="use Parquet, or split the table",
    )


def _refuse_full(directory: Path, coming: int = 0) -> None:
    if shutil.disk_usage(directory).free - coming < MIN_FREE_BYTES:
        raise OSError(errno.ENOSPC, "too little space would be left to the ledger")


@contextmanager
def _disk() -> Iterator[None]:
    """Turn what the operating system says of a disk into what a person can act on.

    No path: a task that fails of it says so on the ledger, and how a member's machine is laid out is nobody's business.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted(
                f"too little space is left on the disk of {_PLACE}",
                rule="disk-full",
                hint="free some space, then try again",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise Unavailable(
                f"{_PLACE} cannot be used: {error.strerror}", rule="disk-read-only", hint="check mount and permissions"
            ) from error
        raise Unavailable(f"{_PLACE}: {error.strerror}", rule="disk-error", hint="check the disk") from error
