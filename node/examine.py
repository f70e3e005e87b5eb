"""What can be verified of a node's ledger without replaying it: all of one that was pruned, or began from a snapshot.

1. Headers lead from the genesis to the last block: each is signed by a quorum of the validators that the kept one
   before it names as next, and neighbours link by hash (``untrusted-header``). None is missing, but of the time before
   the snapshot from which the ledger began (``corrupt``).
2. Blocks are kept whole from some height on without a gap, each the one its header is of (``malformed-block``), and
   the results of their transactions are those that the header after it states (``corrupt``).
3. The audit log is, at the size each kept header states, the one whose root it states: every record that ever was
   appended is there and unchanged (``corrupt``).
4. The state adds up to its commitment. The last header states what the block before it left; what the last block did
   is under no header yet, and is compared with where the node says that it stands (``corrupt``). Transactions that the
   state says were decided lately are known as such.
5. It says what its node had signed, or that there was nothing (``corrupt``): that is a node's own, and nobody's proof.
6. What is left can be read: the store's own checksums hold (``corrupt``).

Not verified: that executing the blocks leads to this state. Validators' signatures say so, two thirds of them by power;
an archive exported before pruning, and replay, prove it. Nothing is believed but the genesis; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from koinon import genesis as genesis_file
from koinon import light_client, merkle
from koinon.envelope import identify
from koinon.errors import Corrupt
from koinon.light_client import TrustedHeader, UntrustedHeader
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.identity_pb2 import Genesis
from node.abci import AppHashes
from node.application import Application, restored_ids
from node.chain import standing
from node.journal import last_signed
from node.ledger import blocks
from node.ledger.audit_log import RECORDS, SIZE, AuditLog
from node.ledger.blocks import ChainState
from node.ledger.lthash import LtHash
from node.restore import batches, began, size_of_entry
from node.store.blocks import BlockStore
from node.store.kv import KeyValueStore
from node.store.validator_history import ValidatorHistory

OnProgress = Callable[[int], None]
"""Called after every header with its height."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A ledger whose parts hold together."""

    chain: ChainState
    headers: int  # kept and proved
    blocks: int  # kept whole, the newest
    records: int  # of the audit log


def examine(genesis: Genesis, store: KeyValueStore, on_progress: OnProgress = lambda _: None) -> Examined:
    """Verify 1 to 6; ``genesis`` is valid, and trusted. Raises Corrupt with height and rule of the first problem."""
    try:
        return _examine(genesis, store, on_progress)
    except (DecodeError, ValueError, OverflowError, LookupError) as error:  # of no form that any version writes
        raise _differs(BlockStore(store).height(), f"what is stored cannot be read ({error})") from error


def _examine(genesis: Genesis, store: KeyValueStore, on_progress: OnProgress) -> Examined:
    application = Application(store, genesis)
    kept = BlockStore(store)
    chain = standing(store, application.chain_id, genesis.time_ms, application.info())
    history = ValidatorHistory(store, genesis_file.validators(genesis))
    _validators(chain, history)
    trusted = light_client.root(genesis)
    headers, whole, first, began_at = 0, 0, kept.first(), began(store)
    results_root = b""  # of the block before, where it is whole
    if began_at >= first:
        raise _differs(began_at, "the ledger says that it began here, and keeps blocks from before")
    for height in kept.heights():
        if height > (due := max(trusted.height + 1, began_at)):  # of the time before a snapshot few are kept
            raise _differs(due, "the block or header, or its certificate, is not there")
        trusted = _header(kept, history, trusted, height, on_the_way=height < began_at)
        headers += 1
        if results_root not in (b"", trusted.header.results_root):
            raise _differs(height - 1, "the results of its transactions are not those that the next header states")
        results_root = b""
        if height >= first:
            results_root = _body(kept, application, trusted)
            whole += 1
        _audit(application, trusted)
        on_progress(height)
    if results_root not in (b"", chain.hashes.results_root):
        raise _differs(chain.height, "the results of its transactions are not those that the block had")
    _state(store, chain)
    _records(store, chain.hashes)
    last_signed(store)
    for _ in store.scan(b""):
        pass
    return Examined(chain, headers, whole, application.audit_log.size)


def _validators(chain: ChainState, history: ValidatorHistory) -> None:
    """Does the chain go on with the validators that are recorded for its heights? Raises Corrupt."""
    sets = {0: chain.last_validators, 1: chain.validators, 2: chain.next_validators}
    for ahead, validators in sets.items():
        if validators is not None and history.at(chain.height + ahead) != validators:
            raise _differs(chain.height, f"other validators are recorded for height {chain.height + ahead}")


def _header(
    kept: BlockStore, history: ValidatorHistory, trusted: TrustedHeader, height: int, *, on_the_way: bool
) -> TrustedHeader:
    """1. The next header that is kept; ``on_the_way`` from the genesis to a snapshot. Raises Corrupt."""
    header, commit = kept.header(height), kept.commit(height)
    if header is None or commit is None:
        raise _differs(height, "the header, or its certificate, is not there")
    validators = history.at(height).to_proto()
    try:
        signed = SignedHeader(header=header, commit=commit, validators=validators)
        found = light_client.advance(trusted, signed, skip=on_the_way, leaving=on_the_way)
    except UntrustedHeader as error:
        raise _differs(height, error.message, error.rule) from error
    if found.height == trusted.height + 1 and found.header.previous_block_hash != trusted.block_hash:
        raise _differs(height, "it does not link to the block before", "untrusted-header")
    return found


def _body(kept: BlockStore, application: Application, trusted: TrustedHeader) -> bytes:
    """2. Is the block kept whole, and the right one? Returns the root of its stored results. Raises Corrupt."""
    data = kept.block(trusted.height)
    if data is None:
        raise _differs(trusted.height, "the block is not there, though earlier ones are")
    try:
        block = blocks.parse(data)
    except blocks.InvalidBlock as error:
        raise _differs(trusted.height, error.message, error.rule) from error
    if block.value.block_hash != trusted.block_hash:
        raise _differs(trusted.height, "the block is another than its header", "malformed-block")
    results = [application.result(identify(envelope)) for envelope in block.transactions]
    leaves = [leaf for height, leaf in filter(None, results) if height == trusted.height]
    if len(leaves) < len(results):
        raise _differs(trusted.height, "the result of a transaction is not there")
    return merkle.root(leaves)


def _audit(application: Application, trusted: TrustedHeader) -> None:
    """3. Raises Corrupt."""
    size = int(trusted.header.audit_size)
    if size > application.audit_log.size or application.audit_log.root_at(size) != trusted.header.audit_root:
        raise _differs(trusted.height, "the audit log is not the one that the header states")


def _records(store: KeyValueStore, hashes: AppHashes) -> None:
    """3, of every record and subtree as they are stored. Raises Corrupt."""
    log = AuditLog(lambda _: None)
    for number, (_, record) in enumerate(store.scan(RECORDS)):
        for key, value in log.append([record]):
            if key != SIZE and store.get(key) != value:
                raise _differs(0, f"the audit log is damaged at record {number}")
    if (log.root(), log.size) != (hashes.audit_root, hashes.audit_size):
        raise _differs(0, "the records of the audit log do not make up its root")


def _state(store: KeyValueStore, chain: ChainState) -> None:
    """4. Raises Corrupt."""
    lthash = LtHash()
    for pairs in batches(store.scan(b"s/"), size_of_entry):
        lthash.update((key, None, value) for key, value in pairs)
        for key, height in restored_ids(pairs):
            if height is not None and not (store.get(key) or b"").startswith(height):
                raise _differs(chain.height, f"the transaction {key[2:].hex()} is not known as decided")
    if lthash.digest() != chain.hashes.state_commitment:
        raise _differs(chain.height, "the state does not add up to its commitment")


def _differs(height: int, problem: str, rule: str = "corrupt") -> Corrupt:
    return Corrupt(
        f"the ledger does not hold together at height {height}: {problem}",
        rule=rule,
        hint="stop the node, then: koinon node repair --home HOME",
    )
