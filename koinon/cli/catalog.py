"""``koinon catalog``: find datasets, publish and withdraw one's own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from koinon import descriptor as descriptors
from koinon import parameters, prices
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import comma_list, limit_option, max_fee_option, moment, operations_option
from koinon.descriptor import ALL_OPERATIONS, DAY_MS, Descriptor, Terms
from koinon.display import duration, plain, printable, when
from koinon.files import read_text
from koinon.limits import MAX_DESCRIPTOR_BYTES
from koinon.v1.catalog_pb2 import (
    AccessMode,
    ColumnType,
    Dataset,
    DatasetStatus,
    PublishDataset,
    TaskOperation,
    VerificationOutcome,
)
from koinon.v1.services_pb2 import StageDatasetResponse
from koinon.words import word

_DEFAULTS = Terms()


@click.group()
def catalog() -> None:
    """Find datasets of all institutions; publish and withdraw your own."""


@catalog.command()
@click.argument("text", default="")
@click.option("--institution", default="", metavar="ID", help="Only what this institution publishes.")
@click.option("--theme", default="", metavar="CODE", help="Only of this theme or a narrower one.")
@click.option("--column", default="", metavar="NAME", help="Only datasets with this column.")
@click.option("--unit", default="", metavar="UCUM", help="Only with a column in this unit.")
@click.option("--max-price", type=click.IntRange(min=0), default=None, help="Points for a task over all rows; 0: free.")
@click.option("--since", type=moment, default="", metavar="DATE", help="Only what was released since, UTC.")
@click.option("--verified", type=click.IntRange(min=0), default=0, help="Confirmed by so many, contested by none.")
@click.option("--withdrawn", is_flag=True, help="Withdrawn datasets too.")
@limit_option(100)
def search(
    text: str,
    institution: str,
    theme: str,
    column: str,
    unit: str,
    max_price: int | None,
    since: int,
    verified: int,
    withdrawn: bool,
    limit: int,
) -> None:
    """Search titles, descriptions, keywords and columns for TEXT; everything without it.

    \b
    Examples:
      koinon catalog search pancreatitis
      koinon catalog search --theme HEAL --column age --verified 1 --max-price 100
    """
    found = invocation().client.catalog.search(
        text,
        institution=institution,
        theme=theme,
        column=column,
        unit=unit,
        max_price=max_price,
        released_since_ms=since,
        min_verifications=verified,
        include_withdrawn=withdrawn,
        limit=limit,
    )
    if invocation().json:
        output.show_json([plain(dataset) for dataset in found])
        return
    priced = any(dataset.published.HasField("price") for dataset in found)
    rows = [
        (
            dataset.published.name,
            dataset.published.title,
            _row_count(dataset.published),
            word(AccessMode, dataset.published.policy.mode),
            word(DatasetStatus, dataset.status),
            when(dataset.released_at_ms),
            *((prices.text(dataset.published.price),) if priced else ()),
        )
        for dataset in found
    ]
    headings = ("Dataset", "Title", "Rows", "Access", "Status", "Released", *(("Price",) if priced else ()))
    output.show(output.table(headings, rows, right=("Rows",), spare=("Released", "Status")))
    output.say(f"{len(found)} dataset{'' if len(found) == 1 else 's'}")


@catalog.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), default=None, help="An earlier version.  [default: the newest]")
def show(name: str, version: int | None) -> None:
    """Show everything the ledger says about dataset NAME (institution.collection.table)."""
    dataset = invocation().client.catalog.show(name, version or 0)
    if invocation().json:
        output.show_json(plain(dataset))
    else:
        _show_dataset(dataset)


@catalog.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="COLLECTION.TABLE", help="Its name; your institution is put in front.")
@click.option("--title", default="", help="One line, public to the members.")
@click.option("--description", default="", help="A paragraph, public to the members.")
@click.option("--keywords", type=comma_list, default="", metavar="LIST", help="Separated by commas.")
@click.option("--themes", type=comma_list, default="", metavar="LIST", help="Codes of koinon catalog themes.")
@click.option("--license", "license_", default="", metavar="TEXT", help="E.g. CC-BY-4.0.")
@click.option("--citation", default="", metavar="TEXT", help="How to cite it.")
@click.option(
    "--descriptor", type=click.Path(path_type=Path), metavar="TOML", help="Texts, units and codelists from a file."
)
@click.option(
    "--access",
    type=click.Choice(["auto", "review"]),
    default=_DEFAULTS.access,
    show_default=True,
    help="Grant requests within the policy at once, or by an operator.",
)
@click.option(
    "--min-cohort",
    type=click.IntRange(min=1),
    default=_DEFAULTS.min_cohort,
    show_default=True,
    help="Groups of fewer rows are never shown.",
)
@operations_option("What may be computed at all, all by default")
@click.option(
    "--max-uses", type=click.IntRange(min=1), default=_DEFAULTS.max_uses, show_default=True, help="Per token."
)
@click.option(
    "--max-days",
    type=click.IntRange(min=1),
    default=_DEFAULTS.max_duration_ms // DAY_MS,
    show_default=True,
    help="Life of a token.",
)
@click.option(
    "--codelist", "codelists", multiple=True, metavar="COLUMN", help="Publish this column's values. Repeatable."
)
@click.option(
    "--row-count-step",
    type=click.IntRange(min=1),
    default=_DEFAULTS.row_count_step,
    show_default=True,
    help="Publish the row count rounded down to a multiple of it.",
)
@click.option("--price", default=_DEFAULTS.price, show_default=True, help="Points: 100/use, 2/row, or 500/30d.")
@click.option("--payee", default="", metavar="ACCOUNT", help="union:NAME that it earns for.  [default: yours]")
@click.option(
    "--auto-for", type=comma_list, default="", metavar="LIST", help="Institutions that need not wait for a review."
)
@max_fee_option("a new dataset, from your institution's account")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def publish(
    file: Path,
    name: str,
    title: str,
    description: str,
    keywords: tuple[str, ...],
    themes: tuple[str, ...],
    license_: str,
    citation: str,
    descriptor: Path | None,
    access: str,
    min_cohort: int,
    operations: tuple[str, ...],
    max_uses: int,
    max_days: int,
    codelists: tuple[str, ...],
    row_count_step: int,
    price: str,
    payee: str,
    auto_for: tuple[str, ...],
    max_fee: int,
    yes: bool,
) -> None:
    """Publish the metadata of FILE (.csv or .parquet); its content goes to your own node and no further.

    Column types and the row count are inferred and shown. The values of a column are published only where you
    confirm it, with --codelist or in the descriptor; only such columns can be grouped by.

    \b
    Example:
      koinon catalog publish um.csv --name ercp.indo_rct --descriptor indo_rct.toml --access auto --min-cohort 10
    """
    given = _read_descriptor(descriptor)
    wanted = replace(
        given,
        title=title or given.title,
        description=description or given.description,
        keywords=keywords or given.keywords,
        themes=themes or given.themes,
        license=license_ or given.license,
        citation=citation or given.citation,
    ).with_codelists(codelists)
    terms = Terms(
        access,
        operations or ALL_OPERATIONS,
        min_cohort,
        max_uses,
        max_days * DAY_MS,
        row_count_step,
        price=price,
        payee=payee,
        auto_institutions=auto_for,
    )
    descriptors.check(wanted)
    client = invocation().client
    with output.working(f"sending {file} to your node") as line:
        staged = client.catalog.stage(
            file, name, on_progress=lambda sent, size: line.update(f"sending {file}: {100 * sent // size} %")
        )
    entry = descriptors.publication(client.catalog.own_name(name), staged, wanted, terms)
    _show_proposal(entry, staged)
    if fee := parameters.get(client.governance.constitution().parameters, "dataset_fee"):
        output.say(f"a new dataset costs your institution a fee of {fee} points; further versions cost none")
    if not yes and sys.stdin.isatty():
        click.confirm("Publish this metadata to all members?", abort=True, err=True)
    with output.working("waiting for the ledger"):
        dataset = client.catalog.publish_staged(name, staged, wanted, terms, max_fee=max_fee)
    tell(dataset, f"published {dataset.published.name}, version {dataset.version}")


@catalog.command()
@click.argument("name")
@click.option("--reason", required=True, help="Public to the members.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def withdraw(name: str, reason: str, yes: bool) -> None:
    """Withdraw your dataset NAME: its tokens stop working; the ledger keeps that it was there."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"Withdraw {printable(name)}?", abort=True, err=True)
    dataset = invocation().client.catalog.withdraw(name, reason)
    tell(dataset, f"withdrawn {dataset.published.name}")


def _read_descriptor(path: Path | None) -> Descriptor:
    return descriptors.parse(read_text(path, "descriptor", MAX_DESCRIPTOR_BYTES)) if path else Descriptor()


def _show_proposal(entry: PublishDataset, staged: StageDatasetResponse) -> None:
    """What was found in the file, and what of it would become public; for the publisher's eyes."""
    proposals = {proposal.column: proposal for proposal in staged.proposed_codelists}
    rows = []
    for column in entry.columns:
        proposal = proposals.get(column.name)
        if column.codelist:
            values = f"published: {', '.join(column.codelist)}"
        elif proposal and proposal.codes:
            values = f"not published ({len(proposal.codes)} values, the rarest in {proposal.smallest_count} rows)"
        else:
            values = "not published"
        rows.append((column.name, word(ColumnType, column.type), column.unit, "yes" if column.nullable else "", values))
    console = output.err()
    console.print(output.table(("Column", "Type", "Unit", "Missing", "Values"), rows))
    console.print(f"{staged.row_count} rows in the file; the catalog will say {_row_count(entry)}")


def _row_count(published: PublishDataset) -> str:
    step = max(published.row_count_step, 1)
    return str(published.row_count) if step == 1 else f"{published.row_count}-{published.row_count + step - 1}"


def _show_dataset(dataset: Dataset) -> None:
    published, policy = dataset.published, dataset.published.policy
    output.show(
        output.facts(
            [
                ("Dataset", published.name),
                ("Title", published.title),
                ("Description", published.description),
                ("Keywords", ", ".join(published.keywords)),
                ("Themes", ", ".join(published.themes)),
                ("Publisher", f"{dataset.publisher} ({dataset.published_by})"),
                ("Status", f"{word(DatasetStatus, dataset.status)}, version {dataset.version}"),
                ("Released", when(dataset.released_at_ms)),
                ("Rows", _row_count(published)),
                ("Access", word(AccessMode, policy.mode)),
                ("At once for", ", ".join(policy.auto_institutions)),
                ("Operations", ", ".join(word(TaskOperation, operation) for operation in policy.operations)),
                ("Minimum cohort", f"{policy.min_cohort} rows per group"),
                ("A token", f"at most {policy.max_uses} uses within {duration(policy.max_duration_ms)}"),
                ("Price", prices.text(published.price) + (f" for {published.payee}" if published.payee else "")),
                ("License", published.license),
                ("Citation", published.citation),
                ("Commitment", published.commitment.hex()),
                ("Id", dataset.uid),
            ]
        )
    )
    rows = [
        (c.name, word(ColumnType, c.type), c.unit, "yes" if c.nullable else "", ", ".join(c.codelist), c.description)
        for c in published.columns
    ]
    output.show(output.table(("Column", "Type", "Unit", "Missing", "Values", "Description"), rows))
    if dataset.verifications:
        made = [
            (v.institution, word(VerificationOutcome, v.outcome), v.method, v.evidence_digest.hex(), when(v.made_at_ms))
            for v in dataset.verifications
        ]
        output.show(output.table(("Checked by", "Outcome", "How", "Evidence", "When"), made))
