"""Arithmetic on Shamir shares over a prime field, in rounds: share, open, multiply, draw randomness.

Party i of m holds the value at i + 1 of a polynomial of degree at most t < m/2 over GF(MODULUS); the secret is its
value at 0. Linear operations are local, and written here as plain arithmetic on arrays of shares modulo MODULUS.

Field, recombination and pseudorandom secret sharing (Cramer, Damgård, Ishai, TCC 2005) are MPyC's (B. Schoenmakers,
``mpyc.finfields`` and ``mpyc.thresha``). MPyC's runtime is *not* loaded: it trusts the party number that a peer claims,
unpickles bytes from peers, and keeps its one party in globals. Here a round is an exchange of messages of known size
over a Channel, every received element is checked to be in the field, and several parties fit in one process, which is
how the tests run them.

Who learns what: nobody learns anything from shares, even t parties together, as long as all follow the protocol
(passive adversary, honest majority). More than t together see everything. What ``open`` opens, everyone learns: callers
open masked values only. A party that deviates can change results, and is not noticed here.
"""

from __future__ import annotations

import functools
import itertools
import math
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koinon.shares import ELEMENT_BYTES, MODULUS
from mpc.channel import Channel, SessionFailed

# MPyC parses sys.argv, configures logging and replaces the event loop policy on import: give it nothing to do.
_argv, sys.argv = sys.argv, ["mpyc", "--no-log", "--no-uvloop"]
try:
    from mpyc import finfields, thresha
finally:
    sys.argv = _argv

Shares = NDArray[Any]
"""An array of Python integers in [0, MODULUS): this party's shares of as many secrets."""

FIELD = finfields.GF(MODULUS)
STATISTICAL_BITS = 64  # a masked value that is opened differs from noise by at most 2^-64
_KEY_BYTES = 16


class Shamir:
    """One party's side of the arithmetic. ``start`` first; then all parties make the same calls in the same order."""

    def __init__(self, channel: Channel, threshold: int) -> None:
        """Raises ValueError unless 0 <= 2 * threshold < number of parties."""
        if not 0 <= 2 * threshold < channel.parties:
            raise ValueError(f"threshold {threshold} needs more than {2 * threshold} parties")
        self.party = channel.party
        self.parties = channel.parties
        self.threshold = threshold
        self.rounds = 0
        self._channel = channel
        self._keys: dict[tuple[int, ...], bytes] = {}
        self._draws = 0  # makes every call of the pseudorandom functions unique, and the same at all parties

    @property
    def slack_bits(self) -> int:
        """A value drawn by ``random(bits, …)`` is below 2^(bits + slack_bits)."""
        return math.comb(self.parties, self.threshold).bit_length()

    async def start(self) -> None:
        """Agree on the keys of pseudorandom secret sharing: one for every m - t parties, made by the first of them."""
        subsets = list(itertools.combinations(range(self.parties), self.parties - self.threshold))
        made = {subset: secrets.token_bytes(_KEY_BYTES) for subset in subsets if subset[0] == self.party}
        outgoing = {
            peer: b"".join(key for subset, key in made.items() if peer in subset)
            for peer in range(self.parties)
            if peer != self.party
        }
        expected = {
            peer: [subset for subset in subsets if subset[0] == peer and self.party in subset] for peer in outgoing
        }
        received = await self._exchange(outgoing, {peer: _KEY_BYTES * len(group) for peer, group in expected.items()})
        self._keys = made
        for peer, group in expected.items():
            data = received.get(peer, b"")
            for index, subset in enumerate(group):
                self._keys[subset] = data[index * _KEY_BYTES : (index + 1) * _KEY_BYTES]

    # --- sharing and opening ---------------------------------------------------------------------

    async def share(self, own: Sequence[int] | None, senders: Sequence[int], count: int) -> Shares:
        """Each sender shares ``count`` integers of its own (None elsewhere). Shape (senders, count).

        Every party receives one share of every secret: t of them together learn nothing.
        """
        outgoing: dict[int, bytes] = {}
        mine = None
        if own is not None:
            rows = self._split(_array(own))
            mine = rows[self.party]
            outgoing = {peer: _encode(rows[peer]) for peer in range(self.parties) if peer != self.party}
        others = [sender for sender in senders if sender != self.party]
        received = await self._exchange(outgoing, dict.fromkeys(others, count * ELEMENT_BYTES))
        return np.array([mine if s == self.party else _decode(s, received[s]) for s in senders], dtype=object)

    async def open(self, x: Shares, degree: int) -> Shares:
        """The secrets of sharings of this degree, to every party. Callers open masked values only."""
        reach = range(1, degree + 1)
        outgoing = {(self.party + j) % self.parties: _encode(x) for j in reach}
        size = {(self.party - j) % self.parties: len(x) * ELEMENT_BYTES for j in reach}
        received = await self._exchange(outgoing, size)
        points = [(peer + 1, _decode(peer, data)) for peer, data in received.items()]
        return _recombine([(self.party + 1, x), *points])

    async def reshare(self, x: Shares) -> Shares:
        """Fresh sharings of degree t of secrets that are shared with degree at most 2t (Gennaro, Rabin, Rabin 1998).

        2t + 1 parties share their shares, and everybody combines these. The new polynomials are uniformly random
        apart from their secrets, so they say nothing about where the secrets came from.
        """
        if self.threshold == 0:
            return x
        first = self.rounds % self.parties  # spreads the work
        dealers = [(first + j) % self.parties for j in range(2 * self.threshold + 1)]
        outgoing: dict[int, bytes] = {}
        points: list[tuple[int, Shares]] = []
        if self.party in dealers:
            rows = self._split(x)
            points.append((self.party + 1, rows[self.party]))
            outgoing = {peer: _encode(rows[peer]) for peer in range(self.parties) if peer != self.party}
        size = {peer: len(x) * ELEMENT_BYTES for peer in dealers if peer != self.party}
        received = await self._exchange(outgoing, size)
        points += [(peer + 1, _decode(peer, data)) for peer, data in received.items()]
        return _recombine(points)

    async def multiply(self, *pairs: tuple[Shares, Shares]) -> list[Shares]:
        """Elementwise products of pairs of equally long vectors, all in one round."""
        products = [a * b % MODULUS for a, b in pairs]
        joined = await self.reshare(np.concatenate(products))
        return np.split(joined, np.cumsum([len(product) for product in products])[:-1])

    # --- randomness ------------------------------------------------------------------------------

    def random(self, bits: int, count: int) -> Shares:
        """Sharings of random integers, without communication: sums of C(m, t) uniform ones below 2^bits.

        Any t parties lack the key of at least one summand, so to them a sum hides what it is added to.
        """
        shares = thresha.np_pseudorandom_share(
            FIELD, self.parties, self.party, self._prfs(2**bits), self._draw(), count
        )
        return np.asarray(shares.value)

    def zero(self, count: int) -> Shares:
        """Random sharings of 0 with degree 2t, without communication: make a local product's sharing safe to open."""
        if self.threshold == 0:
            return np.zeros(count, dtype=object)
        shares = thresha.np_pseudorandom_share_0(
            FIELD, self.parties, self.party, self._prfs(MODULUS), self._draw(), count
        )
        return np.asarray(shares.value)

    async def random_bits(self, count: int) -> Shares:
        """Sharings of uniformly random bits: the exclusive or of bits dealt by t + 1 parties.

        At least one of the dealers is not among any t parties. Signs multiply as bits add: products of +1 and -1.
        """
        dealers = range(self.threshold + 1)
        own = [1 - 2 * (byte & 1) for byte in secrets.token_bytes(count)] if self.party in dealers else None
        signs = list(await self.share(own, dealers, count))
        while len(signs) > 1:
            half = len(signs) // 2
            products = await self.multiply(*zip(signs[:half], signs[half : 2 * half], strict=True))
            signs = products + signs[2 * half :]
        return reduced((1 - signs[0]) * _HALF)

    # --- within ----------------------------------------------------------------------------------

    def _split(self, x: Shares) -> Shares:
        """Fresh random polynomials of degree t with these values at 0, at 1 to m: shape (m, len(x)).

        As ``thresha.np_random_split``, but with one call to the system's generator instead of one per coefficient.
        """
        coefficients = _uniform(self.threshold * len(x)).reshape(self.threshold, len(x))
        powers = np.array([[i**j for j in range(self.threshold + 1)] for i in range(1, self.parties + 1)], dtype=object)
        return reduced(powers @ np.vstack([x, coefficients]))

    def _prfs(self, bound: int) -> dict[tuple[int, ...], thresha.PRF]:
        return {subset: thresha.PRF(key, bound) for subset, key in self._keys.items()}

    def _draw(self) -> bytes:
        self._draws += 1
        return self._draws.to_bytes(8, "big")

    async def _exchange(self, outgoing: Mapping[int, bytes], incoming: Mapping[int, int]) -> dict[int, bytes]:
        self.rounds += 1
        return await self._channel.exchange(outgoing, incoming)


_HALF = (MODULUS + 1) // 2


def reduced(x: Shares) -> Shares:
    """The same elements of the field, as numbers in [0, MODULUS)."""
    return np.asarray(x % MODULUS)


def _array(values: Sequence[int]) -> Shares:
    array = np.empty(len(values), dtype=object)
    array[:] = [value % MODULUS for value in values]
    return array


def _encode(x: Shares) -> bytes:
    return b"".join(value.to_bytes(ELEMENT_BYTES, "big") for value in x)


def _decode(peer: int, data: bytes) -> Shares:
    """Elements sent by a peer; the Channel has checked how many. Raises SessionFailed."""
    values = [int.from_bytes(data[i : i + ELEMENT_BYTES], "big") for i in range(0, len(data), ELEMENT_BYTES)]
    if any(value >= MODULUS for value in values):
        raise SessionFailed(f"party {peer} sent a number outside the field", rule="session-malformed")
    return _array(values)


def _uniform(count: int) -> Shares:
    """Uniformly random elements of the field, up to a statistical distance of 2^-STATISTICAL_BITS each."""
    size = ELEMENT_BYTES + STATISTICAL_BITS // 8
    data = secrets.token_bytes(size * count)
    return _array([int.from_bytes(data[i : i + size], "big") for i in range(0, len(data), size)])


def _recombine(points: list[tuple[int, Shares]]) -> Shares:
    """Secrets from points (x, shares at x); Lagrange's coefficients are MPyC's."""
    points.sort(key=lambda point: point[0])
    xs, rows = zip(*points, strict=True)
    return reduced(_coefficients(xs) @ np.array(rows, dtype=object))


@functools.cache
def _coefficients(xs: tuple[int, ...]) -> Shares:
    unit = [[int(i == j) for j in range(len(xs))] for i in range(len(xs))]
    return np.asarray(thresha.np_recombine(FIELD, list(zip(xs, unit, strict=True))).value)
