"""The boundary between consensus and application, in ABCI 2.0's names and semantics.

Consensus decides an order of opaque transactions; the application gives them meaning. The embedded
engine calls these methods in process; a consortium that outgrows it can put CometBFT in front of the
same application. The grammar of calls, after a start at height h:

    info (check_tx | prepare_proposal | process_proposal)* finalize_block commit   -> at height h + 1

``finalize_block`` and ``commit`` come once per height, strictly ascending, with no other call between
them. What block h did becomes visible in the header of block h + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.consensus_pb2 import Evidence, Validator
from koinon.v1.transaction_pb2 import Refusal, TransactionResult

Write = tuple[bytes, bytes | None]
"""A key and its new value; None deletes."""


@dataclass(frozen=True, slots=True)
class AppHashes:
    """What the next header says about everything executed so far."""

    results_root: bytes
    state_commitment: bytes
    audit_root: bytes
    audit_size: int


@dataclass(frozen=True, slots=True)
class AppInfo:
    """Where the application stands; height 0 is the state made by the genesis alone."""

    height: int
    hashes: AppHashes
    validators: tuple[Validator, ...]  # ascending by institution; who votes on height + 2, as this state has it


@dataclass(frozen=True, slots=True)
class DecidedBlock:
    """A block that consensus decided, verified against its commit certificate."""

    height: int
    time_ms: int
    block_hash: bytes
    proposer: str
    transactions: tuple[bytes, ...]  # serialised Envelopes
    evidence: tuple[Evidence, ...] = ()
    signers: tuple[str, ...] = ()  # of the certificate for the block before


@dataclass(frozen=True)
class Finalized:
    """Effects of one block, not yet visible: ``writes`` go to disk with the block, in one synced batch."""

    height: int
    results: tuple[TransactionResult, ...]
    hashes: AppHashes
    validators: tuple[Validator, ...]  # from height + 2 on (ABCI's delay); unchanged most of the time
    writes: tuple[Write, ...]
    records: tuple[AuditRecord, ...] = field(default=())

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Of the records: of thousands few are of another kind than the rest."""
        return frozenset(record.kind for record in self.records)


class Application(Protocol):
    """Deterministic, synchronous, single-threaded. No method raises on outside data."""

    def info(self) -> AppInfo: ...

    def check_tx(self, envelope: bytes) -> Refusal | None:
        """May this enter the pool? Verifies the signature; None admits it. Called for each new envelope."""
        ...

    def prepare_proposal(self, height: int, time_ms: int, candidates: Sequence[bytes], max_bytes: int) -> list[bytes]:
        """Choose transactions for a block, in order; drops those expired or seen. Each candidate passed check_tx."""
        ...

    def process_proposal(self, height: int, time_ms: int, transactions: Sequence[bytes]) -> Refusal | None:
        """Would an honest proposer have proposed these? Every signature is verified (once per envelope)."""
        ...

    def finalize_block(self, block: DecidedBlock) -> Finalized: ...

    def validator_key(self, institution: str, height: int) -> bytes | None:
        """With which key this institution votes at a height, up to the last block's plus 2; None where it has none.

        What evidence is verified with: its offender may have changed its key since.
        """
        ...

    def commit(self) -> None:
        """Make the last finalised block's effects visible; its writes are on disk."""
        ...
