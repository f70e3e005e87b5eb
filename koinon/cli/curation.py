"""``koinon catalog`` beyond finding and publishing: versions, themes, and what third parties checked."""

from __future__ import annotations

from pathlib import Path

import click

from koinon import croissant, dcat
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import limit_option
from koinon.cli.catalog import catalog
from koinon.display import plain, when
from koinon.v1.catalog_pb2 import Dataset, DatasetStatus, VerificationOutcome
from koinon.words import word

_ALL = 1_000_000  # datasets: an export leaves none out


@catalog.command()
@click.argument("name")
@limit_option(100)
def history(name: str, limit: int) -> None:
    """List every version of dataset NAME, newest first, and what changed with each."""
    versions = invocation().client.catalog.history(name, limit)
    if invocation().json:
        output.show_json([plain(version) for version in versions])
        return
    rows = [
        (
            str(version.version),
            word(DatasetStatus, version.status),
            when(version.released_at_ms),
            version.published_by,
            _verdicts(version),
            _changes(before, version),
        )
        for version, before in zip(versions, [*versions[1:], None], strict=True)
    ]
    columns = ("Version", "Status", "Released", "By", "Checked by", "Changes")
    output.show(output.table(columns, rows, right=("Version",)))


@catalog.command()
def themes() -> None:
    """List the themes by which the members classify datasets."""
    taxonomy = invocation().client.catalog.taxonomy()
    if invocation().json:
        output.show_json(plain(taxonomy))
        return
    rows = [(theme.code, theme.label, theme.parent, theme.uri) for theme in taxonomy.themes]
    output.show(output.table(("Code", "Label", "Below", "Same as"), rows, spare=("Same as",)))
    output.say(f"{taxonomy.title}, version {taxonomy.version}")


@catalog.command()
@click.argument("name")
@click.option("--outcome", type=click.Choice(["confirmed", "contested"]), required=True, help="Is it what it says?")
@click.option("--method", required=True, help="How it was checked; public to the members.")
@click.option(
    "--evidence", type=click.Path(path_type=Path), required=True, help="A report; its digest alone is published."
)
@click.option("--version", type=click.IntRange(min=1), default=None, help="Which was checked.  [default: the newest]")
def verify(name: str, outcome: str, method: str, evidence: Path, version: int | None) -> None:
    """State that your institution checked another's dataset NAME. Operators only.

    \b
    Example:
      koinon catalog verify um.a.t --outcome confirmed --method "100 rows against charts" --evidence report.pdf
    """
    dataset = invocation().client.catalog.verify(
        name, outcome=outcome, method=method, evidence=evidence, version=version or 0
    )
    tell(dataset, f"{outcome}: {dataset.published.name}, version {dataset.version}")


@catalog.command()
@click.argument("name")
@click.option("--reason", required=True, help="Public to the members.")
@click.option("--version", type=click.IntRange(min=1), default=None, help="Of which.  [default: the newest]")
def unverify(name: str, reason: str, version: int | None) -> None:
    """Take back what your institution stated about dataset NAME. Operators only."""
    dataset = invocation().client.catalog.withdraw_verification(name, reason, version=version or 0)
    tell(dataset, f"taken back: {dataset.published.name}, version {dataset.version}")


@catalog.command()
@click.option(
    "--format", "format_", type=click.Choice(["dcat", "dcat-ap", "croissant"]), default="dcat", show_default=True
)
@click.option("--dataset", "name", default="", metavar="NAME", help="Only this one (institution.collection.table).")
def export(format_: str, name: str) -> None:
    """Print the whole catalog as JSON-LD that others understand.

    dcat: DCAT 3 in the Dataspace Protocol's form, with ODRL offers and Croissant columns, one document. dcat-ap: the
    same for portals that harvest DCAT-AP, who want addresses of services as IRIs. croissant: one document per
    dataset, on a line each.

    \b
    Example:
      koinon catalog export > catalog.jsonld
    """
    client = invocation().client
    found = [client.catalog.show(name)] if name else client.catalog.search(limit=_ALL)
    institutions, chain_id = client.members.institutions(), client.status().chain_id
    if format_ != "croissant":
        taxonomy = client.catalog.taxonomy()
        output.show_json(dcat.catalog(chain_id, found, institutions, taxonomy, dcat_ap=format_ == "dcat-ap"))
        return
    titles = {member.descriptor.id: member.descriptor.title for member in institutions}
    for dataset in dcat.published(found):
        output.show_json_line(croissant.dataset(chain_id, dataset, titles.get(dataset.publisher) or dataset.publisher))


def _verdicts(dataset: Dataset) -> str:
    return ", ".join(
        f"{made.institution} ({word(VerificationOutcome, made.outcome)})" for made in dataset.verifications
    )


def _changes(before: Dataset | None, after: Dataset) -> str:
    """What a publisher changed, as far as the catalog shows it."""
    if before is None:
        return "first" if after.version == 1 else ""
    old, new = before.published, after.published
    earlier, later = ({column.name: column for column in entry.columns} for entry in (old, new))
    changes = [f"+{name}" for name in later if name not in earlier]
    changes += [f"-{name}" for name in earlier if name not in later]
    changes += [name for name in later if name in earlier and later[name] != earlier[name]]
    if old.row_count != new.row_count:
        changes.append(f"rows {old.row_count} to {new.row_count}")
    if old.commitment != new.commitment:
        changes.append("content")
    named = ("title", "description", "keywords", "themes", "policy", "price", "license", "citation")
    return ", ".join([*changes, *(name for name in named if getattr(old, name) != getattr(new, name))])
