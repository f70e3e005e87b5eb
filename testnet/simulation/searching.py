"""The index for searches of one node (node.read_model), on a real file: it follows the ledger, and dies with its node.

SQLite does not wait for the disk there: after a crash the end of what it wrote is missing, or all of it.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

from node.application import Application
from node.read_model import ReadModel
from testnet.simulation.checkers import Violation

_WAL = "-wal"


class SimIndex:
    """One node's index. ``open`` and ``crash`` are what happens to its processes."""

    def __init__(self, directory: Path, rng: Random) -> None:
        self.crashes = 0
        self._directory = directory
        self._rng = rng
        self._path = directory / "0"
        self.records = 0  # that were found to be right
        self._model: ReadModel | None = None

    def open(self, application: Application) -> None:
        """A process opens the file, beside whatever ledger it has now."""
        self.stop()
        self._model = ReadModel(self._path, application)

    def follow(self) -> None:
        """A block was decided a moment ago."""
        if self._model is not None:
            self._model.follow()

    def stop(self) -> None:
        """The process ends in order."""
        if self._model is not None:
            self._model.close()
        self._model = None

    def crash(self) -> None:
        """The machine loses its power: of what was not in the main file yet, some is not there any more."""
        if self._model is None:
            return
        self.crashes += 1
        found = self._path
        self._path = self._directory / str(self.crashes)
        wal = found.with_name(found.name + _WAL)
        if self._rng.random() < 0.8:
            shutil.copy(found, self._path)
            if wal.exists():
                data = wal.read_bytes()
                self._path.with_name(self._path.name + _WAL).write_bytes(data[: self._rng.randint(0, len(data))])
        self.stop()

    def check(self, application: Application) -> None:
        """In the end it must be the one that is made from the ledger at once. Raises Violation."""
        if self._model is None:
            return
        self._model.follow()
        with closing(ReadModel(self._directory / "anew", application)) as anew:
            differing = [name for name, rows in _content(anew).items() if rows != _content(self._model)[name]]
        if differing:
            raise Violation(f"the index is not the one of its ledger: {differing} differ")
        self.records = self._model.size


def _content(model: ReadModel) -> dict[str, list[object]]:
    """Whatever is in its tables, and what is in no file."""
    database = model._database
    return {
        **{name: sorted(database.execute(f"SELECT * FROM {name}"), key=repr) for name in _tables(database)},  # noqa: S608
        "texts": sorted(database.execute("SELECT rowid, * FROM texts")),
        "the open chunk": [model.size, *model._open_chunk.rows()],
    }


def _tables(database: sqlite3.Connection) -> Iterator[str]:
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
        if not name.startswith("texts"):
            yield name
