"""The result of a joint query: what was opened to the asker, and what that revealed.

Opened values are exact integers: counts as they are, everything else in units of
10^-fraction_digits. In ``rows`` whole numbers are ``int`` and others ``decimal.Decimal``, so nothing is
lost; ``to_pandas`` gives the usual columns of a data frame.
"""

from __future__ import annotations

import csv
import html
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from koinon.display import cell, csv_cell, number, printable
from koinon.errors import Corrupt, Refused, Unavailable
from koinon.planned import PlannedQuery, Revealed
from koinon.v1.plan_pb2 import OutputColumn, OutputKind, Plan
from koinon.words import of_others

if TYPE_CHECKING:
    import pandas as pd

Value = int | Decimal | str | None
"""A cell: a number, the code of a group, or None for NULL."""


@dataclass(frozen=True, slots=True)
class Result:
    """Rows of a joint query, in the order of the groups; groups below the minimum cohort are not among them."""

    planned: PlannedQuery
    task_id: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, Value], ...]
    suppressed_groups: int  # groups with fewer rows than the minimum cohort, empty ones included
    seconds: float  # from the call to the result

    @property
    def plan(self) -> Plan:
        """What was computed, as every party compiled it."""
        return self.planned.plan

    @property
    def sql(self) -> str:
        """The query that was computed, in its normal form: it should say what was asked."""
        return self.planned.sql

    @property
    def revealed(self) -> tuple[Revealed, ...]:
        """What the computation revealed, and to whom."""
        return self.planned.revealed

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Value]]:
        return iter(self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a data frame: whole numbers nullable integers, others floats, codes objects.

        Raises Unavailable if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise Unavailable(
                "to_pandas needs pandas, which is not installed",
                rule="missing-extra",
                hint="pip install 'koinon[pandas]', or use .rows",
            ) from None
        series = {
            output.name: pd.Series([row[output.name] for row in self.rows], dtype=_dtype(output))
            for output in self.plan.outputs
        }
        return pd.DataFrame(series, columns=list(self.columns))

    def to_csv(self) -> str:
        """The rows as CSV with a header; text that a spreadsheet would run as a formula is disarmed."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([csv_cell(name) for name in self.columns])
        writer.writerows([csv_cell(value) for value in row.values()] for row in self.rows)
        return buffer.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values; decimals as texts, so that no digit is lost."""
        return {
            "task_id": self.task_id,
            "sql": self.sql,
            "purpose": self.planned.purpose,
            "plan_hash": self.planned.plan_hash.hex(),
            "columns": list(self.columns),
            "rows": [
                {name: number(v) if isinstance(v, Decimal) else v for name, v in row.items()} for row in self.rows
            ],
            "suppressed_groups": self.suppressed_groups,
            "price": self.planned.price,
            "revealed": [{"who": list(item.who), "what": item.what} for item in self.revealed],
            "seconds": round(self.seconds, 3),
        }

    def note(self) -> str:
        """One line about the computation: parties, suppression, time, task."""
        suppressed = self.suppressed_groups
        hidden = f"; {_count(suppressed, 'group')} suppressed by the minimum cohort" if suppressed else ""
        paid = f"; {_count(self.planned.price, 'point')} paid" if self.planned.price else ""
        return (
            f"{_count(len(self.rows), 'row')} from {_count(len(self.plan.sources), 'dataset')}, "
            f"computed by {', '.join(self.plan.committee)} in {self.seconds:.2f} s{hidden}{paid}; task {self.task_id}"
        )

    def table(self) -> Table:
        """The rows for a terminal."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for output in self.plan.outputs:
            right = output.kind != OutputKind.OUTPUT_KIND_GROUP
            table.add_column(Text(printable(output.name)), justify="right" if right else "left")
        for row in self.rows:
            table.add_row(*(Text(cell(value)) for value in row.values()))
        return table

    def __rich__(self) -> Group:
        return Group(self.table(), *(Text(printable(line), style="dim") for line in (self.sql, self.note())))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(printable(name))}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell(value))}</td>" for value in row.values()) + "</tr>"
            for row in self.rows
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p><code>{html.escape(printable(self.sql))}</code></p><p>{html.escape(printable(self.note()))}</p>"
        )


def opened_count(plan: Plan) -> int:
    """How many integers a plan opens: per group a flag, then a flag and a value per computed output."""
    computed = sum(output.kind != OutputKind.OUTPUT_KIND_GROUP for output in plan.outputs)
    return (1 + 2 * computed) * math.prod(len(column.codes) for column in plan.group_by)


def build(planned: PlannedQuery, task_id: str, opened: Sequence[int], seconds: float) -> Result:
    """Make a result of the opened integers, group-major: shown, then present and value per computed output.

    Raises Corrupt when they do not fit the plan, Refused when every group was suppressed.
    """
    plan = planned.plan
    groups = list(itertools.product(*(column.codes for column in plan.group_by)))
    if len(opened) != opened_count(plan):
        raise _misfit(f"{len(opened)} numbers were opened, {opened_count(plan)} are planned")
    width = len(opened) // len(groups)
    rows = []
    for index, codes in enumerate(groups):
        shown, *pairs = opened[index * width : (index + 1) * width]
        flags = [shown, *pairs[::2]]
        if any(flag not in (0, 1) for flag in flags) or (not shown and any(pairs)):
            raise _misfit("a flag is neither 0 nor 1, or a suppressed group holds values")
        if shown:
            rows.append(_row(plan, codes, pairs))
    if not rows:
        whose = of_others(source.institution for source in plan.sources if not source.counted)
        raise Refused(
            f"every group has fewer than {plan.min_cohort} rows{whose}, so nothing is shown",
            rule="minimum-cohort",
            hint="group by fewer columns, widen the WHERE clause, or ask over more institutions",
        )
    columns = tuple(output.name for output in plan.outputs)
    return Result(planned, task_id, columns, tuple(rows), len(groups) - len(rows), seconds)


def _row(plan: Plan, codes: tuple[str, ...], pairs: Sequence[int]) -> dict[str, Value]:
    values = iter(zip(pairs[::2], pairs[1::2], strict=True))
    row: dict[str, Value] = {}
    for output in plan.outputs:
        if output.kind == OutputKind.OUTPUT_KIND_GROUP:
            row[output.name] = codes[output.group_index] or None  # the empty code stands for NULL
        else:
            present, value = next(values)
            row[output.name] = _value(output, value, plan.fraction_digits) if present else None
    return row


def _value(output: OutputColumn, value: int, fraction_digits: int) -> int | Decimal:
    if output.kind == OutputKind.OUTPUT_KIND_COUNT:
        return value
    if output.integral:
        whole, rest = divmod(value, int(10**fraction_digits))
        if rest:
            raise _misfit(f"{output.name} should be a whole number")
        return whole
    return Decimal((int(value < 0), Decimal(abs(value)).as_tuple().digits, -fraction_digits))


def _dtype(output: OutputColumn) -> str:
    if output.kind == OutputKind.OUTPUT_KIND_GROUP:
        return "object"
    return "Int64" if output.integral or output.kind == OutputKind.OUTPUT_KIND_COUNT else "float64"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _misfit(what: str) -> Corrupt:
    return Corrupt(
        f"the opened result does not fit the plan: {what}",
        rule="wrong-answer",
        hint="a party did not follow the protocol; ask again, and tell the members",
    )
