"""The state commitment: a function of the set of pairs, and of nothing else."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon import canonical
from koinon.errors import Corrupt
from node.ledger.lthash import LANES, STATE_BYTES, LtHash
from node.ledger.state import Change

PAIRS = st.dictionaries(st.binary(max_size=4), st.binary(max_size=4), max_size=80)


def twin(pairs: dict[bytes, bytes]) -> bytes:
    """Section 3 of the paper, lane by lane, in integers."""
    lanes = [0] * LANES
    for key, value in pairs.items():
        expanded = hashlib.shake_128(canonical.state_entry(key, value)).digest(STATE_BYTES)
        for lane in range(LANES):
            lanes[lane] = (lanes[lane] + int.from_bytes(expanded[2 * lane : 2 * lane + 2], "little")) % 2**16
    return b"".join(lane.to_bytes(2, "little") for lane in lanes)


def hashed(pairs: dict[bytes, bytes]) -> LtHash:
    result = LtHash()
    result.update([(key, None, value) for key, value in pairs.items()])
    return result


@settings(max_examples=15)
@given(pairs=PAIRS)
def test_it_is_what_the_paper_defines(pairs: dict[bytes, bytes]) -> None:
    assert hashed(pairs).to_bytes() == twin(pairs)


@given(before=PAIRS, after=PAIRS, shuffle=st.randoms(use_true_random=False))
def test_it_depends_on_the_set_alone(
    before: dict[bytes, bytes], after: dict[bytes, bytes], shuffle: random.Random
) -> None:
    """However the second set came about: block by block, in any order, or at once."""
    keys = list(before.keys() | after.keys())
    shuffle.shuffle(keys)
    changes: list[Change] = [(key, before.get(key), after.get(key)) for key in keys]
    cut = shuffle.randint(0, len(changes))
    stepwise = hashed(before)
    stepwise.update(changes[:cut])
    stepwise = LtHash.from_bytes(stepwise.to_bytes())
    stepwise.update(changes[cut:])
    assert stepwise.to_bytes() == hashed(after).to_bytes()
    assert stepwise.digest() == hashed(after).digest()
    assert (hashed(before).digest() == hashed(after).digest()) == (before == after)


def test_adding_and_removing_leaves_nothing() -> None:
    empty = LtHash()
    result = LtHash()
    result.add(b"a", b"1")
    assert result.digest() != empty.digest()
    result.add(b"b", b"2")
    result.remove(b"a", b"1")
    result.remove(b"b", b"2")
    assert result.digest() == empty.digest()


def test_key_and_value_cannot_be_shifted_into_each_other() -> None:
    assert hashed({b"ab": b"c"}).digest() != hashed({b"a": b"bc"}).digest()


def test_the_digest_is_frozen() -> None:
    assert LtHash().digest().hex() == canonical.state_commitment(bytes(STATE_BYTES)).hex()
    assert hashed({b"s/%d" % index: b"value %d" % index for index in range(1000)}).digest().hex() == (
        "8b410674deefdba793210b8aeabba713d4347bce6b78913299e5766120499b16"
    )


def test_a_stored_hash_of_another_length_is_told() -> None:
    with pytest.raises(Corrupt):
        LtHash.from_bytes(bytes(STATE_BYTES - 1))
