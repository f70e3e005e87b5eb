"""``koinon access`` when it is not simply yes or no: offers, answers, and ending a request of one's own."""

from __future__ import annotations

import click

from koinon import prices
from koinon.cli import output
from koinon.cli.access import access
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import comma_list, operations_option
from koinon.display import duration, plain, printable, when
from koinon.v1.access_pb2 import AccessRequest, AccessTerms, RequestStatus
from koinon.v1.catalog_pb2 import TaskOperation
from koinon.v1.points_pb2 import Price
from koinon.words import word


@access.command()
@click.argument("request_id")
def show(request_id: str) -> None:
    """Show REQUEST_ID and every offer made on it."""
    _show(invocation().client.access.show(request_id))


@access.command()
@click.argument("request_id")
@operations_option("Other operations")
@click.option("--columns", type=comma_list, default="", metavar="LIST", help="Other columns.")
@click.option("--purpose", "purposes", multiple=True, help="Other purposes; may be given again.")
@click.option("--days", type=click.IntRange(min=1), default=None, help="Other days from the grant on.")
@click.option("--uses", type=click.IntRange(min=1), default=None, help="Another number of computations.")
@click.option("--min-cohort", type=click.IntRange(min=1), default=None, help="A larger one than the dataset's.")
@click.option("--price", default=None, help="Another than the dataset's: free, 100/use, 2/row, or 500/30d.")
@click.option("--note", default="", help="Public to the members.")
def counter(
    request_id: str,
    operations: tuple[str, ...],
    columns: tuple[str, ...],
    purposes: tuple[str, ...],
    days: int | None,
    uses: int | None,
    min_cohort: int | None,
    price: str | None,
    note: str,
) -> None:
    """Name other terms for REQUEST_ID, as its requester or an operator of the publisher; then it is the other's turn.

    What you leave out stays as it was offered last.

    \b
    Example:
      koinon access counter 4f2a --uses 3 --price 50/use --note "a first look, then we talk"
    """
    request = invocation().client.access.counter(
        request_id,
        operations=operations,
        columns=columns,
        purpose=purposes,
        days=days or 0,
        uses=uses or 0,
        min_cohort=min_cohort or 0,
        price=None if price is None else prices.parse(price) or Price(),
        note=note,
    )
    _show(request)


@access.command()
@click.argument("request_id")
@click.option("--offer", type=click.IntRange(min=1), default=None, help="Its number.  [default: the latest]")
def accept(request_id: str, offer: int | None) -> None:
    """Take the publisher's offer on your REQUEST_ID."""
    token = invocation().client.access.accept(request_id, offer or 0)
    tell(token, f"accepted: token {token.id}, until {when(token.expires_at_ms)}")


@access.command()
@click.argument("request_id")
@click.option("--reason", default="", help="Public to the members.")
def withdraw(request_id: str, reason: str) -> None:
    """End your own open REQUEST_ID."""
    request = invocation().client.access.withdraw(request_id, reason)
    tell(request, f"withdrawn: request {request.id}")


def _show(request: AccessRequest) -> None:
    if invocation().json:
        output.show_json(plain(request))
        return
    output.show(
        output.facts(
            [
                ("Request", request.id),
                ("Dataset", request.requested.dataset),
                ("By", request.requester),
                ("Status", word(RequestStatus, request.status)),
                ("Reason", request.reason),
                ("Token", request.token_id),
                ("Decided by", request.decided_by),
                ("Waits until", when(request.deadline_ms) if request.deadline_ms else ""),
            ]
        )
    )
    asked = request.requested
    first = AccessTerms(
        columns=asked.columns,
        operations=asked.operations,
        purposes=asked.purposes,
        duration_ms=asked.duration_ms,
        uses=asked.uses,
    )
    rows = [("", request.requester, *_cells(first), "")]
    rows += [(str(offer.number), offer.made_by, *_cells(offer.terms), offer.note) for offer in request.offers]
    columns = ("Offer", "By", "Columns", "Operations", "Uses", "Cohort", "Price", "Purpose", "Note")
    output.show(output.table(columns, rows, right=("Offer",)))


def _cells(terms: AccessTerms) -> tuple[str, ...]:
    return (
        ", ".join(terms.columns) or "all",
        ", ".join(word(TaskOperation, operation) for operation in terms.operations),
        f"{terms.uses} in {duration(terms.duration_ms)}",
        str(terms.min_cohort or ""),
        prices.text(terms.price) if terms.HasField("price") else "",
        printable("; ".join(terms.purposes)),
    )
