"""Catalog entries and tokens to compile queries against: what a ledger would hold about small tables of patients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from koinon.v1.access_pb2 import TOKEN_STATUS_ACTIVE, Token
from koinon.v1.catalog_pb2 import (
    COLUMN_TYPE_BOOLEAN,
    COLUMN_TYPE_DATE,
    COLUMN_TYPE_DECIMAL,
    COLUMN_TYPE_INTEGER,
    COLUMN_TYPE_TEXT,
    COLUMN_TYPE_TIMESTAMP,
    DATASET_STATUS_PUBLISHED,
    AccessPolicy,
    Column,
    Dataset,
    PublishDataset,
    TaskOperation,
)
from mpc.plan import Source

PAPER_QUERY = (
    "SELECT rx, COUNT(*) AS n, SUM(CASE WHEN outcome = '1_yes' THEN 1 ELSE 0 END) AS pep, "
    "AVG(CASE WHEN outcome = '1_yes' THEN 1.0 ELSE 0 END) AS rate, AVG(age), VAR_SAMP(age) "
    "FROM ercp.indo_rct GROUP BY rx"
)
ALL_OPERATIONS = [number for number in TaskOperation.values() if number]
MEMBERS = ["case", "iu", "uk", "um"]
OUTSIDER = "ministry"
"""An asker's institution that brings no data, so that everybody's rows count."""


def patients() -> list[Column]:
    """One column of every type, some with codelists."""
    return [
        Column(name="rx", type=COLUMN_TYPE_TEXT, codelist=["0_placebo", "1_indomethacin"]),
        Column(name="outcome", type=COLUMN_TYPE_TEXT, codelist=["0_no", "1_yes"]),
        Column(name="age", type=COLUMN_TYPE_INTEGER),
        Column(name="grade", type=COLUMN_TYPE_INTEGER, codelist=["1", "2", "10"], nullable=True),
        Column(name="risk", type=COLUMN_TYPE_DECIMAL, nullable=True),
        Column(name="trained", type=COLUMN_TYPE_BOOLEAN, codelist=["false", "true"]),
        Column(name="born", type=COLUMN_TYPE_DATE),
        Column(name="seen", type=COLUMN_TYPE_TIMESTAMP),
        Column(name="note", type=COLUMN_TYPE_TEXT, nullable=True),
    ]


def source(
    institution: str,
    columns: Iterable[Column] | None = None,
    *,
    rows: int = 100,
    table: str = "ercp.indo_rct",
    min_cohort: int = 5,
    token_columns: Sequence[str] | None = None,
    token_cohort: int = 0,
) -> Source:
    """A published dataset with an active token that covers everything, unless told otherwise."""
    columns = list(columns) if columns is not None else patients()
    name = f"{institution}.{table}"
    dataset = Dataset(
        published=PublishDataset(
            name=name,
            columns=columns,
            row_count=rows,
            row_count_step=10,
            policy=AccessPolicy(operations=ALL_OPERATIONS, min_cohort=min_cohort),
            commitment=bytes(32),
        ),
        version=1,
        status=DATASET_STATUS_PUBLISHED,
        publisher=institution,
    )
    token = Token(
        id=institution.encode().hex().ljust(32, "0"),
        dataset=name,
        columns=token_columns if token_columns is not None else [column.name for column in columns],
        operations=ALL_OPERATIONS,
        min_cohort=token_cohort,
        status=TOKEN_STATUS_ACTIVE,
    )
    return Source(dataset, token)


def sources(*institutions: str) -> list[Source]:
    """One source per institution, all alike."""
    return [source(institution) for institution in institutions]
