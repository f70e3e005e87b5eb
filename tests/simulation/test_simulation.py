"""Many worlds from many seeds; that faults do occur in them; that broken rules are found; that a seed is a replay."""

from __future__ import annotations

import dataclasses

import pytest

from koinon.validators import ValidatorSet
from node.consensus.core import Core
from node.intake import Intake
from node.journal import Journal
from testnet.simulation.checkers import Violation
from testnet.simulation.run import Report, run

SEEDS = range(16)


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [run(seed) for seed in SEEDS]  # a Violation names what went wrong; the seed is in the traceback


def test_nothing_that_must_not_happen_happens(reports: list[Report]) -> None:
    assert [report.seed for report in reports] == list(SEEDS)


@pytest.mark.parametrize("fault", ["later_rounds", "crashes", "regained", "equivocations", "accused"])
def test_the_faults_were_really_there(reports: list[Report], fault: str) -> None:
    assert sum(getattr(report, fault) for report in reports) > 0
    assert {report.validators for report in reports} == {1, 4, 7}


def test_a_seed_is_a_replay(reports: list[Report]) -> None:
    for report in sorted(reports, key=lambda report: report.steps)[:3]:
        assert dataclasses.astuple(run(report.seed)) == dataclasses.astuple(report)


BROKEN: dict[str, tuple[type, str, object]] = {
    "send before persist": (Journal, "sync", lambda self: None),
    "a quorum of two thirds, not more": (ValidatorSet, "quorum", property(lambda self: 2 * self.total_power // 3)),
    "a lock binds nobody": (Core, "_locks", lambda self, value: True),
    "what was signed is forgotten in a crash": (Journal, "replay", lambda self, height: None),
    "every proposal is valid": (Intake, "_is_valid", lambda self, block: True),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the simulation no longer reaches the situation that the rule is there for."""
    owner, name, broken = BROKEN[rule]
    monkeypatch.setattr(owner, name, broken)

    def search() -> None:
        for seed in (9, *range(40)):  # a lock matters at 9; the others are for when the simulation changes
            run(seed)

    with pytest.raises(Violation):
        search()
