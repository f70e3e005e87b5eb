"""Negotiation: each side of an open request for access may name other terms, until one takes the other's.

open -> countered by the publisher -> taken by the requester, or answered with terms of its own (open again). Offers are
numbered, and agreed to by number. The side whose turn it is has a window to answer; silence ends the request.
"""

from __future__ import annotations

from koinon.errors import Refused
from koinon.limits import MAX_DUE_PER_BLOCK, MAX_OFFERS_PER_REQUEST, MAX_TEXT
from koinon.names import check_id
from koinon.v1.access_pb2 import (
    REQUEST_STATUS_COUNTERED,
    AcceptOffer,
    AccessOffer,
    AccessRequest,
    CounterOffer,
    WithdrawRequest,
)
from koinon.v1.identity_pb2 import ROLE_OPERATOR
from node.contracts import access, shapes, tables
from node.contracts.context import Context
from node.contracts.policy import published_dataset
from node.contracts.transitions import REQUEST


def counter(context: Context, operation: CounterOffer) -> str:
    """Either side names other terms, within the dataset's policy; from now on it waits for the other."""
    terms = operation.terms
    shapes.columns(terms.columns)
    shapes.operations(terms.operations)
    shapes.purposes(terms.purposes)
    shapes.text("note", operation.note, MAX_TEXT, required=False)
    asked = tables.REQUESTS.get(context.state, check_id(operation.request_id))
    dataset = published_dataset(context.state, asked.requested.dataset)
    context.authorise(institution=dataset.publisher, person=asked.requester)
    access.check_terms(dataset, terms)
    if len(asked.offers) >= MAX_OFFERS_PER_REQUEST:
        raise Refused(
            f"request {asked.id} has seen {MAX_OFFERS_PER_REQUEST} offers",
            rule="too-many",
            hint="take one, or end the request and ask anew",
        )
    offer = AccessOffer(
        number=len(asked.offers) + 1,
        made_by=context.sender.id,
        by_publisher=_for_publisher(context, asked, dataset.publisher),
        made_at_ms=context.time_ms,
        terms=terms,
        note=operation.note,
    )
    kind = "access.countered" if offer.by_publisher else "access.revised"
    detail = f"offer {offer.number}"
    context.move(REQUEST, asked.id, asked, kind, related=access.related(asked), detail=detail)
    asked.offers.append(offer)
    access.wait_for_answer(context, asked)
    return ""


def accept(context: Context, operation: AcceptOffer) -> str:
    """The requester takes the publisher's latest offer. Returns the token's id."""
    asked = tables.REQUESTS.get(context.state, check_id(operation.request_id))
    context.authorise(person=asked.requester)
    latest = asked.offers[-1] if asked.offers else AccessOffer()
    if not latest.by_publisher or latest.number != operation.offer:
        raise Refused(
            f"offer {operation.offer} is not the publisher's last word on request {asked.id}",
            rule="offer",
            hint="look at the request again, and name the number of the publisher's latest offer",
        )
    dataset = published_dataset(context.state, asked.requested.dataset)
    return access.grant_on(context, asked, dataset, latest.terms, latest.made_by).id


def withdraw(context: Context, operation: WithdrawRequest) -> str:
    """The requester no longer wants access."""
    shapes.text("reason", operation.reason, MAX_TEXT, required=False)
    asked = tables.REQUESTS.get(context.state, check_id(operation.request_id))
    context.authorise(person=asked.requester)
    access.end_request(context, asked, "access.withdrawn", operation.reason)
    return ""


def expire_due(context: Context) -> None:
    """End the requests that the side whose turn it was did not answer in time."""
    due = tables.REQUEST_DEADLINES.pop_due(context.state, context.time_ms, at_most=MAX_DUE_PER_BLOCK)
    for request_id in due:
        asked = tables.REQUESTS.get(context.state, request_id.decode())
        silent = asked.requester if asked.status == REQUEST_STATUS_COUNTERED else asked.requested.dataset.split(".")[0]
        access.end_request(context, asked, "access.expired", f"{silent} did not answer in time")


def _for_publisher(context: Context, asked: AccessRequest, publisher: str) -> bool:
    """Which side speaks? Who stands on both answers the other one: the publisher, until the publisher has spoken."""
    sender = context.sender
    if sender.id != asked.requester:
        return True
    operates = sender.institution == publisher and ROLE_OPERATOR in sender.roles
    return operates and asked.status != REQUEST_STATUS_COUNTERED
