"""The cleartext twin: what a joint query opens, computed without any secrecy. It defines the secure program.

Input per source: ``groups x aggregates`` exact integers, as the owner's engine returns them, in the order of
``group_codes(plan)``. Values carry the scale s = 10^fraction_digits: a value x enters as the integer nearest to
x·s, its square as the square of that integer. With N the number of values, S their sum and Q the sum of their
squares, over all sources, an output is

=============  ==========================================  ==========================
COUNT          N                                           whole, not scaled
SUM            S                                           integer of 1/s
AVG            nearest(S, N)                               integer of 1/s
VAR_SAMP       nearest(N·Q - S², N·(N - 1)·s)              integer of 1/s
STDDEV_SAMP    root((N·Q - S²) div (N·(N - 1)))            integer of 1/s
=============  ==========================================  ==========================

nearest(a, b) = (2a + b) div 2b, the nearest integer, ties towards +infinity; root(a) = (isqrt(4a) + 1) div 2, the
integer nearest to the square root; div rounds towards -infinity. The disclosure rules look at the rows and values of
the plan's counted sources alone; N, S and Q are of all. Every output is 0 when its group is not shown and
when it is absent (mpc.disclosure), so that opening it tells nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from koinon.v1.plan_pb2 import (
    AGGREGATE_KIND_ROWS,
    OUTPUT_KIND_AVG,
    OUTPUT_KIND_COUNT,
    OUTPUT_KIND_GROUP,
    OUTPUT_KIND_STDDEV_SAMP,
    OUTPUT_KIND_SUM,
    OUTPUT_KIND_VAR_SAMP,
    OutputColumn,
    Plan,
)
from mpc.disclosure import shown, values_needed

SourceInput = Sequence[Sequence[int]]
"""``groups x aggregates`` integers of one source."""


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One group as the asker sees it; ``values`` has one entry per output that is no group column, None for NULL."""

    codes: tuple[str, ...]
    shown: bool
    values: tuple[int | None, ...]

    def opened(self) -> list[int]:
        """The integers that the secure program opens for this group: shown, then present and value per output."""
        flat = [int(self.shown)]
        for value in self.values:
            flat += [0, 0] if value is None else [1, value]
        return flat


def group_codes(plan: Plan) -> list[tuple[str, ...]]:
    """All groups of a plan in the order of every vector: the product of the codelists, last column fastest.

    Without GROUP BY there is one group, ``()``. The empty code stands for NULL.
    """
    return list(itertools.product(*(tuple(column.codes) for column in plan.group_by)))


def rows_index(plan: Plan) -> int:
    """Index of the aggregate that counts a group's rows; the planner puts exactly one into every plan."""
    return next(i for i, aggregate in enumerate(plan.aggregates) if aggregate.kind == AGGREGATE_KIND_ROWS)


def evaluate(plan: Plan, inputs: Sequence[SourceInput]) -> list[GroupResult]:
    """What the plan opens for these inputs, one entry per source. Group by group in the order of ``group_codes``."""
    results = []
    rows = rows_index(plan)
    counted = [position for position, source in enumerate(plan.sources) if source.counted]
    for index, codes in enumerate(group_codes(plan)):
        totals = [sum(source[index][a] for source in inputs) for a in range(len(plan.aggregates))]
        tested = [sum(inputs[position][index][a] for position in counted) for a in range(len(plan.aggregates))]
        visible = shown(tested[rows], plan.min_cohort)
        values = tuple(
            _output(plan, column, totals, tested) if visible else None
            for column in plan.outputs
            if column.kind != OUTPUT_KIND_GROUP
        )
        results.append(GroupResult(codes, visible, values))
    return results


def _output(plan: Plan, column: OutputColumn, of_all: list[int], tested: list[int]) -> int | None:
    totals = [of_all[a] for a in column.aggregate_indices]
    count = totals[0]
    if column.kind == OUTPUT_KIND_COUNT:
        return count
    spread = column.kind in (OUTPUT_KIND_VAR_SAMP, OUTPUT_KIND_STDDEV_SAMP)
    if tested[column.aggregate_indices[0]] < values_needed(plan.min_cohort, spread=spread):
        return None
    scale = 10**plan.fraction_digits
    match column.kind:
        case k if k == OUTPUT_KIND_SUM:
            return totals[1]
        case k if k == OUTPUT_KIND_AVG:
            return nearest(totals[1], count)
        case k if k == OUTPUT_KIND_VAR_SAMP:
            return nearest(count * totals[2] - totals[1] ** 2, count * (count - 1) * scale)
        case _:
            return root((count * totals[2] - totals[1] ** 2) // (count * (count - 1)))


def nearest(numerator: int, denominator: int) -> int:
    """The integer nearest to numerator / denominator (> 0), ties towards +infinity."""
    return (2 * numerator + denominator) // (2 * denominator)


def root(value: int) -> int:
    """The integer nearest to the square root of ``value`` (>= 0)."""
    return (math.isqrt(4 * value) + 1) // 2
