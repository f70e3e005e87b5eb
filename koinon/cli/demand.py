"""``koinon demand``: what is missing from the catalog."""

from __future__ import annotations

from collections.abc import Sequence

import click

from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import comma_list, limit_option
from koinon.display import plain, short, when
from koinon.v1.demand_pb2 import Demand, DemandStatus
from koinon.words import word


@click.group()
def demand() -> None:
    """Say what is missing from the catalog; see who looks for what you have.

    The ledger matches open demands with everything that is published, and shows matches to both sides.
    """


@demand.command()
@click.argument("title")
@click.option("--purpose", required=True, help="What for; public to the members.")
@click.option("--columns", type=comma_list, default="", metavar="LIST", help="A dataset must have all of these.")
@click.option(
    "--themes", type=comma_list, default="", metavar="LIST", help="And be of one of these, or a narrower one."
)
@click.option(
    "--budget",
    type=click.IntRange(min=0),
    default=0,
    help="Points you would pay in all; no dearer dataset matches. 0 says nothing.",
)
@click.option("--days", type=click.IntRange(min=1), default=90, show_default=True, help="How long it stands.")
def post(title: str, purpose: str, columns: tuple[str, ...], themes: tuple[str, ...], budget: int, days: int) -> None:
    """Post what you miss. Analysts only.

    \b
    Example:
      koinon demand post "ERCP with stents" --columns age,stent --themes HEAL.C06 --purpose "Second trial" --budget 500
    """
    made = invocation().client.demand.post(
        title, purpose=purpose, columns=columns, themes=themes, budget=budget, days=days
    )
    tell(
        made,
        f"posted: demand {made.id}, until {when(made.expires_at_ms)}",
        "koinon catalog search finds what is there already",
    )


@demand.command("list")
@click.option("--mine", is_flag=True, help="Only what I posted.")
@click.option("--matched", is_flag=True, help="Only what my institution's datasets match.")
@click.option("--open", "only_open", is_flag=True, help="Only what still stands.")
@limit_option(100)
def list_(mine: bool, matched: bool, only_open: bool, limit: int) -> None:
    """List demands, newest first."""
    client = invocation().client
    found = client.demand.list(
        demander=str(client.profile.person) if mine else "",
        matched_institution=client.profile.institution if matched else "",
        status="open" if only_open else "",
        limit=limit,
    )
    if invocation().json:
        output.show_json([plain(one) for one in found])
        return
    rows = [
        (
            short(one.id),
            one.posted.title,
            one.demander,
            word(DemandStatus, one.status),
            _wanted(one),
            str(one.posted.budget or ""),
            str(len(one.matches)),
            when(one.expires_at_ms),
        )
        for one in found
    ]
    columns = ("Demand", "Title", "By", "Status", "Wanted", "Budget", "Matches", "Until")
    output.show(output.table(columns, rows, right=("Budget", "Matches"), spare=("Until", "Budget")))


@demand.command()
@click.argument("demand_id")
def show(demand_id: str) -> None:
    """Show DEMAND_ID, the datasets that match it, and those that would if they cost less."""
    found = invocation().client.demand.show(demand_id)
    if invocation().json:
        output.show_json(plain(found))
        return
    posted = found.posted
    output.show(
        output.facts(
            [
                ("Demand", found.id),
                ("Title", posted.title),
                ("By", found.demander),
                ("Status", word(DemandStatus, found.status)),
                ("Reason", found.reason),
                ("Wanted", _wanted(found)),
                ("Purpose", posted.purpose),
                ("Budget", f"{posted.budget} points" if posted.budget else ""),
                ("Stands until", when(found.expires_at_ms)),
            ]
        )
    )
    rows = [
        (match.dataset, str(match.version), when(match.matched_at_ms), str(match.price), fits)
        for matches, fits in ((found.matches, "yes"), (found.priced_out, "no: over budget"))
        for match in matches
    ]
    columns = ("Dataset", "Version", "Published", "Price of a use", "Matches")
    output.show(output.table(columns, rows, right=("Version", "Price of a use")))


@demand.command()
@click.argument("demand_id")
@click.option("--reason", default="", help="Public to the members.")
def withdraw(demand_id: str, reason: str) -> None:
    """End DEMAND_ID: found, or given up."""
    found = invocation().client.demand.withdraw(demand_id, reason)
    tell(found, f"withdrawn: demand {found.id}")


def _wanted(found: Demand) -> str:
    return "; ".join(filter(None, (_listed("columns", found.posted.columns), _listed("themes", found.posted.themes))))


def _listed(name: str, values: Sequence[str]) -> str:
    return f"{name} {', '.join(values)}" if values else ""
