"""What is damaged on a stopped node's disk is put aside; the next start gets it from the other members.

====================  ==========================================================================================
damaged               remedy
====================  ==========================================================================================
ledger                moved aside: the node joins anew, by a snapshot or block by block; what it says that was signed
                      is what the new one says, so that a log that lacks it is noticed as before
write-ahead log       moved aside: the node observes until a height is safe to vote at (node.journal)
index for searches    nothing: the node makes it anew by itself
snapshots, chunks     removed: they are cut, or fetched, again
====================  ==========================================================================================

Nothing is deleted that could help an inquiry. Keys, certificates, genesis and configuration cannot be made again from
others' copies: they are only looked at, by `koinon doctor`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from koinon.errors import Corrupt, InvalidFile
from koinon.v1.identity_pb2 import Genesis
from node.application import Application
from node.config import Home
from node.examine import examine
from node.journal import NOTHING, Journal, Position, last_signed, mark
from node.store import wal
from node.store.leveldb import LevelStore


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that was damaged, and what was done about it."""

    part: str
    problem: str
    remedy: str


def repair(home: Home, genesis: Genesis, validator_key: bytes, institution: str) -> Iterator[Repair]:
    """Examine ledger and log of a stopped node; what does not hold is put aside.

    Raises Unavailable while the node runs, and where the disk cannot be written.
    """
    problem = _damage(lambda: _examine(home, genesis))
    if problem:
        signed = _signed(home)
        aside = _put_aside(home.ledger)
        if signed != NOTHING:
            _begin(home, genesis, signed)
        for path in (home.snapshots, home.chunks, home.ledger_building):
            shutil.rmtree(path, ignore_errors=True)
        yield Repair("ledger", problem, f"moved to {aside}; the node fetches a ledger from its peers at the next start")
    problem = _damage(lambda: _read_log(home, validator_key, institution))
    if problem:
        aside = _put_aside(home.wal)
        yield Repair(
            "write-ahead log",
            problem,
            f"moved to {aside}; the node observes until it is safe to vote. Never put an older copy in its place",
        )


def _damage(look: Callable[[], None]) -> str:
    try:
        look()
    except (Corrupt, InvalidFile) as error:
        if error.rule == "invalid-genesis":  # a ledger of another network is not damaged
            raise
        return error.message
    return ""


def _examine(home: Home, genesis: Genesis) -> None:
    if home.ledger.exists():
        with closing(LevelStore(home.ledger)) as store:
            examine(genesis, store)


def _signed(home: Home) -> Position:
    """What a damaged ledger says that its node signed; NOTHING where it does not say."""
    try:
        with closing(LevelStore(home.ledger)) as store:
            return last_signed(store)
    except Corrupt:
        return NOTHING


def _begin(home: Home, genesis: Genesis, signed: Position) -> None:
    """A ledger at the genesis, of a node that signed before."""
    with closing(LevelStore(home.ledger)) as store:
        Application(store, genesis)
        store.write([mark(signed)], sync=True)


def _read_log(home: Home, validator_key: bytes, institution: str) -> None:
    if home.wal.exists():
        copy = wal.MemoryWal()
        copy.reset(wal.read(home.wal))
        Journal(copy, validator_key, institution, time.time_ns() // 1_000_000)


def _put_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return path.rename(aside)
