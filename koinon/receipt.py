"""Receipts: one audit record, with everything needed to verify it offline from the genesis file alone.

Verification, in the order in which it is done:

1. The receipt is for the chain that this genesis starts.
2. The first validators are those of the genesis. Each header in ``validator_changes`` is signed by more
   than two thirds of the validators trusted so far, and names the hash of the next ones, who are
   trusted from there on.
3. The head is a header of the same chain, signed by more than two thirds of the validators reached.
4. The head commits to the audit log: to its size and its Merkle root.
5. The inclusion path leads from the record's exact bytes, at its index, to that root (RFC 9162).
6. The record says the same index, and a height before the head's, whose root covers only what was executed.

**What it proves**: validators holding more than two thirds of the voting power declared this record final,
at this place in the log. Believing it takes the genesis file from someone you trust, and that at no time
a third of the voting power, or more, signed two histories; validators who left long ago count, as long as
their old keys can sign. No node, network or clock is trusted or used. It does not prove that the log is
complete, or that what people wrote into it is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from koinon import canonical, json_form, merkle
from koinon import genesis as genesis_file
from koinon.errors import Corrupt, InvalidInput
from koinon.files import read_text, write_new
from koinon.limits import MAX_RECEIPT_BYTES
from koinon.v1.audit_pb2 import AuditRecord, Receipt, SignedHeader
from koinon.v1.consensus_pb2 import Header
from koinon.v1.identity_pb2 import Genesis
from koinon.validators import ValidatorSet, verify_commit

FORMAT = "koinon-receipt/1"


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record that was proved, and by what."""

    record: AuditRecord
    chain_id: str
    tree_size: int  # records in the log when it was proved
    height: int  # of the header that proves it
    block_hash: bytes  # of that header
    time_ms: int  # of that header; the record has its own
    signers: tuple[str, ...]  # institutions that signed it
    validator_changes: int  # sets of validators between the genesis and that header


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


def verify(receipt: Receipt, genesis: Genesis) -> VerifiedRecord:
    """Prove a receipt from anywhere, trusting a valid genesis alone. Raises Corrupt, naming the step that failed."""
    # 1. this chain
    chain_id = genesis_file.chain_id(genesis)
    if receipt.genesis_hash != genesis_file.genesis_hash(genesis).hex():
        raise Corrupt(
            f"step 1: the receipt is not for the chain {chain_id}",
            rule="invalid-receipt",
            hint="use the genesis file of the network that issued it",
        )

    # 2. from the first validators to those of the head
    validators_hash = genesis_file.validators(genesis).hash()
    height = 0
    for change in receipt.validator_changes:
        header, _ = _verify_header(2, change, chain_id, validators_hash, height)
        if header.next_validators_hash == validators_hash:
            raise _failed(2, f"block {header.height} changes no validators")
        validators_hash, height = header.next_validators_hash, header.height

    # 3. the head
    head, block_hash = _verify_header(3, receipt.head, chain_id, validators_hash, height)

    # 4. what it says about the log
    if receipt.tree_size != head.audit_size:
        raise _failed(4, f"the log had {head.audit_size} records at block {head.height}, not {receipt.tree_size}")

    # 5. the record is in the log
    leaf = merkle.leaf_hash(receipt.record)
    if not merkle.verify_inclusion(leaf, receipt.index, receipt.tree_size, receipt.path, head.audit_root):
        raise _failed(5, f"the record is not number {receipt.index} under the root of block {head.height}")

    # 6. the record agrees with its place
    try:
        record = AuditRecord.FromString(receipt.record)
    except DecodeError:
        raise _failed(6, "the record is not an audit record of this version") from None
    if record.index != receipt.index:
        raise _failed(6, f"the record says it is number {record.index}, but it is number {receipt.index}")
    if record.height >= head.height:
        raise _failed(6, f"the record is of block {record.height}, which block {head.height} cannot cover")

    return VerifiedRecord(
        record=record,
        chain_id=chain_id,
        tree_size=head.audit_size,
        height=head.height,
        block_hash=block_hash,
        time_ms=head.time_ms,
        signers=tuple(signature.institution for signature in receipt.head.commit.signatures),
        validator_changes=len(receipt.validator_changes),
    )


def _verify_header(
    step: int, signed: SignedHeader, chain_id: str, validators_hash: bytes, after_height: int
) -> tuple[Header, bytes]:
    """The header and its block hash, once the validators with this hash are seen to have signed it. Raises Corrupt."""
    try:
        validators = ValidatorSet.of(signed.validators)
    except InvalidInput as error:
        raise _failed(step, error.message) from error
    if validators.hash() != validators_hash:
        raise _failed(step, "the validators given are not those that the chain names")
    block_hash = canonical.block_hash(signed.header)
    try:
        verify_commit(chain_id, validators, signed.commit, block_hash, signed.commit.height)
    except Corrupt as error:
        raise _failed(step, error.message) from error
    try:  # only now: more than two thirds signed these bytes
        header = Header.FromString(signed.header)
    except DecodeError:
        raise _failed(step, "the signed bytes are not a header of this version") from None
    if header.chain_id != chain_id or header.height != signed.commit.height:
        raise _failed(step, "the header is of another chain or height than its signatures")
    if header.validators_hash != validators_hash:
        raise _failed(step, f"block {header.height} names other validators than those who signed it")
    if header.height <= after_height:
        raise _failed(step, f"block {header.height} does not come after block {after_height}")
    return header, block_hash


def _failed(step: int, problem: str) -> Corrupt:
    return Corrupt(
        f"step {step}: {problem}",
        rule="invalid-receipt",
        hint="the receipt proves nothing: fetch it again, from another member's node",
    )
