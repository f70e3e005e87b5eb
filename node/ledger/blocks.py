"""Blocks: built by proposers, parsed within bounds, verified by everyone against their own state.

Pure. A block is valid when its header equals, byte for byte, the one that a validator computes from its own
``ChainState`` and the block's body. So nothing in a header is ever taken on trust, and whatever
differs between two nodes shows at the next block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from koinon import canonical, merkle
from koinon.errors import Corrupt, InvalidInput
from koinon.limits import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_EVIDENCE,
    MAX_BLOCK_TRANSACTIONS,
    MAX_ENVELOPE_BYTES,
    MAX_VALIDATORS,
)
from koinon.v1 import consensus_pb2 as pb
from koinon.validators import ValidatorSet, verify_commit
from node.abci import AppHashes, DecidedBlock, Finalized
from node.consensus.messages import Value
from node.damage import damaged
from node.ledger import evidence as evidences
from node.ledger.evidence import KeyAt

MAX_TRANSACTION_BYTES = MAX_BLOCK_BYTES - 96 * 1024
"""Bytes of transactions that a proposer puts in a block: leaves room for framing, evidence and 100 signatures."""


class InvalidBlock(Corrupt):
    """Not a block within the limits (rule ``malformed-block``), or not the next one (``invalid-block``)."""

    default_rule = "invalid-block"


@dataclass(frozen=True, slots=True)
class ChainState:
    """Where the chain stands after ``height``: all that building and checking the next block depends on."""

    chain_id: str
    height: int  # last decided; 0 before the first block
    time_ms: int  # of that block; the genesis time at height 0
    block_hash: bytes
    hashes: AppHashes  # after executing that block
    last_validators: ValidatorSet | None  # who decided it; None at height 0
    validators: ValidatorSet  # who votes on height + 1
    next_validators: ValidatorSet  # who votes on height + 2

    @classmethod
    def genesis(cls, chain_id: str, time_ms: int, validators: ValidatorSet, hashes: AppHashes) -> ChainState:
        """Before the first block; ``hashes`` are of the state that the genesis alone makes."""
        return cls(chain_id, 0, time_ms, canonical.ZERO_HASH, hashes, None, validators, validators)

    def after(self, block: ParsedBlock, finalized: Finalized) -> ChainState:
        """The state after ``block``, the verified next one, whose execution gave ``finalized``."""
        return ChainState(
            chain_id=self.chain_id,
            height=block.header.height,
            time_ms=block.header.time_ms,
            block_hash=block.value.block_hash,
            hashes=finalized.hashes,
            last_validators=self.validators,
            validators=self.next_validators,
            next_validators=ValidatorSet.of(finalized.validators),
        )

    def to_bytes(self) -> bytes:
        """For the store; ``from_bytes`` reads it."""
        return pb.ChainRecord(
            height=self.height,
            time_ms=self.time_ms,
            block_hash=self.block_hash,
            results_root=self.hashes.results_root,
            state_commitment=self.hashes.state_commitment,
            audit_root=self.hashes.audit_root,
            audit_size=self.hashes.audit_size,
            last_validators=self.last_validators.to_proto() if self.last_validators else (),
            validators=self.validators.to_proto(),
            next_validators=self.next_validators.to_proto(),
        ).SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, chain_id: str, data: bytes) -> ChainState:
        """Read back what ``to_bytes`` wrote. Raises Corrupt."""
        try:
            record = pb.ChainRecord.FromString(data)
            return cls(
                chain_id=chain_id,
                height=record.height,
                time_ms=record.time_ms,
                block_hash=record.block_hash,
                hashes=AppHashes(
                    record.results_root, record.state_commitment, record.audit_root, int(record.audit_size)
                ),
                last_validators=ValidatorSet.of(record.last_validators) if record.height else None,
                validators=ValidatorSet.of(record.validators),
                next_validators=ValidatorSet.of(record.next_validators),
            )
        except (DecodeError, InvalidInput) as error:
            raise damaged("the stored state of the chain is damaged") from error


@dataclass(frozen=True, slots=True)
class ParsedBlock:
    """A block within the limits whose body is the one that its header commits to."""

    value: Value  # hash, and the bytes as they came
    header: pb.Header
    transactions: tuple[bytes, ...]
    evidence: tuple[pb.Evidence, ...]
    last_commit: pb.Commit | None

    def decided(self) -> DecidedBlock:
        """For the application, once the block is decided."""
        return DecidedBlock(
            height=self.header.height,
            time_ms=self.header.time_ms,
            block_hash=self.value.block_hash,
            proposer=self.header.proposer,
            transactions=self.transactions,
            evidence=self.evidence,
            signers=tuple(item.institution for item in self.last_commit.signatures) if self.last_commit else (),
        )


def build(
    state: ChainState,
    transactions: Sequence[bytes],
    evidence: Sequence[pb.Evidence],
    last_commit: pb.Commit | None,
    proposer: str,
) -> ParsedBlock:
    """The next block with this body; ``last_commit`` is our certificate for the last block, None at height 1."""
    leaves = [item.SerializeToString(deterministic=True) for item in evidence]
    header = _header(
        state,
        next_time_ms(state, last_commit),
        last_commit,
        merkle.root(transactions),
        merkle.root(leaves),
        proposer,
    )
    header_bytes = header.SerializeToString(deterministic=True)
    block = _encode(header_bytes, transactions, leaves, last_commit)
    return ParsedBlock(
        Value(canonical.block_hash(header_bytes), block), header, tuple(transactions), tuple(evidence), last_commit
    )


def parse(data: bytes) -> ParsedBlock:
    """Read a block that came from anyone.

    What holds on return: it is within the limits; its header commits to exactly this body; and these are the
    only bytes of a block with this hash. Raises InvalidBlock (rule ``malformed-block``).
    """
    if len(data) > MAX_BLOCK_BYTES:
        raise _malformed(f"it has {len(data)} bytes, at most {MAX_BLOCK_BYTES} are allowed")
    try:
        block = pb.Block.FromString(data)
        if len(block.evidence) > MAX_BLOCK_EVIDENCE:  # before any is read: there is room for a million
            raise _malformed(
                f"it has {len(block.evidence)} pieces of evidence, at most {MAX_BLOCK_EVIDENCE} are allowed"
            )
        header = pb.Header.FromString(block.header)
        evidence = tuple(pb.Evidence.FromString(item) for item in block.evidence)
    except DecodeError:
        raise _malformed("its bytes do not decode") from None
    transactions = tuple(block.transactions[:])
    last_commit = block.last_commit if block.HasField("last_commit") else None
    if len(transactions) > MAX_BLOCK_TRANSACTIONS:
        raise _malformed(f"it has {len(transactions)} transactions, at most {MAX_BLOCK_TRANSACTIONS} are allowed")
    if transactions and max(map(len, transactions)) > MAX_ENVELOPE_BYTES:
        raise _malformed(f"one of its transactions has more than {MAX_ENVELOPE_BYTES} bytes")
    if last_commit is not None and len(last_commit.signatures) > MAX_VALIDATORS:
        raise _malformed("its last commit has more signatures than there can be validators")
    for item in evidence:
        item.DiscardUnknownFields()  # so that nothing can be attached, to be kept for ever
    leaves = [item.SerializeToString(deterministic=True) for item in evidence]
    if _encode(block.header, transactions, leaves, last_commit) != data:
        raise _malformed("its bytes are not in canonical form")
    committed = (header.transactions_root, header.evidence_root, header.last_commit_hash)
    if committed != (merkle.root(transactions), merkle.root(leaves), _commit_hash(last_commit)):
        raise _malformed("its header does not commit to its body")
    return ParsedBlock(Value(canonical.block_hash(block.header), data), header, transactions, evidence, last_commit)


def verify(state: ChainState, block: ParsedBlock, key_at: KeyAt | None = None) -> None:
    """Check that ``block`` may follow ``state``; its transactions are the application's business.

    ``key_at`` is the application's ``validator_key``; without it, keys are taken never to have changed.

    1. It names a validator as its proposer.
    2. Its last commit proves that the last block was decided.
    3. Its header is, byte for byte, what we compute ourselves.
    4. Its evidence holds, and accuses of each offence once.

    Raises InvalidBlock (rule ``invalid-block``).
    """
    height = state.height + 1
    if block.header.proposer not in state.validators:
        raise _invalid(height, f"its proposer {block.header.proposer!r} does not vote at this height")
    if state.last_validators is None:
        if block.last_commit is not None:
            raise _invalid(height, "the first block has no last commit")
    elif block.last_commit is None:
        raise _invalid(height, "the certificate for the last block is missing")
    else:
        try:
            verify_commit(state.chain_id, state.last_validators, block.last_commit, state.block_hash, state.height)
        except Corrupt as error:
            raise _invalid(height, error.message) from error
    expected = _header(
        state,
        next_time_ms(state, block.last_commit),
        block.last_commit,
        block.header.transactions_root,
        block.header.evidence_root,
        block.header.proposer,
    )
    if canonical.block_hash(expected.SerializeToString(deterministic=True)) != block.value.block_hash:
        raise _invalid(height, f"{_difference(expected, block.header)} of its header is not ours")
    try:
        offences = [evidences.verify(state.chain_id, state.validators, height, item, key_at) for item in block.evidence]
    except evidences.InvalidEvidence as error:
        raise _invalid(height, error.message) from error
    if len(set(offences)) != len(offences):
        raise _invalid(height, "it accuses of one offence twice")


def next_time_ms(state: ChainState, last_commit: pb.Commit | None) -> int:
    """Time of the next block: the weighted median of the precommits' times, and always later than the last.

    Of a quorum's power less than half is faulty, so the median lies between the times of correct validators.
    """
    if last_commit is None or state.last_validators is None:
        return state.time_ms
    times = sorted((item.time_ms, item.institution) for item in last_commit.signatures)
    half = state.last_validators.power(name for _, name in times) // 2
    seen = 0
    for time_ms, institution in times:
        seen += state.last_validators.power([institution])
        if seen > half:
            return max(time_ms, state.time_ms + 1)
    return state.time_ms + 1


def _header(
    state: ChainState,
    time_ms: int,
    last_commit: pb.Commit | None,
    transactions_root: bytes,
    evidence_root: bytes,
    proposer: str,
) -> pb.Header:
    return pb.Header(
        chain_id=state.chain_id,
        height=state.height + 1,
        time_ms=time_ms,
        previous_block_hash=state.block_hash,
        last_commit_hash=_commit_hash(last_commit),
        transactions_root=transactions_root,
        evidence_root=evidence_root,
        validators_hash=state.validators.hash(),
        next_validators_hash=state.next_validators.hash(),
        results_root=state.hashes.results_root,
        state_commitment=state.hashes.state_commitment,
        audit_root=state.hashes.audit_root,
        audit_size=state.hashes.audit_size,
        proposer=proposer,
    )


def _commit_hash(commit: pb.Commit | None) -> bytes:
    if commit is None:
        return canonical.ZERO_HASH
    signatures = [(item.institution, item.time_ms, item.signature) for item in commit.signatures]
    return canonical.commit_hash(commit.height, commit.round, commit.block_hash, signatures)


def _encode(
    header: bytes, transactions: Sequence[bytes], evidence: Sequence[bytes], last_commit: pb.Commit | None
) -> bytes:
    """The one serialisation of a block; fields this version does not know are not in it."""
    block = pb.Block(header=header, transactions=transactions, evidence=evidence)
    if last_commit is not None:
        block.last_commit.CopyFrom(
            pb.Commit(
                height=last_commit.height,
                round=last_commit.round,
                block_hash=last_commit.block_hash,
                signatures=[
                    pb.CommitSignature(institution=item.institution, time_ms=item.time_ms, signature=item.signature)
                    for item in last_commit.signatures
                ],
            )
        )
    return block.SerializeToString(deterministic=True)


def _difference(expected: pb.Header, header: pb.Header) -> str:
    """Name of the first field that differs."""
    for descriptor in pb.Header.DESCRIPTOR.fields:
        if getattr(expected, descriptor.name) != getattr(header, descriptor.name):
            return descriptor.name
    return "the encoding"


def _malformed(reason: str) -> InvalidBlock:
    return InvalidBlock(f"not a block: {reason}", rule="malformed-block")


def _invalid(height: int, reason: str) -> InvalidBlock:
    return InvalidBlock(f"not a valid block {height}: {reason}")
