"""The application that consensus drives: transactions in, the replicated state and its proofs out.

Implements ``node.abci.Application`` over a key-value store. Blocks and consensus are not its business;
what transactions mean is in ``node.contracts``. Here: admission, execution all or none, and what a block
leaves behind.

==========================  ==============================================================
key                         value
==========================  ==============================================================
``s/`` …                    state (``node.contracts.tables``), under the state commitment
``l/`` …                    audit log (``node.ledger.audit_log``)
``t/`` transaction id       height (8 bytes), TransactionResult: of every transaction decided; a node that joined by a
                            snapshot has the height alone of those before it that have not expired
``m/application``           where the application stands (``_Standing``)
==========================  ==============================================================
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import NamedTuple

from google.protobuf.message import DecodeError

from koinon import genesis as genesis_file
from koinon import merkle
from koinon.envelope import InvalidTransaction, SignedTransaction
from koinon.errors import InvalidFile, InvalidInput, KoinonError, Refused
from koinon.limits import (
    MAX_BLOCK_OPERATIONS,
    MAX_BLOCK_TRANSACTIONS,
    MAX_EXPIRY_MS,
    MAX_REFUSAL,
)
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.governance_pb2 import Propose
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.services_pb2 import TransactionInfo
from koinon.v1.transaction_pb2 import (
    TRANSACTION_STATUS_COMMITTED,
    TRANSACTION_STATUS_REJECTED,
    Refusal,
    TransactionResult,
)
from node.abci import AppHashes, AppInfo, DecidedBlock, Finalized, Write
from node.contracts import departure, genesis, governance, keys, membership, tables, upgrades
from node.contracts.context import REFUSALS, THE_LEDGER, Context, sender_of
from node.contracts.operations import end_block, execute, record_evidence
from node.contracts.reads import Reads
from node.damage import damaged
from node.ledger.audit_log import AuditLog
from node.ledger.lthash import STATE_BYTES, LtHash
from node.ledger.state import State
from node.recent_ids import RecentIds
from node.store.kv import KeyValueStore
from node.verified import VerifiedTransactions

_STANDING = b"m/application"
_STANDING_FORMAT = f">32sQq32s{STATE_BYTES}s"
_TRANSACTIONS = b"t/"
_SENDERS = 10_000  # remembered until somebody's key changes: everyone's transactions ask for theirs


class _Standing(NamedTuple):
    """What the application must know again after a restart."""

    genesis_hash: bytes
    height: int
    time_ms: int  # of the last block; the genesis' at height 0
    results_root: bytes
    lthash: bytes

    def to_bytes(self) -> bytes:
        return struct.pack(_STANDING_FORMAT, *self)

    @classmethod
    def from_bytes(cls, data: bytes) -> _Standing:
        """Raises Corrupt."""
        if len(data) != struct.calcsize(_STANDING_FORMAT):
            raise damaged("the ledger does not say where the application stands")
        return cls(*struct.unpack(_STANDING_FORMAT, data))


@dataclass(slots=True)
class _Selection:
    """What a block that is being put together, or checked, holds so far."""

    ids: set[bytes] = field(default_factory=set)
    operations: int = 0


class Application(Reads):
    """See node.abci.Application; and Reads, for questions about the last committed state.

    Single-threaded. No method that takes outside data raises on it, except the typed reads (NotFound).
    """

    def __init__(self, store: KeyValueStore, initial: Genesis) -> None:
        """Continue where the store stands; an empty one receives the genesis state (height 0) at once.

        Raises InvalidFile when the store belongs to another chain, Corrupt when it is damaged.
        """
        self._store = store
        self._identities_change = False  # by the block finalised last
        super().__init__(State(store.get, store.scan))
        self._sender = lru_cache(_SENDERS)(partial(sender_of, self._state))  # of committed keys
        self.chain_id = genesis_file.chain_id(initial)
        self._genesis_hash = genesis_file.genesis_hash(initial)
        self._validators = self._next_validators = genesis_file.validators(initial)
        self._admitted: tuple[int, int, tuple[bytes, ...]] | None = None  # a proposal's height, time and transactions
        self._decided: Collection[bytes] = ()  # ids, by the block finalised last
        self._recent: tuple[int, Sequence[AuditRecord]] = (0, ())  # index of the first, and the last block's records
        self.verified = VerifiedTransactions(self.chain_id)
        self.audit_log = AuditLog(store.get)
        data = store.get(_STANDING)
        if data is None and next(store.scan(tables.STATE), None) is None:
            self._lthash, self._recent_ids = LtHash(), RecentIds(initial.time_ms)
            self._found(initial)
            return
        standing = _Standing.from_bytes(data or b"")
        if standing.genesis_hash != self._genesis_hash:
            raise InvalidFile(
                "the ledger on this disk started from another genesis file",
                rule="invalid-genesis",
                hint="use the genesis file this node was started with, or another home directory",
            )
        self._lthash, self._recent_ids = LtHash.from_bytes(standing.lthash), RecentIds(standing.time_ms)
        for ids in tables.SEEN.all(self._state):
            self._recent_ids.add(ids, standing.time_ms)
        self._pending = standing
        try:
            self._next_validators = membership.validators(self._new_state())
        except (DecodeError, InvalidInput) as error:
            raise damaged(f"the ledger does not say any more who votes ({error})") from error
        self.commit()

    def _found(self, initial: Genesis) -> None:
        """Write height 0."""
        context = Context(self._new_state(), 0, initial.time_ms, 0, initial.parameters)
        genesis.apply(context, initial)
        self._store.write(self._settle(context, merkle.EMPTY_ROOT), sync=True)
        self.commit()

    # --- node.abci.Application

    def info(self) -> AppInfo:
        return AppInfo(self._standing.height, self._hashes, self._validators.to_proto())

    def check_tx(self, envelope: bytes) -> Refusal | None:
        try:
            transaction = self.verified.verify(envelope)
        except InvalidTransaction as error:
            return error.refusal
        return self.check_verified(transaction)

    def check_verified(self, transaction: SignedTransaction, clock_ms: int = 0) -> Refusal | None:
        """``check_tx`` for an envelope that was verified, by ``verified`` on a thread.

        ``clock_ms`` is the caller's clock, if it has one: after a standstill the last block's time is long past, and
        what its clock finds near enough waits in the pool for the first block whose time has caught up.
        """
        time_ms = self._standing.time_ms
        try:
            self._admit(transaction, time_ms, max(time_ms, clock_ms))
            self._sender(transaction.sender_key)
        except REFUSALS as error:
            return _refusal(error)
        return None

    def prepare_proposal(self, height: int, time_ms: int, candidates: Sequence[bytes], max_bytes: int) -> list[bytes]:
        chosen: list[bytes] = []
        selection = _Selection()
        for envelope in candidates:
            if len(envelope) > max_bytes:
                break
            try:
                self._select(selection, envelope, time_ms)
            except REFUSALS:
                continue  # it stays in the pool for a later block, or until it expires
            max_bytes -= len(envelope)
            chosen.append(envelope)
        return chosen

    def process_proposal(self, height: int, time_ms: int, transactions: Sequence[bytes]) -> Refusal | None:
        selection = _Selection()
        try:
            for envelope in transactions:
                self._select(selection, envelope, time_ms)
        except REFUSALS as error:
            return _refusal(error)
        self._admitted = height, time_ms, tuple(transactions)
        return None

    def finalize_block(self, block: DecidedBlock) -> Finalized:
        self.check_protocol()
        context = Context(
            self._new_state(),
            block.height,
            block.time_ms,
            self.audit_log.size,
            self.parameters(),
            validators=self._validators,
            chain_id=self.chain_id,
        )
        membership.note_signs_of_life(context, (*block.signers, block.proposer))
        for evidence in block.evidence:  # first, so that no change of members in a transaction is in its way
            record_evidence(context, evidence)
        results: list[TransactionResult] = []
        leaves: list[bytes] = []
        decided: dict[bytes, int] = {}  # expiry by id
        index: list[Write] = []
        admitted = self._admitted == (block.height, block.time_ms, block.transactions)
        for envelope in block.transactions:
            result = self._execute(context, envelope, decided, admitted=admitted)
            leaf = result.SerializeToString(deterministic=True)
            results.append(result)
            leaves.append(leaf)
            if len(index) < len(decided):  # else the id is not this block's to decide: it may be a replay
                index.append((_TRANSACTIONS + result.transaction_id, block.height.to_bytes(8, "big") + leaf))
        self._decided = decided.keys()
        if decided:
            tables.SEEN.put(context.state, max(decided.values()), block.height, decided)
        context.transaction_id, context.sender = b"", THE_LEDGER
        end_block(context)
        writes = self._settle(context, merkle.root(leaves))
        self._recent = context.first_index, context.records
        if self._identities_change:
            self._next_validators = membership.validators(context.state)
        return Finalized(
            height=block.height,
            results=tuple(results),
            hashes=self._app_hashes(self._pending),
            validators=self._next_validators.to_proto(),
            writes=(*writes, *index),
            records=tuple(context.records),
        )

    def commit(self) -> None:
        if self._identities_change:
            self._sender.cache_clear()
            self._identities_change = False
        self._standing = self._pending
        self._recent_ids.add(self._decided, self._standing.time_ms)
        self._admitted, self._decided = None, ()
        self._validators = self._next_validators
        self._hashes = self._app_hashes(self._standing)

    def validator_key(self, institution: str, height: int) -> bytes | None:
        return keys.validator_key(self._state, institution, height)

    # --- questions about what was decided; for those about the state see Reads

    @property
    def time_ms(self) -> int:
        """Time of the last committed block."""
        return self._standing.time_ms

    def result(self, transaction_id: bytes) -> tuple[int, bytes] | None:
        """Height and serialised result, a leaf of the next header's results_root, of a decided transaction.

        None if no block has decided it, or one that this node has not executed.
        """
        data = self._store.get(_TRANSACTIONS + transaction_id) or b""
        return (int.from_bytes(data[:8], "big"), data[8:]) if len(data) > 8 else None

    def transaction(self, transaction_id: bytes) -> TransactionInfo | None:
        """What became of a transaction; None while no block has decided it."""
        found = self.result(transaction_id)
        if found is None:
            return None
        height, data = found
        result = TransactionResult.FromString(data)
        return TransactionInfo(
            transaction_id=transaction_id,
            status=result.status,
            refusal=result.refusal if result.HasField("refusal") else None,
            height=height,
            created=result.created,
        )

    def check_protocol(self) -> None:
        """Does this node know the protocol of the next block? Raises Unavailable with rule ``upgrade-needed``."""
        upgrades.check(self._state, self._standing.height + 1)

    def preview(self, proposal: Propose) -> tuple[list[str], Refusal | None]:
        """What executing a proposal of valid form in the next block would change, or why it would fail."""
        effects, error = governance.preview(self._preview_context(), proposal)
        return effects, None if error is None else _refusal(error)

    def preview_notice(self, institution: str, height: int) -> tuple[list[str], Refusal | None]:
        """What would change if this institution left at a height, and why it may not give notice of it now, if so.

        Raises NotFound.
        """
        context = self._preview_context()
        effects = departure.effects(context.state, institution, height)
        try:
            departure.check_notice(context, institution, height)
        except REFUSALS as error:
            return effects, _refusal(error)
        return effects, None

    def _preview_context(self) -> Context:
        """Of the next block, on a view that is thrown away."""
        return Context(
            self._new_state(),
            self._standing.height + 1,
            self._standing.time_ms,
            self.audit_log.size,
            self.parameters(),
            validators=self._validators,
            chain_id=self.chain_id,
        )

    def record(self, index: int) -> AuditRecord | None:
        """An audit record; None beyond the end. Proofs come from ``audit_log``."""
        first, records = self._recent
        if 0 <= index - first < len(records):  # what every index of the log asks for after every block
            return records[index - first]
        data = self.audit_log.record(index)
        return None if data is None else AuditRecord.FromString(data)

    # --- state

    def _new_state(self) -> State:
        """A view of what is committed, to be changed by one block; it reads nothing from the store twice."""
        return State(cache(self._store.get), self._store.scan)

    # --- execution

    def _execute(
        self, context: Context, envelope: bytes, decided: dict[bytes, int], *, admitted: bool
    ) -> TransactionResult:
        """Apply one transaction, all or none; if it is admitted at all, its id and expiry are added to ``decided``.

        ``admitted``: it was, with all others of this very block, on the state on which it is executed.
        """
        state = context.state
        try:
            transaction = self.verified.verify(envelope)
        except InvalidTransaction as error:
            return _rejected(b"", error)
        self.verified.forget(envelope)
        try:
            if transaction.id in decided:
                raise _replayed(transaction.id)
            if not admitted:
                self._admit(transaction, context.time_ms)
        except REFUSALS as error:
            return _rejected(transaction.id, error)
        decided[transaction.id] = transaction.body.expires_at_ms  # also of who was suspended in this very block
        try:
            context.sender = sender_of(state, transaction.sender_key)
        except REFUSALS as error:
            return _rejected(transaction.id, error)
        context.transaction_id, context.max_fee = transaction.id, transaction.body.max_fee
        records = len(context.records)
        state.savepoint()
        try:
            created = [execute(context, index, item) for index, item in enumerate(transaction.body.operations[:])]
        except REFUSALS as error:
            state.rollback()
            del context.records[records:]
            return _rejected(transaction.id, error)
        state.release()
        return TransactionResult(transaction_id=transaction.id, status=TRANSACTION_STATUS_COMMITTED, created=created)

    def _settle(self, context: Context, results_root: bytes) -> list[Write]:
        """Bring commitment and audit log up to the context's state; what to write for it."""
        changes = context.state.changes()
        self._identities_change = any(key.startswith(tables.IDENTITY) for key, _, _ in changes)
        self._lthash.update(changes)
        writes: list[Write] = [(key, after) for key, _, after in changes]
        writes += self.audit_log.append(record.SerializeToString(deterministic=True) for record in context.records)
        self._pending = _Standing(
            self._genesis_hash, context.height, context.time_ms, results_root, self._lthash.to_bytes()
        )
        writes.append((_STANDING, self._pending.to_bytes()))
        return writes

    def _app_hashes(self, standing: _Standing) -> AppHashes:
        return AppHashes(
            results_root=standing.results_root,
            state_commitment=self._lthash.digest(),
            audit_root=self.audit_log.root(),
            audit_size=self.audit_log.size,
        )

    def _select(self, selection: _Selection, envelope: bytes, time_ms: int) -> None:
        """Let a transaction into a block. Raises InvalidTransaction, Unauthenticated or Refused."""
        transaction = self.verified.verify(envelope)
        operations = selection.operations + len(transaction.body.operations)
        if len(selection.ids) >= MAX_BLOCK_TRANSACTIONS or operations > MAX_BLOCK_OPERATIONS:
            raise Refused("the block is full", rule="oversized-block", hint="the transaction waits for the next one")
        if transaction.id in selection.ids:
            raise _replayed(transaction.id)
        self._admit(transaction, time_ms)
        self._sender(transaction.sender_key)
        selection.ids.add(transaction.id)
        selection.operations = operations

    def _admit(self, transaction: SignedTransaction, time_ms: int, latest_ms: int | None = None) -> None:
        """May a block of this time hold the transaction, if its sender may send it?

        With ``latest_ms``: may a block of some time between the two?

        Raises Refused with rule ``transaction-expired``, ``expiry-too-far`` or ``replayed-transaction``.
        """
        expires_at_ms = transaction.body.expires_at_ms
        if expires_at_ms <= time_ms:
            raise Refused(
                f"the transaction expired {time_ms - expires_at_ms} ms before the block",
                rule="transaction-expired",
                hint="sign it again; if this repeats, compare the clock of this machine with the ledger's time",
            )
        if expires_at_ms > (latest_ms or time_ms) + MAX_EXPIRY_MS:
            raise Refused(
                f"the transaction expires {expires_at_ms - time_ms} ms after the ledger's time, "
                f"more than {MAX_EXPIRY_MS}",
                rule="expiry-too-far",
                hint="compare the clock of this machine with the ledger's time; then sign it again",
            )
        if self._recent_ids.may_have(transaction.id) and self._store.get(_TRANSACTIONS + transaction.id) is not None:
            raise _replayed(transaction.id)


def restored_standing(initial: Genesis, height: int, time_ms: int, results_root: bytes, lthash: LtHash) -> Write:
    """Where an application stands whose state and audit log came from a snapshot (node.restore), for its store."""
    standing = _Standing(genesis_file.genesis_hash(initial), height, time_ms, results_root, lthash.to_bytes())
    return _STANDING, standing.to_bytes()


def restored_ids(entries: Iterable[tuple[bytes, bytes]]) -> list[Write]:
    """Which transactions were decided before a snapshot, as these entries of its state say: none is decided again."""
    found = (tables.SEEN.read(key, value) for key, value in entries)
    return [(_TRANSACTIONS + item, seen[0].to_bytes(8, "big")) for seen in found if seen for item in seen[1]]


def _replayed(transaction_id: bytes) -> Refused:
    return Refused(
        f"transaction {transaction_id.hex()} was included before",
        rule="replayed-transaction",
        hint="ask for its status; to repeat the action sign a new transaction",
    )


def _rejected(transaction_id: bytes, error: KoinonError) -> TransactionResult:
    return TransactionResult(transaction_id=transaction_id, status=TRANSACTION_STATUS_REJECTED, refusal=_refusal(error))


def _refusal(error: KoinonError) -> Refusal:
    return Refusal(rule=error.rule, message=error.message[:MAX_REFUSAL], hint=error.hint[:MAX_REFUSAL])
