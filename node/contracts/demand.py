"""Demand: what analysts miss in the catalog, matched with what is published while the demand stands.

A dataset matches when it has every column asked for, whatever case, and one of the themes or a narrower one, and when
one use of it costs no more than the budget, if there is one. What only its price keeps from matching is told as well,
with the price: its publisher may ask for less. A demand is found by its first column, or where it names none by its
themes: so a publication looks only at the demands that share one with it, of which there are so many at most, and with
all that one institution publishes in one block, too; matches are told first, and the longest waiting among them. Both
sides find the match in the audit trail and in their lists.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from koinon import prices
from koinon.errors import InvalidInput, Refused
from koinon.limits import (
    MAX_DEMAND_MS,
    MAX_DEMANDS_COMPARED,
    MAX_DEMANDS_PER_TERM,
    MAX_DUE_PER_BLOCK,
    MAX_MATCHES_PER_DEMAND,
    MAX_MATCHES_PER_PUBLICATION,
    MAX_OF_ONE_INSTITUTION,
    MAX_OPEN_DEMANDS_PER_PERSON,
    MAX_TEXT,
    MAX_TITLE,
)
from koinon.names import check_id
from koinon.v1.catalog_pb2 import Dataset
from koinon.v1.demand_pb2 import Demand, DemandMatch, PostDemand, WithdrawDemand
from node.contracts import classification, shapes, tables
from node.contracts.context import Context
from node.contracts.transitions import DEMAND

MAX_BUDGET = 2**53 - 1  # exact for every reader of JSON


def post(context: Context, operation: PostDemand) -> str:
    """An analyst says what is missing. Returns the demand's id."""
    shapes.text("title", operation.title, MAX_TITLE)
    shapes.text("purpose", operation.purpose, MAX_TEXT)
    shapes.columns(operation.columns)
    shapes.themes(operation.themes)
    shapes.between("budget", operation.budget, 0, MAX_BUDGET)
    shapes.between("duration_ms", operation.duration_ms, 1, MAX_DEMAND_MS)
    if not operation.columns and not operation.themes:
        raise InvalidInput("the demand names no column and no theme", hint="name at least one, so that it can match")
    context.authorise()
    state, demander = context.state, context.sender.id
    classification.check_known(state, operation.themes)
    home, most = context.sender.institution, MAX_OPEN_DEMANDS_PER_PERSON
    if tables.OPEN_DEMANDS.count_under(state, home, demander, at_most=most) >= most:
        raise Refused(
            f"{demander} has {MAX_OPEN_DEMANDS_PER_PERSON} open demands",
            rule="too-many",
            hint="withdraw those that are no longer needed",
        )
    if tables.OPEN_DEMANDS.count(state, home) >= MAX_OF_ONE_INSTITUTION:
        raise Refused(
            f"people of {home} have {MAX_OF_ONE_INSTITUTION} open demands",
            rule="too-many",
            hint="withdraw those that are no longer needed: every publication looks at them",
        )
    demand = Demand(
        id=context.new_id(),
        posted=operation,
        demander=demander,
        posted_at_ms=context.time_ms,
        expires_at_ms=context.time_ms + operation.duration_ms,
    )
    for term in _terms(demand):
        if tables.DEMAND_TERMS.count(state, term) >= MAX_DEMANDS_PER_TERM:
            raise Refused(
                f"{MAX_DEMANDS_PER_TERM} demands for {term} are open",
                rule="too-many",
                hint="look whether one of them asks for the same: koinon demand list",
            )
        tables.DEMAND_TERMS.add(state, term, demand.id)
    context.move(DEMAND, demand.id, demand, "demand.posted", related=_related(demand), detail=operation.title)
    tables.DEMANDS.put(state, demand.id, demand)
    tables.OPEN_DEMANDS.add(state, home, demander, demand.id)
    tables.DEMAND_EXPIRIES.add(state, demand.expires_at_ms, demand.id.encode())
    return demand.id


def withdraw(context: Context, operation: WithdrawDemand) -> str:
    """Who posted a demand, or its institution, no longer wants it: found, or given up."""
    shapes.text("reason", operation.reason, MAX_TEXT, required=False)
    demand = tables.DEMANDS.get(context.state, check_id(operation.demand_id))
    context.authorise(person=demand.demander, institution=demand.demander.partition("/")[0])
    _end(context, demand, "demand.withdrawn", operation.reason)
    return ""


def expire_due(context: Context) -> None:
    """End the demands whose time block time has reached."""
    for demand_id in tables.DEMAND_EXPIRIES.pop_due(context.state, context.time_ms, at_most=MAX_DUE_PER_BLOCK):
        _end(context, tables.DEMANDS.get(context.state, demand_id.decode()), "demand.expired", "its time is over")


def withdraw_of(context: Context, institution: str, reason: str, *, at_most: int) -> int:
    """End open demands of an institution's people, so many at most; how many."""
    found = list(islice(tables.OPEN_DEMANDS.under(context.state, institution), at_most))
    for demand_id in found:
        _end(context, tables.DEMANDS.get(context.state, demand_id), "demand.withdrawn", reason)
    return len(found)


def match(context: Context, dataset: Dataset, themes: Collection[str]) -> None:
    """Match a version just published, classified by these themes and all wider ones, with the open demands.

    Raises Refused with rule ``too-many``.
    """
    columns = {column.name.lower() for column in dataset.published.columns[:]}
    terms = [f"column:{name}" for name in sorted(columns)] + [f"theme:{code}" for code in themes]
    number = sum(tables.DEMAND_TERMS.count(context.state, term) for term in terms)
    if not number:
        return
    _count_compared(context, dataset.publisher, number)
    found = {demand_id for term in terms for demand_id in tables.DEMAND_TERMS.under(context.state, term)}
    demands = [tables.DEMANDS.get(context.state, demand_id) for demand_id in sorted(found)]
    price = prices.of_one_use(dataset.published.price, dataset.published.row_count)
    fitting = [demand for demand in demands if _fits(demand, dataset, price, columns, themes)]
    fitting.sort(key=lambda demand: (not _affords(demand, price), demand.posted_at_ms, demand.id))
    for demand in fitting[:MAX_MATCHES_PER_PUBLICATION]:
        _note(context, demand, dataset, price)


def _count_compared(context: Context, publisher: str, number: int) -> None:
    """One block holds thousands of publications, and a publication may look at thousands of demands.

    The first of a block is let through, however many there are: else others' demands could keep it out for ever.
    """
    before = context.compared[publisher]
    if before and before + number > MAX_DEMANDS_COMPARED:
        raise Refused(
            f"what {publisher} published in this block was compared with {before} demands, and this has {number} more",
            rule="too-many",
            hint="publish it in the next block, with less in one transaction",
        )
    context.compared[publisher] += number


def _fits(demand: Demand, dataset: Dataset, price: int, columns: Collection[str], themes: Collection[str]) -> bool:
    """Has the dataset what is asked for, whatever it costs, and does its demander not know so yet?"""
    posted = demand.posted
    known = demand.matches if _affords(demand, price) else [*demand.matches, *demand.priced_out]
    return (
        all(name.lower() in columns for name in posted.columns)
        and (not posted.themes or any(code in themes for code in posted.themes))
        and len(known) < MAX_MATCHES_PER_DEMAND
        and all(match.dataset != dataset.published.name for match in known)
    )


def _affords(demand: Demand, price: int) -> bool:
    """Is a price for one use within the budget? One that says nothing affords everything."""
    return not demand.posted.budget or price <= demand.posted.budget


def _note(context: Context, demand: Demand, dataset: Dataset, price: int) -> None:
    """Tell both sides of a match, or of what the price alone keeps from being one."""
    name = dataset.published.name
    related = [*_related(demand), f"dataset:{name}", f"institution:{dataset.publisher}"]
    detail = f"{name}, version {dataset.version}"
    found = DemandMatch(dataset=name, version=dataset.version, matched_at_ms=context.time_ms, price=price)
    if _affords(demand, price):
        context.move(DEMAND, demand.id, demand, "demand.matched", related=related, detail=detail)
        demand.matches.append(found)
        dearer = [match for match in demand.priced_out if match.dataset != name]
        del demand.priced_out[:]
        demand.priced_out.extend(dearer)
    else:
        detail += f": one use costs {price} points, and the budget is {demand.posted.budget}"
        context.move(DEMAND, demand.id, demand, "demand.priced_out", related=related, detail=detail)
        demand.priced_out.append(found)
    tables.DEMANDS.put(context.state, demand.id, demand)


def _end(context: Context, demand: Demand, kind: str, reason: str) -> None:
    state = context.state
    context.move(DEMAND, demand.id, demand, kind, related=_related(demand), detail=reason)
    demand.reason = reason
    tables.DEMANDS.put(state, demand.id, demand)
    tables.OPEN_DEMANDS.remove(state, demand.demander.partition("/")[0], demand.demander, demand.id)
    tables.DEMAND_EXPIRIES.remove(state, demand.expires_at_ms, demand.id.encode())
    for term in _terms(demand):
        tables.DEMAND_TERMS.remove(state, term, demand.id)


def _terms(demand: Demand) -> list[str]:
    """What the demand is found by."""
    posted = demand.posted
    return [f"column:{posted.columns[0].lower()}"] if posted.columns else [f"theme:{code}" for code in posted.themes]


def _related(demand: Demand) -> list[str]:
    return [f"person:{demand.demander}"]
