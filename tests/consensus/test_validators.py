"""Quorum arithmetic against a dumb twin, rotation against its definition, certificates against named bad cases."""

from __future__ import annotations

import hashlib
from collections import Counter
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from koinon import canonical
from koinon.errors import Corrupt, InvalidInput
from koinon.limits import MAX_TOTAL_POWER, MAX_VALIDATORS
from koinon.v1 import consensus_pb2 as pb
from koinon.validators import Member, ValidatorSet, verify_commit

CHAIN = "test-0123456789abcdef"
BLOCK = bytes(range(32))
NAMES = [f"v{i:03}" for i in range(MAX_VALIDATORS + 1)]
KEYS = {name: SigningKey(hashlib.sha256(name.encode()).digest()) for name in NAMES}


def validators_of(*powers: int) -> ValidatorSet:
    return ValidatorSet.of(
        pb.Validator(institution=name, public_key=bytes(KEYS[name].verify_key), power=power)
        for name, power in zip(NAMES, powers, strict=False)
    )


powers = st.lists(st.integers(1, 50), min_size=1, max_size=7)


@given(powers)
def test_thresholds_equal_their_definitions_by_counting_up(weights: list[int]) -> None:
    total = sum(weights)
    validators = validators_of(*weights)
    more_than_two_thirds = next(p for p in range(total + 1) if Fraction(p, total) > Fraction(2, 3))
    at_least_one_third = next(p for p in range(total + 1) if Fraction(p, total) >= Fraction(1, 3))
    assert validators.total_power == total
    assert validators.quorum == more_than_two_thirds
    assert validators.one_third == at_least_one_third


@given(powers)
@settings(max_examples=60)
def test_what_the_thresholds_promise_holds_for_every_subset(weights: list[int]) -> None:
    """Over all subsets, without the formulas: quorums intersect in a correct validator; enough remain to act."""
    validators = validators_of(*weights)
    total = sum(weights)
    indexes = range(len(weights))
    subsets = [set(c) for size in range(len(weights) + 1) for c in combinations(indexes, size)]
    sums = [(s, sum(weights[i] for i in s)) for s in subsets]
    tolerable = [(s, p) for s, p in sums if 3 * p < total]
    quorums = [s for s, p in sums if p >= validators.quorum]
    for faulty, power in tolerable:
        assert power < validators.one_third
        assert total - power >= validators.quorum
        if len(weights) <= 5:
            assert all((a & b) - faulty for a in quorums for b in quorums)
    worst = [size for size in range(len(weights) + 1) if all(3 * p < total for s, p in sums if len(s) == size)]
    assert validators.faults_tolerated == max(worst)


@pytest.mark.parametrize(("count", "faulty"), [(1, 0), (3, 0), (4, 1), (6, 1), (7, 2), (10, 3), (100, 33)])
def test_faults_tolerated_by_equals(count: int, faulty: int) -> None:
    validators = validators_of(*[1] * count)
    assert validators.faults_tolerated == faulty
    assert count - faulty >= validators.quorum > count - faulty - 1 - (count % 3 == 0)


@given(powers, st.integers(0, 10**12), st.integers(0, 2**32 - 1))
def test_rotation_gives_turns_in_proportion_to_power(weights: list[int], height: int, round_: int) -> None:
    validators = validators_of(*weights)
    period = validators.total_power
    turns = Counter(validators.proposer(height + i, round_) for i in range(period))
    assert turns == {member.institution: member.power for member in validators}
    assert validators.proposer(height, round_) == validators.proposer(height + round_, 0)


def test_equal_validators_take_turns_one_after_another() -> None:
    validators = validators_of(5, 5, 5, 5)
    assert [validators.proposer(height, 0) for height in range(1, 6)] == ["v001", "v002", "v003", "v000", "v001"]


def test_rotation_over_the_largest_power_is_quick_and_never_leaves_one_waiting_long() -> None:
    validators = validators_of(MAX_TOTAL_POWER - 1, 1)
    assert validators.proposer(1, 0) == "v000"
    assert "v001" in {validators.proposer(height, 0) for height in range(MAX_TOTAL_POWER)}


def _bad_sets() -> dict[str, list[pb.Validator]]:
    a, b = (pb.Validator(institution=n, public_key=bytes(KEYS[n].verify_key), power=1) for n in NAMES[:2])
    return {
        "empty": [],
        "not ascending": [b, a],
        "named twice": [a, a],
        "shared key": [a, pb.Validator(institution="v001", public_key=a.public_key, power=1)],
        "no power": [pb.Validator(institution="v000", public_key=a.public_key)],
        "short key": [pb.Validator(institution="v000", public_key=b"short", power=1)],
        "bad name": [pb.Validator(institution="V 0", public_key=a.public_key, power=1)],
        "too much power": [a, pb.Validator(institution="v001", public_key=b.public_key, power=MAX_TOTAL_POWER)],
        "too many": [pb.Validator(institution=n, public_key=bytes(KEYS[n].verify_key), power=1) for n in NAMES],
    }


@pytest.mark.parametrize("name", _bad_sets())
def test_a_bad_set_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        ValidatorSet.of(_bad_sets()[name])
    assert refusal.value.rule == "validator-set"


def test_round_trip_equality_and_hash() -> None:
    validators = validators_of(3, 1, 2)
    assert ValidatorSet.of(validators.to_proto()) == validators
    assert validators.hash() != validators_of(3, 2, 1).hash()
    assert validators.member("v001") == Member("v001", bytes(KEYS["v001"].verify_key), 1)
    assert validators.member("stranger") is None
    assert validators.power(["v000", "v000", "stranger"]) == 3


def commit_by(*names: str, height: int = 5, round_: int = 1, block: bytes = BLOCK, chain: str = CHAIN) -> pb.Commit:
    commit = pb.Commit(height=height, round=round_, block_hash=block)
    for i, name in enumerate(names):
        signed = canonical.vote_bytes(chain, pb.VOTE_TYPE_PRECOMMIT, height, round_, block, 1000 + i)
        commit.signatures.add(institution=name, time_ms=1000 + i, signature=KEYS[name].sign(signed).signature)
    return commit


FOUR = validators_of(1, 1, 1, 1)


@pytest.mark.parametrize("signers", [("v000", "v001", "v002"), ("v001", "v002", "v003"), tuple(NAMES[:4])])
def test_a_quorum_commits(signers: tuple[str, ...]) -> None:
    verify_commit(CHAIN, FOUR, commit_by(*signers), BLOCK, 5)


def test_power_counts_not_heads() -> None:
    weighted = validators_of(1, 1, 1, 7)
    verify_commit(CHAIN, weighted, commit_by("v003"), BLOCK, 5)
    with pytest.raises(Corrupt):
        verify_commit(CHAIN, weighted, commit_by("v000", "v001", "v002"), BLOCK, 5)


def _with(commit: pb.Commit, **fields: int) -> pb.Commit:
    changed = pb.Commit()
    changed.CopyFrom(commit)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _bad_commits() -> dict[str, pb.Commit]:
    good = commit_by("v000", "v001", "v002")
    other_time = _with(good)
    other_time.signatures[1].time_ms += 1
    swapped = _with(good)
    swapped.signatures[0].signature, swapped.signatures[1].signature = (
        good.signatures[1].signature,
        good.signatures[0].signature,
    )
    truncated = _with(good)
    truncated.signatures[2].signature = good.signatures[2].signature[:63]
    prevotes = pb.Commit(height=5, round=1, block_hash=BLOCK)
    for name in NAMES[:3]:
        signed = canonical.vote_bytes(CHAIN, pb.VOTE_TYPE_PREVOTE, 5, 1, BLOCK, 0)
        prevotes.signatures.add(institution=name, signature=KEYS[name].sign(signed).signature)
    padded, padded_signature = _with(good), _with(good)
    padded.MergeFromString(b"\x7a\x01a")  # a field 15
    padded_signature.signatures[1].MergeFromString(b"\x7a\x01a")
    one_bad = _with(good)
    one_bad.signatures.add(institution="v003", time_ms=1, signature=bytes(64))
    return {
        "no quorum": commit_by("v000", "v001"),
        "one signer twice": commit_by("v000", "v001", "v001"),
        "not ascending": commit_by("v001", "v000", "v002"),
        "stranger": commit_by("v000", "v001", "v002", "v004"),
        "other height": commit_by("v000", "v001", "v002", height=6),
        "other block": commit_by("v000", "v001", "v002", block=bytes(32)),
        "other chain": commit_by("v000", "v001", "v002", chain="other-0123456789abcdef"),
        "nil": commit_by("v000", "v001", "v002", block=b""),
        "round changed": _with(good, round=0),
        "time changed": other_time,
        "signatures swapped": swapped,
        "signature truncated": truncated,
        "prevotes instead of precommits": prevotes,
        "one bad among enough": one_bad,
        "something attached": padded,
        "something attached to a signature": padded_signature,
    }


@pytest.mark.parametrize("name", _bad_commits())
def test_a_bad_certificate_is_refused(name: str) -> None:
    with pytest.raises(Corrupt) as refusal:
        verify_commit(CHAIN, FOUR, _bad_commits()[name], BLOCK, 5)
    assert refusal.value.rule == "commit-certificate"
