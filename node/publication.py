"""Does a publication say the truth about the content behind it? Asked by the owner's node before it serves the content.

The catalog holds what the publisher signed; the node knows what it inspected. The reasons given here may become public
(a task that fails tells why), so they name columns, never values.
"""

from __future__ import annotations

from koinon.errors import Refused
from koinon.v1.catalog_pb2 import (
    COLUMN_TYPE_BOOLEAN,
    COLUMN_TYPE_DATE,
    COLUMN_TYPE_DECIMAL,
    COLUMN_TYPE_INTEGER,
    COLUMN_TYPE_TEXT,
    COLUMN_TYPE_TIMESTAMP,
    Column,
    PublishDataset,
)
from mpc.engines import InspectedColumn, Inspection

_ALSO_READS = {COLUMN_TYPE_INTEGER: COLUMN_TYPE_DECIMAL, COLUMN_TYPE_DATE: COLUMN_TYPE_TIMESTAMP}
_WITH_CODES = (COLUMN_TYPE_BOOLEAN, COLUMN_TYPE_INTEGER, COLUMN_TYPE_TEXT)


def check_publication(published: PublishDataset, inspection: Inspection) -> None:
    """Raises Refused (dataset-mismatch) when columns, types, missing values, codes or the row count do not fit."""
    found = {column.name: column for column in inspection.columns}
    for column in published.columns:
        if column.name not in found:
            raise _mismatch(published, f"the content has no column {column.name}")
        _check_column(published, column, found[column.name])
    step = max(published.row_count_step, 1)
    if published.row_count != inspection.row_count - inspection.row_count % step:
        raise _mismatch(published, "the published row count is not that of the content, rounded down")


def _check_column(published: PublishDataset, column: Column, found: InspectedColumn) -> None:
    readable = {found.type, _ALSO_READS.get(found.type, found.type), COLUMN_TYPE_TEXT}
    empty = found.codes == ()
    if column.type not in readable and not empty:
        raise _mismatch(published, f"column {column.name} cannot be read as the published type")
    if found.nullable and not column.nullable:
        raise _mismatch(published, f"column {column.name} has missing values, the publication denies it")
    if not column.codelist:
        return
    if column.type not in _WITH_CODES:
        raise _mismatch(published, f"column {column.name} has a codelist, but its type has none")
    if found.codes is None or not set(found.codes) <= set(column.codelist):
        raise _mismatch(published, f"the codelist of column {column.name} leaves out values")


def _mismatch(published: PublishDataset, what: str) -> Refused:
    return Refused(
        f"{published.name}: {what}",
        rule="dataset-mismatch",
        hint="the publisher must publish the dataset again, as its node describes it",
    )
