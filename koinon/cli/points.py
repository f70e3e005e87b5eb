"""``koinon points``: balances, transfers, statements, why somebody was paid, data unions."""

from __future__ import annotations

import click

from koinon import prices
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import limit_option
from koinon.display import plain, shortened, when
from koinon.errors import InvalidInput
from koinon.v1.points_pb2 import DataUnion, EscrowStatus, Shares, Weighting
from koinon.v1.services_pb2 import ExplainTaskResponse
from koinon.v1.task_pb2 import TaskStatus
from koinon.words import word


@click.group()
def points() -> None:
    """See and move points; see who was paid for a task, and why; run data unions.

    An ACCOUNT is an institution (um), a person (um/analyst), union:NAME or fund:consortium.
    """


@points.command()
@click.argument("account", default="")
def balance(account: str) -> None:
    """Print what ACCOUNT can spend now; your own without it."""
    found = invocation().client.points.balance(account)
    tell({"points": found}, str(found))


@points.command()
@limit_option(100)
def accounts(limit: int) -> None:
    """List accounts that ever had points, and how many there are in all."""
    client = invocation().client
    found, supply = client.points.accounts(limit=limit), client.points.supply()
    if invocation().json:
        output.show_json({"accounts": [plain(account) for account in found], "supply": plain(supply)})
        return
    rows = [(account.id, str(account.points)) for account in found]
    output.show(output.table(("Account", "Points"), rows, right=("Points",)))
    output.say(f"{supply.minted} minted, {supply.burned} burned, {supply.escrowed} in escrow")


@points.command()
@click.argument("target", metavar="ACCOUNT")
@click.argument("number", metavar="POINTS", type=click.IntRange(min=1))
@click.option("--reason", required=True, help="Public to the members.")
@click.option("--from", "source", default="", metavar="ACCOUNT", help="Your institution's; operators only.")
def transfer(target: str, number: int, reason: str, source: str) -> None:
    """Move POINTS to ACCOUNT, from your own account or your institution's.

    \b
    Example:
      koinon points transfer um/analyst 500 --from um --reason "budget of the ERCP study"
    """
    left = invocation().client.points.transfer(target, number, reason=reason, source=source)
    tell({"points": left}, str(left))


@points.command()
@click.argument("account", default="")
@limit_option(50)
def statement(account: str, limit: int) -> None:
    """List what came into ACCOUNT and left it, newest first; your own without it."""
    lines = invocation().client.points.statement(account, limit=limit)
    if invocation().json:
        output.show_json([plain(line) for line in lines])
        return
    rows = [
        (
            str(line.index),
            when(line.time_ms),
            line.kind,
            f"{line.change:+}",
            str(line.balance),
            line.reason,
            ", ".join(map(shortened, line.related)),
        )
        for line in lines
    ]
    headings = ("Record", "Time", "Kind", "Change", "Balance", "Reason", "Others")
    output.show(output.table(headings, rows, right=("Record", "Change", "Balance"), spare=("Others",)))


@points.command()
@click.argument("task_id")
def explain(task_id: str) -> None:
    """Say who gets how much for a task, and why, one line each."""
    found = invocation().client.points.explain(task_id)
    if invocation().json:
        output.show_json(plain(found))
        return
    if not found.terms.sources:
        output.show_text(f"task {found.task_id} is free\n")
        return
    output.show(
        output.facts(
            [
                ("Task", f"{found.task_id} ({word(TaskStatus, found.task_status)})"),
                ("Price", f"{found.terms.points} points"),
                ("Fee", f"{found.terms.fee} points" if found.terms.fee else ""),
                ("Subscriptions", _subscriptions(found)),
                ("Escrow", _escrow(found)),
                ("Shares", _shares(found.terms.shares)),
            ]
        )
    )
    rows = [(payout.account, str(payout.points), payout.why) for payout in found.payouts]
    output.show(output.table(("Account", "Points", "Why"), rows, right=("Points",)))


@points.group()
def union() -> None:
    """Data unions: many who earn together, in proportion to weights."""


@union.command("list")
@limit_option(100)
def list_(limit: int) -> None:
    """List data unions."""
    _show_unions(invocation().client.points.unions(limit=limit))


@union.command()
@click.argument("name")
@limit_option(100)
def show(name: str, limit: int) -> None:
    """Show data union NAME and its members; what they earned, as far as you may see it."""
    client = invocation().client
    found, members = client.points.union(name), client.points.union_members(name, limit=limit)
    if invocation().json:
        output.show_json({"union": plain(found), "members": [plain(member) for member in members]})
        return
    _show_unions([found])
    rows = [(member.account, str(member.weight), str(member.earned)) for member in members]
    output.show(output.table(("Member", "Weight", "To claim"), rows, right=("Weight", "To claim")))


@union.command()
@click.argument("name")
@click.option("--title", required=True, help="Public to the members.")
@click.option("--administrator", default="", metavar="PERSON", help="Of your institution.  [default: you]")
def define(name: str, title: str, administrator: str) -> None:
    """Found data union NAME, or give yours another title or administrator. Operators only."""
    _show_unions([invocation().client.points.define_union(name, title, administrator=administrator)])


@union.command("set")
@click.argument("name")
@click.argument("members", nargs=-1, required=True, metavar="ACCOUNT=WEIGHT...")
def set_(name: str, members: tuple[str, ...]) -> None:
    """Admit members to data union NAME, weigh them anew, or let them go (weight 0). Others stay as they are.

    \b
    Example:
      koinon points union set patients um/ada=2 um/ben=1
    """
    weights = {}
    for text in members:
        account, _, weight = text.rpartition("=")
        if not account or not weight.isascii() or not weight.isdigit() or len(weight) > 10:
            raise InvalidInput(f"{text!a} names no weight", hint="write ACCOUNT=WEIGHT, e.g. um/ada=2")
        weights[account] = int(weight)
    _show_unions([invocation().client.points.set_union_members(name, weights)])


@union.command()
@click.argument("name")
@click.option("--account", default="", help="Your institution's; operators only.  [default: your own]")
def claim(name: str, account: str) -> None:
    """Move what you earned in data union NAME to your own account; print its balance."""
    left = invocation().client.points.claim(name, account=account)
    tell({"points": left}, str(left))


_WEIGHTINGS = {
    Weighting.WEIGHTING_ROWS: "published rows",
    Weighting.WEIGHTING_EQUAL: "equal parts",
    Weighting.WEIGHTING_CONTRIBUTION: "published values read",
}


def _shares(shares: Shares) -> str:
    return (
        f"computing {_percent(shares.computing_bp)}, coordinator {_percent(shares.coordinator_bp)}, "
        f"fund {_percent(shares.fund_bp)}, the rest to data providers by {_WEIGHTINGS.get(shares.weighting, 'price')}"
    )


def _percent(basis_points: int) -> str:
    return f"{basis_points // 100}.{basis_points % 100:02} %"


def _escrow(found: ExplainTaskResponse) -> str:
    if not found.HasField("escrow"):
        return "nothing: it costs no points beside subscriptions"
    escrow = found.escrow
    state = word(EscrowStatus, escrow.status)
    due = f", due {when(escrow.due_at_ms)}" if escrow.due_at_ms and not escrow.ended_at_ms else ""
    paid = f", {sum(payout.points for payout in escrow.paid)} paid" if escrow.ended_at_ms else ""
    return f"{escrow.points} points of {escrow.payer}: {state}{due}{paid}"


def _subscriptions(found: ExplainTaskResponse) -> str:
    begun = [source for source in found.terms.sources if source.subscription]
    return "; ".join(f"{source.dataset}: {prices.of_source(source)}" for source in begun)


def _show_unions(unions: list[DataUnion]) -> None:
    if invocation().json:
        output.show_json([plain(one) for one in unions])
        return
    rows = [(one.name, one.title, one.administrator, str(one.members), str(one.weight)) for one in unions]
    headings = ("Union", "Title", "Administrator", "Members", "Weight")
    output.show(output.table(headings, rows, right=("Members", "Weight")))
