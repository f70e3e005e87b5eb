"""A ledger store made from a snapshot: built aside, compared with the signed header, put in place by a rename.

A crash at any point leaves the old ledger or the new one. What was built half is thrown away; chunks that were
fetched stay, and are used again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from koinon import genesis as genesis_file
from koinon.files import sync
from koinon.v1.identity_pb2 import Genesis
from koinon.validators import ValidatorSet
from node import snapshot
from node.abci import AppHashes, Write
from node.application import Application, restored_ids, restored_standing
from node.chain import CHAIN_KEY
from node.config import Home
from node.ledger.audit_log import AuditLog
from node.ledger.blocks import ChainState
from node.ledger.lthash import LtHash
from node.snapshot import InvalidSnapshot, Plan
from node.store import validator_history
from node.store.blocks import BlockStore
from node.store.kv import KeyValueStore
from node.store.leveldb import LevelStore

_BEGAN_KEY = b"m/began"
_BATCH = 2_000  # entries or records at a time
_BATCH_BYTES = 8 * 1024 * 1024  # of these: whoever makes a snapshot up makes entries as large as a message

T = TypeVar("T")


def build(genesis: Genesis, plan: Plan, chunks: Callable[[int], bytes], store: KeyValueStore) -> ChainState:
    """Fill an empty store with what the ledger holds after the snapshot's block.

    ``plan`` is proved (snapshot.plan); of ``chunks`` each is what it names (Plan.check), and the whole is not trusted.
    After a failure the store is to be thrown away.

    Raises:
        InvalidSnapshot: whoever made the manifest lied.
        KoinonError: of another kind, what ``chunks`` and the store raise: the fault is this node's own.
    """
    header = plan.head.header
    lthash, audit_log = LtHash(), AuditLog(lambda _: None)
    for pairs in batches(snapshot.entries(plan, chunks), size_of_entry):
        lthash.update((key, None, value) for key, value in pairs)
        store.write([*pairs, *restored_ids(pairs)], sync=False)
    for records in batches(snapshot.records(plan, chunks), len):
        store.write(audit_log.append(records), sync=False)
    snapshot.compare(header, lthash.digest(), audit_log.root(), audit_log.size)

    writes: list[Write] = []
    blocks = BlockStore(store)
    for signed in plan.signed:
        writes += blocks.header_writes(int(signed.commit.height), signed.header, signed.commit)
    sets = plan.validator_sets(genesis_file.validators(genesis))
    writes += [validator_history.entry(height, validators) for height, validators in sets.items()]
    last = plan.last.header
    writes.append(restored_standing(genesis, plan.height, last.time_ms, header.results_root, lthash))
    store.write(writes, sync=True)

    next_validators = ValidatorSet.of(Application(store, genesis).info().validators)
    if next_validators.hash() != header.next_validators_hash:
        raise InvalidSnapshot("the state names other validators than the header states")
    hashes = AppHashes(header.results_root, header.state_commitment, header.audit_root, int(header.audit_size))
    chain = ChainState(
        chain_id=header.chain_id,
        height=plan.height,
        time_ms=last.time_ms,
        block_hash=plan.last.block_hash,
        hashes=hashes,
        last_validators=plan.last.validators,
        validators=plan.head.validators,
        next_validators=next_validators,
    )
    store.write([(CHAIN_KEY, chain.to_bytes()), (_BEGAN_KEY, plan.height.to_bytes(8, "big"))], sync=True)
    return chain


def began(store: KeyValueStore) -> int:
    """The height of the snapshot that a ledger began from, since when no header is missing; 0 for the genesis."""
    return int.from_bytes(store.get(_BEGAN_KEY) or b"", "big")


def build_aside(home: Home, genesis: Genesis, plan: Plan, chunks: Callable[[int], bytes]) -> None:
    """Build the store beside the present ledger, for ``put_in_place``. Raises as ``build``."""
    shutil.rmtree(home.ledger_building, ignore_errors=True)
    try:
        with closing(LevelStore(home.ledger_building)) as store:
            build(genesis, plan, chunks, store)
    except BaseException:
        shutil.rmtree(home.ledger_building, ignore_errors=True)
        raise
    shutil.rmtree(home.ledger_restored, ignore_errors=True)
    _rename(home.ledger_building, home.ledger_restored)


def put_in_place(home: Home) -> bool:
    """Before a ledger is opened: replace it by a restored one, if there is one; returns whether there was.

    One that is not whole any more takes nothing's place.
    """
    shutil.rmtree(home.ledger_building, ignore_errors=True)
    if not (home.ledger_restored / "CURRENT").is_file():  # without it LevelDB takes the directory for a new store
        shutil.rmtree(home.ledger_restored, ignore_errors=True)
        return False
    for path in (home.chunks, home.ledger):  # a crash here is no loss: the restored one is whole
        shutil.rmtree(path, ignore_errors=True)
    _rename(home.ledger_restored, home.ledger)  # last: nothing would come back to what is left
    return True


def _rename(source: Path, target: Path) -> None:
    """Atomic, and on disk once this returns."""
    source.rename(target)
    sync(target.parent)


def batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Some thousands at a time, or some megabytes of them, in order; ``size`` in bytes."""
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        if len(batch) == _BATCH or total >= _BATCH_BYTES:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def size_of_entry(entry: tuple[bytes, bytes]) -> int:
    """Bytes of a key and its value."""
    key, value = entry
    return len(key) + len(value)
