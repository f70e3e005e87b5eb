"""``koinon access``: ask for access, decide on requests, take tokens back."""

from __future__ import annotations

from collections.abc import Sequence

import click

from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import comma_list, max_fee_option, operations_option
from koinon.display import duration, plain, short, when
from koinon.v1.access_pb2 import AccessRequest, RequestStatus, Token, TokenStatus
from koinon.v1.catalog_pb2 import TaskOperation
from koinon.words import word


@click.group()
def access() -> None:
    """Ask for access to datasets; decide on requests to your own.

    Ids may be shortened to any unique beginning.
    """


@access.command()
@click.argument("dataset")
@click.option(
    "--purpose", "purposes", multiple=True, required=True, help="What for; public to the members. May be given again."
)
@operations_option("What to compute, all that the policy allows by default")
@click.option("--columns", type=comma_list, default="", metavar="LIST", help="Only these columns.  [default: all]")
@click.option("--days", type=click.IntRange(min=1), default=30, show_default=True, help="From the grant on.")
@click.option("--uses", type=click.IntRange(min=1), default=10, show_default=True, help="Computations.")
@max_fee_option("all these requests")
def request(
    dataset: str,
    purposes: tuple[str, ...],
    operations: tuple[str, ...],
    columns: tuple[str, ...],
    days: int,
    uses: int,
    max_fee: int,
) -> None:
    """Request access to DATASET; without its institution, to every institution's table of that name.

    \b
    Example:
      koinon access request ercp.indo_rct --purpose "Reproduce the 2012 trial" --operations count,sum,avg,group_by
    """
    with output.working("waiting for the ledger"):
        made = invocation().client.access.request(
            dataset, purpose=purposes, operations=operations, columns=columns, days=days, uses=uses, max_fee=max_fee
        )
    if invocation().json:
        output.show_json([plain(one) for one in made])
        return
    _show_requests(made)
    waiting = [one for one in made if one.status == RequestStatus.REQUEST_STATUS_OPEN]
    if waiting:
        output.say(f"{len(waiting)} of {len(made)} wait for an operator: koinon access list --mine")


@access.command("list")
@click.option("--mine", is_flag=True, help="Only my requests and tokens.")
@click.option("--open", "only_open", is_flag=True, help="Only open requests and active tokens.")
@click.option("--dataset", default="", metavar="NAME", help="Only for this dataset (institution.collection.table).")
def list_(mine: bool, only_open: bool, dataset: str) -> None:
    """List requests and tokens."""
    client = invocation().client
    me = str(client.profile.person) if mine else ""
    requests = client.access.requests(
        institution=dataset.partition(".")[0], requester=me, status="open" if only_open else ""
    )
    if dataset:
        requests = [one for one in requests if one.requested.dataset == dataset]
    tokens = client.access.tokens(holder=me, dataset=dataset, status="active" if only_open else "")
    if invocation().json:
        output.show_json({"requests": [plain(one) for one in requests], "tokens": [plain(one) for one in tokens]})
        return
    _show_requests(requests)
    _show_tokens(tokens)


@access.command()
@click.argument("request_id")
@operations_option("Allow only these, not all that was requested")
@click.option("--columns", type=comma_list, default="", metavar="LIST", help="Allow only these columns.")
@click.option("--days", type=click.IntRange(min=1), default=None, help="Fewer days than requested.")
@click.option("--uses", type=click.IntRange(min=1), default=None, help="Fewer uses than requested.")
@click.option("--min-cohort", type=click.IntRange(min=1), default=None, help="A larger one than the dataset's.")
def grant(
    request_id: str,
    operations: tuple[str, ...],
    columns: tuple[str, ...],
    days: int | None,
    uses: int | None,
    min_cohort: int | None,
) -> None:
    """Grant REQUEST_ID, as requested or less. Operators of the publishing institution only."""
    token = invocation().client.access.grant(
        request_id, columns=columns, operations=operations, days=days or 0, uses=uses or 0, min_cohort=min_cohort or 0
    )
    tell(token, f"granted: token {token.id} for {token.holder}, until {when(token.expires_at_ms)}")


@access.command()
@click.argument("request_id")
@click.option("--reason", required=True, help="Public to the members.")
def deny(request_id: str, reason: str) -> None:
    """Deny REQUEST_ID. Operators of the publishing institution only."""
    request = invocation().client.access.deny(request_id, reason)
    tell(request, f"denied: request {request.id}")


@access.command()
@click.argument("token_id")
@click.option("--reason", required=True, help="Public to the members.")
def revoke(token_id: str, reason: str) -> None:
    """Revoke TOKEN_ID: no computation uses it from now on."""
    token = invocation().client.access.revoke(token_id, reason)
    tell(token, f"revoked: token {token.id}")


def _show_requests(requests: Sequence[AccessRequest]) -> None:
    rows = [
        (
            short(one.id),
            one.requested.dataset,
            one.requester,
            word(RequestStatus, one.status),
            short(one.token_id) or one.reason,
            ", ".join(word(TaskOperation, operation) for operation in one.requested.operations),
            f"{one.requested.uses} in {duration(one.requested.duration_ms)}",
            "; ".join(one.requested.purposes),
        )
        for one in requests
    ]
    columns = ("Request", "Dataset", "By", "Status", "Token", "Operations", "Uses", "Purpose")
    output.show(output.table(columns, rows, spare=("Operations", "Token", "Uses")))


def _show_tokens(tokens: Sequence[Token]) -> None:
    rows = [
        (
            short(one.id),
            one.dataset,
            one.holder,
            word(TokenStatus, one.status),
            f"{one.uses_left} of {one.uses_granted}",
            when(one.expires_at_ms),
            one.decided_by,
            "; ".join(one.purposes),
            one.status_reason,
        )
        for one in tokens
    ]
    columns = ("Token", "Dataset", "Holder", "Status", "Uses left", "Until", "Decided by", "Purpose", "Reason")
    output.show(output.table(columns, rows, spare=("Decided by", "Purpose")))
