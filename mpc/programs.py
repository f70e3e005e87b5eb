"""The secure program of a joint query: sums, cohort tests and exact divisions on shares.

Input: each owner's ``groups x aggregates`` integers, shared among the committee by the owner itself. Output: this
party's share of every integer to be opened, group-major as in OutputShares. mpc.cleartext is the twin that defines the
integers. Cohorts are tested on the totals of the counted sources (mpc.disclosure), everything else is of all.

Who learns what
    Owners and computing parties: nothing. They see shares of degree t, and openings of values masked by numbers 2^64
    times larger. The asker, who alone receives output shares: per group whether it is shown, and if so the outputs; of
    groups that are not shown, and of absent values, only that. Output sharings are freshly randomised.
What breaks it
    More than t < m/2 parties that pool what they see learn every source's aggregates. A party that deviates from the
    protocol can change results; contradictory output shares are noticed at the opening (koinon.shares), a wrong input
    is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from koinon.shares import MODULUS
from koinon.v1.plan_pb2 import (
    OUTPUT_KIND_AVG,
    OUTPUT_KIND_COUNT,
    OUTPUT_KIND_GROUP,
    OUTPUT_KIND_STDDEV_SAMP,
    OUTPUT_KIND_VAR_SAMP,
    OutputColumn,
    Plan,
)
from mpc.cleartext import group_codes, rows_index
from mpc.disclosure import values_needed
from mpc.protocols import COUNT_BITS, PRECISION, bits_of, divide, magnitudes, multiply_shift, nearest_root, reciprocals
from mpc.shamir import Shamir, Shares

_SPREADS = (OUTPUT_KIND_VAR_SAMP, OUTPUT_KIND_STDDEV_SAMP)
_DIVIDED = (OUTPUT_KIND_AVG, *_SPREADS)
_BATCH = 256  # outputs computed at once: bounds memory, and the size of messages


class _Cell(NamedTuple):
    """One computed output of one group, and the positions of its totals in the flat vector."""

    kind: int
    totals: tuple[int, ...]  # count; count, sum; or count, sum, squares
    needed: int  # values that must have entered it


async def joint_query(s: Shamir, plan: Plan, owners: Sequence[int], own: Sequence[Sequence[int]] | None) -> list[int]:
    """Run the plan with the other parties; ``own`` is this party's input, None unless it is among ``owners``.

    Returns this party's output shares. Raises SessionFailed.
    """
    groups, aggregates = len(group_codes(plan)), len(plan.aggregates)
    flat = [value for row in own for value in row] if own is not None else None
    await s.start()
    inputs = await s.share(flat, owners, groups * aggregates)
    counting = {source.institution for source in plan.sources if source.counted}
    tested = [index for index, owner in enumerate(owners) if plan.committee[owner] in counting]
    totals, cohorts = (part.sum(axis=0) % MODULUS for part in (inputs, inputs[tested]))
    columns = [column for column in plan.outputs if column.kind != OUTPUT_KIND_GROUP]
    step = max(1, _BATCH // len(columns))
    shares: list[int] = []
    for start in range(0, groups, step):
        offsets = [group * aggregates for group in range(start, min(start + step, groups))]
        shares += await _open_groups(s, plan, columns, offsets, totals, cohorts)
    return shares


async def _open_groups(
    s: Shamir, plan: Plan, columns: Sequence[OutputColumn], offsets: Sequence[int], totals: Shares, cohorts: Shares
) -> list[int]:
    """Output shares of the groups that begin at ``offsets``, in the totals of all and of the counted sources."""
    cells = [_cell(plan, column, offset) for offset in offsets for column in columns]
    rows = [offset + rows_index(plan) for offset in offsets]
    tests = dict.fromkeys([(row, plan.min_cohort) for row in rows] + [(c.totals[0], c.needed) for c in cells])
    counts = dict.fromkeys(c.totals[0] for c in cells if c.kind in _DIVIDED)

    # count - needed + 2^33 has its highest bit set where enough rows or values entered
    differences = [cohorts[position] - needed + 2**COUNT_BITS for position, needed in tests]
    numbers = np.array(differences + [totals[position] for position in counts], dtype=object) % MODULUS
    bits = await bits_of(s, numbers, COUNT_BITS + 1)
    passed = dict(zip(tests, bits[-1], strict=False))
    shown = np.array([passed[row, plan.min_cohort] for row in rows], dtype=object)
    enough = np.array(
        [1 if c.kind == OUTPUT_KIND_COUNT else passed[c.totals[0], c.needed] for c in cells], dtype=object
    )

    values = np.array([totals[c.totals[c.kind != OUTPUT_KIND_COUNT]] for c in cells], dtype=object)
    divided = [i for i, c in enumerate(cells) if c.kind in _DIVIDED]
    if divided:
        index = {position: i for i, position in enumerate(counts)}
        which = [index[cells[i].totals[0]] for i in divided]
        sizes = [size[which] for size in await magnitudes(s, bits[:, len(tests) :])]
        values[divided] = await _quotients(s, [cells[i] for i in divided], totals, sizes, 10**plan.fraction_digits)

    (present,) = await s.multiply((enough, np.repeat(shown, len(columns))))
    # the last multiplication hides what is not shown, and makes every output sharing a fresh random one
    shares = await s.reshare(np.concatenate([shown, present, values * present % MODULUS]))
    shown, present, values = np.split(shares, [len(offsets), len(offsets) + len(cells)])
    paired = np.stack([present, values], axis=1).reshape(len(offsets), -1)
    return [int(share) for share in np.hstack([shown.reshape(-1, 1), paired]).reshape(-1)]


def _cell(plan: Plan, column: OutputColumn, offset: int) -> _Cell:
    needed = values_needed(plan.min_cohort, spread=column.kind in _SPREADS)
    return _Cell(column.kind, tuple(offset + index for index in column.aggregate_indices), needed)


async def _quotients(s: Shamir, cells: Sequence[_Cell], totals: Shares, sizes: Sequence[Shares], scale: int) -> Shares:
    """AVG, VAR_SAMP and STDDEV_SAMP by mpc.cleartext's formulas; meaningless where too few values entered.

    ``sizes`` are the counts' ``magnitudes``. With n a count and p its power of two, n·p / 2^34 and (n - 1)·p / 2^34
    lie in [1/4, 1), so ``reciprocals`` takes them. Every cell goes through the same steps; averages ignore some.
    """
    kinds = np.array([c.kind for c in cells])
    average, variance, root = (kinds == kind for kind in _DIVIDED)
    n, sums, squares = (totals[[c.totals[min(i, len(c.totals) - 1)] for c in cells]] for i in range(3))
    p, any_, several = sizes

    np_, sp, nq, ss, nn, pp = await s.multiply((n, p), (sums, p), (n, squares), (sums, sums), (n, n), (p, p))
    spread, pairs = (nq - ss) % MODULUS, (nn - n) % MODULUS  # n·Q - S² and n·(n - 1)
    (spread_pp,) = await s.multiply((spread, pp))

    first = np_ + (1 - any_) * 2**COUNT_BITS  # a count too small to divide by gets a harmless divisor
    second = np_ - p + (1 - several) * 2**COUNT_BITS
    one = 2**PRECISION
    factors = np.concatenate([np.full(len(cells), one, dtype=object), _select(variance, one // scale, one)])
    divisors = np.concatenate([first, second]) * 2 ** (PRECISION - COUNT_BITS - 1) % MODULUS
    first, second = np.split(await reciprocals(s, divisors, factors), 2)
    inverse = await multiply_shift(s, first, _select(average, one, second), PRECISION, 2 * PRECISION + 5)

    values = await divide(
        s,
        numerator=_select(average, sums, spread),
        denominator=_select(average, n, _select(variance, scale * pairs % MODULUS, pairs)),
        nearest=_select(root, 0, 1),
        scaled=_select(average, sp * 2 ** (COUNT_BITS + 1) % MODULUS, spread_pp),
        reciprocal=inverse,
    )
    if root.any():
        values[root] = await nearest_root(s, values[root])
    return values


def _select(where: NDArray[np.bool_], yes: Shares | int, no: Shares | int) -> Shares:
    """A public choice, element by element."""
    return np.where(where, np.asarray(yes, dtype=object), np.asarray(no, dtype=object))
