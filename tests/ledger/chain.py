"""Builders: a chain of four validators, certificates, evidence."""

from __future__ import annotations

import hashlib

from koinon import merkle
from koinon.v1 import consensus_pb2 as pb
from koinon.validators import ValidatorSet
from node.abci import AppHashes, Finalized
from node.consensus.messages import NO_ROUND, Proposal, Value, Vote, VoteType
from node.ledger import blocks
from node.ledger.blocks import ChainState, ParsedBlock
from tests.consensus.rig import CHAIN, KEYS, validators_of

GENESIS_MS = 1_700_000_000_000
FOUR = validators_of(1, 1, 1, 1)
HASHES = AppHashes(merkle.EMPTY_ROOT, bytes(32), merkle.EMPTY_ROOT, 0)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def genesis(validators: ValidatorSet = FOUR) -> ChainState:
    return ChainState.genesis(CHAIN, GENESIS_MS, validators, HASHES)


def signed_vote(name: str, vote_type: VoteType, height: int, round_: int, block_hash: bytes, time_ms: int = 0) -> Vote:
    unsigned = Vote(vote_type, height, round_, block_hash, time_ms, name, b"")
    return Vote(vote_type, height, round_, block_hash, time_ms, name, KEYS[name].sign(unsigned.signed_bytes(CHAIN)))


def signed_proposal(name: str, height: int, round_: int, block: str | Value, valid_round: int = NO_ROUND) -> Proposal:
    value = block if isinstance(block, Value) else Value(digest(block), b"")
    unsigned = Proposal(height, round_, valid_round, value, name, b"")
    return Proposal(height, round_, valid_round, value, name, KEYS[name].sign(unsigned.signed_bytes(CHAIN)))


def certificate(height: int, block_hash: bytes, times_ms: dict[str, int], round_: int = 0) -> pb.Commit:
    votes = [
        signed_vote(name, VoteType.PRECOMMIT, height, round_, block_hash, time_ms)
        for name, time_ms in sorted(times_ms.items())
    ]
    return pb.Commit(
        height=height,
        round=round_,
        block_hash=block_hash,
        signatures=[
            pb.CommitSignature(institution=v.institution, time_ms=v.time_ms, signature=v.signature) for v in votes
        ],
    )


def commit_of(block: ParsedBlock, *names: str) -> pb.Commit:
    times_ms = dict.fromkeys(names or ("v0", "v1", "v2"), block.header.time_ms + 10)
    return certificate(block.header.height, block.value.block_hash, times_ms)


def after(state: ChainState, block: ParsedBlock) -> ChainState:
    """The state after a block whose execution left a trace of it."""
    hashes = AppHashes(
        merkle.root(block.transactions), digest(f"state {block.header.height}"), digest("audit"), block.header.height
    )
    finalized = Finalized(block.header.height, (), hashes, state.next_validators.to_proto(), ())
    return state.after(block, finalized)


def second_block() -> tuple[ChainState, pb.Commit]:
    """A state at height 1 and the certificate for its block."""
    first = blocks.build(genesis(), [b"one", b"two"], [], None, "v1")
    return after(genesis(), first), commit_of(first)
