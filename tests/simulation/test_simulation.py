"""Many worlds from many seeds; that faults do occur in them; that broken rules are found; that a seed is a replay."""

from __future__ import annotations

import dataclasses

import pytest

from testnet.simulation.run import Report, run

SEEDS = range(24)


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [run(seed) for seed in SEEDS]  # a Violation names what went wrong; the seed is in the traceback


def test_nothing_that_must_not_happen_happens(reports: list[Report]) -> None:
    assert [report.seed for report in reports] == list(SEEDS)


@pytest.mark.parametrize("fault", ["later_rounds", "crashes", "lost", "regained", "equivocations", "accused"])
def test_the_faults_were_really_there(reports: list[Report], fault: str) -> None:
    assert sum(getattr(report, fault) for report in reports) > 0
    assert {report.validators for report in reports} == {1, 4, 7}


def test_a_seed_is_a_replay(reports: list[Report]) -> None:
    for report in sorted(reports, key=lambda report: report.steps)[:3]:
        assert dataclasses.astuple(run(report.seed)) == dataclasses.astuple(report)
