"""Many worlds from many seeds; that faults do occur in them; that broken rules are found; that a seed is a replay."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from testnet.simulation.attackers import ATTACKERS
from testnet.simulation.mutants import MUTANTS, Mutant, hunt
from testnet.simulation.run import Report, run
from testnet.simulation.scenarios import SCENARIOS, play

SEEDS = range(32)


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [run(seed) for seed in SEEDS]  # a Violation names what went wrong; the seed is in the traceback


def test_nothing_that_must_not_happen_happens(reports: list[Report]) -> None:
    assert [report.seed for report in reports] == list(SEEDS)


@pytest.mark.parametrize(
    "fault",
    [
        *("later_rounds", "crashes", "partitions", "lost_disks", "regained", "equivocations", "accused", "set_changes"),
        *("admitted", "empowered", "excluded", "restored", "paid", "refunded", "pruned", "voted_again"),
    ],
)
def test_the_faults_were_really_there(reports: list[Report], fault: str) -> None:
    assert sum(getattr(report, fault) for report in reports) > 0
    assert {report.validators for report in reports} == {1, 4, 7}


def test_most_attackers_were_there(reports: list[Report]) -> None:
    seen = {kind for report in reports for kind in report.attackers}
    assert len(seen) > len(ATTACKERS) // 2


def test_a_seed_is_a_replay_in_another_process_with_other_hashes(reports: list[Report]) -> None:
    chosen = [report for report in reports if report.validators > 1][:2]
    program = f"from testnet.simulation.run import run\nfor seed in {[r.seed for r in chosen]}: print(run(seed).digest)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [report.digest for report in chosen]


def test_signatures_verified_and_remembered_make_the_same_world(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = run(1)
    monkeypatch.setattr("testnet.simulation.run._VERIFY_EVERYTHING", 1)
    assert dataclasses.astuple(run(1)) == dataclasses.astuple(remembered)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_worst_moments_end_in_peace(name: str) -> None:
    play(name)


QUICKLY_FOUND = [mutant for mutant in MUTANTS if not mutant.slow]


@pytest.mark.parametrize("mutant", QUICKLY_FOUND, ids=lambda mutant: mutant.what)
def test_a_broken_rule_is_found(mutant: Mutant) -> None:
    """If this fails, the simulation no longer reaches the situation that the rule is there for: see make mutants."""
    assert hunt(mutant, seeds=20) is not None
