"""What a publisher says about a table, and the catalog entry made of it.

A descriptor is a TOML file beside the data; only ``title`` is required::

    title = "Indomethacin against post-ERCP pancreatitis"
    description = "Randomised trial, one row per patient."
    keywords = ["ercp", "pancreatitis"]
    themes = ["HEAL.C06"]            # codes of the consortium's taxonomy: koinon catalog themes
    license = "CC-BY-4.0"
    citation = "N Engl J Med 2012;366:1414-22"

    [columns.rx]
    description = "Arm"
    codelist = true          # publish the values themselves; never done without being asked

    [columns.outcome]
    codelist = ["0_no", "1_yes"]   # these, whether or not each occurs in this table: reveals less

    [columns.age]
    unit = "a"

Pure: reads no file, asks nobody.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from koinon import prices, words
from koinon.errors import InvalidFile, InvalidInput, NotFound
from koinon.limits import MAX_KEYWORD, MAX_KEYWORDS, MAX_TEXT, MAX_TITLE
from koinon.v1.catalog_pb2 import AccessMode, AccessPolicy, PublishDataset, TaskOperation
from koinon.v1.services_pb2 import StageDatasetResponse

DAY_MS = 86_400_000
ALL_OPERATIONS = words.words(TaskOperation)
DEFAULT_ROW_COUNT_STEP = 10
_SHORTEN = "shorten it"


@dataclass(frozen=True, slots=True)
class ColumnNote:
    """What a publisher adds to an inferred column."""

    unit: str = ""
    description: str = ""
    codelist: bool | tuple[str, ...] = False  # publish the values found, or these


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Texts of a catalog entry. All of it becomes public to the members."""

    title: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    license: str = ""
    citation: str = ""
    columns: Mapping[str, ColumnNote] = field(default_factory=dict)
    themes: tuple[str, ...] = ()

    def with_codelists(self, names: Collection[str]) -> Descriptor:
        """The same, publishing the values of these columns too."""
        columns = dict(self.columns)
        for name in names:
            note = columns.get(name, ColumnNote())
            columns[name] = replace(note, codelist=note.codelist or True)
        return replace(self, columns=columns)


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which limits a publisher lets its table be computed on."""

    access: str = "review"  # or "auto": a request within these limits is granted at once
    operations: tuple[str, ...] = ALL_OPERATIONS  # allowed at all
    min_cohort: int = 10  # contributing rows per group, at least
    max_uses: int = 100  # per token
    max_duration_ms: int = 365 * DAY_MS  # per token
    row_count_step: int = DEFAULT_ROW_COUNT_STEP  # the published row count is rounded down to a multiple
    price: str = prices.FREE  # or "100/use", "2/row", "500/30d"
    payee: str = ""  # the account that the data earns for: a data union's, or by default the institution's
    auto_institutions: tuple[str, ...] = ()  # whose people need not wait for a review


def parse(text: str) -> Descriptor:
    """Parse a descriptor file's text. Raises InvalidFile."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"the descriptor is not TOML: {error}", hint="correct that line") from error
    _only(table, ("title", "description", "keywords", "themes", "license", "citation", "columns"), "the descriptor")
    columns = table.get("columns", {})
    if not isinstance(columns, dict):
        raise InvalidFile("columns in the descriptor must be tables", hint="write [columns.NAME]")
    return Descriptor(
        title=_text(table, "title"),
        description=_text(table, "description"),
        keywords=_texts(table, "keywords", '["ercp", "trial"]'),
        themes=_texts(table, "themes", '["HEAL"]'),
        license=_text(table, "license"),
        citation=_text(table, "citation"),
        columns={name: _note(name, value) for name, value in columns.items()},
    )


def _codelist(name: str, note: ColumnNote, proposals: Mapping[str, list[str]]) -> list[str]:
    """What is published of a column's values. Raises InvalidInput if the publisher wants what cannot be."""
    if not note.codelist:
        return []
    if name not in proposals:
        raise InvalidInput(
            f"column {name!r} has too many different values for a codelist",
            hint="publish it without; it can be aggregated, but not grouped by",
        )
    if isinstance(note.codelist, bool):
        return proposals[name]
    if left_out := sorted(set(proposals[name]) - set(note.codelist)):
        raise InvalidInput(
            f"the codelist of column {name!r} leaves out {left_out[0]!r}, which occurs in the table",
            hint="add it to the descriptor's codelist, or correct the data",
        )
    return list(note.codelist)


def _note(name: str, table: object) -> ColumnNote:
    if not isinstance(table, dict):
        raise InvalidFile(f"columns.{name} in the descriptor must be a table", hint=f"write [columns.{name}]")
    _only(table, ("unit", "description", "codelist"), f"columns.{name}")
    codelist = table.get("codelist", False)
    if isinstance(codelist, list) and codelist and all(isinstance(code, str) for code in codelist):
        codelist = tuple(codelist)
    elif not isinstance(codelist, bool):
        raise InvalidFile(
            f"codelist of columns.{name} must be true, false or a list of texts",
            hint='write codelist = ["0_no", "1_yes"]',
        )
    return ColumnNote(_text(table, "unit"), _text(table, "description"), codelist)


def _texts(table: Mapping[str, object], name: str, example: str) -> tuple[str, ...]:
    values = table.get(name, [])
    if not isinstance(values, list) or not all(isinstance(word, str) for word in values):
        raise InvalidFile(f"{name} in the descriptor must be a list of texts", hint=f"write {name} = {example}")
    return tuple(values)


def _text(table: Mapping[str, object], name: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise InvalidFile(f"{name} in the descriptor must be a text", hint=f'write {name} = "…"')
    return value.strip()


def _only(table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    if unknown := sorted(set(table) - set(known)):
        raise InvalidFile(f"{where} has no field {unknown[0]!r}", hint=f"fields are {', '.join(known)}")


def check(descriptor: Descriptor) -> Descriptor:
    """Return it if its texts are within bounds. Raises InvalidInput."""
    if not descriptor.title:
        raise InvalidInput("a dataset needs a title", hint="pass --title, or set title in the descriptor")
    texts = {
        "description": descriptor.description,
        "license": descriptor.license,
        "citation": descriptor.citation,
    } | {f"description of column {name}": note.description for name, note in descriptor.columns.items()}
    if len(descriptor.title) > MAX_TITLE:
        raise InvalidInput(
            f"the title has {len(descriptor.title)} characters; at most {MAX_TITLE} are allowed", hint=_SHORTEN
        )
    for name, text in texts.items():
        if len(text) > MAX_TEXT:
            raise InvalidInput(f"{name} has {len(text)} characters; at most {MAX_TEXT} are allowed", hint=_SHORTEN)
    if len(descriptor.keywords) > MAX_KEYWORDS or any(not 0 < len(w) <= MAX_KEYWORD for w in descriptor.keywords):
        raise InvalidInput(
            f"at most {MAX_KEYWORDS} keywords of 1 to {MAX_KEYWORD} characters are allowed", hint=_SHORTEN
        )
    return descriptor


def publication(name: str, staged: StageDatasetResponse, descriptor: Descriptor, terms: Terms) -> PublishDataset:
    """The catalog entry for a staged table. Codelists appear only for columns the descriptor confirms.

    Raises InvalidInput on texts or terms out of bounds, NotFound when the descriptor names a column that is not there.
    """
    check(descriptor)
    proposals = {proposal.column: list(proposal.codes) for proposal in staged.proposed_codelists}
    columns = []
    for found in staged.columns:
        note = descriptor.columns.get(found.name, ColumnNote())
        column = type(found)()
        column.CopyFrom(found)
        column.unit = note.unit
        column.description = note.description
        column.codelist[:] = _codelist(found.name, note, proposals)
        columns.append(column)
    if missing := sorted(set(descriptor.columns) - {column.name for column in columns}):
        names = ", ".join(column.name for column in columns)
        raise NotFound(f"the file has no column {missing[0]!r}", hint=f"its columns are {names}")
    return PublishDataset(
        name=name,
        title=descriptor.title,
        description=descriptor.description,
        keywords=descriptor.keywords,
        columns=columns,
        row_count=staged.row_count - staged.row_count % terms.row_count_step,
        row_count_step=terms.row_count_step,
        policy=AccessPolicy(
            mode=words.number(AccessMode, terms.access, "access mode"),
            operations=words.numbers(TaskOperation, terms.operations, "operation"),
            min_cohort=terms.min_cohort,
            max_uses=terms.max_uses,
            max_duration_ms=terms.max_duration_ms,
            auto_institutions=sorted(terms.auto_institutions),
        ),
        commitment=staged.commitment,
        license=descriptor.license,
        citation=descriptor.citation,
        themes=sorted(descriptor.themes),
        price=prices.parse(terms.price),
        payee=terms.payee,
    )
