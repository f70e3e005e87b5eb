"""What a task costs, and who is paid when it ends.

The terms (prices of the tokens, published rows, voted shares and fee) are fixed when a task is submitted; what is voted
later holds for later tasks. Its price, and the fee beside it, wait in escrow under the task's id, and

- a completed task is settled: at once, or after ``settlement_delay_ms``, while a dispute can still freeze it;
- a task that failed, expired or was cancelled is refunded, also when one of its tokens was revoked, by whoever;
- while a dispute holds the escrow, the same waits for its end.

Points and uses part ways on purpose. The use of a token is spent once the task runs (``tasks``), because a failure may
depend on a row and could otherwise be asked for again and again; the points come back, because nobody is paid for what
was not delivered. Whoever provokes failures runs out of uses, not of points.

Everybody pays, also for data of the own institution: its share of the price comes back to it.
"""

from __future__ import annotations

from governance import sharing
from koinon import parameters as parameter_rules
from koinon import prices
from koinon.errors import Refused
from koinon.limits import MAX_PRICE
from koinon.v1.access_pb2 import Token
from koinon.v1.catalog_pb2 import PublishDataset
from koinon.v1.identity_pb2 import Parameters
from koinon.v1.points_pb2 import (
    PRICE_UNIT_PERIOD,
    PRICE_UNIT_ROW,
    PRICE_UNIT_USE,
    Shares,
    SourceTerms,
    Terms,
)
from koinon.v1.task_pb2 import TASK_STATUS_COMPLETED, SubmitTask, Task, TaskSource
from node.contracts import accounts, subscriptions, tables
from node.contracts.context import Context
from node.ledger.state import State


def check_payee(state: State, published: PublishDataset, institution: str) -> None:
    """May the publisher's data earn for this account? Raises InvalidName, NotFound, or Refused with rule ``payee``."""
    if published.payee in ("", f"institution:{institution}"):
        return
    name = accounts.check_owner(state, published.payee)
    if name.kind != "union" or tables.UNIONS.get(state, name.owner).institution != institution:
        raise Refused(
            f"data of {institution} cannot earn for {published.payee}",
            rule="payee",
            hint=f"name a data union founded by {institution}, or nobody: then {institution} earns itself",
        )


def shares(parameters: Parameters) -> Shares:
    """The shares in force now."""
    return Shares(
        computing_bp=parameters.computing_share_bp,
        coordinator_bp=parameters.coordinator_share_bp,
        fund_bp=parameters.fund_share_bp,
        union_administrator_bp=parameters.union_administrator_share_bp,
        weighting=parameters.provider_weighting,  # type: ignore[arg-type]  # bounded by koinon.parameters
    )


def terms(state: State, parameters: Parameters, operation: SubmitTask, asker: str, time_ms: int) -> Terms:
    """What a task would cost if it were submitted now, and who would be paid; empty when everything is free.

    The sources' tokens and datasets exist. Also asked for previews.
    """
    tokens = [tables.TOKENS.get(state, source.token_id) for source in operation.sources]
    if not parameters.task_fee and not any(token.HasField("price") for token in tokens):
        return Terms()
    sources = [_source(state, source, token, time_ms) for source, token in zip(operation.sources, tokens, strict=True)]
    return Terms(
        sources=sources,
        computing=[f"institution:{name}" for name in operation.committee],
        coordinator=f"institution:{asker.partition('/')[0]}",
        shares=shares(parameters),
        points=sum(source.points for source in sources),
        settlement_delay_ms=parameter_rules.get(parameters, "settlement_delay_ms"),
        fee=parameters.task_fee,
    )


def open_for(context: Context, task: Task) -> None:
    """Fix a submitted task's terms, and take what it costs from the asker's account.

    Raises Refused with rule ``max-price`` or ``insufficient-points``.
    """
    submitted = task.submitted
    fixed = terms(context.state, context.parameters, submitted, task.asker, context.time_ms)
    if prices.cost(fixed) > submitted.max_price:
        raise Refused(
            f"the task costs {prices.cost(fixed)} points, and its asker pays at most {submitted.max_price}",
            rule="max-price",
            hint="look at the price with koinon query --dry-run, and name it with --max-price",
        )
    if not fixed.sources:
        return
    task.terms.CopyFrom(fixed)
    if held := fixed.points + fixed.fee:
        used = [source.token_id for source in submitted.sources]
        accounts.hold(context, task.id, f"person:{task.asker}", held, subject=f"task:{task.id}", tokens=used)
    for source, named in zip(fixed.sources, submitted.sources, strict=True):
        if source.subscription:
            token = tables.TOKENS.get(context.state, named.token_id)
            subscriptions.begin(context, source, token, fixed.shares)


def conclude(context: Context, task: Task) -> None:
    """A task has just ended: settle or refund its escrow, now or as soon as that may be."""
    state = context.state
    due = payouts(state, task)
    for institution in list(tables.WAIVED.under(state, task.id)):
        tables.WAIVED.remove(state, task.id, institution)
    if not accounts.is_open(state, task.id):
        return
    if task.status != TASK_STATUS_COMPLETED:
        if accounts.is_frozen(state, task.id):
            accounts.schedule(context, task.id, [], context.time_ms)
        else:
            accounts.refund(context, task.id)
        return
    accounts.schedule(context, task.id, due, context.time_ms + task.terms.settlement_delay_ms)


def payouts(state: State, task: Task) -> list[tuple[str, int]]:
    """Who is paid how much for a task that does what it was asked, but for institutions that gave in to a dispute."""
    if not task.terms.sources:
        return []
    waived = set(tables.WAIVED.under(state, task.id))
    return [
        (account, points)
        for account, points in sharing.payouts(sharing.share(task.terms))
        if not waived or accounts.institution_of(state, account) not in waived
    ]


def _source(state: State, source: TaskSource, token: Token, time_ms: int) -> SourceTerms:
    dataset = tables.DATASETS.get(state, source.dataset)
    rows = dataset.published.row_count
    payee = token.payee or f"institution:{dataset.publisher}"
    price = token.price
    points = subscription = 0
    if price.unit == PRICE_UNIT_USE:
        points = price.points
    elif price.unit == PRICE_UNIT_ROW:
        points = min(price.points * rows, MAX_PRICE)  # rows may have grown since the grant
    elif price.unit == PRICE_UNIT_PERIOD and token.paid_until_ms <= time_ms:
        subscription = price.points
    return SourceTerms(
        dataset=source.dataset,
        payee=payee,
        administrator=_administrator(state, payee),
        rows=rows,
        columns=max(1, len(source.columns)),
        points=points,
        subscription=subscription,
    )


def _administrator(state: State, payee: str) -> str:
    kind, _, name = payee.partition(":")
    return f"person:{tables.UNIONS.get(state, name).administrator}" if kind == "union" else ""
