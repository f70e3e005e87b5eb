"""The SQL that runs in an owner's own engine: one row per group with exact integers, over the view ``source``.

Four nested SELECTs, innermost first:

1. the columns used, under their common names and types;
2. evaluate: group columns g0, g1, … as text, expressions x0, x1, … of the rows that WHERE leaves;
3. quantise: v0, v1, …, the integer nearest to x·10^6, NULL if x is beyond ±10^9 or no number;
4. aggregate: a0, a1, … in the order of the plan's aggregates, and ``beyond``, how many values could not be quantised.

Sums are taken of 128-bit integers, so they are exact whatever the order of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from koinon.limits import FRACTION_DIGITS, MAX_VALUE
from koinon.v1.plan_pb2 import (
    AGGREGATE_KIND_COUNT,
    AGGREGATE_KIND_SUM,
    AGGREGATE_KIND_SUM_OF_SQUARES,
    AggregateKind,
)
from mpc.expressions import Expression, Spelling, quote, render

BEYOND = "beyond"
"""The output column that counts values too large to enter."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One number per group; ``expression`` is None for ROWS."""

    kind: AggregateKind.ValueType
    expression: Expression | None


def local_sql(
    aggregates: Sequence[Aggregate],
    where: Expression | None,
    group_by: Sequence[str],
    spell: Spelling,
    columns: Mapping[str, str],
) -> str:
    """The local SQL of one source.

    Args:
        aggregates: as in the plan, in its order.
        where: rows to use, all if None.
        group_by: common names of the group columns.
        spell: from a column as the query spells it to its common name.
        columns: by common name, this source's own column as SQL, converted to the common type.
    """
    expressions: list[Expression] = []
    numeric: list[bool] = []
    for aggregate in aggregates:
        if aggregate.expression is None:
            continue
        if aggregate.expression not in expressions:
            expressions.append(aggregate.expression)
            numeric.append(False)
        if aggregate.kind != AGGREGATE_KIND_COUNT:
            numeric[expressions.index(aggregate.expression)] = True

    groups = [f"g{index}" for index in range(len(group_by))]
    evaluated = [f"CAST({quote(name)} AS VARCHAR) AS g{index}" for index, name in enumerate(group_by)]
    quantised = list(groups)
    beyond = []
    for index, expression in enumerate(expressions):
        text = render(expression, spell)
        evaluated.append(f"CAST({text} AS DOUBLE) AS x{index}" if numeric[index] else f"{text} AS x{index}")
        quantised.append(f"x{index}")
        if numeric[index]:
            scaled = f"CAST(ROUND(x{index} * {10**FRACTION_DIGITS}) AS HUGEINT)"
            quantised.append(f"CASE WHEN ABS(x{index}) <= {MAX_VALUE} THEN {scaled} END AS v{index}")
            beyond.append(f"COUNT(x{index}) - COUNT(v{index})")

    outputs = [*groups, *(_aggregate(aggregate, index, expressions) for index, aggregate in enumerate(aggregates))]
    outputs.append(f"{' + '.join(beyond) or '0'} AS {BEYOND}")
    own = [f"{text} AS {quote(name)}" for name, text in columns.items()]
    common = f"({_select(own, 'source')}) AS common"
    if where is not None:
        common += f" WHERE {render(where, spell)}"
    inner = f"(\n{_select(evaluated, common)}) AS evaluated"
    text = _select(outputs, f"(\n{_select(quantised, inner)}) AS quantised")
    return f"{text}\nGROUP BY {', '.join(groups)}" if groups else text


def _select(items: Sequence[str], source: str) -> str:
    return f"SELECT {', '.join(items) or '1'} FROM {source}"  # noqa: S608 - written by render, names checked


def _aggregate(aggregate: Aggregate, position: int, expressions: Sequence[Expression]) -> str:
    if aggregate.expression is None:
        return f"COUNT(*) AS a{position}"
    index = expressions.index(aggregate.expression)
    written = {
        AGGREGATE_KIND_COUNT: f"COUNT(x{index})",
        AGGREGATE_KIND_SUM: f"SUM(v{index})",
        AGGREGATE_KIND_SUM_OF_SQUARES: f"SUM(v{index} * v{index})",
    }
    return f"{written[aggregate.kind]} AS a{position}"
