"""What operators of real institutions do by hand: init, genesis, node run, each in a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import koinon
from koinon import genesis as genesis_file
from koinon.errors import InvalidFile, InvalidInput, KoinonError, Unavailable
from koinon.key_files import ENVIRONMENT as PASSPHRASE
from koinon.keys import SigningKey
from node import config as configs
from node.application import Application
from node.cli import genesis, init
from node.config import Home
from node.store.leveldb import LevelStore
from node.store.memory import MemoryStore
from testnet.network import free_ports

SECRET = "correct horse battery staple"


def run_init(home: Path, institution: str, *more: str, ports: Sequence[int] = (7400, 7401, 7402)) -> Result:
    options = ["--institution", institution, "--title", f"The {institution}", "--home", str(home)]
    return CliRunner().invoke(
        init, [*options, "--ports", ",".join(map(str, ports)), *more], env={PASSPHRASE: ""}, catch_exceptions=True
    )


def error_of(result: Result) -> KoinonError:
    assert isinstance(result.exception, KoinonError), result.output
    return result.exception


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Home]:
    """Two institutions, each in a directory of its own; um's keys have a passphrase, iu's have none."""
    ports = free_ports(6)
    homes = {name: Home(tmp_path_factory.mktemp(name) / "home") for name in ("um", "iu")}
    assert run_init(homes["iu"].path, "iu", "--no-passphrase", ports=ports[:3]).exit_code == 0
    arguments = ["--institution", "um", "--title", "Michigan", "--home", str(homes["um"].path)]
    people = ["--person", "operator=operator", "--person", "auditor=regulator,analyst"]
    ports_of_um = ["--ports", ",".join(map(str, ports[3:]))]
    made = CliRunner().invoke(init, [*arguments, *ports_of_um, *people], env={PASSPHRASE: SECRET})
    assert made.exit_code == 0
    assert made.stdout == homes["um"].descriptor.read_text(encoding="utf-8")
    out = tmp_path_factory.mktemp("shared") / "genesis.json"
    descriptors = [str(home.descriptor) for home in homes.values()]
    joined = CliRunner().invoke(genesis, [*descriptors, "--chain-name", "ercp", "--out", str(out)])
    assert joined.exit_code == 0, joined.output
    assert joined.stdout.strip() == genesis_file.chain_id(genesis_file.load(out))
    for home in homes.values():
        shutil.copy(out, home.genesis)
    return homes


def start(home: Home, passphrase: str = SECRET) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "node", "run", "--home", str(home.path)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {PASSPHRASE: passphrase},
    )


def refused(home: Home, passphrase: str = SECRET) -> tuple[int, list[str]]:
    """Start a node that should refuse to; its exit code and what it said, without the log."""
    process = start(home, passphrase)
    _, said = process.communicate(timeout=60)
    return process.returncode, [line for line in said.splitlines() if not line.startswith("{")]


@pytest.fixture(scope="module")
def running(consortium: dict[str, Home]) -> Iterator[dict[str, Home]]:
    processes = [start(home) for home in consortium.values()]
    try:
        _wait_until_decided(consortium["um"])
        yield consortium
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [(process.communicate(timeout=60), process.returncode)[1] for process in processes]
    assert codes == [0, 0], "a node that is told to stop stops in order"


def _wait_until_decided(home: Home) -> None:
    give_up = time.monotonic() + 60
    while True:
        try:
            with koinon.connect(home.people / "operator.toml", ask_passphrase=lambda _: SECRET) as client:
                status = client.status()
                if status.height and all(peer.connected for peer in status.peers):
                    return
        except Unavailable:
            pass
        assert time.monotonic() < give_up
        time.sleep(0.1)


# --- together


def test_institutions_decide_together_from_separate_directories(running: dict[str, Home]) -> None:
    with koinon.connect(running["iu"].people / "operator.toml") as iu:
        iu.members.register("iu/newcomer", SigningKey.generate().public_key, ["analyst"])
        assert {person.id for person in iu.members.people()} == {
            "iu/newcomer",
            "iu/operator",
            "um/auditor",
            "um/operator",
        }


def test_a_home_whose_node_runs_is_not_sent_to_other_ports(running: dict[str, Home]) -> None:
    code, said = refused(running["iu"])
    address = genesis_file.load_descriptor(running["iu"].descriptor).rpc_address
    assert code == 6
    assert said[0] == f"error: the node of iu runs already: it answers at {address} (rpc) [port-in-use]"
    assert said[1].startswith("hint: stop one of the two for good")


# --- a node that should not start


@pytest.fixture
def home(consortium: dict[str, Home], tmp_path: Path) -> Home:
    """A copy of iu's home with ports of its own, to be spoiled."""
    copy = Home(tmp_path / "home")
    shutil.copytree(consortium["iu"].path, copy.path, ignore=shutil.ignore_patterns("data"))
    text = copy.config.read_text(encoding="utf-8")
    descriptor = genesis_file.load_descriptor(copy.descriptor)
    addresses = (descriptor.rpc_address, descriptor.peer_address, descriptor.mpc_address)
    for address, port in zip(addresses, free_ports(3), strict=True):
        text = text.replace(address, f"127.0.0.1:{port}")
    copy.config.write_text(text, encoding="utf-8")
    return copy


def test_a_ledger_of_another_genesis_is_not_continued(home: Home) -> None:
    chain = genesis_file.load(home.genesis)
    store = LevelStore(home.ledger)
    Application(store, chain)
    store.close()
    home.genesis.unlink()
    chain.time_ms += 1
    genesis_file.save(home.genesis, chain)
    code, said = refused(home)
    assert code == 2
    assert said[0] == "error: the ledger on this disk started from another genesis file [invalid-genesis]"


def test_a_port_in_use_is_named(home: Home) -> None:
    listen = configs.load(home.path).listening()["rpc"]
    with socket.create_server((listen.host, listen.port)):
        code, said = refused(home)
    assert code == 6
    assert said[0] == f"error: iu cannot listen on {listen} (rpc): Address already in use [port-in-use]"
    assert said[1] == f"hint: stop what uses the port, or change listen.rpc in {home.config}"


def test_a_ledger_in_use_is_left_alone(home: Home) -> None:
    store = LevelStore(home.ledger)
    code, said = refused(home)
    store.close()
    assert code == 6
    assert said[0] == f"error: the ledger store {home.ledger} is in use [store-locked]"


def test_another_members_key_is_noticed(home: Home, consortium: dict[str, Home]) -> None:
    home.key("node").unlink()
    shutil.copy(home.key("validator"), home.key("node"))
    code, said = refused(home)
    assert code == 2
    assert said[0] == f"error: {home.key('node')} is not what the ledger names for iu [wrong-institution]"


def test_a_wrong_passphrase_is_named(consortium: dict[str, Home], tmp_path: Path) -> None:
    copy = Home(tmp_path / "home")
    shutil.copytree(consortium["um"].path, copy.path, ignore=shutil.ignore_patterns("data"))
    code, said = refused(copy, "wrong")
    assert code == 2
    assert said[0].endswith("does not open with this passphrase [invalid-key-file]")


def test_an_institution_that_is_no_member_is_told_so(home: Home) -> None:
    home.config.write_text(home.config.read_text(encoding="utf-8").replace('"iu"', '"uk"'), encoding="utf-8")
    code, said = refused(home)
    assert code == 2
    assert said[0] == "error: uk is not in the genesis, whose members are iu, um [wrong-institution]"


def test_a_data_directory_that_cannot_be_one_is_named(home: Home) -> None:
    (home.path / "data").write_text("in the way", encoding="utf-8")
    code, said = refused(home)
    assert code == 2
    assert said[0].startswith(f"error: {home.ledger.parent} is no directory")


# --- descriptors and genesis


def test_a_home_is_never_made_twice(consortium: dict[str, Home]) -> None:
    before = consortium["iu"].key("validator").read_bytes()
    error = error_of(run_init(consortium["iu"].path, "iu", "--no-passphrase"))
    assert error.rule == "already-exists"
    assert consortium["iu"].key("validator").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--no-passphrase", "--ports", "1,2"], "are not three addresses"),
        (["--no-passphrase", "--ports", "1,1,2"], "names a port twice"),
        (["--no-passphrase", "--person", "operator=boss"], "is not NAME=ROLE"),
        (["--no-passphrase", "--person", "auditor=regulator"], "no operator"),
        ([], "there is no passphrase for the new keys"),
    ],
)
def test_init_says_what_is_wrong(tmp_path: Path, options: list[str], named: str) -> None:
    error = error_of(run_init(tmp_path / "home", "um", *options))
    assert named in error.message
    assert error.hint


@pytest.mark.parametrize("institution", ["UM", "u m", "", "../um"])
def test_init_takes_only_well_formed_ids(tmp_path: Path, institution: str) -> None:
    error_of(run_init(tmp_path / "home", institution, "--no-passphrase"))
    assert not (tmp_path / "home").exists()


def test_genesis_names_what_two_descriptors_share(consortium: dict[str, Home], tmp_path: Path) -> None:
    twice = [str(consortium["iu"].descriptor), str(consortium["iu"].descriptor)]
    joined = CliRunner().invoke(genesis, [*twice, "--chain-name", "ercp", "--out", str(tmp_path / "g.json")])
    assert "the institution iu occurs twice" in error_of(joined).message

    home = Home(tmp_path / "uk")
    addresses = genesis_file.load_descriptor(consortium["iu"].descriptor)
    ports = [int(address.rpartition(":")[2]) for address in (addresses.rpc_address, addresses.peer_address)]
    assert run_init(home.path, "uk", "--no-passphrase", ports=[*ports, 7402]).exit_code == 0
    both = [str(consortium["iu"].descriptor), str(home.descriptor)]
    joined = CliRunner().invoke(genesis, [*both, "--chain-name", "ercp", "--out", str(tmp_path / "g.json")])
    assert error_of(joined).message == "peer_address of iu and peer_address of uk have the same address"
    assert not (tmp_path / "g.json").exists()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("heartbeat=5", "is not NAME=NUMBER"),
        ("heartbeat_ms=soon", "is not NAME=NUMBER"),
        ("heartbeat_ms=1", "heartbeat_ms"),
        (f"heartbeat_ms={2**70}", "is too large"),
    ],
)
def test_parameters_are_checked(consortium: dict[str, Home], tmp_path: Path, option: str, named: str) -> None:
    arguments = [str(consortium["iu"].descriptor), "--chain-name", "ercp", "--out", str(tmp_path / "g.json")]
    error = error_of(CliRunner().invoke(genesis, [*arguments, "--parameter", option]))
    assert isinstance(error, InvalidInput | InvalidFile)
    assert named in error.message


def test_a_consortium_may_bring_its_constitution(consortium: dict[str, Home], tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    usual = 'usual = {{ participation = "1/2", approval = "{}", voting_period_ms = 3600000 }}\n'
    out = tmp_path / "g.json"
    arguments = [str(consortium["iu"].descriptor), "--chain-name", "ercp", "--out", str(out)]
    rules.write_text(usual.format("1/3"), encoding="utf-8")
    error = error_of(CliRunner().invoke(genesis, [*arguments, "--constitution", str(rules)]))
    assert error.rule == "constitution"
    assert not out.exists()
    rules.write_text(usual.format("2/3"), encoding="utf-8")
    error = error_of(CliRunner().invoke(genesis, [*arguments, "--constitution", str(rules)]))
    assert "disputes" in error.message
    arbitration = """
    [arbitration]
    refund = "1/2"
    payout = "1/2"
    revocation = "3/5"
    suspension = "2/3"
    quorum = 2
    answer_period_ms = 3600000
    ruling_period_ms = 7200000
    """
    rules.write_text(usual.format("2/3") + arbitration, encoding="utf-8")
    assert CliRunner().invoke(genesis, [*arguments, "--constitution", str(rules)]).exit_code == 0
    founded = Application(MemoryStore(), genesis_file.load(out))
    assert founded.constitution().usual.approval.denominator == 3
    assert founded.constitution().arbitration.revocation.numerator == 3


def test_a_certificate_for_another_name_is_refused(consortium: dict[str, Home], tmp_path: Path) -> None:
    descriptor = genesis_file.load_descriptor(consortium["iu"].descriptor)
    descriptor.tls_certificate = genesis_file.load_descriptor(consortium["um"].descriptor).tls_certificate
    genesis_file.save_descriptor(tmp_path / "iu.json", descriptor)
    arguments = [str(tmp_path / "iu.json"), "--chain-name", "ercp", "--out", str(tmp_path / "g.json")]
    assert "is not one for iu" in error_of(CliRunner().invoke(genesis, arguments)).message
