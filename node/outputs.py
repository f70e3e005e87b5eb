"""Sealed outputs on disk, until their askers have fetched them: bounded, newest kept."""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf.message import DecodeError

from koinon.files import sync
from koinon.limits import MAX_STORED_OUTPUTS
from koinon.v1.session_pb2 import SealedOutput


class OutputStore:
    """One file per task, named by its id. A file is complete or absent, whatever happens."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError when the directory cannot be made."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    def save(self, output: SealedOutput) -> None:
        """Durable when it returns. Raises OSError."""
        path = self._path(output.task_id)
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(output.SerializeToString(deterministic=True))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync(self._directory)
        kept = sorted(self._directory.glob("*.sealed"), key=lambda file: file.stat().st_mtime_ns)
        for old in kept[:-MAX_STORED_OUTPUTS]:
            old.unlink(missing_ok=True)

    def load(self, task_id: str) -> SealedOutput | None:
        """None when there is none, or none that can be read. ``task_id`` may come from anyone."""
        if len(task_id) != 32 or not set(task_id) <= set("0123456789abcdef"):
            return None
        try:
            return SealedOutput.FromString(self._path(task_id).read_bytes())
        except (OSError, DecodeError):
            return None

    def _path(self, task_id: str) -> Path:
        return self._directory / f"{task_id}.sealed"
