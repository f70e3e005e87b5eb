"""``koinon audit case | export | verify``: what is taken away from the trail, in formats of one's own and of others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from koinon import case as cases
from koinon import credential, page, prov, receipt
from koinon import genesis as genesis_file
from koinon import profile as profiles
from koinon.cli import output, proofs
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import limit_option
from koinon.cli.trail import filter_options, of_whom, purpose_option
from koinon.display import csv_cell, plain, printable, when
from koinon.errors import Corrupt, Exhausted, InvalidInput, NotFound
from koinon.files import creating, read_text, write_new
from koinon.limits import MAX_CASE_BYTES, MAX_CASE_RECORDS
from koinon.trail import Words
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.identity_pb2 import Genesis

_CSV = ("index", "height", "time_ms", "kind", "actor", "subject", "from_state", "to_state", "detail")
_out_option = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="A new file.  [default: stdout]"
)
_genesis_option = click.option(
    "--genesis",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="From someone you trust.  [default: the profile's]",
)


@click.command("case")
@click.argument("subject")
@click.option(
    "--format", "form", type=click.Choice(("json", "prov", "html")), default="json", show_default=True, help="Of FILE."
)
@_out_option
@purpose_option
def case(subject: str, form: str, out: Path | None, purpose: str) -> None:
    """Gather everything that concerns SUBJECT in one file: a dataset, person, task …, in order, with receipts.

    \b
    json   the case file: verifies offline as a whole (koinon audit verify)
    prov   the same history as W3C PROV-JSON, for other tools
    html   a page to read and to print; it names the case file, which proves it

    \b
    Examples:
      koinon audit case um.ercp.indo_rct --out case.json
      koinon audit case task:4f1c9a0b6d2e8f3751c0d9e2a7b48c36 --format html --out case.html
    """
    client = invocation().client
    gathered = client.audit.case(of_whom(subject), purpose=purpose)
    match form:
        case "json":
            text = cases.render(gathered)
        case "prov":
            verified = cases.verify(gathered, _genesis(None))
            text = _json(prov.document(verified.proof.chain_id, verified.records))
        case _:
            text = page.render(cases.verify(gathered, _genesis(None)), file_name="case.json")
    _put(text, out, "case")
    if out is not None and form == "json":
        output.say(f"{len(gathered.proved.records)} records; verify it offline: koinon audit verify {out}")


@click.command()
@filter_options
@click.option(
    "--format",
    "form",
    type=click.Choice(("jsonl", "csv", "prov")),
    default="jsonl",
    show_default=True,
    help="One JSON object per line; a table; W3C PROV-JSON.",
)
@_out_option
@limit_option(1_000_000)
@purpose_option
def export(subject: str, words: Words, form: str, out: Path | None, limit: int, purpose: str) -> None:
    """Write the records that fit a filter, for other programs. No receipts: those are in koinon audit case.

    FILE appears once it is whole. Any number of records fits into jsonl and csv; PROV is one document, and is refused
    for more than 50000.

    \b
    Examples:
      koinon audit export --since 2026-11-01 --out november.jsonl
      koinon audit export um.ercp.indo_rct --format csv --out trail.csv
    """
    count = 0

    def counted() -> Iterator[AuditRecord]:
        nonlocal count
        for found in invocation().client.audit.pages(subject, limit=limit, purpose=purpose, **words):
            yield from found
            count += len(found)
            line.update(f"exporting: {count} records")

    with output.working("exporting") as line:
        parts = _FORMS[form](counted())
        if out is None:
            for part in parts:
                output.show_text(part)
        else:
            with creating(out, "export") as file:
                for part in parts:
                    file.write(part.encode("utf-8"))
    if out is not None:
        _tell_written(out)
    output.say(f"{count} records" + (", as many as --limit allows: there may be more" if count == limit else ""))


def _jsonl(records: Iterable[AuditRecord]) -> Iterator[str]:
    return (json.dumps(plain(record), ensure_ascii=True) + "\n" for record in records)


def _csv(records: Iterable[AuditRecord]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_CSV, "related"))
    for record in records:
        cells = [getattr(record, name) for name in _CSV]
        writer.writerow([csv_cell(cell) for cell in (*cells, " ".join(record.related))])
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def _prov(records: Iterable[AuditRecord]) -> Iterator[str]:
    """One document, so held whole. Raises Exhausted."""
    few = list(islice(records, MAX_CASE_RECORDS + 1))
    if len(few) > MAX_CASE_RECORDS:
        raise Exhausted(
            f"more than {MAX_CASE_RECORDS} records fit",
            hint="export spans of time, with --since and --until, or use --format jsonl",
        )
    yield _json(prov.document(genesis_file.chain_id(_genesis(None)), few))


_FORMS: dict[str, Callable[[Iterable[AuditRecord]], Iterator[str]]] = {"jsonl": _jsonl, "csv": _csv, "prov": _prov}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@_genesis_option
@click.option(
    "--compare", is_flag=True, help="Of a case: also ask the profile's node whether a record was left out of it."
)
@purpose_option
def verify(file: Path, genesis: Path | None, compare: bool, purpose: str) -> None:
    """Verify the receipt, case file or credential in FILE: no network, no trust in a node, only the genesis file.

    Of a case, every record and that no change of state of what it is about is missing before the last one shown. That
    none came later, and that nothing else was left out, no file can prove; --compare asks a node, which may be any
    member's.
    """
    trusted = _genesis(genesis)
    text = read_text(file, "receipt or case file", MAX_CASE_BYTES)
    if f'"format": "{cases.FORMAT}"' in text[:200]:
        _verify_case(text, trusted, compare, purpose)
        return
    if compare:
        raise InvalidInput("only a case file can be compared with a node", hint="leave --compare out")
    if '"VerifiableCredential"' in text[:1_000]:
        _verify_credential(text, trusted)
        return
    proved = receipt.verify(receipt.parse(text), trusted)
    tell(proofs.as_json(proved), "verified: the consortium recorded this", facts=proofs.as_facts(proved))


def _verify_case(text: str, trusted: Genesis, compare: bool, purpose: str) -> None:
    parsed = cases.parse(text)
    proved = cases.verify(parsed, trusted)
    missing = invocation().client.audit.missing(parsed, purpose=purpose) if compare else []
    if missing:
        raise Corrupt(
            f"the case leaves out {len(missing)} records that the node knows, the first is {missing[0].index}",
            rule="invalid-receipt",
            hint=f"koinon audit receipt {missing[0].index} proves it; ask for the case anew",
        )
    tell(
        {
            "verified": True,
            "kind": "case",
            "subject": proved.subject,
            "scope": list(proved.scope),
            "records": [record.index for record in proved.records],
            "compared": compare,
            **proofs.proof_as_json(proved.proof, proved.tree_size),
        },
        "verified: the consortium recorded every one of these; before the last change of state no other is missing",
        facts=[
            ("Case of", proved.subject),
            ("About", ", ".join(proved.scope)),
            ("Records", f"{len(proved.records)} of the {proved.tree_size} that the log had"),
            ("Compared", "the profile's node knows no other" if compare else ""),
            *proofs.proof_as_facts(proved.proof),
        ],
    )


def _verify_credential(text: str, trusted: Genesis) -> None:
    proved = credential.verify(credential.parse(text), trusted)
    tell(
        {
            "verified": True,
            "kind": "credential",
            "person": proved.person,
            "roles": list(proved.roles),
            "subject": proved.subject,
            "issuer": proved.issuer,
            "operator": proved.operator,
            "chain_id": proved.chain_id,
            "registered_at_ms": proved.registered_at_ms,
            "time_ms": proved.time_ms,
        },
        "verified: the consortium recorded this membership",
        facts=[
            ("Person", proved.person),
            ("Roles", ", ".join(proved.roles)),
            ("Key", proved.subject),
            ("Since", when(proved.registered_at_ms)),
            ("Issued by", f"{proved.operator}, {proved.issuer}"),
            ("Chain", proved.chain_id),
            ("Known until", f"{when(proved.time_ms)}: whether it was changed or revoked later, no credential says"),
        ],
    )


def _genesis(path: Path | None) -> Genesis:
    if path is not None:
        return genesis_file.load(path)
    try:
        return genesis_file.load(profiles.load(invocation().profile).genesis)
    except NotFound as error:
        hint = "give the genesis file, from someone you trust: --genesis FILE; or a profile, which names one"
        raise NotFound(error.message, rule=error.rule, hint=hint) from None


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def _put(text: str, out: Path | None, what: str) -> None:
    if out is None:
        output.show_text(text)
        return
    write_new(out, text, what)
    _tell_written(out)


def _tell_written(out: Path) -> None:
    if not invocation().json:
        output.show_text(f"{printable(str(out))}\n")
