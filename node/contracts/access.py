"""Access: request -> granted | denied; and how a token ends before its time.

A request beyond the publisher's policy is refused at once. Within it, an AUTO dataset grants in the same
operation; otherwise an operator of the publisher decides, and may grant less than was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from koinon.errors import Refused
from koinon.limits import MAX_OPEN_REQUESTS_PER_DATASET, MAX_TEXT
from koinon.names import DatasetName, check_id
from koinon.v1.access_pb2 import AccessRequest, DenyAccess, GrantAccess, RequestAccess, RevokeToken, Token
from koinon.v1.catalog_pb2 import ACCESS_MODE_AUTO, Dataset
from node.contracts import shapes, tables, tasks, tokens
from node.contracts.context import Context
from node.contracts.policy import check_columns, check_duration_and_uses, check_operations, published_dataset
from node.contracts.transitions import REQUEST

T = TypeVar("T")

POLICY = "policy"
"""Who decided, when no person did."""


def request(context: Context, operation: RequestAccess) -> str:
    """Ask for a token. Returns the request's id; a token granted at once has the same."""
    DatasetName.parse(operation.dataset)
    shapes.columns(operation.columns)
    shapes.operations(operation.operations)
    shapes.text("purpose", operation.purpose, MAX_TEXT)
    context.authorise()
    state = context.state
    dataset = published_dataset(state, operation.dataset)
    check_columns(dataset, operation.columns)
    check_operations(dataset, operation.operations)
    check_duration_and_uses(dataset, operation.duration_ms, operation.uses)
    asked = AccessRequest(
        id=context.new_id(),
        requested=operation,
        requester=context.sender.id,
        requested_at_ms=context.time_ms,
    )
    context.move(REQUEST, asked.id, asked, "access.requested", related=_related(asked), detail=operation.purpose)
    if dataset.published.policy.mode == ACCESS_MODE_AUTO:
        _grant(context, asked, dataset, GrantAccess(), POLICY)
    else:
        if tables.OPEN_REQUESTS.count(state, operation.dataset) >= MAX_OPEN_REQUESTS_PER_DATASET:
            raise Refused(
                f"dataset {operation.dataset} has {MAX_OPEN_REQUESTS_PER_DATASET} open requests",
                rule="too-many",
                hint=f"wait until {dataset.publisher} has answered some",
            )
        tables.OPEN_REQUESTS.add(state, operation.dataset, asked.id)
        tables.REQUESTS.put(state, asked.id, asked)
    return asked.id


def grant(context: Context, operation: GrantAccess) -> str:
    """An operator grants what was asked, or less. Returns the token's id."""
    shapes.columns(operation.columns)
    if operation.operations:
        shapes.operations(operation.operations)
    asked, dataset = _decide(context, operation.request_id)
    token = _grant(context, asked, dataset, operation, context.sender.id)
    tables.OPEN_REQUESTS.remove(context.state, asked.requested.dataset, asked.id)
    return token.id


def deny(context: Context, operation: DenyAccess) -> str:
    """An operator says no, and why."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    asked, _ = _decide(context, operation.request_id)
    _deny(context, asked, operation.reason)
    return ""


def revoke(context: Context, operation: RevokeToken) -> str:
    """The publisher takes a token back, or its holder gives it up; open tasks that use it fail."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    token = tables.TOKENS.get(context.state, check_id(operation.token_id))
    context.authorise(institution=DatasetName.parse(token.dataset).institution, person=token.holder)
    _revoke(context, token, operation.reason)
    return ""


def end_all(context: Context, dataset: str, reason: str) -> None:
    """Deny every open request for a withdrawn dataset and revoke every active token."""
    state = context.state
    for request_id in list(tables.OPEN_REQUESTS.under(state, dataset)):
        _deny(context, tables.REQUESTS.get(state, request_id), reason)
    for token_id in list(tables.ACTIVE_TOKENS.under(state, dataset)):
        _revoke(context, tables.TOKENS.get(state, token_id), reason)


def expire_due(context: Context) -> None:
    """End the tokens whose time block time has reached; open tasks that use one fail.

    All tokens end before any task: a task that fails for one of them must not use up another.
    """
    due = [
        tables.TOKENS.get(context.state, token_id.decode())
        for token_id in tables.TOKEN_EXPIRIES.pop_due(context.state, context.time_ms)
    ]
    for token in due:
        tokens.end(context, token, "token.expired", detail="its time is over")
    for token in due:
        reason = f"token {token.id} for {token.dataset} expired"
        tasks.fail_using_token(context, token.id, "token-expired", reason)


def _decide(context: Context, request_id: str) -> tuple[AccessRequest, Dataset]:
    """A request on which the sender may decide, and its dataset."""
    asked = tables.REQUESTS.get(context.state, check_id(request_id))
    dataset = tables.DATASETS.get(context.state, asked.requested.dataset)
    context.authorise(institution=dataset.publisher)
    return asked, dataset


def _grant(context: Context, asked: AccessRequest, dataset: Dataset, terms: GrantAccess, decided_by: str) -> Token:
    """Grant on ``terms``, where zero and empty mean 'as requested', within the request and today's policy."""
    requested, policy = asked.requested, dataset.published.policy
    columns = _narrowed("columns", terms.columns, requested.columns or _all_columns(dataset))
    operations = _narrowed("operations", terms.operations, requested.operations)
    for what, given, wanted in (
        ("duration_ms", terms.duration_ms, requested.duration_ms),
        ("uses", terms.uses, requested.uses),
    ):
        if given > wanted:
            raise _more_than_asked(f"{what} {given}", str(wanted))
    duration_ms, uses = terms.duration_ms or requested.duration_ms, terms.uses or requested.uses
    check_columns(dataset, columns)
    check_operations(dataset, operations)
    check_duration_and_uses(dataset, duration_ms, uses)
    if terms.min_cohort and terms.min_cohort < policy.min_cohort:
        raise Refused(
            f"a minimum cohort of {terms.min_cohort} would undercut the policy of {requested.dataset}",
            rule="policy",
            hint=f"give {policy.min_cohort} or more, or nothing to keep it",
        )
    related = _related(asked, f"token:{context.new_id()}")
    context.move(REQUEST, asked.id, asked, "access.granted", related=related, detail=f"by {decided_by}")
    token = tokens.grant(
        context,
        asked,
        columns=columns,
        operations=operations,
        duration_ms=duration_ms,
        uses=uses,
        min_cohort=max(terms.min_cohort, policy.min_cohort),
        decided_by=decided_by,
    )
    asked.token_id, asked.decided_by = token.id, decided_by
    tables.REQUESTS.put(context.state, asked.id, asked)
    return token


def _deny(context: Context, asked: AccessRequest, reason: str) -> None:
    context.move(REQUEST, asked.id, asked, "access.denied", related=_related(asked), detail=reason)
    asked.decided_by, asked.reason = context.sender.id, reason
    tables.REQUESTS.put(context.state, asked.id, asked)
    tables.OPEN_REQUESTS.remove(context.state, asked.requested.dataset, asked.id)


def _revoke(context: Context, token: Token, reason: str) -> None:
    tokens.end(context, token, "token.revoked", detail=reason)
    task_reason = f"token {token.id} for {token.dataset} was revoked: {reason}"
    tasks.fail_using_token(context, token.id, "token-revoked", task_reason)


def _all_columns(dataset: Dataset) -> list[str]:
    return sorted(column.name for column in dataset.published.columns)


def _narrowed(what: str, given: Sequence[T], wanted: Sequence[T]) -> Sequence[T]:
    """What is granted when ``wanted`` was asked and ``given`` (empty: all of it) is offered."""
    if any(item not in wanted for item in given):
        raise _more_than_asked(what, "what was requested")
    return given or wanted


def _more_than_asked(given: str, wanted: str) -> Refused:
    return Refused(
        f"{given} would be more than was asked",
        rule="policy",
        hint=f"grant at most {wanted}, or nothing to grant as requested",
    )


def _related(asked: AccessRequest, *further: str) -> list[str]:
    return [f"dataset:{asked.requested.dataset}", f"person:{asked.requester}", *further]
