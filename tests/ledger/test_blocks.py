"""Blocks: what is built is valid; what is not built so is refused, by name; no bytes do worse than InvalidBlock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import canonical, merkle
from koinon.errors import Corrupt
from koinon.limits import MAX_BLOCK_BYTES, MAX_BLOCK_EVIDENCE, MAX_BLOCK_TRANSACTIONS, MAX_ENVELOPE_BYTES
from koinon.v1 import consensus_pb2 as pb
from node.consensus.messages import VoteType
from node.ledger import blocks, evidence
from node.ledger.blocks import ChainState, InvalidBlock
from tests.consensus.rig import validators_of
from tests.ledger.chain import (
    GENESIS_MS,
    after,
    certificate,
    commit_of,
    digest,
    genesis,
    second_block,
    signed_vote,
)


def test_what_is_built_parses_to_itself_and_is_valid() -> None:
    state, commit = second_block()
    for height in (2, 3, 4):
        block = blocks.build(state, [b"three", b"four"], [], commit, "v2")
        parsed = blocks.parse(block.value.block)
        assert parsed == block
        blocks.verify(state, parsed)
        assert (block.header.height, block.header.previous_block_hash) == (height, state.block_hash)
        assert block.header.state_commitment == state.hashes.state_commitment
        state, commit = after(state, block), commit_of(block)


def test_the_first_block_has_the_genesis_time_and_no_certificate() -> None:
    block = blocks.build(genesis(), [], [], None, "v1")
    blocks.verify(genesis(), block)
    assert block.header.time_ms == GENESIS_MS
    assert block.header.last_commit_hash == canonical.ZERO_HASH
    assert block.header.transactions_root == merkle.EMPTY_ROOT


def test_the_chain_state_survives_the_store() -> None:
    state, _ = second_block()
    assert ChainState.from_bytes(state.chain_id, state.to_bytes()) == state
    assert ChainState.from_bytes(state.chain_id, genesis().to_bytes()) == genesis()
    with pytest.raises(Corrupt):
        ChainState.from_bytes(state.chain_id, state.to_bytes()[:-5])
    with pytest.raises(Corrupt):
        ChainState.from_bytes(state.chain_id, b"")


def test_validators_change_one_height_after_the_next() -> None:
    state, commit = second_block()
    block = blocks.build(state, [], [], commit, "v2")
    changed = after(state, block)
    assert changed.last_validators == state.validators
    assert changed.validators == state.next_validators


# --- time


@pytest.mark.parametrize(
    ("powers", "times", "median"),
    [
        ((1, 1, 1, 1), {"v0": 10, "v1": 20, "v2": 30}, 20),
        ((1, 1, 1, 1), {"v0": 10, "v1": 20, "v2": 30, "v3": 40}, 30),
        ((1, 1, 1, 1), {"v0": 30, "v1": 10, "v2": 10**6}, 30),  # one liar changes little
        ((1, 1, 1, 7), {"v0": 10, "v3": 50}, 50),  # weighted by power
        ((1, 1, 1, 1), {"v0": -5, "v1": 0, "v2": 0}, 1),  # always later than the block before
    ],
)
def test_block_time_is_the_weighted_median_of_the_precommits(
    powers: tuple[int, ...], times: dict[str, int], median: int
) -> None:
    validators = validators_of(*powers)
    first = blocks.build(genesis(validators), [], [], None, "v1")
    state = after(genesis(validators), first)
    commit = certificate(1, first.value.block_hash, {name: GENESIS_MS + t for name, t in times.items()})
    assert blocks.next_time_ms(state, commit) == GENESIS_MS + median


# --- invalid blocks: well formed, but not the next one


def _header_with(**fields: object) -> pb.Block:
    state, commit = second_block()
    block = pb.Block.FromString(blocks.build(state, [b"x"], [], commit, "v2").value.block)
    header = pb.Header.FromString(block.header)
    for name, value in fields.items():
        setattr(header, name, value)
    block.header = header.SerializeToString(deterministic=True)
    return block


def _double_vote(name: str = "v3", height: int = 1) -> pb.Evidence:
    return evidence.accuse(
        signed_vote(name, VoteType.PREVOTE, height, 0, digest("a")),
        signed_vote(name, VoteType.PREVOTE, height, 0, digest("b")),
    )


def _block_with(evidences: list[pb.Evidence], commit: pb.Commit | None) -> pb.Block:
    state, _ = second_block()
    return pb.Block.FromString(blocks.build(state, [], evidences, commit, "v2").value.block)


VOTERS = ("v0", "v1", "v2")

INVALID: dict[str, Callable[[], pb.Block]] = {
    "another chain": lambda: _header_with(chain_id="other"),
    "another height": lambda: _header_with(height=3),
    "another time": lambda: _header_with(time_ms=GENESIS_MS + 9),
    "another predecessor": lambda: _header_with(previous_block_hash=digest("x")),
    "other validators": lambda: _header_with(validators_hash=digest("x")),
    "other next validators": lambda: _header_with(next_validators_hash=digest("x")),
    "other results": lambda: _header_with(results_root=digest("x")),
    "another state": lambda: _header_with(state_commitment=digest("x")),
    "another audit log": lambda: _header_with(audit_root=digest("x")),
    "another audit size": lambda: _header_with(audit_size=7),
    "a stranger proposes": lambda: _header_with(proposer="stranger"),
    "no certificate": lambda: _block_with([], None),
    "certificate without quorum": lambda: _block_with([], _certificate("v0", "v1")),
    "certificate of another block": lambda: _block_with([], certificate(1, digest("x"), dict.fromkeys(VOTERS, 1))),
    "evidence against nobody": lambda: _block_with([pb.Evidence()], second_block()[1]),
    "evidence from the future": lambda: _block_with([_double_vote(height=2)], second_block()[1]),
    "one offence twice": lambda: _block_with([_double_vote(), _double_vote()], second_block()[1]),
}


def _certificate(*names: str) -> pb.Commit:
    state, _ = second_block()
    return certificate(1, state.block_hash, dict.fromkeys(names, GENESIS_MS + 10))


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_block_is_refused(name: str) -> None:
    state, _ = second_block()
    block = blocks.parse(INVALID[name]().SerializeToString(deterministic=True))
    with pytest.raises(InvalidBlock) as refusal:
        blocks.verify(state, block)
    assert refusal.value.rule == "invalid-block"


def test_the_first_block_may_not_have_a_certificate() -> None:
    with pytest.raises(InvalidBlock):
        blocks.verify(genesis(), blocks.build(genesis(), [], [], _certificate(*VOTERS), "v1"))


def test_valid_evidence_is_accepted() -> None:
    state, commit = second_block()
    blocks.verify(state, blocks.build(state, [], [_double_vote()], commit, "v2"))


# --- malformed blocks: not a block, or not one header's body


def _malformed() -> dict[str, bytes]:
    state, commit = second_block()
    good = blocks.build(state, [b"x", b"y"], [], commit, "v2").value.block

    def changed(change: Callable[[pb.Block], object]) -> bytes:
        block = pb.Block.FromString(good)
        change(block)
        return block.SerializeToString(deterministic=True)

    def drop_commit(block: pb.Block) -> None:
        block.ClearField("last_commit")

    attached = _double_vote()
    attached.duplicate_vote.first.MergeFromString(b"\x7a\x01a")  # a field 15

    return {
        "empty": b"",
        "noise": b"\xff" * 100,
        "trailing garbage": good + b"\x00",
        "an unknown field": good + b"\x2a\x01x",
        "header given twice": good + pb.Block(header=b"x").SerializeToString(),
        "transaction added": changed(lambda b: b.transactions.append(b"z")),
        "transaction changed": changed(lambda b: b.transactions.__setitem__(0, b"z")),
        "transactions swapped": changed(lambda b: b.transactions.reverse()),
        "certificate removed": changed(drop_commit),
        "certificate's time changed": changed(lambda b: setattr(b.last_commit.signatures[0], "time_ms", 1)),
        "evidence added": changed(lambda b: b.evidence.append(_double_vote().SerializeToString())),
        "something attached to evidence": _block_with([attached], commit).SerializeToString(deterministic=True),
        "too many bytes": b"\x00" * (MAX_BLOCK_BYTES + 1),
        "too many transactions": changed(lambda b: b.transactions.extend([b"t"] * MAX_BLOCK_TRANSACTIONS)),
        "too large a transaction": changed(lambda b: b.transactions.append(bytes(MAX_ENVELOPE_BYTES + 1))),
        "too much evidence": changed(lambda b: b.evidence.extend([b""] * (MAX_BLOCK_EVIDENCE + 1))),
        "too many signatures": changed(lambda b: b.last_commit.signatures.extend([pb.CommitSignature()] * 101)),
    }


@pytest.mark.parametrize("name", _malformed())
def test_a_malformed_block_is_refused(name: str) -> None:
    with pytest.raises(InvalidBlock) as refusal:
        blocks.parse(_malformed()[name])
    assert refusal.value.rule == "malformed-block"


def test_evidence_is_counted_before_it_is_read() -> None:
    """A block has room for a million empty pieces: to read them takes more than a second, and anyone may send it."""
    state, commit = second_block()
    block = pb.Block.FromString(blocks.build(state, [], [], commit, "v2").value.block)
    block.evidence.extend([b"no evidence"] * (MAX_BLOCK_EVIDENCE + 1))
    with pytest.raises(InvalidBlock, match="pieces of evidence"):
        blocks.parse(block.SerializeToString())


def test_every_truncation_is_refused() -> None:
    state, commit = second_block()
    good = blocks.build(state, [b"x"], [_double_vote()], commit, "v2").value.block
    for length in range(len(good)):
        with pytest.raises(InvalidBlock):
            blocks.parse(good[:length])


GOOD = blocks.build(second_block()[0], [b"x", b"y"], [_double_vote()], second_block()[1], "v2").value.block


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_gives_another_body_under_the_same_hash(index: int, change: int) -> None:
    """What others may deform on the way: the hash that the proposer signed names one string of bytes."""
    deformed = bytearray(GOOD)
    deformed[index] ^= change
    try:
        parsed = blocks.parse(bytes(deformed))
    except InvalidBlock:
        return
    assert parsed.value.block_hash != blocks.parse(GOOD).value.block_hash


@given(st.binary(max_size=300))
def test_no_bytes_do_worse_than_invalid_block(data: bytes) -> None:
    with pytest.raises(InvalidBlock):
        blocks.parse(data)
