"""From facts to words: who is missing, what is wrong here, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from koinon.v1.services_pb2 import DiagnoseStallResponse, ValidatorStanding
from node.diagnosis import diagnose
from node.progress import Progress

NOW_MS = 1_800_000_000_000
GIB = 1024**3


def standing(institution: str, **changes: Any) -> ValidatorStanding:
    """A validator in step."""
    well = {"power": 1, "connected": True, "last_seen_ms": NOW_MS - 100, "height": 9}
    return ValidatorStanding(institution=institution, **{**well, **changes})


def facts(*validators: ValidatorStanding, **changes: Any) -> DiagnoseStallResponse:
    """Four validators, the first of which is asked; height 10 has been decided for ten seconds, in vain."""
    chosen = validators or tuple(
        standing(name, prevoted=True, precommitted=True) for name in ("um", "iu", "uk", "case")
    )
    usual = {
        "height": 10,
        "deciding": True,
        "round": 2,
        "step": "prevote",
        "proposer": "iu",
        "proposed": True,
        "quiet_ms": 12_000,
        "deciding_ms": 10_000,
        "heartbeat_ms": 5_000,
        "quorum": 3,
        "reachable_power": sum(item.power for item in chosen if item.connected),
        "disk_free_bytes": 100 * GIB,
    }
    return DiagnoseStallResponse(validators=chosen, **{**usual, **changes})


def said(item: DiagnoseStallResponse) -> list[str]:
    diagnose(item, "um", NOW_MS)
    assert all(finding.hint for finding in item.findings)
    return [f"{'problem' if finding.problem else 'warning'}: {finding.text}" for finding in item.findings]


@pytest.mark.parametrize(
    "changes",
    [
        {"deciding": False, "deciding_ms": 0, "quiet_ms": 10_000},  # a heartbeat, and time to decide it
        {"deciding": True, "deciding_ms": 5_000, "quiet_ms": 9_000},
    ],
)
def test_what_takes_its_usual_time_has_not_stalled(changes: dict[str, Any]) -> None:
    item = facts(**changes)
    assert said(item) == []
    assert not item.stalled


@pytest.mark.parametrize(
    "changes",
    [
        {"deciding": False, "deciding_ms": 0, "quiet_ms": 10_001},
        {"deciding": True, "deciding_ms": 5_001, "quiet_ms": 5_001},
    ],
)
def test_what_takes_longer_has_and_never_without_a_reason(changes: dict[str, Any]) -> None:
    item = facts(**changes)
    assert any(text.startswith("problem:") for text in said(item))
    assert item.stalled


def test_members_out_of_reach_are_named_and_how_many_must_return() -> None:
    away = {"connected": False, "prevoted": False}
    item = facts(
        standing("um", prevoted=True),
        standing("iu", prevoted=True),
        standing("uk", **away, last_seen_ms=NOW_MS - 65_000),
        standing("case", **{**away, "last_seen_ms": 0}),
    )
    (text,) = said(item)
    assert text.startswith(
        "problem: no quorum: uk (last heard 65 seconds ago) and case (never heard) cannot be reached"
    )
    assert text.endswith("validators with power 2 can, and a decision takes 3")
    assert "operators of uk and case" in item.findings[0].hint
    assert "1 of them must be back" in item.findings[0].hint


def test_power_counts_and_not_heads() -> None:
    """The one of power 3 alone makes a quorum of 6 in 8 again."""
    away = {"connected": False}
    item = facts(standing("um", power=4), standing("iu", power=3, **away), standing("uk", power=1, **away), quorum=6)
    said(item)
    assert "1 of them must be back" in item.findings[0].hint


def test_who_is_connected_and_silent_is_named() -> None:
    item = facts(
        standing("um", prevoted=True, precommitted=True),
        standing("iu", prevoted=True),
        standing("uk", prevoted=True),
        standing("case", prevoted=True, precommitted=True),
    )
    (text,) = said(item)
    assert text.startswith("problem: too few have precommitted in round 2: nothing came from iu (")
    assert text.endswith("and uk (last heard 100 ms ago)")


def test_a_proposer_that_is_silent_is_named_but_is_not_all() -> None:
    item = facts(proposed=False)
    texts = said(item)
    assert texts[0].startswith("problem: a quorum is connected")
    assert texts[1] == "warning: iu, whose turn it is in round 2, has sent no proposal"


def test_a_node_that_is_behind_speaks_of_itself_only() -> None:
    item = facts(syncing=True, highest_claim=500)
    assert len(said(item)) == 1
    assert "this node is behind: the others have decided height 500" in item.findings[0].text


def test_a_lost_signing_state_stalls_only_where_the_vote_is_needed() -> None:
    lost = {"signing_state_lost": True, "votes_from_height": 12}
    calm = facts(deciding=False, quiet_ms=0, **lost)
    assert said(calm) == ["warning: this node lost its signing state: it observes, and votes from height 12 on"]
    assert said(facts(**lost))[0].startswith("problem: this node lost")


def test_the_clock_that_differs_is_named() -> None:
    names = ("iu", "uk", "case")
    late = [standing(name, prevoted=True, precommitted=True, clock_ahead_ms=90_500) for name in names]
    assert said(facts(standing("um", prevoted=True, precommitted=True), *late)) == [
        "problem: this machine's clock is 90 seconds behind the others'"
    ]
    one = [standing(name, clock_ahead_ms=-200) for name in names[:2]] + [standing("case", clock_ahead_ms=61_000)]
    calm = facts(standing("um"), *one, deciding=False, quiet_ms=0)
    assert said(calm) == ["warning: the clock of case seems 61 seconds ahead"]


def test_a_second_node_with_one_certificate_is_a_problem_also_where_nothing_stalls() -> None:
    (found,) = said(facts(deciding=False, quiet_ms=0, displaced=True))
    assert found.startswith("problem: another process shows this node's certificate")


def test_a_full_or_slow_disk_is_named() -> None:
    calm = facts(deciding=False, quiet_ms=0, disk_free_bytes=GIB - 1, slowest_sync_ms=2_500)
    assert said(calm) == [
        "warning: 1023 MiB are free on the disk of the ledger",
        "warning: the disk took up to 2 seconds to make a write durable",
    ]


# --- what is measured


def test_a_round_ends_and_a_height_lasts() -> None:
    progress = Progress(1_000)
    progress.round_began(5, 2_000)
    progress.round_began(5, 4_000)
    assert (progress.height_at_ms, progress.round_at_ms, progress.committed_at_ms) == (2_000, 4_000, 1_000)
    progress.committed(5_000)
    progress.round_began(6, 6_000)
    assert (progress.height_at_ms, progress.round_at_ms, progress.committed_at_ms) == (6_000, 6_000, 5_000)


def test_old_votes_do_not_make_a_clock_late_and_a_height_without_votes_changes_nothing() -> None:
    progress = Progress(0)
    for ahead_ms in (-9_000, 30, -5_000):
        progress.heard_vote("iu", ahead_ms)
    progress.committed(1)
    progress.committed(2)
    progress.heard_vote("uk", 10)
    assert progress.clocks() == {"iu": 30, "uk": 10}


def test_who_starts_in_a_standstill_is_not_ahead_of_votes_that_are_repeated() -> None:
    progress = Progress(0)
    progress.heard_vote("iu", -60_000)
    assert progress.clocks() == {}
    progress.heard_vote("iu", -9_000)
    progress.committed(1)
    assert progress.clocks() == {"iu": -9_000}
    progress.heard_vote("iu", -60_000)
    assert progress.clocks() == {"iu": -9_000}
    progress.heard_vote("iu", -10)  # it was set meanwhile
    assert progress.clocks() == {"iu": -10}


def test_the_slowest_write_is_forgotten_after_a_while() -> None:
    progress = Progress(0)
    progress.synced(900, 10_000)
    progress.synced(5, 70_000)
    assert progress.slowest_sync_ms(70_001) == 900
    assert progress.slowest_sync_ms(130_000) == 5
    assert progress.slowest_sync_ms(190_000) == 0
