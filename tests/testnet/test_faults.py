"""Real nodes under faults: a short run, that the plan is a replay and meets every fault, and that a lie is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from koinon.canonical import HASH_BYTES
from koinon.v1.consensus_pb2 import Block, Commit, CommitSignature
from koinon.v1.transaction_pb2 import Envelope
from node.store.blocks import BlockStore
from node.store.memory import MemoryStore
from testnet.faults.checks import Checks
from testnet.faults.plan import Kind, plan
from testnet.simulation.checkers import Violation

INSTITUTIONS = ("um", "iu", "uk", "case")


def test_three_kills_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "testnet.faults", "--kills", "3", "--seed", "1"]
    run = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}, check=False
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split("  ")[0] for line in run.stdout.splitlines()[1:4]]
    assert rows == [Kind.KILL, Kind.STOP, Kind.KILL_ALL]
    assert "all in every ledger, no fork, no equivocation" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_seed_is_a_plan() -> None:
    faults = list(plan(5, 60, INSTITUTIONS))
    assert faults == list(plan(5, 60, INSTITUTIONS))
    assert faults != list(plan(6, 60, INSTITUTIONS))
    kinds = [fault.kind for fault in faults]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        Kind.KILL: 57,
        Kind.KILL_ALL: 3,
        Kind.STOP: 6,
        Kind.WIPE: 2,
        Kind.CLOCK: 3,
        Kind.CERTIFICATE: 3,
    }
    assert {fault.victim for fault in faults} == {"", *INSTITUTIONS}
    assert {fault.kind for fault in plan(5, 60, INSTITUTIONS, lan=True)} == set(Kind)


def test_a_lan_is_cut_slowed_and_healed() -> None:
    owner = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    inside = ["unshare", *owner, "--net", "--mount"]
    if subprocess.run([*inside, "ip", "tuntap", "add", "dev", "t", "mode", "tun"], check=False).returncode:
        pytest.skip("this machine allows no network namespaces or TUN devices")
    run = subprocess.run(
        [*inside, sys.executable, "-m", "tests.testnet.talk_on_a_lan"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    whole, one_way, late, later, healed = json.loads(run.stdout)
    assert whole
    assert one_way is None
    assert late >= 2 * 0.2
    assert later >= 2 * 1.0
    assert healed < 2 * 1.0


# --- what the checks find


SIGNED = Envelope(public_key=bytes(32), body=b"body", signature=bytes(64)).SerializeToString()


def _ledger(*blocks: Block, signers: tuple[str, ...] = INSTITUTIONS) -> BlockStore:
    store = MemoryStore()
    for height, block in enumerate(blocks, 1):
        commit = Commit(height=height, signatures=[CommitSignature(institution=item) for item in signers])
        store.write(BlockStore(store).writes(height, block.SerializeToString(), commit), sync=True)
    return BlockStore(store)


def test_a_fork_is_found() -> None:
    checks = Checks()
    checks.examine("um", _ledger(Block(header=b"1"), Block(header=b"2")))
    checks.examine("iu", _ledger(Block(header=b"1")))
    with pytest.raises(Violation, match="fork: uk has another block at height 2"):
        checks.examine("uk", _ledger(Block(header=b"1"), Block(header=b"other")))


def test_a_lost_or_moved_transaction_is_found() -> None:
    checks = Checks()
    checks.answered[bytes(HASH_BYTES)] = (1, ())
    with pytest.raises(Violation, match="lost: um lacks 0000"):
        checks.examine("um", _ledger(Block(header=b"1", transactions=[SIGNED])))


def test_a_transaction_decided_twice_is_found() -> None:
    with pytest.raises(Violation, match=r"um has \w+ twice"):
        Checks().examine("um", _ledger(Block(transactions=[SIGNED]), Block(transactions=[SIGNED])))
    with pytest.raises(Violation, match=r"um has \w+ twice"):
        Checks().examine("um", _ledger(Block(transactions=[SIGNED, SIGNED])))


def test_an_equivocation_is_found() -> None:
    with pytest.raises(Violation, match="height 1 holds evidence"):
        Checks().examine("um", _ledger(Block(evidence=[b"evidence"])))


def test_a_wiped_node_that_signs_too_soon_is_found() -> None:
    checks = Checks()
    checks.silent.append(("uk", 1, 3))
    checks.examine("um", _ledger(Block(), Block(), Block(), signers=("um", "iu", "case")))
    with pytest.raises(Violation, match="uk signed height 2"):
        checks.examine("um", _ledger(Block(), Block(), Block()))
