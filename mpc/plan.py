"""Compile a query into a plan: what is computed where, what is opened, and who learns what.

``compile_plan`` is a pure function of the SQL, the published datasets, the tokens and the members, so every party
compiles the same plan for itself; its hash is what parties approve and what sessions compare. The plan's ``sql`` is
the query's normal form: compiling it again gives the same plan.

A query pushes everything it can down to the owners' engines: per group and expression each owner contributes the number
of values, their sum and the sum of their squares, and only adding up, dividing and the cohort test happen on shares.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from koinon import canonical
from koinon.errors import InvalidInput, Refused, UnsupportedQuery
from koinon.limits import FRACTION_DIGITS, MAX_COMMITTEE, MAX_SOURCES, MAX_SQL
from koinon.names import DatasetName, TableName
from koinon.v1.access_pb2 import TOKEN_STATUS_EXPIRED, TOKEN_STATUS_REVOKED, Token
from koinon.v1.catalog_pb2 import (
    DATASET_STATUS_PUBLISHED,
    TASK_OPERATION_AVG,
    TASK_OPERATION_COUNT,
    TASK_OPERATION_GROUP_BY,
    TASK_OPERATION_SUM,
    TASK_OPERATION_VARIANCE,
    Dataset,
    TaskOperation,
)
from koinon.v1.plan_pb2 import (
    AGGREGATE_KIND_COUNT,
    AGGREGATE_KIND_ROWS,
    AGGREGATE_KIND_SUM,
    AGGREGATE_KIND_SUM_OF_SQUARES,
    OUTPUT_KIND_AVG,
    OUTPUT_KIND_COUNT,
    OUTPUT_KIND_GROUP,
    OUTPUT_KIND_STDDEV_SAMP,
    OUTPUT_KIND_SUM,
    OUTPUT_KIND_VAR_SAMP,
    AggregateKind,
    LocalAggregate,
    OutputColumn,
    Plan,
    PlanSource,
)
from koinon.v1.task_pb2 import SubmitTask, TaskSource
from koinon.words import of_others
from mpc.disclosure import counted, minimum_cohort, refuse_small
from mpc.expressions import (
    BOOLEAN,
    DECIMAL,
    INTEGER,
    NULL,
    TYPE_WORDS,
    Expression,
    Type,
    columns_of,
    never_null,
    quote,
    render,
    type_check,
)
from mpc.local_sql import Aggregate, local_sql
from mpc.schema import CommonColumn, common_columns, count_groups, group_column
from mpc.sql import AGGREGATES, AggregateItem, GroupItem, Kind, Query, parse
from mpc.steps import describe, estimate

PLAN_VERSION = 2
"""Of compiler and protocols together; parties of different versions refuse early."""

_OPERATIONS: dict[Kind, TaskOperation.ValueType] = {
    OUTPUT_KIND_COUNT: TASK_OPERATION_COUNT,
    OUTPUT_KIND_SUM: TASK_OPERATION_SUM,
    OUTPUT_KIND_AVG: TASK_OPERATION_AVG,
    OUTPUT_KIND_VAR_SAMP: TASK_OPERATION_VARIANCE,
    OUTPUT_KIND_STDDEV_SAMP: TASK_OPERATION_VARIANCE,
}
_NEEDS: dict[Kind, tuple[AggregateKind.ValueType, ...]] = {
    OUTPUT_KIND_COUNT: (AGGREGATE_KIND_COUNT,),
    OUTPUT_KIND_SUM: (AGGREGATE_KIND_COUNT, AGGREGATE_KIND_SUM),
    OUTPUT_KIND_AVG: (AGGREGATE_KIND_COUNT, AGGREGATE_KIND_SUM),
    OUTPUT_KIND_VAR_SAMP: (AGGREGATE_KIND_COUNT, AGGREGATE_KIND_SUM, AGGREGATE_KIND_SUM_OF_SQUARES),
    OUTPUT_KIND_STDDEV_SAMP: (AGGREGATE_KIND_COUNT, AGGREGATE_KIND_SUM, AGGREGATE_KIND_SUM_OF_SQUARES),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset as the catalog has it, and the asker's token for it."""

    dataset: Dataset
    token: Token


def compile_plan(
    sql: str,
    sources: Sequence[Source],
    members: Sequence[str],
    *,
    asker: str,
    purpose: str = "",
    min_committee: int = 3,
    max_committee: int = MAX_COMMITTEE,
) -> Plan:
    """The plan of a query over these sources.

    Args:
        sql: the query; untrusted.
        sources: one per dataset behind the query's table, in any order: for ``collection.table`` those the asker
            holds a token for. Taken from the ledger. Time and remaining uses are consensus's to check.
        members: institutions that may compute, from the ledger.
        asker: the institution of the person who asks; its own rows do not count towards the minimum cohort.
        purpose: what for, if that is known already; every token must have been granted for it.
        min_committee, max_committee: the consortium's parameters.

    Raises UnsupportedQuery for what the SQL may not say, NotFound for an unknown column, and Refused with the rule:
    token-missing, token-revoked, token-expired, token-dataset, token-columns, token-operations, token-purpose,
    dataset-withdrawn, schema-mismatch, no-codelist, too-many-groups, committee, minimum-cohort.
    """
    query = parse(sql)
    ordered = sorted(sources, key=lambda source: source.dataset.published.name)
    _check_sources(query.source, ordered)
    datasets = [source.dataset for source in ordered]
    names = [*query.group_by, *_named_columns(query)]
    columns = common_columns(names, datasets)
    typed = _TypedQuery.of(query, columns)
    operations = _operations(query)
    for position, source in enumerate(ordered):
        used = sorted({column.published[position].name for column in columns.values()})
        _check_token(source, used, operations, purpose)

    groups = [group_column(columns[name], datasets) for name in query.group_by]
    group_count = count_groups(groups)
    cohort = minimum_cohort((source.dataset, source.token) for source in ordered)
    counts = counted([dataset.publisher for dataset in datasets], asker)
    refuse_small(itertools.compress(datasets, counts), cohort, whose=of_others([] if all(counts) else [asker]))
    owners = sorted({dataset.publisher for dataset in datasets})
    committee = _committee(owners, members, min_committee, max_committee)

    def common(name: str) -> str:
        return columns[name].name

    plan = Plan(
        version=PLAN_VERSION,
        sql=_bounded(query.render(common)),
        committee=committee,
        threshold=(len(committee) - 1) // 2,
        group_by=groups,
        aggregates=[
            LocalAggregate(
                kind=aggregate.kind,
                expression="" if aggregate.expression is None else render(aggregate.expression, common),
            )
            for aggregate in typed.aggregates
        ],
        outputs=typed.outputs,
        min_cohort=cohort,
        fraction_digits=FRACTION_DIGITS,
    )
    for position, source in enumerate(ordered):
        own = {column.name: _write_column(column, position) for column in columns.values()}
        plan.sources.append(
            PlanSource(
                dataset=source.dataset.published.name,
                version=source.dataset.version,
                institution=source.dataset.publisher,
                token_id=source.token.id,
                columns=sorted({column.published[position].name for column in columns.values()}),
                operations=operations,
                local_sql=local_sql(typed.aggregates, typed.where, [group.name for group in groups], common, own),
                commitment=source.dataset.published.commitment,
                counted=counts[position],
            )
        )
    plan.cost.CopyFrom(estimate(plan, group_count))
    plan.steps.extend(describe(plan, group_count))
    return plan


def plan_hash(plan: Plan) -> bytes:
    """Digest of a plan that this process compiled (canonical.plan_hash of its deterministic serialisation)."""
    return canonical.plan_hash(plan.SerializeToString(deterministic=True))


def task_for(plan: Plan, purpose: str = "") -> SubmitTask:
    """The task to sign for a plan; the asker adds its ``result_key``, and the price it agrees to."""
    return SubmitTask(
        sql=plan.sql,
        plan_hash=plan_hash(plan),
        sources=[
            TaskSource(
                dataset=source.dataset,
                version=source.version,
                token_id=source.token_id,
                columns=source.columns,
                operations=source.operations,
            )
            for source in plan.sources
        ],
        committee=plan.committee,
        threshold=plan.threshold,
        purpose=purpose,
    )


# --- checks --------------------------------------------------------------------------------------


def _check_sources(named: DatasetName | TableName, sources: Sequence[Source]) -> None:
    if not sources:
        raise Refused(
            f"no usable token for {named}",
            rule="token-missing",
            hint=f"koinon access request {named} asks for one",
        )
    if len(sources) > MAX_SOURCES:
        raise Refused(f"{len(sources)} datasets, at most {MAX_SOURCES} are possible", rule="invalid-input")
    names = [source.dataset.published.name for source in sources]
    for index, (name, source) in enumerate(zip(names, sources, strict=True)):
        dataset = DatasetName.parse(name)
        if dataset != named and dataset.table != named:
            raise InvalidInput(f"{name} is not part of {named}")
        if name in names[:index]:
            raise InvalidInput(f"{name} is given twice")
        if source.dataset.status != DATASET_STATUS_PUBLISHED:
            raise Refused(f"{name} was withdrawn", rule="dataset-withdrawn", hint="koinon catalog search finds others")


def _check_token(
    source: Source, columns: Sequence[str], operations: Sequence[TaskOperation.ValueType], purpose: str
) -> None:
    token, name = source.token, source.dataset.published.name
    again = f"koinon access request {name} asks for a new one"
    if token.dataset != name:
        raise Refused(f"token {token.id} is for {token.dataset}, not for {name}", rule="token-dataset", hint=again)
    if token.status == TOKEN_STATUS_REVOKED:
        reason = f": {token.status_reason}" if token.status_reason else ""
        raise Refused(f"token {token.id} for {name} was revoked{reason}", rule="token-revoked", hint=again)
    if token.status == TOKEN_STATUS_EXPIRED:
        raise Refused(f"token {token.id} for {name} has expired", rule="token-expired", hint=again)
    missing = [column for column in columns if column not in token.columns]
    if missing:
        raise Refused(
            f"token {token.id} for {name} does not cover the columns {', '.join(missing)}",
            rule="token-columns",
            hint=again,
        )
    lacking = [operation for operation in operations if operation not in token.operations]
    if lacking:
        words = ", ".join(TaskOperation.Name(operation).removeprefix("TASK_OPERATION_") for operation in lacking)
        raise Refused(f"token {token.id} for {name} does not cover {words}", rule="token-operations", hint=again)
    if purpose and purpose not in token.purposes:
        raise Refused(
            f"token {token.id} for {name} was granted for another purpose: {'; '.join(token.purposes)}",
            rule="token-purpose",
            hint=f"state the purpose that it was granted for, word for word; {again}",
        )


def _operations(query: Query) -> list[TaskOperation.ValueType]:
    needed = {_OPERATIONS[item.kind] for item in query.items if isinstance(item, AggregateItem)}
    if query.group_by:
        needed.add(TASK_OPERATION_GROUP_BY)
    return sorted(needed)


def _committee(owners: Sequence[str], members: Sequence[str], least: int, most: int) -> list[str]:
    """The owners, and as many further members, ascending, as an honest majority needs. Ascending."""
    if len(owners) > most:
        raise Refused(
            f"{len(owners)} owners, a committee has at most {most} members",
            rule="committee",
            hint="query fewer institutions at a time",
        )
    helpers = sorted(set(members) - set(owners))[: max(0, least - len(owners))]
    committee = sorted([*owners, *helpers])
    if len(committee) < least:
        raise Refused(
            f"a committee needs {least} members, {len(committee)} are available",
            rule="committee",
            hint="with fewer than three parties secret sharing protects nothing; wait for more members",
        )
    return committee


def _bounded(sql: str) -> str:
    if len(sql) > MAX_SQL:
        raise UnsupportedQuery(
            f"the query's normal form has {len(sql)} characters", hint=f"at most {MAX_SQL} are possible"
        )
    return sql


# --- types and aggregates ------------------------------------------------------------------------


def _named_columns(query: Query) -> list[str]:
    expressions = [item.expression for item in query.items if isinstance(item, AggregateItem)]
    return [name for part in [*expressions, query.where] if part is not None for name in columns_of(part)]


def _write_column(column: CommonColumn, position: int) -> str:
    own = column.published[position]
    target = {DECIMAL: "DOUBLE"}.get(column.type, "TIMESTAMP")
    return quote(own.name) if own.type == column.type else f"CAST({quote(own.name)} AS {target})"


@dataclass(frozen=True, slots=True)
class _TypedQuery:
    """A query whose expressions were checked against the common schema."""

    aggregates: tuple[Aggregate, ...]
    outputs: tuple[OutputColumn, ...]
    where: Expression | None

    @classmethod
    def of(cls, query: Query, columns: dict[str, CommonColumn]) -> _TypedQuery:
        types = {name: column.type for name, column in columns.items()}
        nullable = {name: any(own.nullable for own in column.published) for name, column in columns.items()}
        where = None
        if query.where is not None:
            where, kind = type_check(query.where, types)
            if kind not in (BOOLEAN, NULL):
                raise UnsupportedQuery(
                    f"WHERE needs a condition, this is {TYPE_WORDS[kind]}", hint="compare it, e.g. = 1"
                )
        aggregates = [Aggregate(AGGREGATE_KIND_ROWS, None)]
        outputs = []
        for item in query.items:
            if isinstance(item, GroupItem):
                index = query.group_by.index(item.column)
                outputs.append(OutputColumn(name=item.name, kind=OUTPUT_KIND_GROUP, group_index=index))
            else:
                outputs.append(_output(item, types, nullable, aggregates))
        return cls(tuple(aggregates), tuple(outputs), where)


def _output(
    item: AggregateItem, types: dict[str, Type], nullable: dict[str, bool], aggregates: list[Aggregate]
) -> OutputColumn:
    """The output of an aggregate; appends what it needs to ``aggregates``, each only once.

    An expression that is never NULL has as many values as rows, so the count of rows serves, and is tested once.
    """
    if item.expression is None:
        return OutputColumn(name=item.name, kind=item.kind, aggregate_indices=[0], integral=True)
    expression, kind = type_check(item.expression, types)
    if item.kind != OUTPUT_KIND_COUNT and kind not in (BOOLEAN, INTEGER, DECIMAL, NULL):
        raise UnsupportedQuery(
            f"{AGGREGATES[item.kind]} needs numbers, this is {TYPE_WORDS[kind]}",
            hint="use COUNT, a CASE that gives numbers, or TRY_CAST(column AS DOUBLE)",
        )
    indices = []
    for needed in _NEEDS[item.kind]:
        aggregate = Aggregate(needed, expression)
        if needed == AGGREGATE_KIND_COUNT and never_null(expression, nullable):
            aggregate = aggregates[0]
        if aggregate not in aggregates:
            aggregates.append(aggregate)
        indices.append(aggregates.index(aggregate))
    whole = item.kind == OUTPUT_KIND_COUNT or (item.kind == OUTPUT_KIND_SUM and kind in (BOOLEAN, INTEGER))
    return OutputColumn(name=item.name, kind=item.kind, aggregate_indices=indices, integral=whole)
