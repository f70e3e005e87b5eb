"""Each protocol against the arithmetic it stands for, over party counts and values up to its bounds."""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.shares import MODULUS
from mpc import protocols
from mpc.shamir import FIELD, Shamir, Shares
from tests.mpc.local_network import run

SEVERAL = settings(max_examples=12)
PARTIES = st.sampled_from([3, 4, 5, 7])


def opened(parties: int, values: list[int], protocol: Callable[[Shamir, Shares], Awaitable[Shares]]) -> list[int]:
    """Share the values, run the protocol on them, and join its output shares, which must be consistent."""

    async def program(s: Shamir) -> list[int]:
        await s.start()
        (shares,) = await s.share(values if s.party == 0 else None, [0], len(values))
        return [int(share) for share in np.asarray(await protocol(s, shares)).reshape(-1)]

    rows = run(parties, program)
    assert joined(rows) == joined(rows[: (parties - 1) // 2 + 1])  # every sharing has degree t
    return joined(rows)


def joined(rows: Sequence[list[int]]) -> list[int]:
    """Signed secrets of the first parties' shares, by MPyC's own recombination."""
    elements = sys.modules["mpyc.thresha"].recombine(
        FIELD, list(enumerate(rows, 1))
    )  # never imported but by mpc.shamir
    return [(element + MODULUS // 2) % MODULUS - MODULUS // 2 for element in elements]


@SEVERAL
@given(PARTIES, st.lists(st.integers(-(10**30), 10**30), min_size=1, max_size=5))
def test_sharing_and_joining_give_the_same(parties: int, values: list[int]) -> None:
    async def as_it_is(_: Shamir, shares: Shares) -> Shares:
        return shares

    assert opened(parties, values, as_it_is) == values


@SEVERAL
@given(PARTIES, st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=5))
def test_products(parties: int, values: list[int]) -> None:
    async def squares(s: Shamir, shares: Shares) -> Shares:
        (product,) = await s.multiply((shares, shares))
        return product

    assert opened(parties, values, squares) == [value * value for value in values]


@pytest.mark.parametrize("parties", [3, 4, 5, 6, 7])
def test_random_bits_are_bits_of_both_kinds(parties: int) -> None:
    async def bits(s: Shamir, _: Shares) -> Shares:
        return await s.random_bits(200)

    drawn = opened(parties, [0], bits)
    assert set(drawn) == {0, 1}
    assert 40 < sum(drawn) < 160


@pytest.mark.parametrize("parties", [3, 4, 5, 7])
def test_random_numbers_keep_their_bound_and_zeros_are_zero(parties: int) -> None:
    async def drawn(s: Shamir, _: Shares) -> Shares:
        return np.concatenate([s.random(40, 20), await s.reshare(s.zero(20))])

    values = opened(parties, [0], drawn)
    slack = math.comb(parties, (parties - 1) // 2).bit_length()
    assert all(0 <= value < 2 ** (40 + slack) for value in values[:20])
    assert len(set(values[:20])) == 20
    assert values[20:] == [0] * 20


@SEVERAL
@given(PARTIES, st.lists(st.integers(0, 2**90 - 1), min_size=1, max_size=4), st.integers(1, 89))
def test_exact_shift(parties: int, values: list[int], shift: int) -> None:
    async def shifted(s: Shamir, shares: Shares) -> Shares:
        return await protocols.shift_exactly(s, shares, shift, 90)

    assert opened(parties, values, shifted) == [value >> shift for value in values]


@SEVERAL
@given(PARTIES, st.lists(st.integers(0, 2**34 - 1) | st.sampled_from([0, 1, 2**34 - 1]), min_size=1, max_size=4))
def test_bits_and_leading_bits(parties: int, values: list[int]) -> None:
    async def both(s: Shamir, shares: Shares) -> Shares:
        bits = await protocols.bits_of(s, shares, 34)
        return np.concatenate([bits.T.reshape(-1), (await protocols.leading_bits(s, bits)).T.reshape(-1)])

    found = opened(parties, values, both)
    bits = [value >> i & 1 for value in values for i in range(34)]
    leading = [int(value.bit_length() == i + 1) for value in values for i in range(34)]
    assert found == bits + leading


@SEVERAL
@given(PARTIES, st.lists(st.integers(-(2**100), 2**100), min_size=1, max_size=4))
def test_comparison_with_zero(parties: int, values: list[int]) -> None:
    async def compared(s: Shamir, shares: Shares) -> Shares:
        return await protocols.not_negative(s, shares, 101)

    assert opened(parties, values, compared) == [int(value >= 0) for value in values]


@SEVERAL
@given(PARTIES, st.lists(st.integers(-(2**140), 2**140), min_size=1, max_size=4), st.integers(1, 280))
def test_multiply_and_shift_errs_by_its_bound_only(parties: int, values: list[int], shift: int) -> None:
    async def scaled(s: Shamir, shares: Shares) -> Shares:
        return await protocols.multiply_shift(s, shares, shares, shift, 281)

    slack = 2 ** math.comb(parties, (parties - 1) // 2).bit_length()
    for value, found in zip(values, opened(parties, values, scaled), strict=True):
        assert -1 <= found - (value * value >> shift) <= slack


@SEVERAL
@given(PARTIES, st.lists(st.integers(2**126, 2**128 - 1), min_size=1, max_size=4))
def test_reciprocals(parties: int, values: list[int]) -> None:
    async def inverted(s: Shamir, shares: Shares) -> Shares:
        ones = np.full(len(shares), 2**protocols.PRECISION, dtype=object)
        return await protocols.reciprocals(s, shares, ones)

    for value, found in zip(values, opened(parties, values, inverted), strict=True):
        assert abs(found - 2**256 // value) < 2**14


SQUARES = st.integers(0, 2**50).map(lambda root: root * root)
RADICANDS = st.integers(0, 10) | st.integers(0, 2**100) | SQUARES | SQUARES.map(lambda square: max(square - 1, 0))


@SEVERAL
@given(PARTIES, st.lists(RADICANDS, min_size=1, max_size=4))
def test_nearest_root(parties: int, values: list[int]) -> None:
    assert opened(parties, values, protocols.nearest_root) == [(math.isqrt(4 * v) + 1) // 2 for v in values]


def test_the_field_is_a_prime_of_the_stated_size() -> None:
    gmpy2 = pytest.importorskip("gmpy2")
    assert gmpy2.is_prime(MODULUS, 40)
    assert gmpy2.prev_prime(2**384) == MODULUS
