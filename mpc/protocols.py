"""Exact integer protocols on shares: compare, decompose, divide, take roots. Vectors in, vectors out.

Each is a composition of multiplications and of openings of *masked* values: x + r is opened, where r is random,
unknown to any t parties and at least 2^STATISTICAL_BITS times larger than x, so that what is seen is statistically
independent of x. Nothing else is opened. Secure against t < m/2 parties who follow the protocol and pool what they see;
more than t together see everything. Results are exact whatever the masks.

The field is sized for the largest value ever masked: the approximation of a quotient, 300 bits, with 65 bits
of mask and sign above it, and log2 C(15, 7) < 13 bits because masks are sums: 378 < 384.

Sources: Catrina and de Hoogh, "Improved primitives for secure multiparty integer computation" (SCN 2010) for masked
comparison and bit decomposition; Mohassel and Rindal, "ABY3" (CCS 2018), section 5.1, for multiplying and truncating in
one round; Catrina and Saxena, "Secure computation with fixed-point numbers" (FC 2010) for Goldschmidt division; Damgård
et al., "Unconditionally secure constant-rounds multi-party computation for equality, comparison, bits and
exponentiation" (TCC 2006) for prefix operations.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from koinon.shares import MODULUS
from mpc.shamir import STATISTICAL_BITS, Shamir, Shares, reduced

PRECISION = 128
"""Fraction bits of approximations: 102 of the widest quotient, and 26 for the errors of 14 truncations, m <= 15."""

COUNT_BITS = 33  # a count is at most 2^32
_WIDTH = COUNT_BITS + 1  # decomposed numbers: counts, and differences of counts plus 2^33
_GUARD = 16  # fraction bits kept of an approximate result: with m <= 15 its error stays below 1/8
_QUOTIENT_BITS = 102  # of the widest quotient, the population's variance at scale 10^12
_REMAINDER_BITS = 86  # 2·10^6·n·(n - 1), the widest denominator, and one
_ROOT_BITS = 104  # of the widest radicand, even


# --- truncation and comparison -------------------------------------------------------------------


async def multiply_shift(s: Shamir, a: Shares, b: Shares, shift: int, bits: int) -> Shares:
    """a·b / 2^shift, where |a·b| < 2^bits, in one round; off by less than 2^slack_bits units, upwards at most by that.

    c = a·b + 2^bits + low + 2^shift·high is opened; then floor(c / 2^shift) - high - 2^(bits - shift) is a·b / 2^shift.
    """
    low = s.random(shift, len(a))
    high = s.random(bits + 1 - shift + STATISTICAL_BITS, len(a))
    masked = a * b + 2**bits + low + (high << shift) + s.zero(len(a))
    opened = await s.open(masked % MODULUS, 2 * s.threshold)
    return reduced((opened >> shift) - high - 2 ** (bits - shift))


async def shift_exactly(s: Shamir, x: Shares, shift: int, bits: int) -> Shares:
    """floor(x / 2^shift), for 0 <= x < 2^bits; with shift = bits - 1, the highest bit: a comparison."""
    mask, low = await _random_bit_rows(s, shift, len(x))
    high = s.random(bits - shift + STATISTICAL_BITS, len(x))
    opened = await s.open((x + low + (high << shift)) % MODULUS, s.threshold)
    remainder = opened % 2**shift
    generate, propagate = _borrows(remainder, mask)
    while len(generate) > 1:  # a balanced tree, lowest bits first
        if len(generate) % 2:
            generate = np.vstack([generate, np.zeros((1, len(x)), dtype=object)])
            propagate = np.vstack([propagate, np.ones((1, len(x)), dtype=object)])
        generate, propagate = await _join(s, generate[1::2], propagate[1::2], generate[::2], propagate[::2])
    low_part = remainder - low + (generate[0] << shift)  # x mod 2^shift
    return reduced((x - low_part) * pow(2**shift, -1, MODULUS))


async def bits_of(s: Shamir, x: Shares, width: int) -> Shares:
    """Bits of 0 <= x < 2^width, lowest first: shape (width, len(x))."""
    mask, low = await _random_bit_rows(s, width, len(x))
    high = s.random(STATISTICAL_BITS, len(x))
    opened = await s.open((x + low + (high << width)) % MODULUS, s.threshold)
    generate, propagate = _borrows(opened % 2**width, mask)
    generate, _ = await _prefix(s, generate, propagate, _join)
    borrow = np.vstack([np.zeros((1, len(x)), dtype=object), generate[:-1]])
    differ = (1 - propagate) % MODULUS
    (both,) = await s.multiply((differ.reshape(-1), borrow.reshape(-1)))
    return reduced(differ + borrow - 2 * both.reshape(differ.shape))


async def leading_bits(s: Shamir, bits: Shares) -> Shares:
    """For each number, 1 at its highest one bit and 0 elsewhere; all 0 for 0. Same shape as ``bits``, lowest first."""
    above, _ = await _prefix(s, bits[::-1], bits[::-1], _either)  # is any bit from here upwards one?
    below = np.vstack([np.zeros((1, bits.shape[1]), dtype=object), above[:-1]])
    return reduced((above - below)[::-1])


async def _random_bit_rows(s: Shamir, width: int, count: int) -> tuple[Shares, Shares]:
    """Random bits of shape (width, count), and the numbers they make."""
    mask = (await s.random_bits(width * count)).reshape((width, count))
    return mask, _weigh(mask, [2**i for i in range(width)])


def _borrows(public: Shares, secret: Shares) -> tuple[Shares, Shares]:
    """Subtracting secret bits from a public number: where does a borrow arise, where does one pass? Local."""
    bits = np.array([[(int(value) >> i) & 1 for value in public] for i in range(len(secret))], dtype=object)
    propagate = (1 - bits - secret + 2 * bits * secret) % MODULUS  # equal bits
    return (1 - bits) * secret % MODULUS, propagate


_Combine = Callable[[Shamir, Shares, Shares, Shares, Shares], Coroutine[Any, Any, tuple[Shares, Shares]]]


async def _join(s: Shamir, g: Shares, p: Shares, g_low: Shares, p_low: Shares) -> tuple[Shares, Shares]:
    """The carry operator: (g, p) after (g_low, p_low)."""
    carried, both = await s.multiply((p.reshape(-1), g_low.reshape(-1)), (p.reshape(-1), p_low.reshape(-1)))
    return (g + carried.reshape(g.shape)) % MODULUS, both.reshape(p.shape)


async def _either(s: Shamir, a: Shares, _: Shares, b: Shares, __: Shares) -> tuple[Shares, Shares]:
    """Disjunction."""
    (both,) = await s.multiply((a.reshape(-1), b.reshape(-1)))
    either = (a + b - both.reshape(a.shape)) % MODULUS
    return either, either


async def _prefix(s: Shamir, g: Shares, p: Shares, combine: _Combine) -> tuple[Shares, Shares]:
    """Row i becomes the combination of rows 0 to i, in log2(rows) rounds (Sklansky's network)."""
    g, p = g.copy(), p.copy()
    span = 1
    while span < len(g):
        upper = [i for i in range(len(g)) if i & span]
        lower = [(i // span) * span - 1 for i in upper]
        g[upper], p[upper] = await combine(s, g[upper], p[upper], g[lower], p[lower])
        span *= 2
    return g, p


def _weigh(bits: Shares, weights: list[int]) -> Shares:
    """Linear combination of the rows."""
    return reduced(np.array(weights, dtype=object) @ bits)


# --- reciprocals and quotients -------------------------------------------------------------------


async def magnitudes(s: Shamir, bits: Shares) -> tuple[Shares, Shares, Shares]:
    """Of counts n with these 34 bits: p, the power of two with 2^33 <= n·p < 2^34 (0 for 0), [n >= 1] and [n >= 2]."""
    leading = await leading_bits(s, bits)
    power = _weigh(leading, [2 ** (_WIDTH - 1 - i) for i in range(_WIDTH)])
    return power, leading.sum(axis=0) % MODULUS, leading[1:].sum(axis=0) % MODULUS


async def reciprocals(s: Shamir, d: Shares, factors: Shares) -> Shares:
    """factor / d for 1/4 <= d < 1, all with PRECISION fraction bits; factors are public, at most 1.

    Goldschmidt: with e = 1 - d·y, the product y·(1 + e)(1 + e^2)(1 + e^4)… tends to 1/d. The start is the best line on
    [1/4, 1], y = 125/32 - 25/8·d, with |e| <= 0.221: six factors leave an error of 2^-139.
    """
    start = (125 * 2**PRECISION - 100 * d) % MODULUS  # 32·y
    first = np.concatenate([d, factors])
    product = await multiply_shift(s, first, np.concatenate([start, start]), PRECISION + 5, 2 * PRECISION + 8)
    error, y = np.split(product, 2)
    error = (2**PRECISION - error) % MODULUS
    for _ in range(6):
        product = await multiply_shift(
            s, np.concatenate([y, error]), np.concatenate([error, error]), PRECISION, 2 * PRECISION + 4
        )
        y, error = (y + product[: len(y)]) % MODULUS, product[len(y) :]
    return y


async def round_down(s: Shamir, approximate: Shares, bits: int) -> Shares:
    """q or q - 1, for q the floor of a number known with _GUARD fraction bits and an error below 1/8; |q| < 2^bits."""
    lowered = approximate - 2 ** (_GUARD - 2) + 2 ** (bits + _GUARD)
    return reduced(await shift_exactly(s, reduced(lowered), _GUARD, bits + _GUARD + 1) - 2**bits)


async def not_negative(s: Shamir, x: Shares, bits: int) -> Shares:
    """[x >= 0] for |x| < 2^bits."""
    return await shift_exactly(s, reduced(x + 2**bits), bits, bits + 1)


async def divide(
    s: Shamir, *, numerator: Shares, denominator: Shares, nearest: Shares, scaled: Shares, reciprocal: Shares
) -> Shares:
    """numerator / denominator, exactly: to nearest, ties upwards, where ``nearest`` (public) is 1; down where it is 0.

    ``scaled · reciprocal / 2^(PRECISION + 68)`` approximates the quotient, itself below 2^101, to 2^-5; here it is
    rounded, and corrected by comparing the remainder with the denominator, which is below 2^84. 0 for 0 / 0.
    """
    approximate = await multiply_shift(s, scaled, reciprocal, PRECISION + 2 * _WIDTH - _GUARD, 300)
    quotient = await round_down(s, approximate + nearest * 2 ** (_GUARD - 1), _QUOTIENT_BITS)
    (product,) = await s.multiply((quotient, denominator))
    remainder = 2 * numerator + nearest * denominator - 2 * product  # in [0, 4·denominator)
    return reduced(quotient + await not_negative(s, remainder - 2 * denominator, _REMAINDER_BITS))


async def nearest_root(s: Shamir, x: Shares) -> Shares:
    """The integer nearest to the square root, (isqrt(4x) + 1) div 2, for 0 <= x < 2^101.

    Newton's iteration for g = sqrt(d) and h = 1 / (2·sqrt(d)) together (Markstein 2004): r = 1/2 - g·h, g += g·r,
    h += h·r, on a radicand scaled by a power of four to 1/4 <= d < 1. The start is the best line for 1 / sqrt(d),
    273/128 - 156/128·d, off by at most 0.087; with e the error, 3/2·e^2 the next, five steps leave 2^-90.
    """
    radicand = 4 * x % MODULUS
    leading = await leading_bits(s, await bits_of(s, radicand, _ROOT_BITS))
    pairs = leading[::2] + leading[1::2]  # radicand in [4^j, 4^(j + 1)) at pair j
    half = _ROOT_BITS // 2
    (scaled,) = await s.multiply((radicand, _weigh(pairs, [4 ** (half - 1 - j) for j in range(half)])))
    zero = 1 - pairs.sum(axis=0)
    d = (scaled * 2 ** (PRECISION - _ROOT_BITS) + zero * 2 ** (PRECISION - 1)) % MODULUS
    start = (273 * 2**PRECISION - 156 * d) % MODULUS  # 128 / sqrt(d)
    halves = np.full(len(x), 2 ** (PRECISION - 1), dtype=object)
    product = await multiply_shift(
        s, np.concatenate([start, start]), np.concatenate([d, halves]), PRECISION + 7, 2 * PRECISION + 9
    )
    g, h = np.split(product, 2)
    for _ in range(5):
        r = (2 ** (PRECISION - 1) - await multiply_shift(s, g, h, PRECISION, 2 * PRECISION + 2)) % MODULUS
        product = await multiply_shift(s, np.concatenate([g, h]), np.concatenate([r, r]), PRECISION, 2 * PRECISION + 2)
        g, h = (g + product[: len(g)]) % MODULUS, (h + product[len(g) :]) % MODULUS
    unscale = _weigh(pairs, [2 ** (j + 1) for j in range(half)])
    approximate = await multiply_shift(s, g, unscale, PRECISION - _GUARD, PRECISION + half + 2)
    root = await round_down(s, approximate, half)
    (square,) = await s.multiply(((root + 1) % MODULUS, (root + 1) % MODULUS))
    root += await not_negative(s, radicand - square, half + 3)
    return await shift_exactly(s, reduced(root + 1), 1, half + 1)
