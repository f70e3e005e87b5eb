"""Options that say which records of the audit trail are meant: the same for every command that reads it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from koinon import trail
from koinon.cli import output, proofs
from koinon.cli.app import invocation
from koinon.cli.arguments import moment
from koinon.display import plain, printable, shortened, when
from koinon.errors import InvalidInput
from koinon.trail import Words
from koinon.v1.audit_pb2 import AuditRecord

Function = TypeVar("Function", bound=Callable[..., Any])

COLUMNS = ("Index", "Time (UTC)", "Kind", "Actor", "Subject", "Change", "Detail")
_KINDS = ("dataset", "person", "institution", "task", "token", "request", "proposal")


def filter_options(command: Function) -> Function:
    """``SUBJECT`` and every option of a filter; the command gets ``subject`` and ``words``."""

    @click.argument("subject", default="")
    @click.option("--actor", default="", metavar="ID", help="Only what this person or institution did.")
    @click.option("--kind", default="", metavar="KIND", help="E.g. token.granted, or a family: token")
    @click.option("--outcome", multiple=True, metavar="STATE", help="State it led to, e.g. failed; any of several.")
    @click.option("--about", multiple=True, metavar="PURPOSE", help="Purpose of the task, token or request concerned.")
    @click.option(
        "--where",
        multiple=True,
        metavar="DIMENSION=VALUE",
        help="E.g. institution=um; several of one dimension: any; of others: all. VALUE* is a beginning.",
    )
    @click.option("--since", type=moment, default="", metavar="TIME", help="From this time on (UTC).")
    @click.option("--until", type=moment, default="", metavar="TIME", help="Up to this time (UTC).")
    @click.option(
        "--from", "from_index", type=click.IntRange(min=0), default=0, metavar="INDEX", help="From this record on."
    )
    @wraps(command)
    def wrapped(
        *arguments: Any,
        subject: str,
        actor: str,
        kind: str,
        outcome: tuple[str, ...],
        about: tuple[str, ...],
        where: tuple[str, ...],
        since: int,
        until: int,
        from_index: int,
        **options: Any,
    ) -> Any:
        words: Words = {"since_ms": since, "until_ms": until, "from_index": from_index, "actor": actor, "kind": kind}
        words["where"] = _dimensions(where, outcome=outcome, purpose=about)
        return command(*arguments, subject=trail.beginning(subject_of(subject)), words=words, **options)

    return wrapped  # type: ignore[return-value]  # click fills in what the command does not see


purpose_option = click.option(
    "--purpose", default="", metavar="TEXT", help="Why you read this: on the ledger, where you are a regulator."
)


def _dimensions(pairs: tuple[str, ...], **further: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: list(values) for name, values in further.items() if values}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InvalidInput(f"{pair!a} is no filter", hint="write DIMENSION=VALUE, e.g. institution=um")
        found.setdefault(name, []).append(value)
    return found


def subject_of(text: str) -> str:
    """A subject as the ledger writes it; datasets, people and institutions may be named as usual."""
    kind, colon, name = text.partition(":")
    if not text or (colon and name and kind.isidentifier()):
        return text
    if "/" in text:
        return f"person:{text}"
    if text.count(".") == 2:
        return f"dataset:{text}"
    if text.count(".") == 0 and len(text) < 32:
        return f"institution:{text}"
    raise InvalidInput(f"{text!a} is no subject", hint=f"write KIND:ID, with KIND one of {', '.join(_KINDS)}")


def of_whom(text: str) -> str:
    """The same for a command that needs one."""
    if not text:
        raise InvalidInput("no subject is named", hint="name a dataset, person, institution, or KIND:ID")
    return subject_of(text)


def show_records(records: list[AuditRecord]) -> None:
    """A table, or JSON."""
    if invocation().json:
        output.show_json([plain(record) for record in records])
        return
    rows = (cells(record) for record in records)
    output.show(output.table(COLUMNS, rows, right=("Index",), spare=("Change",)))


def cells(record: AuditRecord) -> tuple[str, ...]:
    """One row of the table; ids and digests by their beginnings, which commands accept."""
    return (
        str(record.index),
        when(record.time_ms).removesuffix(" UTC"),
        record.kind,
        record.actor,
        shortened(record.subject).removeprefix("dataset:"),
        proofs.change(record),
        shortened(record.detail),
    )


def show_line(record: AuditRecord) -> None:
    """One line of a stream."""
    if invocation().json:
        output.show_json_line(plain(record))
    else:
        output.show_text("  ".join(printable(cell) for cell in cells(record)) + "\n")


def check_dimension(name: str) -> str:
    """A dimension that a person named. Raises InvalidInput for what is certainly none."""
    if not name.isidentifier():
        raise InvalidInput(
            f"{name!a} is no dimension",
            hint=f"use {', '.join(trail.OF_ALL)}, or a kind of subject: {', '.join(_KINDS)}",
        )
    return name
