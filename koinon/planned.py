"""A query before it runs: what it would do, who would learn what, and what it would cost.

The plan comes from the asker's own node; every other party compiles the query in it anew and refuses a
different plan, so a plan that lies about its query fails before any input is read. What is checked here is
that the three things the node hands over, plan, digest and task to sign, say the same, and have the columns
that were asked for. Whether the plan's query is the asker's own is for the asker to see: its normal form is
shown with the plan and with the result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group
from rich.table import Table
from rich.text import Text

from koinon import canonical, prices
from koinon.display import printable
from koinon.errors import Corrupt
from koinon.limits import MAX_COMMITTEE, MAX_GROUPS, MAX_OUTPUTS
from koinon.v1.plan_pb2 import Plan, PlanSource, PlanStepKind
from koinon.v1.points_pb2 import Terms
from koinon.v1.services_pb2 import ExplainedPayout, PlanQueryResponse
from koinon.v1.task_pb2 import SubmitTask, TaskSource
from koinon.words import of_others, word


@dataclass(frozen=True, slots=True)
class Revealed:
    """Who learns something, and what, in words."""

    who: tuple[str, ...]
    what: str


@dataclass(frozen=True, slots=True)
class PlannedQuery:
    """A compiled query. Shows itself as tables in a terminal (rich) and in a notebook."""

    plan: Plan
    plan_hash: bytes
    task: SubmitTask  # all but the result key and the price agreed to
    terms: Terms = field(default_factory=Terms)  # what it costs now; empty: free
    payouts: tuple[ExplainedPayout, ...] = ()  # of the price, if the task completes

    @property
    def sql(self) -> str:
        """The query in its normal form: what is computed, and what every member can read on the ledger."""
        return self.plan.sql

    @property
    def purpose(self) -> str:
        """What it is for, as every member will read on the ledger."""
        return self.task.purpose

    @property
    def price(self) -> int:
        """Points that go into escrow on submitting: the price of this task, and of the periods that it begins."""
        return prices.cost(self.terms)

    @property
    def revealed(self) -> tuple[Revealed, ...]:
        """What each step reveals, and to whom; everything else stays with its owner or in shares."""
        return tuple(Revealed(tuple(step.who), step.learns) for step in self.plan.steps if step.learns)

    def __rich__(self) -> Group:
        plan, cost = self.plan, self.plan.cost
        whose = of_others(source.institution for source in plan.sources if not source.counted)
        sources = ", ".join(source.dataset for source in plan.sources)
        groups = f"{cost.groups} group{'' if cost.groups == 1 else 's'}"
        sent = f"about {cost.bytes_sent_estimate:,} bytes"
        head = Table.grid(padding=(0, 2))
        for name, value in (
            ("Query", self.sql),
            ("Purpose", self.purpose),
            ("Sources", sources),
            ("Committee", f"{', '.join(plan.committee)}; any {plan.threshold} of them together learn nothing"),
            ("Cohort", f"groups of fewer than {plan.min_cohort} rows{whose} are suppressed inside the computation"),
            ("Cost", f"{groups}, {cost.secret_values} secret values, {sent} in {cost.rounds_estimate} rounds"),
            ("Price", self._price()),
            ("Plan hash", self.plan_hash.hex()),
        ):
            head.add_row(name, Text(printable(value)))
        steps = Table.grid(padding=(0, 2))
        for number, step in enumerate(plan.steps, 1):
            who = ", ".join(step.who)
            learns = f"learn{'s' if len(step.who) == 1 else ''}{f': {step.learns}' if step.learns else ' nothing'}"
            steps.add_row(str(number), word(PlanStepKind, step.kind), Text(printable(step.description)))
            steps.add_row("", "", Text(printable(f"{who} {learns}; {step.values} values"), style="dim"))
        paid = Table.grid(padding=(0, 2))
        for payout in self.payouts:
            paid.add_row(str(payout.points), Text(printable(payout.account)), Text(printable(payout.why), style="dim"))
        return Group(head, Text(), steps, Text(), paid) if self.payouts else Group(head, Text(), steps)

    def _price(self) -> str:
        if not self.terms.sources:
            return prices.FREE
        each = "; ".join(f"{source.dataset} {prices.of_source(source)}" for source in self.terms.sources)
        fee = f"; fee {self.terms.fee}" if self.terms.fee else ""
        return f"{self.price} points, in escrow until the task ends: {each}{fee}"


def check(response: PlanQueryResponse, asked: str, purpose: str = "") -> PlannedQuery:
    """The node's plan for the query ``asked``, if plan, digest, task, columns and a purpose stated agree.

    Raises Corrupt.
    """
    plan, task = response.plan, response.task
    digest = canonical.plan_hash(plan.SerializeToString(deterministic=True))
    groups = math.prod(len(column.codes) for column in plan.group_by)
    _agree(digest == response.plan_hash, "its digest")
    _agree(plan.sql == task.sql, "the query of the task")
    _agree(digest == task.plan_hash, "the plan hash of the task")
    _agree(list(plan.committee) == list(task.committee), "the committee")
    _agree(plan.threshold == task.threshold, "the threshold")
    _agree(2 * plan.threshold < len(plan.committee) <= MAX_COMMITTEE, "an honest majority")
    _agree(0 < groups <= MAX_GROUPS and 0 < len(plan.outputs) <= MAX_OUTPUTS, "the bounds on groups and outputs")
    _agree(len({output.name for output in plan.outputs}) == len(plan.outputs), "distinct names of columns")
    _agree(_named(_column_labels(asked), [output.name for output in plan.outputs]), "the columns asked for")
    _agree([_task_source(source) for source in plan.sources] == list(task.sources), "the sources")
    _agree(task.purpose == (purpose or task.purpose), "the purpose")
    _agree(len(response.terms.sources) in (0, len(task.sources)), "the sources of the price")
    return PlannedQuery(plan, digest, task, response.terms, tuple(response.payouts))


def _task_source(source: PlanSource) -> TaskSource:
    return TaskSource(
        dataset=source.dataset,
        version=source.version,
        token_id=source.token_id,
        columns=source.columns,
        operations=source.operations,
    )


_PART = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\w+|\S""", re.DOTALL)
_CLAUSES = frozenset({"FROM", "WHERE", "GROUP", ";"})


def _column_labels(sql: str) -> list[str]:
    """The names that the text of a query gives its columns by AS, empty for a column without: its own SELECT list."""
    items: list[list[str]] = [[]]
    depth, reading = 0, False
    for part in _PART.findall(sql):
        if part.startswith(("--", "/*")):
            continue
        word = part.upper()
        if not reading:
            reading = word == "SELECT"
            continue
        depth += (part == "(") - (part == ")")
        if depth == 0 and word in _CLAUSES:
            break
        if depth == 0 and part == ",":
            items.append([])
        else:
            items[-1].append(part)
    return [item[-1].strip("\"'") if item[-2:-1] and item[-2].upper() == "AS" else "" for item in items if item]


def _named(labels: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the columns of a plan are as many as asked for, and called what the asker called them."""
    return len(labels) == len(names) and all(label in ("", name) for label, name in zip(labels, names, strict=True))


def _agree(holds: bool, what: str) -> None:
    if not holds:
        raise Corrupt(
            f"the node's plan contradicts {what}",
            rule="wrong-answer",
            hint="client and node are of different versions, or the node is faulty; nothing was submitted",
        )
