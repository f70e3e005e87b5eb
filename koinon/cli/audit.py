"""``koinon audit``: read the trail, take receipts, verify them offline."""

from __future__ import annotations

from pathlib import Path

import click

from koinon import genesis as genesis_file
from koinon import profile, receipt
from koinon.cli import output
from koinon.cli.app import invocation
from koinon.cli.arguments import limit_option, moment
from koinon.display import plain, printable, when
from koinon.errors import InvalidInput
from koinon.receipt import VerifiedRecord
from koinon.v1.audit_pb2 import AuditRecord


@click.group()
def audit() -> None:
    """Read the audit trail; verify receipts offline."""


@audit.command("list")
@click.argument("subject", default="")
@click.option("--actor", default="", metavar="ID", help="Only what this person or institution did.")
@click.option("--kind", default="", metavar="KIND", help='E.g. "token.granted", or a family: "token."')
@click.option("--since", type=moment, default="", metavar="TIME", help="From this time on (UTC).")
@click.option("--until", type=moment, default="", metavar="TIME", help="Up to this time (UTC).")
@click.option(
    "--from", "from_index", type=click.IntRange(min=0), default=0, metavar="INDEX", help="From this record on."
)
@limit_option(1_000)
@click.option("--follow", is_flag=True, help="Go on with new records as they are committed; Ctrl-C ends it.")
def list_(
    subject: str, actor: str, kind: str, since: int, until: int, from_index: int, limit: int, follow: bool
) -> None:
    """List what happened to SUBJECT: a dataset, person, institution, task, token or request; everything without it.

    \b
    Examples:
      koinon audit list um.ercp.indo_rct
      koinon audit list um/analyst --kind token. --since 2026-11-01
      koinon audit list task:4f1c9a0b6d2e8f3751c0d9e2a7b48c36
    """
    client = invocation().client
    subject = _subject(subject)
    if follow:
        for record in client.audit.watch(subject, kind=kind, from_index=from_index):
            _show_line(record)
        return
    records = client.audit.list(
        subject, actor=actor, kind=kind, from_index=from_index, since_ms=since, until_ms=until, limit=limit
    )
    if invocation().json:
        output.show_json([plain(record) for record in records])
        return
    columns = ("Index", "Time", "Kind", "Actor", "Subject", "Change", "Detail")
    output.show(output.table(columns, (_cells(record) for record in records), right=("Index",)))
    output.say(f"{len(records)} record{'' if len(records) == 1 else 's'}; koinon audit receipt INDEX proves one")


@audit.command("receipt")
@click.argument("index", type=click.IntRange(min=0))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="A new file.  [default: stdout]")
def receipt_(index: int, out: Path | None) -> None:
    """Take a receipt for the record at INDEX: a file that proves it to anyone who holds the genesis."""
    found = invocation().client.audit.receipt(index)
    if out is None:
        output.show_text(receipt.render(found))
        return
    receipt.save(out, found)
    if invocation().json:
        output.show_json({"index": index, "file": str(out)})
    else:
        output.show_text(f"{printable(str(out))}\n")
    output.say(f"verify it offline: koinon audit verify {out} --genesis genesis.json")


@audit.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--genesis",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="From someone you trust.  [default: the profile's]",
)
def verify(file: Path, genesis: Path | None) -> None:
    """Verify the receipt in FILE; needs no network and trusts no node, only the genesis file."""
    trusted = genesis_file.load(genesis or profile.load(invocation().profile).genesis)
    proved = receipt.verify(receipt.load(file), trusted)
    if invocation().json:
        output.show_json(_proof(proved))
        return
    record = proved.record
    output.show_text("verified: the consortium recorded this\n")
    output.show(
        output.facts(
            [
                ("Record", f"number {record.index}, counted from 0; the log had {proved.tree_size}"),
                ("Time", when(record.time_ms)),
                ("Kind", record.kind),
                ("Actor", record.actor),
                ("Subject", record.subject),
                ("Related", ", ".join(record.related)),
                ("Change", _change(record)),
                ("Detail", record.detail),
                ("Chain", proved.chain_id),
                ("Proved by", f"block {proved.height} ({proved.block_hash.hex()[:16]}…), {when(proved.time_ms)}"),
                ("Signed by", ", ".join(proved.signers)),
            ]
        )
    )


_KINDS = ("dataset", "person", "institution", "task", "token", "request")


def _subject(text: str) -> str:
    """A subject as the ledger writes it; datasets, people and institutions may be named as usual."""
    if not text or text.startswith(tuple(f"{kind}:" for kind in _KINDS)):
        return text
    if "/" in text:
        return f"person:{text}"
    if text.count(".") == 2:
        return f"dataset:{text}"
    if text.count(".") == 0 and len(text) < 32:
        return f"institution:{text}"
    raise InvalidInput(f"{text!a} is no subject", hint=f"write KIND:ID, with KIND one of {', '.join(_KINDS)}")


def _proof(proved: VerifiedRecord) -> dict[str, object]:
    return {
        "verified": True,
        "record": plain(proved.record),
        "chain_id": proved.chain_id,
        "tree_size": proved.tree_size,
        "height": proved.height,
        "block_hash": proved.block_hash.hex(),
        "time_ms": proved.time_ms,
        "signers": list(proved.signers),
    }


def _change(record: AuditRecord) -> str:
    before = "" if record.from_state == record.to_state else record.from_state
    return " → ".join(filter(None, (before, record.to_state)))


def _cells(record: AuditRecord) -> tuple[str, ...]:
    return (
        str(record.index),
        when(record.time_ms),
        record.kind,
        record.actor,
        record.subject,
        _change(record),
        record.detail,
    )


def _show_line(record: AuditRecord) -> None:
    if invocation().json:
        output.show_json_line(plain(record))
    else:
        output.show_text("  ".join(printable(cell) for cell in _cells(record)) + "\n")
