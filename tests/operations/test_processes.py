"""Operating real nodes: a standstill explained, a mistake refused at the start, an end in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import koinon
from koinon.errors import KoinonError
from koinon.v1.services_pb2 import DiagnoseStallResponse
from testnet.network import Testnet

PATIENCE_S = 90


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testnet]:
    with Testnet.create(tmp_path_factory.mktemp("net")) as running:
        yield running


@pytest.fixture(autouse=True)
def everybody_back(network: Testnet) -> Iterator[None]:
    yield
    network.start()
    network.wait_ready()


def said(network: Testnet, name: str, *arguments: str) -> str:
    command = [sys.executable, "-c", "from koinon.cli import main; main()", *arguments]
    environment = os.environ | {"KOINON_PROFILE": str(network.profile(f"{name}-operator"))}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def until(network: Testnet, name: str, holds: Callable[[DiagnoseStallResponse], bool]) -> DiagnoseStallResponse:
    """Ask this member until the answer is as wished."""
    give_up = time.monotonic() + PATIENCE_S
    with koinon.connect(network.profile(f"{name}-operator")) as client:
        while True:
            answer = client.why_stalled()
            if holds(answer):
                return answer
            assert time.monotonic() < give_up, answer
            time.sleep(0.2)


def standing(answer: DiagnoseStallResponse, name: str) -> tuple[bool, bool]:
    """Is this validator connected, and has it prevoted?"""
    return next((item.connected, item.prevoted) for item in answer.validators if item.institution == name)


def test_a_ledger_that_goes_on_says_so(network: Testnet) -> None:
    until(network, "um", lambda answer: not answer.stalled and answer.reachable_power == 4)
    assert said(network, "um", "why-stalled").startswith("Not stalled: height ")
    answer = json.loads(said(network, "um", "why-stalled", "--json"))
    assert not answer["stalled"]
    assert not [finding for finding in answer["findings"] if finding["problem"]]  # a slow disk is worth a warning


def test_one_of_four_missing_is_no_standstill_but_is_seen(network: Testnet) -> None:
    network.stop("case")
    with koinon.connect(network.profile("um-operator")) as client:
        height = client.status().height
    until(
        network,
        "um",
        lambda answer: answer.height > height + 2 and answer.reachable_power == 3 and not answer.stalled,
    )
    shown = said(network, "um", "status")
    assert "Missing      case" in shown


def test_two_of_four_missing_are_named_with_what_to_do(network: Testnet) -> None:
    network.stop("uk", "case")
    answer = until(network, "um", lambda answer: answer.stalled and standing(answer, "um") == (True, True))
    finding = answer.findings[0]
    assert finding.problem
    assert finding.text.startswith("no quorum: case (last heard ")
    assert "and uk (last heard " in finding.text
    assert "iu" not in finding.text.split()
    assert finding.hint.startswith("ask the operators of case and uk to start their nodes")
    assert standing(answer, "case") == standing(answer, "uk") == (False, False)
    shown = said(network, "iu", "why-stalled")
    assert shown.startswith("Stalled: height ")
    assert "problem: no quorum: case " in shown
    assert "hint: ask the operators of case and uk" in shown
    network.start("uk")
    answer = until(network, "um", lambda answer: not answer.stalled)
    assert not any(finding.problem for finding in answer.findings)


def test_members_that_hang_are_named_too(network: Testnet) -> None:
    """Their connections stay open for a while: what tells them is that they say nothing."""
    pids = [network.pid(name) for name in ("uk", "case")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        answer = until(
            network,
            "um",
            lambda answer: (
                answer.stalled and all(f"{name} (last heard" in answer.findings[0].text for name in ("case", "uk"))
            ),
        )
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert answer.findings[0].text.startswith(("too few have", "no quorum:"))


def test_a_node_told_to_stop_ends_in_order(network: Testnet) -> None:
    process = network._processes["case"]
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)
    assert process.returncode == 0, (network.home("case").log / "console").read_text()
    log = [json.loads(line) for line in (network.home("case").log / "node.log").read_text().splitlines()]
    assert log[-1]["event"] == "node stopped"
    assert log[-1]["height"] >= 1


def test_an_unknown_key_in_the_configuration_is_refused_at_the_start(network: Testnet, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(network.home("um").config.read_text() + "threads = 1\n")
    command = [sys.executable, "-m", "node", "run", "--home", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert "unknown key log.threads [invalid-config]\nhint: known here: level" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_only_people_of_the_ledger_may_ask(network: Testnet, tmp_path: Path) -> None:
    other = Testnet.create(tmp_path / "other", ("um",))
    profile = network.profile("um-operator").read_text()
    key = other.home("um").people / "operator.key"
    stranger = tmp_path / "stranger.toml"
    stranger.write_text(
        "".join(
            f'key_file = "{key}"\n' if line.startswith("key_file") else line + "\n"
            for line in profile.replace("../", f"{network.dir}/").splitlines()
        )
    )
    with koinon.connect(stranger) as client, pytest.raises(KoinonError) as refused:
        client.why_stalled()
    assert refused.value.rule == "unknown-key"
