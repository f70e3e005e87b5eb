"""``koinon query``: plan or run a joint query."""

from __future__ import annotations

import sys

import click

from koinon.aio import Progress
from koinon.cli import output
from koinon.cli.app import invocation
from koinon.display import plain
from koinon.limits import MAX_SQL


@click.command()
@click.argument("sql")
@click.option(
    "--purpose", default="", help="One that access was granted for, word for word.  [default: the tokens' only one]"
)
@click.option("--dry-run", is_flag=True, help="Show what would happen, who learns what, and the cost; run nothing.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="Of the result.",
)
@click.option(
    "--timeout", type=click.IntRange(min=1), default=300, show_default=True, help="Seconds; then it is cancelled."
)
@click.option(
    "--max-price",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Points you agree to pay; --dry-run shows what it costs.",
)
def query(sql: str, purpose: str, dry_run: bool, format_: str, timeout: int, max_price: int) -> None:
    """Plan or run a joint query.

    SQL is computed jointly over all institutions that it names; "-" reads it from stdin. It may be a
    SELECT of COUNT, SUM, AVG, VAR_SAMP and STDDEV_SAMP, with WHERE and GROUP BY over columns with a published codelist,
    FROM collection.table (every institution's, one token each) or institution.collection.table.

    \b
    Examples:
      koinon query "SELECT rx, COUNT(*) AS n, AVG(age) FROM ercp.indo_rct GROUP BY rx" --dry-run
      koinon query "SELECT COUNT(*) FROM ercp.indo_rct WHERE age >= 60" --format csv
    """
    if sql == "-":
        sql = sys.stdin.read(MAX_SQL + 1)
    as_json = invocation().json or format_ == "json"
    client = invocation().client
    if dry_run:
        offer = client.plan(sql, purpose=purpose)
        if as_json:
            planned = {"plan": plain(offer.plan), "plan_hash": offer.plan_hash.hex()}
            output.show_json(planned | {"purpose": offer.purpose, "price": offer.price})
        else:
            output.show(offer)
        return
    with output.working("planning") as line:
        result = client.query(
            sql,
            purpose=purpose,
            max_price=max_price,
            on_progress=lambda progress: line.update(_words(progress)),
            timeout_s=timeout,
        )
    if as_json:
        output.show_json(result.to_dict())
    elif format_ == "csv":
        output.show_text(result.to_csv())
    else:
        output.show(result.table())
    if not as_json:
        output.say(result.note(), style="dim")
    for missing in client.tasks.unconfirmed():
        why = f"{missing.error.message} [{missing.error.rule}]"
        output.say(f"the ledger does not know that you received the result of task {missing.task_id}: {why}")


def _words(progress: Progress) -> str:
    of = f": {progress.done} of {progress.total} parties" if progress.total else ""
    return f"{progress.stage}{of}"
