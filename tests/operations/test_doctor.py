"""`koinon doctor` on real homes: sound ones, running ones, and ones broken in every way it looks for."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import plyvel
import pytest

from koinon import genesis as genesis_file
from koinon.errors import InvalidFile
from koinon.v1.identity_pb2 import Institution
from node import config as configs
from node import credentials, listening, tls
from node import doctor as doctor_of_homes
from node import home as homes
from node.config import Address, Home
from node.doctor import examine, live, machine
from node.doctor.finding import Finding
from testnet.network import Testnet, free_ports

NO_PASSPHRASE = "is kept without a passphrase"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testnet]:
    """Two nodes that have decided a few blocks; stopped by the tests that examine what they left."""
    with Testnet.create(tmp_path_factory.mktemp("net"), ("um", "iu")) as running:
        yield running


@pytest.fixture
def left(network: Testnet, tmp_path: Path) -> Home:
    """A copy of the home that a node left when it was stopped."""
    give_up = time.monotonic() + 60
    while network.status()[1].height < 3 and time.monotonic() < give_up and network.pid("um"):
        time.sleep(0.1)
    network.stop("um")
    shutil.copytree(network.home("um").path, tmp_path / "um")
    return Home(tmp_path / "um")


@pytest.fixture
def fresh(tmp_path: Path) -> Home:
    """A home that never ran, in a consortium of two."""
    return consortium(tmp_path)[0]


def consortium(path: Path, *names: str) -> list[Home]:
    """Homes with one genesis; the first is returned first."""
    made, descriptors = [], []
    for name in names or ("um", "iu"):
        home = Home(path / name)
        addresses = [Address("127.0.0.1", port) for port in free_ports(3)]
        descriptors.append(homes.create(home, name, name, homes.Endpoints(*addresses), passphrase=None))
        made.append(home)
    genesis = genesis_file.join("ops", time.time_ns() // 1_000_000, descriptors)
    for home in made:
        genesis_file.save(home.genesis, genesis)
    return made


def troubles(home: Home, weight: str = "problem") -> list[Finding]:
    """What is wrong, every one with a remedy."""
    found = [finding for finding in examine(home.path, None) if finding.weight != "ok"]
    assert all(finding.hint for finding in found)
    return [finding for finding in found if finding.weight == weight and NO_PASSPHRASE not in finding.text]


def doctor(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from koinon.cli import main; main()", "doctor", "--home", str(home.path)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)


# --- sound homes


def test_a_running_node_is_well_and_its_neighbour_is_reached(network: Testnet) -> None:
    result = doctor(network.home("um"), "--json")
    findings = json.loads(result.stdout)
    assert result.returncode == 0, findings
    texts = [f"{item['weight']}: {item['check']}: {item['text']}" for item in findings]
    assert "ok: node: it runs" in texts
    assert sum("is held by this home's node" in text for text in texts) == 2
    assert [text for text in texts if text.startswith("ok: peers: iu at")]
    assert [text for text in texts if text.startswith("ok: ledger: the node is at height")]
    assert {item["weight"] for item in findings} == {"ok", "warning"}  # test keys have no passphrase


def test_what_a_stopped_node_left_is_proved(left: Home) -> None:
    texts = {finding.check: finding.text for finding in examine(left.path, None) if finding.weight == "ok"}
    assert texts["node"] == "it does not run"
    assert "form one chain" in texts["blocks"]
    assert "certificates hold" in texts["blocks"]
    assert texts["index"].startswith("holds ")
    assert "can be read" in texts["signing state"]
    assert troubles(left) == []


def test_before_the_first_start_others_out_of_reach_are_no_problem(fresh: Home) -> None:
    assert troubles(fresh) == []
    (peer,) = troubles(fresh, "warning")
    assert peer.check == "peers"
    assert peer.text.startswith("iu at 127.0.0.1:")
    assert not fresh.ledger.exists()  # nothing was made


def test_an_examination_changes_nothing_that_counts(left: Home) -> None:
    wal, read_model = left.wal.read_bytes(), left.read_model.read_bytes()
    list(examine(left.path, None))
    assert (left.wal.read_bytes(), left.read_model.read_bytes()) == (wal, read_model)


def test_a_copy_of_a_home_whose_node_runs_is_not_sent_to_other_ports(network: Testnet, tmp_path: Path) -> None:
    copy = Home(tmp_path / "iu")
    shutil.copytree(network.home("iu").path, copy.path, ignore=shutil.ignore_patterns("data"))
    rpc, peer = (item for item in troubles(copy) if item.check == "ports")
    for found in (rpc, peer):
        assert found.text.endswith("is held by a node that runs with a copy of this home")
        assert found.hint.startswith("stop one of the two for good")


# --- broken homes


def test_a_key_that_others_can_read(fresh: Home) -> None:
    fresh.key("node").chmod(0o644)
    (found,) = troubles(fresh)
    assert (found.check, found.hint) == ("node key", f"run: chmod 600 {fresh.key('node')}")
    result = doctor(fresh)
    assert result.returncode == 1
    assert f"problem: node key: the key file {fresh.key('node')} can be read by others (mode 0644)" in result.stdout


def test_a_tls_key_that_others_can_read(fresh: Home) -> None:
    fresh.certificate_key.chmod(0o640)
    (found,) = troubles(fresh)
    assert found.text == f"{fresh.certificate_key} can be read by others (mode 0640)"
    with pytest.raises(InvalidFile, match="can be read by others") as refused:
        credentials.load(configs.load(fresh.path), genesis_file.load(fresh.genesis), None)
    assert refused.value.hint == f"run: chmod 600 {fresh.certificate_key}"


@pytest.mark.parametrize("file", ["certificate", "certificate_key"])
def test_a_damaged_certificate_or_tls_key_is_named(fresh: Home, file: str) -> None:
    path: Path = getattr(fresh, file)
    path.write_text("no PEM\n")
    (found,) = troubles(fresh)
    assert found.text.startswith(f"{path} holds no ")
    with pytest.raises(InvalidFile) as refused:
        credentials.load(configs.load(fresh.path), genesis_file.load(fresh.genesis), None)
    assert refused.value.message == found.text


def test_who_may_not_read_the_tls_key_is_not_told_to_stop_the_node(
    network: Testnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user than the node's dials nobody: whoever holds its ports is not to be blamed."""
    key, read = network.home("um").certificate_key, Path.read_bytes

    def refused(path: Path) -> bytes:
        if path == key:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    found = list(examine(network.home("um").path, None))
    assert [(item.text, item.hint) for item in found if item.check == "certificate"] == [
        (
            f"{key} cannot be read: Permission denied",
            "run this as the user whose file it is, who may read it; ls -l shows both",
        )
    ]
    assert not {"ports", "peers"} & {item.check for item in found}


def test_a_key_that_waits_and_is_damaged_keeps_nothing_else_from_being_examined(fresh: Home) -> None:
    for path in (fresh.key("node.next"), fresh.certificate.parent / "next" / fresh.certificate.name):
        path.parent.mkdir(exist_ok=True)
        path.write_text("no key\n")
        path.chmod(0o600)
    assert [found.check for found in troubles(fresh)] == ["node key", "certificate"]


def test_who_is_not_admitted_yet_is_told_to_wait(network: Testnet, tmp_path: Path) -> None:
    hopes, _ = consortium(tmp_path, "koi", "uk")
    shutil.copy(network.home("iu").genesis, hopes.genesis)
    assert troubles(hopes) == []
    texts = [found.text for found in troubles(hopes, "warning")]
    assert texts[0] == "koi is not among the founders: iu, um"
    assert any(text.startswith("iu at") and text.endswith("does not let us in yet") for text in texts)
    (pinned,) = (found.text for found in examine(hopes.path, None) if found.check == "certificate")
    assert pinned == "it fits its key; the members do not know it yet; without an end"


def test_a_genesis_that_is_missing_is_to_be_had_from_a_member(fresh: Home) -> None:
    fresh.genesis.unlink()
    (found,) = troubles(fresh)
    assert (found.text, found.hint[:36]) == (
        f"there is no genesis file {fresh.genesis}",
        "get the consortium's from a member, ",
    )


def test_a_name_that_nobody_knows_is_no_address_of_this_machine(fresh: Home) -> None:
    assert listening.refusal(Address("nobody.invalid", 7400)) == errno.EADDRNOTAVAIL


def test_the_genesis_of_another_consortium(tmp_path: Path) -> None:
    ours, _ = consortium(tmp_path / "ours")
    others, _ = consortium(tmp_path / "others")
    shutil.copy(others.genesis, ours.genesis)
    found = troubles(ours)
    assert [item.check for item in found] == ["validator key", "node key", "sealing key", "certificate"]
    assert all("is not the" in item.text for item in found)


def test_the_genesis_of_others_only(tmp_path: Path) -> None:
    ours, _ = consortium(tmp_path / "ours")
    others = consortium(tmp_path / "others", "uk", "case")
    shutil.copy(others[0].genesis, ours.genesis)
    assert troubles(ours) == []  # it may hope to be admitted
    (found,) = (item for item in troubles(ours, "warning") if item.check == "membership")
    assert found.text == "um is not among the founders: case, uk"
    ours.descriptor.unlink()
    assert "um is not among the members: case, uk" in [item.text for item in troubles(ours)]


def test_a_genesis_whose_constitution_decides_nothing(fresh: Home) -> None:
    genesis = genesis_file.load(fresh.genesis)
    genesis.constitution.usual.approval.numerator = 1
    fresh.genesis.unlink()
    genesis_file.save(fresh.genesis, genesis)
    (found,) = troubles(fresh)
    assert (found.check, "usual policy" in found.text) == ("genesis", True)


def test_a_ledger_that_began_otherwise(left: Home, tmp_path: Path) -> None:
    other, _ = consortium(tmp_path / "others")
    shutil.copy(other.genesis, left.genesis)
    assert any("started from another genesis" in item.text for item in troubles(left))


def test_no_home_and_a_configuration_with_a_mistake(tmp_path: Path, fresh: Home) -> None:
    (found,) = troubles(Home(tmp_path / "nothing"))
    assert "is not the home of a node" in found.text
    with fresh.config.open("a") as file:
        file.write("threads = 2\n")
    (found,) = troubles(fresh)
    assert "unknown key log.threads" in found.text


def test_a_port_that_another_process_holds(fresh: Home) -> None:
    port = int(
        next(line for line in fresh.config.read_text().splitlines() if line.startswith("mpc")).split('"')[1][10:]
    )
    with socket.create_server(("127.0.0.1", port)):
        (found,) = troubles(fresh)
    assert found.text == f"127.0.0.1:{port} (mpc) is held by another process"


def test_a_node_whose_key_was_revoked_needs_another(fresh: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_of_homes, "is_running", lambda _: True)
    monkeypatch.setattr(live, "ask", lambda *_: "the key of um was revoked or replaced")
    (found,) = (item for item in troubles(fresh, "warning") if item.check == "ledger")
    assert "koinon key rotate node --home HOME" in found.hint


def test_a_member_admitted_later_whose_node_cannot_be_asked_is_not_called_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The genesis alone cannot tell who was admitted since."""
    joined, _ = consortium(tmp_path / "ours")
    founders = consortium(tmp_path / "others", "uk", "case")
    shutil.copy(founders[0].genesis, joined.genesis)
    monkeypatch.setattr(doctor_of_homes, "is_running", lambda _: True)
    monkeypatch.setattr(live, "ask", lambda *_: "the key of um was revoked or replaced")
    (found,) = (item for item in troubles(joined, "warning") if item.check == "membership")
    assert found.text == "um is not among the founders: case, uk"
    assert found.hint.startswith("nothing, where the members have admitted it since")


def test_a_certificate_that_ended_is_a_warning_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_NO_END", datetime.now(UTC) - timedelta(days=3))
    home, _ = consortium(tmp_path)
    assert troubles(home) == []
    ended = [item for item in troubles(home, "warning") if item.check == "certificate"]
    assert "ended" in ended[0].text


def test_a_certificate_that_is_another(fresh: Home) -> None:
    identity = tls.create_identity("um")
    fresh.certificate.write_bytes(identity.certificate)
    (found,) = troubles(fresh)
    assert "does not belong to" in found.text
    fresh.certificate_key.write_bytes(identity.key)
    (found,) = troubles(fresh)
    assert "is not the certificate that the members pinned for um" in found.text


def test_a_neighbour_with_another_certificate(network: Testnet, tmp_path: Path) -> None:
    """What answers at iu's address is not who the genesis says."""
    peer = genesis_file.load_descriptor(network.home("iu").descriptor).peer_address
    ours, theirs = consortium(tmp_path)
    genesis = genesis_file.load(ours.genesis)
    for item in genesis.institutions:
        if item.id == "iu":
            item.peer_address = peer
    ours.genesis.unlink()
    genesis_file.save(ours.genesis, genesis)
    assert troubles(ours) == []  # it may have exchanged it after the genesis, which is all that is here
    (found,) = troubles(ours, "warning")
    assert (found.check, "shows another certificate than the genesis names" in found.text) == ("peers", True)
    member = next(item for item in genesis.institutions if item.id == "iu")
    found = doctor_of_homes._reach(configs.load(ours.path), member, admitted=True, sure=True)
    assert (found.weight, "another certificate than the one pinned" in found.text) == ("problem", True)
    assert theirs.path != ours.path


def test_keys_that_were_rotated_are_sound_where_only_the_genesis_can_be_read(fresh: Home) -> None:
    """As after `koinon node repair`, or while the node runs and cannot be asked: no backup is to be restored."""
    config = configs.load(fresh.path)
    known = genesis_file.load(fresh.genesis).institutions[1]
    rotated = Institution(descriptor=known)
    rotated.descriptor.validator_key = credentials.make_next(fresh, "validator", None)
    rotated.descriptor.tls_certificate = credentials.make_next_certificate(fresh, "um")
    credentials.settle(config, credentials.load(config, genesis_file.load(fresh.genesis), None), rotated)
    assert troubles(fresh) == []
    texts = [found.text for found in troubles(fresh, "warning")]
    assert f"{fresh.key('validator')} has replaced the key that the ledger names here" in texts
    assert f"{fresh.certificate} has replaced the certificate that the ledger names here" in texts


def _edit(home: Home, change: Callable[[plyvel.DB], None]) -> None:
    database = plyvel.DB(str(home.ledger))
    change(database)
    database.close()


def _another_block(database: plyvel.DB) -> None:
    database.put(b"b/" + (2).to_bytes(8, "big"), database.get(b"b/" + (1).to_bytes(8, "big")))


def _noise_for_a_block(database: plyvel.DB) -> None:
    database.put(b"b/" + (2).to_bytes(8, "big"), b"noise")


def _another_certificate(database: plyvel.DB) -> None:
    database.put(b"c/" + (2).to_bytes(8, "big"), database.get(b"c/" + (1).to_bytes(8, "big")))


def _no_chain(database: plyvel.DB) -> None:
    database.delete(b"m/chain")


def _no_position(database: plyvel.DB) -> None:
    database.put(b"m/signed", b"x")


def _no_last_block(database: plyvel.DB) -> None:
    last = max(key for key, _ in database.iterator(prefix=b"b/"))
    database.delete(last)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_another_block, "the block at height 2 is not the one that the chain goes on from"),
        (_noise_for_a_block, "block"),
        (_another_certificate, "the commit certificate of block 2 does not hold"),
        (_no_chain, "the ledger on disk contradicts itself: chain at 0"),
        (_no_last_block, "is missing, or not the one that the chain goes on from"),
        (_no_position, "the ledger does not say any more what its node signed"),
    ],
)
def test_a_ledger_that_was_edited(left: Home, change: Callable[[plyvel.DB], None], said: str) -> None:
    _edit(left, change)
    (found,) = troubles(left)
    assert found.check == "ledger"
    assert said in found.text


def test_a_ledger_with_a_damaged_file(left: Home) -> None:
    (left.ledger / "CURRENT").write_text("no manifest\n")
    (found,) = troubles(left)
    assert found.check == "ledger"


def test_a_store_that_lost_its_files_is_no_new_one(left: Home) -> None:
    """LevelDB opens what is left of them, and misses tables only; the validator's log knows how far the ledger went."""
    for file in (*left.ledger.glob("*.log"), *left.ledger.glob("*.ldb")):
        file.unlink()
    (found,) = troubles(left) or troubles(left, "warning")
    assert found.check == "ledger"
    assert re.search(r"its last block is 0, and this validator signed at height [3-9]|missing files", found.text)


def test_of_a_ledger_that_could_not_be_read_nothing_is_said(left: Home) -> None:
    left.genesis.unlink()
    assert [found.check for found in troubles(left)] == ["genesis"]
    assert not troubles(left, "warning")


def test_an_index_that_is_lost_or_damaged_is_a_warning(left: Home) -> None:
    whole = left.read_model.read_bytes()
    for damaged in (b"no database", whole.replace(b"CREATE TABLE standing", b"CREATE \xc5ABLE standing")):
        left.read_model.write_bytes(damaged)
        assert troubles(left, "warning")[0].check == "index"
    left.read_model.unlink()
    assert "is not there" in troubles(left, "warning")[0].text


def test_a_signing_state_that_is_damaged_lost_or_another_s(left: Home) -> None:
    data = left.wal.read_bytes()
    left.wal.write_bytes(data[:20] + b"?" + data[21:])
    (found,) = troubles(left)
    assert (found.check, "damaged at byte" in found.text) == ("signing state", True)
    left.wal.write_bytes(data[:8])
    assert "does not know what this key signed" in troubles(left, "warning")[0].text
    left.wal.unlink()
    assert "is not there" in troubles(left, "warning")[0].text


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "make room"), (errno.EACCES, "give the node's user")])
def test_a_disk_that_cannot_be_written(fresh: Home, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    (found,) = troubles(fresh)
    assert (found.text, found.hint[: len(remedy)]) == (f"{fresh.path} cannot be written: {os.strerror(number)}", remedy)


def test_a_clock_behind_the_last_block() -> None:
    (found,) = machine.clock(time.time_ns() // 1_000_000 + 3_600_500, None)
    assert (found.weight, found.text) == ("problem", "this machine's clock is 1 hour behind the last block")
    (found,) = machine.clock(time.time_ns() // 1_000_000, {"iu": -300, "uk": 40})
    assert (found.weight, found.text) == ("ok", "compared with iu, uk: at most 0.3 s apart")
    (found,) = machine.clock(time.time_ns() // 1_000_000, {"iu": -3_600_000, "uk": 40})
    assert (found.weight, found.text) == ("warning", "compared with iu, uk: at most 3600.0 s apart")
