"""What is on the disk of a node that does not run: does it fit together, and is it proved?"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from koinon import genesis as genesis_file
from koinon.errors import Corrupt, KoinonError
from koinon.v1.identity_pb2 import MEMBER_STATUS_REMOVED, Genesis, InstitutionDescriptor
from koinon.validators import verify_commit
from node import pruning
from node.application import Application
from node.chain import CHAIN_KEY, standing
from node.config import Home
from node.damage import REMEDY, damaged
from node.doctor.finding import Finding, ok, problem, refused, warning
from node.journal import NOTHING, Journal, Position, last_signed
from node.ledger import blocks
from node.ledger.blocks import ChainState
from node.store import wal
from node.store.blocks import BlockStore
from node.store.leveldb import LevelStore
from node.store.validator_history import ValidatorHistory

_BLOCKS = 200  # the newest: a few thousand signatures at most


@dataclass(slots=True)
class Ledger:
    """What the examination learnt, for those that follow."""

    height: int = 0
    time_ms: int = 0
    members: tuple[InstitutionDescriptor, ...] = ()  # as they stand on the ledger; none when that is not known
    known: bool = False  # does ``height`` say where the ledger stands?
    signed: Position = NOTHING  # by this validator, as the ledger of a node that does not run says


def examine(home: Home, genesis: Genesis, keep_blocks: int, ledger: Ledger) -> Iterator[Finding]:
    """The store of a node that does not run, and its index; fills in ``ledger``.

    Writes nothing. LevelDB tidies its own log when it is opened, as it would for the node.
    """
    check = "ledger"
    if not home.ledger.exists():
        ledger.known = True
        yield ok(check, "nothing is on the disk yet: the node starts from the genesis")
        return
    try:
        store = LevelStore(home.ledger)
    except KoinonError as error:
        yield refused(check, error)
        return
    try:
        if store.get(CHAIN_KEY) is None and not any(store.scan(b"m/")):
            ledger.known = True
            yield ok(check, "the store is empty: the node starts from the genesis")
            return
        application = Application(store, genesis)
        chain = standing(store, application.chain_id, genesis.time_ms, application.info())
        ledger.height, ledger.time_ms, ledger.known = chain.height, chain.time_ms, True
        ledger.signed = last_signed(store)
        ledger.members = tuple(
            item.descriptor for item in application.institutions() if item.status != MEMBER_STATUS_REMOVED
        )
        yield ok(check, f"began from this genesis; height {chain.height}")
        yield _follow_back(store, genesis, chain)
        kept = BlockStore(store)
        demanded = pruning.demanded(kept, application.parameters().block_retention_ms)
        yield from retention(chain.height, kept.first(), demanded, keep_blocks)
        yield _index(home, application)
    except KoinonError as error:
        yield problem(check, error.message, error.hint or REMEDY)
    except (DecodeError, ValueError) as error:
        yield problem(check, f"what is stored cannot be read ({error})", REMEDY)
    finally:
        store.close()


def retention(height: int, first: int, demanded: int, keep_blocks: int) -> Iterator[Finding]:
    """Is what this node keeps what the members demand? Heights: ``first`` kept whole, ``demanded`` from there on."""
    check = "retention"
    if demanded > height:
        return
    if keep_blocks and height - keep_blocks >= demanded:
        yield warning(
            check,
            f"keep_blocks = {keep_blocks} is less than the {height - demanded + 1} newest blocks that members demand",
            "the node keeps those all the same: mind its disk, and raise keep_blocks in config.toml, or set it to 0",
        )
    if demanded < first:
        yield warning(
            check,
            f"blocks below {first} are not here, and the members demand some of them",
            "they went before the members demanded them, or this node began from a snapshot: other members have them",
        )
    elif not keep_blocks or height - keep_blocks < demanded:
        yield ok(check, f"blocks from {first} on are whole; the members demand them from {demanded} on")


def _follow_back(disk: LevelStore, genesis: Genesis, chain: ChainState) -> Finding:
    """From the last block back: each is the one that its successor names, and has its validators' certificate.

    Who validated is kept apart, and believed only where the header, by then proved, names it.
    """
    check = "blocks"
    store, history = BlockStore(disk), ValidatorHistory(disk, genesis_file.validators(genesis))
    expected, chain_id = chain.block_hash, genesis_file.chain_id(genesis)
    height, seen, proved = chain.height, 0, 0
    while height and seen < _BLOCKS:
        data, commit = store.block(height), store.commit(height)
        if data is None and store.header(height) is None:
            raise damaged(f"the block at height {height} is missing, and its header too")
        if data is None or commit is None:
            break  # pruned
        block = blocks.parse(data)
        if block.value.block_hash != expected or block.header.height != height:
            raise damaged(f"the block at height {height} is not the one that the chain goes on from")
        validators = chain.last_validators if height == chain.height else history.at(height)
        if validators is not None and block.header.validators_hash == validators.hash():
            verify_commit(chain_id, validators, commit, block.value.block_hash, height)
            proved += 1
        expected = block.header.previous_block_hash
        height, seen = height - 1, seen + 1
    if not seen:
        return ok(check, "none is kept")
    unproved = "" if proved == seen else f", {seen - proved} older ones by hash only: who decided them is not kept here"
    return ok(check, f"the last {seen} form one chain; {proved} certificates hold{unproved}")


def _index(home: Home, application: Application) -> Finding:
    check = "index"
    hint = "nothing: the node makes it anew at its next start"
    if not home.read_model.exists():
        return warning(check, "the index for searches is not there", hint)
    try:
        database = sqlite3.connect(f"{home.read_model.as_uri()}?mode=ro", uri=True)
        try:
            chain, next_index = database.execute("SELECT chain, next_index FROM standing").fetchone()
            sound = database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        finally:
            database.close()
    except (sqlite3.Error, UnicodeDecodeError, TypeError) as error:
        return warning(check, f"the index for searches cannot be read: {error}", hint)
    size = application.audit_log.size
    if not sound or chain != application.chain_id or next_index > size:
        return warning(check, "the index for searches is damaged, or of another ledger", hint)
    return ok(check, f"holds {next_index} of {size} audit records" + ("" if next_index == size else "; it will follow"))


def signing_state(
    home: Home, validator_key: bytes, institution: str, ledger: Ledger, *, running: bool
) -> Iterator[Finding]:
    """The write-ahead log, read without changing it; while the node runs, too."""
    check = "signing state"
    lost = "nothing: the node observes until it is safe to vote. Never restore an older copy"
    if not home.wal.exists():
        yield warning(check, f"{home.wal} is not there: what this key signed before is not known", lost)
        return
    try:
        records = wal.read(home.wal)
        copy = wal.MemoryWal()
        copy.reset(records)
        journal = Journal(copy, validator_key, institution, time.time_ns() // 1_000_000, ledger.signed)
    except OSError as error:
        yield problem(check, f"{home.wal} cannot be read: {error.strerror}", "check the disk and its permissions")
        return
    except Corrupt as error:
        yield refused(check, error)
        return
    if journal.votes_from_height is None:
        yield warning(check, "the write-ahead log does not know what this key signed before", lost)
    elif ledger.known and journal.votes_from_height > ledger.height + 1:
        yield warning(check, f"it was lost: this node votes from height {journal.votes_from_height} on", lost)
    elif ledger.known and not running and (signed := journal.signed[0]) > ledger.height + 1:
        yield warning(
            "ledger",
            f"its last block is {ledger.height}, and this validator signed at height {signed}: blocks that were "
            "written are not on the disk",
            "nothing, if it was repaired or put aside: the node fetches them from its peers. Else examine the disk: "
            "what was synced may not be lost",
        )
    else:
        yield ok(check, f"the write-ahead log can be read: {len(records)} records")
