"""Whatever is damaged on a node's disk is detected, named with a remedy, and made good; nothing is silent.

One node of a real network ran and was stopped; each case damages a copy of its home and opens it as `koinon node run`
does. Either the start is refused by a rule that the documents explain, and the remedy it names works, or what was
damaged can be made anew, and is.

Others' bad input: blocks and certificates (tests/consensus/test_block_sync.py), snapshots
(tests/node/test_snapshots.py), archives (tests/node/test_replay.py), receipts (tests/koinon/test_receipt.py).
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

import koinon
from koinon import genesis as genesis_file
from koinon.cli import main
from koinon.errors import KoinonError
from koinon.rules import RULES
from koinon.v1.consensus_pb2 import ChainRecord
from node import config as configs
from node import credentials as credential_files
from node import doctor, places, restore
from node.application import Application
from node.config import Home
from node.runtime import Node
from node.snapshots import Cutter
from node.store import wal
from node.store.leveldb import LevelStore
from testnet.network import Testnet

Damage = Callable[[Home], object]
CSV = "age,arm\n50,a\n61,b\n47,a\n39,b\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A stopped node's home: a dataset was published, a snapshot cut, the store compacted to files."""
    directory = tmp_path_factory.mktemp("net")
    (directory / "t.csv").write_text(CSV)
    with Testnet.create(directory / "net", ("um",)) as network:
        with koinon.connect(network.profile("um-operator")) as client:
            height = client.status().height
            published = CliRunner().invoke(
                main,
                [
                    *("--profile", str(network.profile("um-operator")), "catalog", "publish"),
                    *(str(directory / "t.csv"), "--name", "a.t", "--title", "T", "--yes"),
                ],
            )
            assert published.exit_code == 0, published.output
            assert client.status().height > height
        network.stop()
        home = network.home("um")
    with closing(LevelStore(home.ledger)) as store:
        store.compact(b"", b"\xff")
        application = Application(store, genesis_file.load(home.genesis))
        Cutter(home.snapshots, store, application).cut(application.info().height)()
    return home


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    shutil.copytree(original.path, tmp_path / "home")
    return Home(tmp_path / "home")


def start(home: Home) -> int | KoinonError:
    """Open everything as `koinon node run` does, without listening; the height, or what ended the process."""

    async def opened() -> int:
        config = configs.load(home.path)
        places.check(config.home)
        restore.put_in_place(config.home)
        genesis = genesis_file.load(config.home.genesis)
        credentials = credential_files.load(config, genesis, None)
        node = Node(config, genesis, credentials, structlog.get_logger())
        try:
            return node.height()
        finally:
            node._pool.close()
            node._wal.close()
            node._store.close()
            node._read_model.close()

    try:
        return asyncio.run(opened())
    except KoinonError as error:
        ended = error
    ended.__traceback__ = ended.__cause__ = ended.__context__ = None  # its frames keep files open, unlike a process
    gc.collect()
    return ended


def edit(path: Path, at: float = 0.5) -> None:
    """Flip every bit of some bytes."""
    data = bytearray(path.read_bytes())
    place = min(int(len(data) * at), len(data) - 8)
    data[place : place + 8] = bytes(byte ^ 0xFF for byte in data[place : place + 8])
    path.write_bytes(data)


def truncate(path: Path, at: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * at))


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def other(path: Path) -> None:
    """Put a directory where a file was, a file where a directory was."""
    moved = path.rename(path.with_name("moved"))
    if moved.is_file():
        path.mkdir()
    else:
        path.touch()


def dangling(path: Path) -> None:
    """What was there is now on another disk, which is not mounted."""
    if path.exists():
        path.rename(path.with_name("moved"))
    path.symlink_to("/nonexistent/disk")


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def largest(home: Home, pattern: str) -> Path:
    return max(home.ledger.glob(pattern), key=lambda file: file.stat().st_size)


def write(home: Home, key: bytes, value: bytes | None) -> None:
    with closing(LevelStore(home.ledger)) as store:
        store.write([(key, value)], sync=True)


def change_state(home: Home) -> None:
    with closing(LevelStore(home.ledger)) as store:
        key, value = next(iter(store.scan(b"s/dataset/")))
        store.write([(key, value + b"x")], sync=True)


def set_index_back(home: Home) -> None:
    """What it takes in at the next start is there already."""
    with closing(sqlite3.connect(home.read_model)) as database, database:
        database.execute("UPDATE standing SET next_index = next_index - 1")


def change_chain(home: Home) -> None:
    with closing(LevelStore(home.ledger)) as store:
        chain = ChainRecord.FromString(store.get(b"m/chain") or b"")
        chain.block_hash = bytes(32)
        store.write([(b"m/chain", chain.SerializeToString())], sync=True)


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


REFUSED: dict[str, tuple[Damage, str]] = {
    "configuration truncated": (lambda home: truncate(home.config, 0.3), "invalid-config"),
    "configuration cut at the end of a line": (
        lambda home: home.config.write_text(home.config.read_text().partition("concurrent")[0]),
        "invalid-config",
    ),
    "configuration with an unknown key": (
        lambda home: replace_text(home.config, "[jobs]", "[jobs]\nthreads = 1"),
        "invalid-config",
    ),
    "configuration of bytes": (lambda home: garbage(home.config), "invalid-config"),
    "configuration missing": (lambda home: home.config.unlink(), "invalid-file"),
    "genesis truncated": (lambda home: truncate(home.genesis), "invalid-file"),
    "genesis of bytes": (lambda home: garbage(home.genesis), "invalid-file"),
    "genesis edited": (
        lambda home: replace_text(home.genesis, '"heartbeat_ms": ', '"heartbeat_ms": 1'),
        "invalid-genesis",
    ),
    "genesis missing": (lambda home: home.genesis.unlink(), "invalid-file"),
    "key truncated": (lambda home: truncate(home.key("validator")), "invalid-key-file"),
    "key of bytes": (lambda home: garbage(home.key("node")), "invalid-file"),
    "certificate truncated": (lambda home: truncate(home.certificate), "invalid-file"),
    "configuration a directory": (lambda home: other(home.config), "invalid-config"),
    "configuration a link to nothing": (lambda home: dangling(home.config), "invalid-config"),
    "genesis a directory": (lambda home: other(home.genesis), "invalid-file"),
    "genesis a link to nothing": (lambda home: dangling(home.genesis), "invalid-file"),
    "key a directory": (lambda home: other(home.key("sealing")), "invalid-file"),
    "keys a link to nothing": (lambda home: dangling(home.key("node").parent), "invalid-file"),
    "certificate a directory": (lambda home: other(home.certificate), "invalid-file"),
    "TLS key a link to nothing": (lambda home: dangling(home.certificate_key), "invalid-file"),
    "log a directory": (lambda home: other(home.wal), "invalid-file"),
    "log a link to nothing": (lambda home: dangling(home.wal), "invalid-file"),
    "index a directory": (lambda home: other(home.read_model), "invalid-file"),
    "index a link to nothing": (lambda home: dangling(home.read_model), "invalid-file"),
    "ledger a file": (lambda home: other(home.ledger), "invalid-file"),
    "ledger a link to nothing": (lambda home: dangling(home.ledger), "invalid-file"),
    "data a file": (lambda home: other(home.ledger.parent), "invalid-file"),
    "data a link to nothing": (lambda home: dangling(home.ledger.parent), "invalid-file"),
    "outputs a link to nothing": (lambda home: dangling(home.outputs), "invalid-file"),
    "datasets a link to nothing": (lambda home: dangling(home.datasets), "invalid-file"),
}
"""What others' copies cannot replace: the start is refused, by which rule."""

DAMAGED: dict[str, Damage] = {
    "log edited": lambda home: edit(home.wal),
    "log of bytes": lambda home: garbage(home.wal),
    "log emptied": lambda home: home.wal.write_bytes(b""),
    "table edited": lambda home: edit(largest(home, "*.ldb")),
    "table truncated": lambda home: truncate(largest(home, "*.ldb")),
    "table missing": lambda home: largest(home, "*.ldb").unlink(),
    "manifest edited": lambda home: edit(largest(home, "MANIFEST-*")),
    "manifest missing": lambda home: largest(home, "MANIFEST-*").unlink(),
    "CURRENT of bytes": lambda home: garbage(home.ledger / "CURRENT"),
    "CURRENT missing": lambda home: (home.ledger / "CURRENT").unlink(),
    "CURRENT emptied": lambda home: (home.ledger / "CURRENT").write_bytes(b""),
    "chain lost": lambda home: write(home, b"m/chain", None),
    "chain edited": lambda home: write(home, b"m/chain", b"x"),
    "chain of another block": change_chain,
    "standing lost": lambda home: write(home, b"m/application", None),
    "standing cut": lambda home: write(home, b"m/application", b"x"),
    "no institution left": lambda home: write(home, b"s/institution/um", None),
    "record of the audit log lost": lambda home: write(home, b"l/r" + bytes(8), None),
    "size of the audit log lengthened": lambda home: write(home, b"l/s", b"9" * 40),
    "size of the audit log cut": lambda home: write(home, b"l/s", b"\x05"),
    "size of the audit log emptied": lambda home: write(home, b"l/s", b""),
    "size of the audit log lost": lambda home: write(home, b"l/s", None),
    "size of the audit log too small": lambda home: write(home, b"l/s", (1).to_bytes(8, "big")),
    "what was signed cut": lambda home: write(home, b"m/signed", b"x"),
    "what was signed emptied": lambda home: write(home, b"m/signed", b""),
}
"""What the others have, or what is not needed: refused, and after `koinon node repair` the node starts."""

MADE_AGAIN: dict[str, Damage] = {
    "log torn": lambda home: os.truncate(home.wal, home.wal.stat().st_size - 3),
    "log missing": lambda home: home.wal.unlink(),
    "index edited": lambda home: edit(home.read_model, 0.0),
    "index truncated": lambda home: truncate(home.read_model),
    "index of bytes": lambda home: garbage(home.read_model),
    "index whose schema is no text": lambda home: home.read_model.write_bytes(
        home.read_model.read_bytes().replace(b"CREATE TABLE standing", b"CREATE \xc5ABLE standing")
    ),
    "index that says that it lacks a record": set_index_back,
    "index missing": lambda home: home.read_model.unlink(),
    "snapshot's manifest truncated": lambda home: truncate(next(home.snapshots.glob("*/manifest"))),
    "snapshot's manifest of bytes": lambda home: garbage(next(home.snapshots.glob("*/manifest"))),
    "snapshot without manifest": lambda home: next(home.snapshots.glob("*/manifest")).unlink(),
    "a file among the snapshots": lambda home: garbage(home.snapshots / "1"),
    "a ledger from a snapshot that lost its files": lambda home: home.ledger_restored.mkdir(),
    "half a ledger from a snapshot": lambda home: home.ledger_building.mkdir(),
    "chunks of bytes": lambda home: garbage(made(home.chunks) / "00"),
}
"""What the node makes anew by itself: it starts where it stood."""


def test_the_home_is_sound(original: Home, home: Home) -> None:
    height = start(home)
    assert isinstance(height, int)
    assert height >= 1
    result = CliRunner().invoke(main, ["node", "repair", "--home", str(home.path)])
    assert (result.exit_code, result.stdout) == (0, "nothing is damaged\n")
    assert sorted(path.name for path in home.ledger.parent.iterdir()) == sorted(
        path.name for path in original.ledger.parent.iterdir()
    )


@pytest.mark.parametrize(("damage", "rule"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_remedy(home: Home, damage: Damage, rule: str) -> None:
    damage(home)
    refused = start(home)
    assert isinstance(refused, KoinonError)
    assert refused.rule == rule
    assert refused.exit_code == 2, "or systemd would start it again and again"
    assert refused.hint
    assert rule in RULES
    problems = [finding for finding in doctor.examine(home.path, None) if finding.weight == "problem"]
    assert (refused.message, refused.hint) in [(finding.text, finding.hint) for finding in problems]


@pytest.mark.parametrize("part", ["data", "data/ledger", "data/wal", "data/read.sqlite", "datasets", "tls"])
def test_a_place_that_this_user_may_not_enter_or_read(home: Home, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, access = home.path / part, os.access
    monkeypatch.setattr(os, "access", lambda asked, mode: asked != path and access(asked, mode))
    refused = start(home)
    assert isinstance(refused, KoinonError)
    assert (refused.message, refused.exit_code) == (f"{path} cannot be read", 2)
    assert refused.message in [finding.text for finding in doctor.examine(home.path, None)]


def test_a_place_that_this_user_may_not_write(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda asked, mode: not mode & os.W_OK or asked != home.ledger)
    refused = start(home)
    assert isinstance(refused, KoinonError)
    assert (refused.message, refused.rule) == (f"{home.ledger} cannot be written", "disk-read-only")


@pytest.mark.parametrize(
    "command", [["doctor", "--home"], ["node", "run", "--home"], ["node", "repair", "--home"], ["ledger", "verify"]]
)
def test_root_leaves_nothing_in_the_home_of_another_user(
    home: Home, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LevelDB makes files anew for whoever opens it, and the node could not read those of root."""
    if os.geteuid() == 0:
        os.chown(home.ledger.parent, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    before = sorted(home.path.rglob("*"))
    result = CliRunner().invoke(main, [*command, str(home.path)])
    assert result.exit_code != 0
    assert "belongs to another user" in result.output
    assert "sudo -u" in result.output
    assert sorted(home.path.rglob("*")) == before


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_refused_until_repaired(home: Home, damage: Damage) -> None:
    damage(home)
    refused = start(home)
    assert isinstance(refused, KoinonError)
    assert (refused.rule, refused.exit_code) == ("corrupt", 8), refused
    assert refused.hint
    result = CliRunner().invoke(main, ["node", "repair", "--home", str(home.path)])
    assert result.exit_code == 0, result.output
    assert "moved to" in result.stderr
    assert list(home.ledger.parent.glob("*.damaged-1"))
    assert isinstance(start(home), int)


@pytest.mark.parametrize("damage", MADE_AGAIN.values(), ids=MADE_AGAIN)
def test_made_again_by_the_node_itself(home: Home, damage: Damage) -> None:
    height = start(home)
    damage(home)
    assert start(home) == height
    assert start(home) == height


@pytest.mark.parametrize("command", [["doctor", "--home"], ["ledger", "verify"], ["node", "repair", "--home"]])
def test_looking_at_a_damaged_ledger_deletes_nothing(home: Home, command: list[str]) -> None:
    (home.ledger / "CURRENT").unlink()
    tables = {path.name: path.read_bytes() for path in home.ledger.glob("*.ldb")}
    assert tables
    result = CliRunner().invoke(main, [*command, str(home.path)])
    assert "its file CURRENT is missing" in result.output
    (ledger,) = home.ledger.parent.glob("ledger*")
    assert {path.name: path.read_bytes() for path in ledger.glob("*.ldb")} == tables


def test_a_log_that_was_cut_or_is_an_older_copy_is_a_lost_one(home: Home) -> None:
    """It looks like one with a torn end: what it lacks was signed. An ordinary restart loses nothing."""

    def weight() -> str:
        (found,) = [finding for finding in doctor.examine(home.path, None) if finding.check == "signing state"]
        if found.weight == "warning":
            assert "does not know what this key signed before" in found.text
        return found.weight

    height = start(home)
    assert weight() == "ok"
    records = wal.read(home.wal)
    began = [number for number, record in enumerate(records) if record[:1] == b"H"]
    log = wal.FileWal(home.wal)
    log.reset(records[: began[-1]])
    log.close()
    assert weight() == "warning"
    assert start(home) == height
    assert wal.read(home.wal)[-1][:1] == b"L", "that it was lost is remembered"
    assert weight() == "warning"


@pytest.mark.parametrize("cut", [False, True], ids=["log whole", "log cut"])
def test_what_was_signed_outlives_the_ledger_that_says_so(home: Home, cut: bool) -> None:
    """A log that is whole goes on as it was; one that lacks what was signed says so from then on."""
    records = wal.read(home.wal)
    if cut:
        log = wal.FileWal(home.wal)
        log.reset(records[:1])
        log.close()
    with closing(LevelStore(home.ledger)) as store:
        signed = store.get(b"m/signed")
    assert signed
    change_state(home)
    result = CliRunner().invoke(main, ["node", "repair", "--home", str(home.path)])
    assert result.stdout.startswith("ledger: "), result.stderr
    assert start(home) == 0
    kept = wal.read(home.wal)
    assert kept[-1] == b"L" + signed if cut else kept == records


def test_a_table_that_no_check_needs_to_read_is_read_all_the_same(home: Home) -> None:
    """Results of transactions: neither headers nor state say which there are."""
    with closing(LevelStore(home.ledger)) as store:
        store.write([(b"t/" + bytes([number]) * 32, bytes([number]) * 5000) for number in range(3)], sync=True)
        store.compact(b"", b"\xff")
    table = largest(home, "*.ldb")
    table.write_bytes(table.read_bytes().replace(b"\1" * 5000, b"\1" * 4999 + b"x"))
    result = CliRunner().invoke(main, ["node", "repair", "--home", str(home.path)])
    assert "checksum" in result.stdout, result.output


def test_a_change_behind_the_checksums_is_found_by_looking(home: Home) -> None:
    """Somebody edits the state with LevelDB's own tools: each block's commitment would show it to the others."""
    change_state(home)
    result = CliRunner().invoke(main, ["ledger", "verify", str(home.path)])
    assert result.exit_code == 8
    assert "[corrupt]" in result.stderr
    result = CliRunner().invoke(main, ["node", "repair", "--home", str(home.path)])
    assert "the state does not add up to its commitment" in result.stdout
    assert start(home) == 0


@pytest.mark.parametrize(
    ("key", "value"), [(b"s/institution/um", b"x"), (b"s/parameters/", b"\xff"), (b"l/s", b"9" * 40)]
)
def test_a_value_that_nobody_can_read_is_damage_and_no_bug(home: Home, key: bytes, value: bytes) -> None:
    with closing(LevelStore(home.ledger)) as store:
        (found, _), *_ = store.scan(key)
        store.write([(found, value)], sync=True)
    prune = ["ledger", "prune", "--keep", "0", "--without-archive"]
    for command in (["doctor", "--home"], ["ledger", "verify"], prune):
        result = CliRunner().invoke(main, [*command, str(home.path)])
        assert result.exit_code != 0
        said = result.stdout + result.stderr
        assert "this is a bug" not in said
        assert "koinon node repair" in said or "fetches the ledger" in said
    result = CliRunner().invoke(main, ["node", "repair", "--home", str(home.path)])
    assert result.stdout.startswith("ledger: "), result.stderr
    assert start(home) == 0


def test_a_node_whose_state_nobody_can_read_ends_with_the_remedy(home: Home) -> None:
    write(home, b"s/institution/um", b"x")
    command = [sys.executable, "-c", "from koinon.cli import main; main()", "node", "run", "--home", str(home.path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 8, ended.stderr
    assert "koinon node repair" in ended.stderr


def test_a_damaged_chunk_of_a_snapshot_is_not_sent(home: Home) -> None:
    with closing(LevelStore(home.ledger)) as store:
        application = Application(store, genesis_file.load(home.genesis))
        cutter = Cutter(home.snapshots, store, application)
        height = application.info().height
        assert cutter.chunk(height, 0)
        edit(next(path for path in (home.snapshots / str(height)).iterdir() if path.name != "manifest"))
        with pytest.raises(KoinonError, match="is damaged"):
            cutter.chunk(height, 0)
        assert cutter.chunk(height, 0) == b""
        assert cutter.newest(height + 1) is None
