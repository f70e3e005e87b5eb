"""Tokens: capabilities bound to their holder. active -> used up | expired | revoked.

A task reserves one use of every token it needs when it is submitted, and gives it back when it ends
before it ran. A token is used up when no use is left and no open task might still give one back.
"""

from __future__ import annotations

from collections.abc import Sequence

from koinon.errors import Refused
from koinon.limits import MAX_ACTIVE_TOKENS_PER_DATASET, MAX_OF_ONE_INSTITUTION
from koinon.v1.access_pb2 import (
    TOKEN_STATUS_ACTIVE,
    TOKEN_STATUS_EXPIRED,
    TOKEN_STATUS_REVOKED,
    TOKEN_STATUS_USED_UP,
    AccessRequest,
    Token,
)
from koinon.v1.catalog_pb2 import TaskOperation
from koinon.v1.points_pb2 import Price
from koinon.v1.task_pb2 import TaskSource
from node.contracts import subscriptions, tables
from node.contracts.context import Context
from node.contracts.policy import operation_names
from node.contracts.transitions import TOKEN


def grant(
    context: Context,
    request: AccessRequest,
    *,
    columns: Sequence[str],
    operations: Sequence[TaskOperation.ValueType],
    purposes: Sequence[str],
    duration_ms: int,
    uses: int,
    min_cohort: int,
    price: Price,
    decided_by: str,
) -> Token:
    """Make a token for a granted request, on terms already checked.

    Raises Refused with rule ``too-many`` when the dataset has as many active tokens as it may.
    """
    state, dataset = context.state, request.requested.dataset
    if tables.ACTIVE_TOKENS.count(state, dataset) >= MAX_ACTIVE_TOKENS_PER_DATASET:
        raise Refused(
            f"dataset {dataset} has {MAX_ACTIVE_TOKENS_PER_DATASET} active tokens",
            rule="too-many",
            hint="revoke those that are no longer needed",
        )
    home = request.requester.partition("/")[0]
    own = tables.ACTIVE_TOKENS.count_under(state, dataset, beginning=f"{home}/", at_most=MAX_OF_ONE_INSTITUTION)
    if own >= MAX_OF_ONE_INSTITUTION:
        raise Refused(
            f"people of {home} hold {own} active tokens for dataset {dataset}",
            rule="too-many",
            hint="give up those that are no longer needed: others need theirs",
        )
    token = Token(
        id=context.new_id(),
        request_id=request.id,
        dataset=dataset,
        holder=request.requester,
        columns=columns,
        operations=operations,
        purposes=purposes,
        granted_at_ms=context.time_ms,
        expires_at_ms=context.time_ms + duration_ms,
        uses_left=uses,
        uses_granted=uses,
        min_cohort=min_cohort,
        decided_by=decided_by,
    )
    if price.unit:
        token.price.CopyFrom(price)
        token.payee = tables.DATASETS.get(state, dataset).published.payee
    context.move(TOKEN, token.id, token, "token.granted", related=_related(token, f"request:{request.id}"))
    tables.TOKENS.put(state, token.id, token)
    tables.ACTIVE_TOKENS.add(state, dataset, token.holder, token.id)
    tables.TOKEN_EXPIRIES.add(state, token.expires_at_ms, token.id.encode())
    return token


def check_status(token: Token, now_ms: int) -> None:
    """Can the token still be used at this time, as far as time and status go?

    Also asked by data nodes just before anything is opened. Raises Refused with rule ``token-revoked``,
    ``token-expired`` or ``token-used-up``; a reserved use counts as the task's own.
    """
    name = f"token {token.id} for {token.dataset}"
    if token.status == TOKEN_STATUS_REVOKED:
        raise Refused(
            f"{name} was revoked: {token.status_reason}",
            rule="token-revoked",
            hint="ask for access again, or ask the publisher why",
        )
    if token.status == TOKEN_STATUS_EXPIRED or token.expires_at_ms <= now_ms:
        raise Refused(f"{name} has expired", rule="token-expired", hint="ask for access again")
    if token.status == TOKEN_STATUS_USED_UP:
        raise Refused(f"{name} is used up", rule="token-used-up", hint="ask for access again")


def check_covers(token: Token, holder: str, source: TaskSource, purpose: str) -> None:
    """Does the token let this holder use these columns and operations of this dataset, for this purpose?

    Raises Refused with rule ``token-holder``, ``token-dataset``, ``token-columns``, ``token-operations`` or
    ``token-purpose``.
    """
    name = f"token {token.id}"
    if token.holder != holder:
        raise Refused(f"{name} belongs to {token.holder}", rule="token-holder", hint="use a token of your own")
    if token.dataset != source.dataset:
        raise Refused(
            f"{name} is for {token.dataset}, not for {source.dataset}",
            rule="token-dataset",
            hint="name the token granted for the dataset",
        )
    if excess := [column for column in source.columns if column not in token.columns]:
        raise Refused(
            f"{name} does not cover column {excess[0]} of {token.dataset}",
            rule="token-columns",
            hint=f"it covers {', '.join(token.columns[:20])}; request access to further columns",
        )
    if missing := [operation for operation in source.operations if operation not in token.operations]:
        raise Refused(
            f"{name} does not cover {operation_names(missing)} on {token.dataset}",
            rule="token-operations",
            hint=f"it covers {operation_names(token.operations)}; request access for further operations",
        )
    if purpose not in token.purposes:
        raise Refused(
            f"{name} for {token.dataset} was not granted for the task's purpose",
            rule="token-purpose",
            hint=f"it was granted for: {'; '.join(token.purposes)}; say one of these, or ask for access for another",
        )


def reserve(context: Context, token: Token, task_id: str) -> None:
    """Take one use for a task that is being submitted. Raises Refused with rule ``token-used-up``."""
    if token.uses_left == 0:
        raise Refused(
            f"every use of token {token.id} is reserved by open tasks",
            rule="token-used-up",
            hint="wait for them to end, or ask for access again",
        )
    token.uses_left -= 1
    context.move(TOKEN, token.id, token, "token.used", related=_related(token, f"task:{task_id}"))
    tables.TOKENS.put(context.state, token.id, token)
    tables.TOKEN_TASKS.add(context.state, token.id, task_id)


def give_back(context: Context, token_id: str, task_id: str) -> None:
    """Undo ``reserve`` for a task that ended before it ran; a token that ended meanwhile stays ended."""
    token = tables.TOKENS.get(context.state, token_id)
    token.uses_left += 1
    context.move(TOKEN, token.id, token, "token.returned", related=_related(token, f"task:{task_id}"))
    tables.TOKENS.put(context.state, token.id, token)
    tables.TOKEN_TASKS.remove(context.state, token.id, task_id)


def spend(context: Context, token_id: str, task_id: str) -> None:
    """Make the use reserved by a task that ran final; a token that ended meanwhile stays as it ended."""
    state = context.state
    tables.TOKEN_TASKS.remove(state, token_id, task_id)
    token = tables.TOKENS.get(state, token_id)
    last = token.status == TOKEN_STATUS_ACTIVE and token.uses_left == 0
    if last and not tables.TOKEN_TASKS.count_under(state, token_id, at_most=1):
        end(context, token, "token.used_up", detail="its last use")


def end(context: Context, token: Token, kind: str, *, detail: str, given_up: bool = False) -> None:
    """Let an active token end as ``token.used_up``, ``token.expired`` or ``token.revoked``.

    ``given_up``: by its holder's institution. Tasks that hold a use of it are the caller's concern.

    Raises Refused with rule ``wrong-state``.
    """
    context.move(TOKEN, token.id, token, kind, related=_related(token), detail=detail)
    token.status_reason = detail
    tables.TOKENS.put(context.state, token.id, token)
    tables.ACTIVE_TOKENS.remove(context.state, token.dataset, token.holder, token.id)
    tables.TOKEN_EXPIRIES.remove(context.state, token.expires_at_ms, token.id.encode())
    subscriptions.end(context, token, given_up=given_up or context.sender.id == token.holder)


def _related(token: Token, *further: str) -> list[str]:
    return [f"dataset:{token.dataset}", f"person:{token.holder}", *further]
