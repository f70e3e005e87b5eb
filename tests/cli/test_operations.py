"""What an operator asks a node about itself, against a scripted node."""

from __future__ import annotations

import json
import re

from koinon.v1 import services_pb2 as services
from koinon.v1.consensus_pb2 import Validator
from koinon.v1.governance_pb2 import ScheduleUpgrade
from tests.cli.conftest import Run
from tests.koinon.fake_node import FakeNode


def test_status_shows_lag_and_who_is_missing(ask: Run, node: FakeNode) -> None:
    node.answers["NodeService/GetStatus"] = services.GetStatusResponse(
        institution="um",
        height=41,
        step="idle",
        quiet_ms=3_700,
        validators=[Validator(institution="um", power=1)],
        peers=[
            services.PeerStatus(institution="case", connected=False, height=0),
            services.PeerStatus(institution="iu", connected=True, height=40, last_seen_ms=1),  # last heard deciding 41
            services.PeerStatus(institution="uk", connected=True, height=30, last_seen_ms=1),
        ],
    )
    shown = ask("status").stdout
    assert "3 seconds ago" in shown
    assert "Missing      case\n" in shown
    assert "in step" in shown
    lags = {line.split()[0]: line.split()[3] for line in shown.splitlines()[-3:]}
    assert lags == {"case": "-", "iu": "0", "uk": "11"}
    answer = node.answers["NodeService/GetStatus"]
    assert isinstance(answer, services.GetStatusResponse)
    del answer.validators[:]
    assert "observing: follows, and has no vote" in ask("status").stdout
    answer.silent = True
    assert "does not vote for now: koinon why-stalled says why" in ask("status").stdout


def test_status_says_when_it_lags_itself_or_nothing_is_decided(ask: Run, node: FakeNode) -> None:
    behind = services.GetStatusResponse(height=41, syncing=True, highest_claim=141)
    node.answers["NodeService/GetStatus"] = behind
    assert "catching up: 100 blocks behind the others" in ask("status").stdout
    stands = services.GetStatusResponse(height=41, step="prevote", quiet_ms=60_000)
    node.answers["NodeService/GetStatus"] = stands
    assert "koinon why-stalled says why" in ask("status").stdout


def test_status_tells_the_block_time_apart_from_when_it_was_committed_here(ask: Run, node: FakeNode) -> None:
    """A block's time is that of the votes on the one before it: seconds, or after a standstill hours, earlier."""
    node.answers["NodeService/GetStatus"] = services.GetStatusResponse(
        height=41, block_time_ms=1_700_000_000_000, quiet_ms=2_000
    )
    shown = ask("status").stdout
    assert re.search(r"^Height +41, committed here 2 seconds ago$", shown, re.MULTILINE)
    assert re.search(r"^Block time +2023-11-14 22:13:20 UTC$", shown, re.MULTILINE)


def test_a_peer_never_heard_of_is_not_said_to_lag(ask: Run, node: FakeNode) -> None:
    status = services.GetStatusResponse(height=68)
    status.peers.add(institution="um", connected=True)
    node.answers["NodeService/GetStatus"] = status
    assert re.search(r"^um +yes +- +- +-", ask("status").stdout, re.MULTILINE)


def test_status_tells_a_scheduled_upgrade_and_what_to_install(ask: Run, node: FakeNode) -> None:
    status = services.GetStatusResponse(height=41)
    status.protocol.next.scheduled.MergeFrom(ScheduleUpgrade(version=2, height=900, install="koinon 2.0"))
    node.answers["NodeService/GetStatus"] = status
    assert "protocol 2 from height 900, known here" in ask("status").stdout
    status.upgrade_needed = True
    assert "protocol 2 from height 900; install koinon 2.0 before" in ask("status").stdout


def test_a_standstill_is_told_in_words_and_as_data(ask: Run, node: FakeNode) -> None:
    node.answers["NodeService/DiagnoseStall"] = services.DiagnoseStallResponse(
        stalled=True,
        height=42,
        deciding=True,
        deciding_ms=65_000,
        round=3,
        step="prevote",
        proposer="iu",
        quorum=3,
        reachable_power=2,
        validators=[
            services.ValidatorStanding(institution="iu", power=1, height=40),
            services.ValidatorStanding(institution="um", power=3, connected=True, prevoted=True),
        ],
        findings=[services.Finding(problem=True, text="no quorum: \x1b[31miu", hint="ask \u202eiu")],
    )
    shown = ask("why-stalled").stdout
    assert shown.startswith("Stalled: height 42 has not been decided for 65 seconds.\n")
    assert "iu: has not proposed" in shown
    assert "3 of power 4; 2 can be reached: too little" in shown
    assert "problem: no quorum: \\x1b[31miu\nhint: ask \\u202eiu\n" in shown
    rows = {line.split()[0]: line.split()[1:4] for line in shown.splitlines() if line.startswith(("iu ", "um "))}
    assert rows == {"iu": ["no", "no", "no"], "um": ["yes", "yes", "no"]}
    assert json.loads(ask("why-stalled", "--json").stdout)["validators"][1]["prevoted"] is True


def test_no_standstill_is_said_as_clearly(ask: Run, node: FakeNode) -> None:
    calm = services.DiagnoseStallResponse(height=42, step="idle", heartbeat_ms=5_000)
    node.answers["NodeService/DiagnoseStall"] = calm
    expected = "Not stalled: height 42 comes with the next transaction, or within 5 seconds.\n"
    assert ask("why-stalled").stdout.startswith(expected)
