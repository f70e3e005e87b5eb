"""``koinon audit``: read the trail, take receipts, verify them offline."""

from __future__ import annotations

from pathlib import Path

import click

from koinon import genesis as genesis_file
from koinon import profile, receipt
from koinon.cli import output, proofs
from koinon.cli.app import invocation
from koinon.cli.arguments import limit_option, moment
from koinon.display import plain, printable, when
from koinon.errors import InvalidInput
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
@click.argument("of", metavar="INDEX|tx:ID|token:ID")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="A new file.  [default: stdout]")
def receipt_(of: str, out: Path | None) -> None:
    """Take a receipt: a file that proves something to anyone who holds the genesis.

    \b
    INDEX      an audit record
    tx:ID      a transaction, and what became of it
    token:ID   that a token was granted and, if so, how it ended

    \b
    Examples:
      koinon audit receipt 25 --out receipt.json
      koinon audit receipt token:4f1c9a0b6d --out token.json
    """
    found = invocation().client.audit.receipt(of)
    if out is None:
        output.show_text(receipt.render(found))
        return
    receipt.save(out, found)
    if invocation().json:
        output.show_json({"of": of, "file": str(out)})
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
        output.show_json(proofs.as_json(proved))
    else:
        output.show_text("verified: the consortium recorded this\n")
        output.show(output.facts(proofs.as_facts(proved)))


@audit.command()
@click.option("--height", type=click.IntRange(min=1), metavar="N", help="Of this block.  [default: the newest]")
def head(height: int | None) -> None:
    """Verify a block header of the node's from the genesis on, believing nothing that the node says.

    Changes of validators are followed from header to header. Two people who see the same hash at a height see the
    same ledger up to there.
    """
    found = invocation().client.audit.header(height or 0)
    if invocation().json:
        output.show_json({"block_hash": found.block_hash.hex(), "signers": found.signers, **plain(found.header)})
        return
    header = found.header
    output.show_text("verified: the consortium decided this block\n")
    output.show(
        output.facts(
            [
                ("Block", f"{header.height}, {when(header.time_ms)}"),
                ("Hash", found.block_hash.hex()),
                ("Chain", header.chain_id),
                ("Signed by", ", ".join(found.signers)),
                ("State", header.state_commitment.hex()),
                ("Audit log", f"{header.audit_size} records, root {header.audit_root.hex()}"),
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


def _cells(record: AuditRecord) -> tuple[str, ...]:
    return (
        str(record.index),
        when(record.time_ms),
        record.kind,
        record.actor,
        record.subject,
        proofs.change(record),
        record.detail,
    )


def _show_line(record: AuditRecord) -> None:
    if invocation().json:
        output.show_json_line(plain(record))
    else:
        output.show_text("  ".join(printable(cell) for cell in _cells(record)) + "\n")
