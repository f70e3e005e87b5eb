"""How a verified receipt is told, to people and to programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_never

from koinon.display import plain, when
from koinon.receipt import Proof, Verified, VerifiedRecord, VerifiedToken, VerifiedTransaction
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.transaction_pb2 import TransactionStatus
from koinon.words import word

Fact = tuple[str, str]


def as_json(proved: Verified) -> dict[str, Any]:
    """Everything that was proved."""
    common = proof_as_json(proved.proof)
    match proved:
        case VerifiedRecord():
            kind, of = "record", {"record": plain(proved.record), "tree_size": proved.tree_size}
        case VerifiedToken():
            end = plain(proved.end) if proved.end else None
            kind, of = "token", {"granted": plain(proved.granted), "end": end, "tree_size": proved.tree_size}
        case VerifiedTransaction():
            kind = "transaction"
            of = {
                "transaction_id": proved.transaction.id.hex(),
                "sender_key": proved.transaction.sender_key.hex(),
                "body": plain(proved.transaction.body),
                "result": plain(proved.result),
                "transaction_height": proved.height,
                "transaction_time_ms": proved.time_ms,
            }
        case _:
            assert_never(proved)
    return {"verified": True, "kind": kind, **of, **common}


def proof_as_json(proof: Proof, tree_size: int | None = None) -> dict[str, Any]:
    """What proved it."""
    size = {} if tree_size is None else {"tree_size": tree_size}
    return size | {
        "chain_id": proof.chain_id,
        "height": proof.height,
        "block_hash": proof.block_hash.hex(),
        "time_ms": proof.time_ms,
        "signers": list(proof.signers),
        "validator_changes": proof.validator_changes,
    }


def as_facts(proved: Verified) -> list[Fact]:
    """The same for a person; names with empty values are left out by whoever shows them."""
    facts: Iterator[Fact]
    match proved:
        case VerifiedRecord():
            facts = _record(proved.record, proved.tree_size)
        case VerifiedToken():
            facts = _token(proved)
        case VerifiedTransaction():
            facts = _transaction(proved)
        case _:
            assert_never(proved)
    return [*facts, *proof_as_facts(proved.proof)]


def change(record: AuditRecord) -> str:
    """From which state to which."""
    before = "" if record.from_state == record.to_state else record.from_state
    return " → ".join(filter(None, (before, record.to_state)))


def _record(record: AuditRecord, tree_size: int) -> Iterator[Fact]:
    yield "Record", f"number {record.index}, counted from 0; the log had {tree_size}"
    yield "Time", when(record.time_ms)
    yield "Kind", record.kind
    yield "Actor", record.actor
    yield "Subject", record.subject
    yield "Related", ", ".join(record.related)
    yield "Change", change(record)
    yield "Detail", record.detail


def _token(proved: VerifiedToken) -> Iterator[Fact]:
    granted, end = proved.granted, proved.end
    yield "Token", proved.token_id
    yield "Granted", f"{when(granted.time_ms)} by {granted.actor}, record {granted.index}"
    yield "Related", ", ".join(granted.related)
    if end is None:
        yield "Ended", "not shown: no receipt proves that a token was not revoked"
        return
    yield "Ended", f"{when(end.time_ms)} by {end.actor}, record {end.index}: {end.kind}"
    yield "Detail", end.detail


def _transaction(proved: VerifiedTransaction) -> Iterator[Fact]:
    transaction, result = proved.transaction, proved.result
    yield "Transaction", transaction.id.hex()
    yield "Signed with", transaction.sender_key.hex()
    yield "Operations", ", ".join(item.WhichOneof("operation") or "" for item in transaction.body.operations)
    yield "Decided", f"block {proved.height}, {when(proved.time_ms)}"
    yield "Result", word(TransactionStatus, result.status)
    yield "Created", ", ".join(filter(None, result.created))
    if result.HasField("refusal"):
        yield "Refusal", f"{result.refusal.message} [{result.refusal.rule}]"


def proof_as_facts(proof: Proof) -> Iterator[Fact]:
    """What proved it, for a person."""
    yield "Chain", proof.chain_id
    yield "Proved by", f"block {proof.height} ({proof.block_hash.hex()[:16]}…), {when(proof.time_ms)}"
    yield "Signed by", ", ".join(proof.signers)
