"""One schema for a virtual table: what the sources' published columns have in common, as far as a query needs it.

Everything here is published metadata, the same at every node. Column names are found without regard to case, as in SQL;
the *common* spelling of a column is the first source's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from koinon.errors import NotFound, Refused
from koinon.limits import MAX_GROUPS
from koinon.v1.catalog_pb2 import Column as PublishedColumn
from koinon.v1.catalog_pb2 import Dataset
from koinon.v1.plan_pb2 import GroupColumn
from mpc.expressions import BOOLEAN, INTEGER, TEXT, TYPE_WORDS, Type, common_type

NULL_CODE = ""
"""The code that stands for NULL in a group: an empty text is no code."""


@dataclass(frozen=True, slots=True)
class CommonColumn:
    """A column of every source: common name and type, and each source's own column, in the order of the sources."""

    name: str
    type: Type
    published: tuple[PublishedColumn, ...]


def common_columns(names: Iterable[str], datasets: Sequence[Dataset]) -> dict[str, CommonColumn]:
    """Find each name in every dataset; keys are the names as given.

    Raises NotFound (unknown-column), with a suggestion, and Refused (schema-mismatch).
    """
    found: dict[str, CommonColumn] = {}
    for name in names:
        if name in found:
            continue
        published = tuple(_column(name, dataset) for dataset in datasets)
        kind = common_type(tuple(column.type for column in published))
        if kind is None:
            types = ", ".join(
                f"{dataset.published.name} has {TYPE_WORDS.get(column.type, 'an unknown type')}"
                for dataset, column in zip(datasets, published, strict=True)
            )
            raise Refused(
                f"column {name} has no common type: {types}",
                rule="schema-mismatch",
                hint="query the institutions one by one, or ask a publisher to correct its table",
            )
        found[name] = CommonColumn(published[0].name, kind, published)
    return found


def _column(name: str, dataset: Dataset) -> PublishedColumn:
    columns = dataset.published.columns
    same = [column for column in columns if column.name == name]
    alike = same or [column for column in columns if column.name.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(name.lower(), [column.name.lower() for column in columns], n=1)
    hint = f"did you mean {near[0]}?" if near else f"koinon catalog show {dataset.published.name} lists its columns"
    raise NotFound(f"{dataset.published.name} has no column {name}", rule="unknown-column", hint=hint)


def group_column(column: CommonColumn, datasets: Sequence[Dataset]) -> GroupColumn:
    """The codes of a GROUP BY column: the union of the sources' codelists, then NULL if any source may have it.

    Codes ascend, whole numbers by value and all else by code point. Raises Refused (no-codelist).
    """
    codes: set[str] = set()
    for dataset, published in zip(datasets, column.published, strict=True):
        if not published.codelist or column.type not in (TEXT, BOOLEAN, INTEGER):
            raise Refused(
                f"{dataset.published.name} publishes no codelist for {published.name}",
                rule="no-codelist",
                hint="GROUP BY takes columns whose publishers confirmed their values; "
                "WHERE and CASE can use any column",
            )
        codes.update(published.codelist)
    missing = NULL_CODE in codes or any(published.nullable for published in column.published)
    codes.discard(NULL_CODE)
    ordered = sorted(codes, key=_numeric) if column.type == INTEGER else sorted(codes)
    if missing:
        ordered.append(NULL_CODE)
    return GroupColumn(name=column.name, codes=ordered)


def _numeric(code: str) -> tuple[int, str]:
    digits = code.removeprefix("-")
    return (int(code) if digits.isascii() and digits.isdigit() else 0, code)


def count_groups(columns: Iterable[GroupColumn]) -> int:
    """How many groups there are. Raises Refused (too-many-groups)."""
    groups = 1
    for column in columns:
        groups *= len(column.codes)
    if groups > MAX_GROUPS:
        raise Refused(
            f"GROUP BY makes {groups} groups, at most {MAX_GROUPS} are possible",
            rule="too-many-groups",
            hint="GROUP BY fewer columns; WHERE restricts the rest",
        )
    return groups
