"""Access: request -> granted | denied; and how a token ends before its time.

A request beyond the publisher's policy is refused at once. Within it, an AUTO dataset grants in the same
operation, and so does any dataset to institutions that its policy names; otherwise an operator of the publisher
decides, may grant less than was asked, or names other terms (``negotiation``). Silence ends a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from koinon import parameters
from koinon.errors import Refused
from koinon.limits import MAX_DUE_PER_BLOCK, MAX_OF_ONE_INSTITUTION, MAX_OPEN_REQUESTS_PER_DATASET, MAX_TEXT
from koinon.names import DatasetName, check_id
from koinon.v1.access_pb2 import (
    AccessRequest,
    AccessTerms,
    DenyAccess,
    GrantAccess,
    RequestAccess,
    RevokeToken,
    Token,
)
from koinon.v1.catalog_pb2 import ACCESS_MODE_AUTO, Dataset
from koinon.v1.points_pb2 import Price
from node.contracts import fees, shapes, tables, tasks, tokens
from node.contracts.context import Context
from node.contracts.policy import (
    check_columns,
    check_duration_and_uses,
    check_none_excluded,
    check_operations,
    published_dataset,
)
from node.contracts.transitions import REQUEST

T = TypeVar("T")

POLICY = "policy"
"""Who decided, when no person did."""


def request(context: Context, operation: RequestAccess) -> str:
    """Ask for a token. Returns the request's id; a token granted at once has the same."""
    DatasetName.parse(operation.dataset)
    shapes.columns(operation.columns)
    shapes.operations(operation.operations)
    shapes.purposes(operation.purposes)
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
    context.move(
        REQUEST, asked.id, asked, "access.requested", related=related(asked), detail="; ".join(operation.purposes)
    )
    fees.charge(context, "request_fee", f"person:{asked.requester}", f"request:{asked.id}")
    policy = dataset.published.policy
    if policy.mode == ACCESS_MODE_AUTO or context.sender.institution in policy.auto_institutions:
        grant_on(context, asked, dataset, bid(asked)[1], POLICY)
        return asked.id
    if tables.OPEN_REQUESTS.count(state, operation.dataset) >= MAX_OPEN_REQUESTS_PER_DATASET:
        raise Refused(
            f"dataset {operation.dataset} has {MAX_OPEN_REQUESTS_PER_DATASET} open requests",
            rule="too-many",
            hint=f"wait until {dataset.publisher} has answered some",
        )
    home = context.sender.institution
    own = tables.OPEN_REQUESTS.count_under(
        state, operation.dataset, beginning=f"{home}/", at_most=MAX_OF_ONE_INSTITUTION
    )
    if own >= MAX_OF_ONE_INSTITUTION:
        raise Refused(
            f"people of {home} have {own} open requests for dataset {operation.dataset}",
            rule="too-many",
            hint="wait for answers, or withdraw some: others want to ask too",
        )
    tables.OPEN_REQUESTS.add(state, operation.dataset, asked.requester, asked.id)
    wait_for_answer(context, asked)
    return asked.id


def grant(context: Context, operation: GrantAccess) -> str:
    """An operator grants what was asked, or less. Returns the token's id."""
    shapes.columns(operation.columns)
    if operation.operations:
        shapes.operations(operation.operations)
    asked, dataset = _decide(context, operation.request_id)
    number, wanted = bid(asked)
    if operation.offer != number:
        raise Refused(
            f"offer {operation.offer} of request {asked.id} is no longer what {asked.requester} asks for",
            rule="offer",
            hint=f"look at it again, and name offer {number}" if number else "name no offer: only the request stands",
        )
    return grant_on(context, asked, dataset, _less(wanted, operation, dataset), context.sender.id).id


def deny(context: Context, operation: DenyAccess) -> str:
    """An operator says no, and why."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    asked, _ = _decide(context, operation.request_id)
    end_request(context, asked, "access.denied", operation.reason)
    return ""


def revoke(context: Context, operation: RevokeToken) -> str:
    """The publisher takes a token back, or its holder gives it up; open tasks that use it fail."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    token = tables.TOKENS.get(context.state, check_id(operation.token_id))
    context.authorise(institution=DatasetName.parse(token.dataset).institution, person=token.holder)
    revoke_token(context, token, operation.reason)
    return ""


def end_all(context: Context, dataset: str, reason: str) -> None:
    """Deny every open request for a withdrawn dataset and revoke every active token."""
    state = context.state
    for request_id in list(tables.OPEN_REQUESTS.under(state, dataset)):
        end_request(context, tables.REQUESTS.get(state, request_id), "access.denied", reason)
    for token_id in list(tables.ACTIVE_TOKENS.under(state, dataset)):
        revoke_token(context, tables.TOKENS.get(state, token_id), reason)


def expire_due(context: Context) -> None:
    """End the tokens whose time block time has reached; open tasks that use one fail.

    All tokens end before any task: a task that fails for one of them must not use up another.
    """
    ids = tables.TOKEN_EXPIRIES.pop_due(context.state, context.time_ms, at_most=MAX_DUE_PER_BLOCK)
    due = [tables.TOKENS.get(context.state, token_id.decode()) for token_id in ids]
    for token in due:
        tokens.end(context, token, "token.expired", detail="its time is over")
    for token in due:
        reason = f"token {token.id} for {token.dataset} expired"
        tasks.fail_using_token(context, token.id, "token-expired", reason)


def bid(asked: AccessRequest) -> tuple[int, AccessTerms]:
    """What the requester asks for now: the number of its last offer (0: the request itself) and its terms."""
    for offer in reversed(asked.offers):
        if not offer.by_publisher:
            return offer.number, offer.terms
    requested = asked.requested
    return 0, AccessTerms(
        columns=requested.columns,
        operations=requested.operations,
        purposes=requested.purposes,
        duration_ms=requested.duration_ms,
        uses=requested.uses,
    )


def check_terms(dataset: Dataset, terms: AccessTerms) -> None:
    """Does today's policy let a token be granted on these terms? Raises InvalidInput, NotFound, Refused."""
    check_columns(dataset, terms.columns)
    check_operations(dataset, terms.operations)
    check_duration_and_uses(dataset, terms.duration_ms, terms.uses)
    least = dataset.published.policy.min_cohort
    if terms.min_cohort and terms.min_cohort < least:
        raise Refused(
            f"a minimum cohort of {terms.min_cohort} would undercut the policy of {dataset.published.name}",
            rule="policy",
            hint=f"give {least} or more, or nothing to keep it",
        )
    if terms.HasField("price") and terms.price != Price():
        shapes.price(terms.price, dataset.published.row_count)


def grant_on(context: Context, asked: AccessRequest, dataset: Dataset, terms: AccessTerms, decided_by: str) -> Token:
    """Grant a request on terms to which both sides agreed, within today's policy.

    Raises as ``check_terms``, and Refused with rule ``member-suspended`` or ``member-removed``.
    """
    check_terms(dataset, terms)
    check_none_excluded(context.state, asked.requester.partition("/")[0])
    concerned = related(asked, f"token:{context.new_id()}")
    context.move(REQUEST, asked.id, asked, "access.granted", related=concerned, detail=f"by {decided_by}")
    token = tokens.grant(
        context,
        asked,
        columns=terms.columns or _all_columns(dataset),
        operations=terms.operations,
        purposes=terms.purposes,
        duration_ms=terms.duration_ms,
        uses=terms.uses,
        min_cohort=max(
            terms.min_cohort, dataset.published.policy.min_cohort, context.parameters.min_cohort_floor
        ),  # the floor may have risen since the publication
        price=terms.price if terms.HasField("price") else dataset.published.price,
        decided_by=decided_by,
    )
    asked.token_id = token.id
    _close(context, asked, decided_by)
    return token


def wait_for_answer(context: Context, asked: AccessRequest) -> None:
    """Let an open request wait for the side whose turn it is, until its window ends."""
    if asked.deadline_ms:
        _forget_deadline(context, asked)
    asked.deadline_ms = context.time_ms + parameters.get(context.parameters, "request_window_ms")
    tables.REQUEST_DEADLINES.add(context.state, asked.deadline_ms, asked.id.encode())
    tables.REQUESTS.put(context.state, asked.id, asked)


def end_request(context: Context, asked: AccessRequest, kind: str, reason: str) -> None:
    """End an open request without a token: ``access.denied``, ``access.withdrawn`` or ``access.expired``."""
    context.move(REQUEST, asked.id, asked, kind, related=related(asked), detail=reason)
    asked.reason = reason
    _close(context, asked, context.sender.id)


def _close(context: Context, asked: AccessRequest, decided_by: str) -> None:
    if asked.deadline_ms:
        _forget_deadline(context, asked)
        tables.OPEN_REQUESTS.remove(context.state, asked.requested.dataset, asked.requester, asked.id)
    asked.deadline_ms, asked.decided_by = 0, decided_by
    tables.REQUESTS.put(context.state, asked.id, asked)


def _forget_deadline(context: Context, asked: AccessRequest) -> None:
    tables.REQUEST_DEADLINES.remove(context.state, asked.deadline_ms, asked.id.encode())


def _decide(context: Context, request_id: str) -> tuple[AccessRequest, Dataset]:
    """A request on which the sender may decide, and its dataset."""
    asked = tables.REQUESTS.get(context.state, check_id(request_id))
    dataset = tables.DATASETS.get(context.state, asked.requested.dataset)
    context.authorise(institution=dataset.publisher)
    return asked, dataset


def _less(wanted: AccessTerms, granted: GrantAccess, dataset: Dataset) -> AccessTerms:
    """What is granted of ``wanted``: zero and empty mean 'as requested'. Raises Refused with rule ``policy``."""
    for what, given, most in (
        ("duration_ms", granted.duration_ms, wanted.duration_ms),
        ("uses", granted.uses, wanted.uses),
    ):
        if given > most:
            raise _more_than_asked(f"{what} {given}", str(most))
    less = AccessTerms(
        columns=_narrowed("columns", granted.columns, wanted.columns or _all_columns(dataset)),
        operations=_narrowed("operations", granted.operations, wanted.operations),
        purposes=wanted.purposes,
        duration_ms=granted.duration_ms or wanted.duration_ms,
        uses=granted.uses or wanted.uses,
        min_cohort=granted.min_cohort or wanted.min_cohort,
    )
    if wanted.HasField("price"):
        less.price.CopyFrom(wanted.price)
    return less


def revoke_token(context: Context, token: Token, reason: str) -> None:
    """End an active token; open tasks that use it fail."""
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


def related(asked: AccessRequest, *further: str) -> list[str]:
    """Whom and what a record of a request concerns."""
    return [f"dataset:{asked.requested.dataset}", f"person:{asked.requester}", *further]
