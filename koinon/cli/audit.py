"""``koinon audit``: read the trail, count it, follow it, and take receipts."""

from __future__ import annotations

from pathlib import Path

import click

from koinon import receipt
from koinon.aio.audit import PATIENCE_S
from koinon.cli import case, output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import limit_option
from koinon.cli.trail import (
    check_dimension,
    filter_options,
    purpose_option,
    show_line,
    show_records,
)
from koinon.display import plain, when
from koinon.errors import InvalidInput, Unavailable
from koinon.trail import Words
from koinon.v1.audit_pb2 import AuditRecord


@click.group()
def audit() -> None:
    """Read the audit trail; take proofs away and verify them offline.

    What a regulator reads is itself recorded, with --purpose, and seen by those it concerns.
    """


for further in (case.case, case.export, case.verify):
    audit.add_command(further)


@audit.command("list")
@filter_options
@limit_option(1_000)
@click.option("--newest", is_flag=True, help="The newest first.")
@click.option("--receipts", type=click.Path(path_type=Path), metavar="DIR", help="Also a receipt for each, in DIR.")
@click.option("--follow", is_flag=True, help="Go on with new records as they are committed; Ctrl-C ends it.")
@purpose_option
def list_(
    subject: str, words: Words, limit: int, newest: bool, receipts: Path | None, follow: bool, purpose: str
) -> None:
    """List what happened to SUBJECT: a dataset, person, institution, or KIND:ID; everything without it.

    \b
    Examples:
      koinon audit list um.ercp.indo_rct
      koinon audit list um/analyst --kind token. --since 2026-11-01
      koinon audit list --outcome failed --where institution=um --newest --limit 20
      koinon audit list task:4f1c9a0b6d2e8f3751c0d9e2a7b48c36 --receipts proofs
    """
    client = invocation().client
    if follow:
        _follow(subject, words, new_only=False, purpose=purpose)
        return
    if receipts is None:
        records = client.audit.list(subject, limit=limit, newest_first=newest, purpose=purpose, **words)
    else:
        records = _with_receipts(subject, words, limit, receipts, purpose)
    show_records(records)
    if not invocation().json:
        proof = "; koinon audit receipt INDEX proves one" if records else ""
        output.say(f"{len(records)} record{'' if len(records) == 1 else 's'}{proof}")


def _with_receipts(subject: str, words: Words, limit: int, directory: Path, purpose: str) -> list[AuditRecord]:
    proved = invocation().client.audit.prove(subject, limit=limit, purpose=purpose, **words)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{directory}: {error.strerror}", hint="name a directory that can be made") from error
    for position, item in enumerate(proved.records):
        receipt.save(directory / f"record-{item.index}.json", receipt.single(proved, position))
    return [AuditRecord.FromString(item.record) for item in proved.records]


@audit.command()
@filter_options
@click.option("--all", "past", is_flag=True, help="Begin with what is on the ledger already.")
@purpose_option
def watch(subject: str, words: Words, past: bool, purpose: str) -> None:
    """Show new records as they are committed; Ctrl-C ends it.

    When the node restarts, the stream goes on with the next record; it ends after a minute without the node.
    To go on where a stream ended, begin with --from, at one above its last index.

    \b
    Examples:
      koinon audit watch --kind task. --where institution=um
      koinon audit watch um.ercp.indo_rct --from 1201 --json
    """
    _follow(subject, words, new_only=not past and not words.get("from_index"), purpose=purpose)


def _follow(subject: str, words: Words, *, new_only: bool, purpose: str) -> None:
    last: int | None = None

    def broken(error: Unavailable | None) -> None:
        if error is None:
            output.say("the connection is there again: going on" + ("" if last is None else f" after record {last}"))
        else:
            output.say(f"{error.message}: connecting again, for {PATIENCE_S:.0f} s at most")

    watched = invocation().client.audit.watch(subject, new_only=new_only, purpose=purpose, on_broken=broken, **words)
    try:
        for record in watched:
            show_line(record)
            last = record.index
    finally:
        if last is not None:
            output.say(f"the last one was {last}: koinon audit watch --from {last + 1} goes on after it")


@audit.command()
@filter_options
@click.option("--by", default="kind", show_default=True, metavar="DIMENSION", help="What to count by.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many groups.")
@purpose_option
def stats(subject: str, words: Words, by: str, limit: int, purpose: str) -> None:
    """Count records: all, or what happened to SUBJECT, by kind, institution, person, dataset, outcome, purpose, day …

    A record counts for every institution, person … that it concerns. For operators and regulators.

    \b
    Examples:
      koinon audit stats --by institution --kind task.failed
      koinon audit stats um.ercp.indo_rct --by day
      koinon audit stats --by outcome --where kind=access.*
    """
    counted = invocation().client.audit.stats(check_dimension(by), subject, limit=limit, purpose=purpose, **words)
    if invocation().json:
        output.show_json(plain(counted))
        return
    rows = ((group.value, str(group.records)) for group in counted.groups)
    output.show(output.table((by.capitalize(), "Records"), rows, right=("Records",)))
    shown = "" if len(counted.groups) == counted.values else f", {len(counted.groups)} of them shown"
    values = f"{counted.values} value{'' if counted.values == 1 else 's'} of {by}{shown}"
    output.say(f"{counted.records} record{'' if counted.records == 1 else 's'}; {values}")


@audit.command("receipt")
@click.argument("of", metavar="INDEX|tx:ID|token:ID|task:ID")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="A new file.  [default: stdout]")
@purpose_option
def receipt_(of: str, out: Path | None, purpose: str) -> None:
    """Take a receipt: a file that proves something to anyone who holds the genesis.

    \b
    INDEX      an audit record
    tx:ID      a transaction, and what became of it
    token:ID   that a token was granted and, if so, how it ended
    task:ID    that its asker received the result, by the digests of what it opened

    \b
    Examples:
      koinon audit receipt 25 --out receipt.json
      koinon audit receipt token:4f1c9a0b6d --out token.json
    """
    found = invocation().client.audit.receipt(of, purpose=purpose)
    if out is None:
        output.show_text(receipt.render(found))
        return
    receipt.save(out, found)
    tell({"of": of, "file": str(out)}, str(out))
    output.say(f"verify it offline: koinon audit verify {out} --genesis genesis.json")


@audit.command()
@click.option("--height", type=click.IntRange(min=1), metavar="N", help="Of this block.  [default: the newest]")
def head(height: int | None) -> None:
    """Verify a block header of the node's from the genesis on, believing nothing that the node says.

    Changes of validators are followed from header to header. Two people who see the same hash at a height see the
    same ledger up to there.
    """
    found = invocation().client.audit.header(height or 0)
    header = found.header
    tell(
        {"block_hash": found.block_hash.hex(), "signers": found.signers, **plain(header)},
        "verified: the consortium decided this block",
        facts=[
            ("Block", f"{header.height}, {when(header.time_ms)}"),
            ("Hash", found.block_hash.hex()),
            ("Chain", header.chain_id),
            ("Signed by", ", ".join(found.signers)),
            ("State", header.state_commitment.hex()),
            ("Audit log", f"{header.audit_size} records, root {header.audit_root.hex()}"),
        ],
    )
