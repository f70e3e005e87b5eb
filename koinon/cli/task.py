"""``koinon task``: joint computations on the ledger."""

from __future__ import annotations

import click

from koinon import prices
from koinon.cli import output
from koinon.cli.app import invocation
from koinon.cli.arguments import limit_option
from koinon.display import plain, short, when
from koinon.v1.task_pb2 import Task, TaskStatus
from koinon.words import word, words

_SQL_SHOWN = 60  # characters of a query in a list; task show has all


@click.group()
def task() -> None:
    """See joint computations, and cancel your own.

    Ids may be shortened to any unique beginning.
    """


@task.command("list")
@click.option("--mine", is_flag=True, help="Only my own.")
@click.option("--institution", default="", metavar="ID", help="Only those that this institution takes part in.")
@click.option("--status", "state", type=click.Choice(words(TaskStatus)), default=None, help="Only those in this state.")
@limit_option(50)
def list_(mine: bool, institution: str, state: str | None, limit: int) -> None:
    """List tasks, newest first."""
    client = invocation().client
    asker = str(client.profile.person) if mine else ""
    tasks = client.tasks.list(asker=asker, institution=institution, status=state or "", limit=limit)
    if invocation().json:
        output.show_json([plain(one) for one in tasks])
        return
    rows = [
        (
            short(one.id),
            word(TaskStatus, one.status),
            one.asker,
            when(one.submitted_at_ms),
            one.rule,
            _beginning(one.submitted.sql),
        )
        for one in tasks
    ]
    output.show(output.table(("Task", "Status", "Asker", "Submitted", "Rule", "Query"), rows))


@task.command()
@click.argument("task_id")
def show(task_id: str) -> None:
    """Show one task: its parties, sources and how it ended."""
    _show(invocation().client.tasks.show(task_id))


@task.command()
@click.argument("task_id")
@click.option("--reason", default="", help="Public to the members.")
def cancel(task_id: str, reason: str) -> None:
    """Cancel a task of yours; if it does not run yet, the uses it reserved are given back."""
    _show(invocation().client.tasks.cancel(task_id, reason))


def _beginning(sql: str) -> str:
    return sql if len(sql) <= _SQL_SHOWN else sql[: _SQL_SHOWN - 1] + "…"


def _price(one: Task) -> str:
    paid = prices.cost(one.terms)
    return f"{paid} points; koinon points explain {short(one.id)} says who gets them" if paid else ""


def _show(one: Task) -> None:
    if invocation().json:
        output.show_json(plain(one))
        return
    submitted = one.submitted
    output.show(
        output.facts(
            [
                ("Task", one.id),
                ("Status", word(TaskStatus, one.status)),
                ("Why", f"{one.reason} [{one.rule}]" if one.rule else ""),
                ("Ended by", one.ended_by),
                ("Asker", one.asker),
                ("Query", submitted.sql),
                ("Purpose", submitted.purpose),
                ("Sources", ", ".join(f"{s.dataset} (token {short(s.token_id)})" for s in submitted.sources)),
                ("Price", _price(one)),
                ("Plan", submitted.plan_hash.hex()),
                (
                    "Committee",
                    f"{', '.join(submitted.committee)}; any {submitted.threshold} of them together learn nothing",
                ),
                ("Submitted", when(one.submitted_at_ms)),
                ("Deadline", "" if one.ended_at_ms else when(one.deadline_ms)),
                ("Ended", when(one.ended_at_ms) if one.ended_at_ms else ""),
                ("Received", when(one.received_at_ms) if one.received_at_ms else ""),
            ]
        )
    )
    rows = [
        (
            party.institution,
            "data" if party.owner else "computes only",
            "yes" if party.accepted else "no",
            party.output_digest.hex() or "-",
        )
        for party in one.parties
    ]
    output.show(output.table(("Party", "Brings", "Accepted", "Digest of its sealed output"), rows))
