"""Receipts: something on the ledger, with all it takes to verify it offline from the genesis file alone.

A receipt is of one of three kinds: an audit **record**; a **transaction**, with its result; a **token**, by
the record that granted it and, once it ended, the record of that. Verification, in the order in which it is done:

1. The receipt is for the chain that this genesis starts, and holds what its kind says and nothing else.
2. The first validators are those of the genesis. Each header in ``validator_changes`` is the last of its validators: it
   is signed by more than two thirds of them, and names the hash of the next ones, who are trusted from there on. The
   validators before it name them, or more than a third of these vouch for them: they signed it, too
   (koinon.light_client, ``lead``).
3. The head is a header of the same chain, signed by more than two thirds of the validators reached.

Of a record or a token:

4. The head commits to the audit log: to its size and its Merkle root.
5. The inclusion path leads from the record's exact bytes, at its index, to that root (RFC 9162).
6. The record says the same index, and a height before the head's, whose root covers only what was executed. For a
   token, it is the one that granted it.
7. The end of a token, if there is one, stands as 5 and 6 say in the same log, after the grant, for the same token.

Of a transaction:

4. The header given is that of the block before the head: the head names its hash.
5. The inclusion path leads from the envelope's exact bytes to that header's ``transactions_root``.
6. The same place in the head's ``results_root`` holds the result.
7. The envelope is signed, for this chain; and the result names this transaction.

**What it proves**: validators holding more than two thirds of the voting power declared this final. Believing it takes
the genesis file from someone you trust, and that at no time a third of the voting power, or more, signed two
histories; validators who left long ago count, as long as their old keys can sign. No node, network or clock
is trusted or used.

**What it does not prove**: that the log is complete, or that what people wrote into it is true. Above all, *that a
token was not revoked*: a receipt without an end says only that whoever made it showed none.

Byte by byte in docs/receipts.md. Receipts from before there were kinds have none, and are of a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from google.protobuf.message import DecodeError

from koinon import canonical, envelope, json_form, light_client, merkle
from koinon import genesis as genesis_file
from koinon.envelope import InvalidTransaction, SignedTransaction
from koinon.errors import Corrupt
from koinon.files import read_text, write_new
from koinon.light_client import UntrustedHeader
from koinon.limits import MAX_BLOCK_TRANSACTIONS, MAX_RECEIPT_BYTES
from koinon.v1.audit_pb2 import (
    RECEIPT_KIND_RECORD,
    RECEIPT_KIND_TOKEN,
    RECEIPT_KIND_TRANSACTION,
    RECEIPT_KIND_UNSPECIFIED,
    AuditRecord,
    ProvedRecords,
    Receipt,
    ReceiptKind,
    SignedHeader,
)
from koinon.v1.consensus_pb2 import Header
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.transaction_pb2 import TransactionResult

FORMAT = "koinon-receipt/1"

TOKEN_ENDS = ("token.revoked", "token.expired", "token.used_up")
"""Kinds of the record that ends a token."""

_RECORD_FIELDS = ("record", "index", "tree_size", "path")
_FOREIGN: dict[ReceiptKind.ValueType, tuple[str, ...]] = {
    RECEIPT_KIND_UNSPECIFIED: ("transaction", "end"),
    RECEIPT_KIND_RECORD: ("transaction", "end"),
    RECEIPT_KIND_TRANSACTION: (*_RECORD_FIELDS, "end"),
    RECEIPT_KIND_TOKEN: ("transaction",),
}
"""What a receipt of each kind must not hold: nobody may take for verified what nothing looked at."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What proved it: the head of a receipt."""

    chain_id: str
    height: int
    block_hash: bytes
    time_ms: int
    signers: tuple[str, ...]  # institutions that signed it
    validator_changes: int  # changes of validators on the way from the genesis to the head; others are skipped


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record that was proved."""

    record: AuditRecord
    tree_size: int  # records in the log when it was proved
    proof: Proof


@dataclass(frozen=True, slots=True)
class VerifiedTransaction:
    """A transaction that was proved to be final, and what became of it. Whose key signed it, the ledger says."""

    transaction: SignedTransaction
    result: TransactionResult
    height: int  # of its block
    time_ms: int  # of its block
    proof: Proof


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that was proved to be granted. Without ``end`` nothing is known of how, or whether, it ended."""

    granted: AuditRecord
    end: AuditRecord | None
    tree_size: int  # records in the log when it was proved
    proof: Proof

    @property
    def token_id(self) -> str:
        return self.granted.subject.removeprefix("token:")


@dataclass(frozen=True, slots=True)
class VerifiedRecords:
    """Records of one log, ascending, that were proved under one head."""

    records: tuple[AuditRecord, ...]
    proof: Proof


Verified = VerifiedRecord | VerifiedTransaction | VerifiedToken


def load(path: Path) -> Receipt:
    """Read a receipt file, unverified. Raises InvalidFile."""
    return parse(read_text(path, "receipt", MAX_RECEIPT_BYTES))


def save(path: Path, receipt: Receipt) -> None:
    """Write a receipt to a new file. Raises InvalidFile or Exhausted."""
    write_new(path, render(receipt), "receipt")


def render(receipt: Receipt) -> str:
    """The receipt as JSON."""
    return json_form.render(receipt, FORMAT)


def parse(text: str) -> Receipt:
    """The receipt of a JSON text from anywhere, unverified. Raises InvalidFile."""
    return json_form.parse(text, Receipt, FORMAT, "receipt")


def verify_records(proved: ProvedRecords, genesis: Genesis) -> VerifiedRecords:
    """Prove records from anywhere that share a head, trusting a valid genesis alone: each as ``verify`` would.

    Raises Corrupt, naming the step that failed.
    """
    chain_id = _check_chain(proved.genesis_hash, genesis)
    head, proof = _verify_head(chain_id, genesis, proved.validator_changes, proved.head)
    _check_size(proved.tree_size, head)
    records = tuple(_verify_record(5, 6, item.record, item.index, item.path, head) for item in proved.records)
    if any(before.index >= after.index for before, after in pairwise(records)):
        raise _failed(5, "the records are not in the order of the log, or one is there twice")
    return VerifiedRecords(records, proof)


def single(proved: ProvedRecords, position: int) -> Receipt:
    """The receipt of one of several records, to be handed on alone."""
    item = proved.records[position]
    return Receipt(
        kind=RECEIPT_KIND_RECORD,
        genesis_hash=proved.genesis_hash,
        head=proved.head,
        validator_changes=proved.validator_changes,
        tree_size=proved.tree_size,
        record=item.record,
        index=item.index,
        path=item.path,
    )


def verify(receipt: Receipt, genesis: Genesis) -> Verified:
    """Prove a receipt from anywhere, trusting a valid genesis alone. Raises Corrupt, naming the step that failed."""
    # 1. this chain, this kind
    chain_id = _check_chain(receipt.genesis_hash, genesis)
    if receipt.kind not in _FOREIGN:
        raise _failed(1, f"receipts of kind {receipt.kind} are not known to this version")
    present = {field.name for field, _ in receipt.ListFields()}
    if foreign := present.intersection(_FOREIGN[receipt.kind]):
        raise _failed(1, f"a receipt of its kind holds no {min(foreign)!r}")

    # 2. and 3. from the first validators to the head
    head, proof = _verify_head(chain_id, genesis, receipt.validator_changes, receipt.head)
    match receipt.kind:
        case ReceiptKind.RECEIPT_KIND_TRANSACTION:
            return _verify_transaction(receipt, head, proof)
        case ReceiptKind.RECEIPT_KIND_TOKEN:
            return _verify_token(receipt, head, proof)
        case _:
            return VerifiedRecord(_verify_first_record(receipt, head), head.audit_size, proof)


# --- records and tokens


def _verify_first_record(receipt: Receipt, head: Header) -> AuditRecord:
    """Steps 4 to 6."""
    _check_size(receipt.tree_size, head)
    return _verify_record(5, 6, receipt.record, receipt.index, receipt.path, head)


def _verify_record(place: int, sense: int, data: bytes, index: int, path: Sequence[bytes], head: Header) -> AuditRecord:
    """The record at this place in the head's log. Fails as step ``place``, or ``sense`` where the place is right."""
    if not merkle.verify_inclusion(merkle.leaf_hash(data), index, head.audit_size, path, head.audit_root):
        raise _failed(place, f"the record is not number {index} under the root of block {head.height}")
    try:
        record = AuditRecord.FromString(data)
    except DecodeError:
        raise _failed(sense, "the record is not an audit record of this version") from None
    if record.index != index:
        raise _failed(sense, f"the record says it is number {record.index}, but it is number {index}")
    if record.height >= head.height:
        raise _failed(sense, f"the record is of block {record.height}, which block {head.height} cannot cover")
    return record


def _verify_token(receipt: Receipt, head: Header, proof: Proof) -> VerifiedToken:
    granted = _verify_first_record(receipt, head)
    if granted.kind != "token.granted" or not granted.subject.startswith("token:"):
        raise _failed(6, f"the record is of {granted.kind!r} and grants no token")
    end = None
    if receipt.HasField("end"):
        end = _verify_record(7, 7, receipt.end.record, receipt.end.index, receipt.end.path, head)
        if end.subject != granted.subject:
            raise _failed(7, f"the second record is about {end.subject!r}, not about {granted.subject!r}")
        if end.kind not in TOKEN_ENDS or end.index <= granted.index:
            raise _failed(7, f"the second record, {end.kind!r}, ends no token")
    return VerifiedToken(granted, end, head.audit_size, proof)


# --- transactions


def _verify_transaction(receipt: Receipt, head: Header, proof: Proof) -> VerifiedTransaction:
    claimed = receipt.transaction
    # 4. its block
    if canonical.block_hash(claimed.header) != head.previous_block_hash:
        raise _failed(4, f"the header given is not that of the block before block {head.height}")
    try:
        header = Header.FromString(claimed.header)
    except DecodeError:
        raise _failed(4, "the header given is not a header of this version") from None

    # 5. it is in the block. The size is not in any header; it cannot move a leaf, and the two trees are of one shape.
    index, size = claimed.index, claimed.size
    leaf = merkle.leaf_hash(claimed.envelope)
    if size > MAX_BLOCK_TRANSACTIONS or not merkle.verify_inclusion(
        leaf, index, size, claimed.path, header.transactions_root
    ):
        raise _failed(5, f"the transaction is not number {index} of {size} in block {header.height}")

    # 6. its result
    leaf = merkle.leaf_hash(claimed.result)
    if not merkle.verify_inclusion(leaf, index, size, claimed.result_path, head.results_root):
        raise _failed(6, f"the result is not number {index} of {size} of what block {head.height} says about the last")
    try:
        result = TransactionResult.FromString(claimed.result)
    except DecodeError:
        raise _failed(6, "the result is not one of this version") from None

    # 7. both are of one transaction
    try:
        transaction = envelope.verify(proof.chain_id, claimed.envelope)
    except InvalidTransaction as error:
        raise _failed(7, error.message) from error
    if result.transaction_id != transaction.id:
        raise _failed(7, "the result is that of another transaction")
    return VerifiedTransaction(transaction, result, int(header.height), header.time_ms, proof)


# --- every kind


def _check_chain(claimed: str, genesis: Genesis) -> str:
    """Step 1: the id of the chain, which is the one claimed."""
    chain_id = genesis_file.chain_id(genesis)
    if claimed != genesis_file.genesis_hash(genesis).hex():
        raise Corrupt(
            f"step 1: the receipt is not for the chain {chain_id}",
            rule="invalid-receipt",
            hint="use the genesis file of the network that issued it",
        )
    return chain_id


def _verify_head(
    chain_id: str, genesis: Genesis, changes: Sequence[SignedHeader], signed: SignedHeader
) -> tuple[Header, Proof]:
    """Steps 2 and 3."""
    # 2. from the first validators to those of the head
    try:
        trusted = light_client.lead(light_client.root(genesis), changes)
    except UntrustedHeader as error:
        raise _failed(2, error.message) from error

    # 3. the head
    try:
        head = light_client.advance(trusted, signed, skip=False)
    except UntrustedHeader as error:
        raise _failed(3, error.message) from error
    proof = Proof(
        chain_id=chain_id,
        height=head.height,
        block_hash=head.block_hash,
        time_ms=head.header.time_ms,
        signers=head.signers,
        validator_changes=len(changes),
    )
    return head.header, proof


def _check_size(claimed: int, head: Header) -> None:
    """Step 4."""
    if claimed != head.audit_size:
        raise _failed(4, f"the log had {head.audit_size} records at block {head.height}, not {claimed}")


def _failed(step: int, problem: str) -> Corrupt:
    return Corrupt(
        f"step {step}: {problem}",
        rule="invalid-receipt",
        hint="the receipt proves nothing: fetch it again, from another member's node",
    )
