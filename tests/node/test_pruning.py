"""Old blocks are dropped: the disk falls, what is promised stays, and the rest says that it is gone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from koinon import genesis as genesis_file
from koinon.cli import main
from koinon.errors import Corrupt, Unavailable
from koinon.rules import RULES
from koinon.v1.consensus_pb2 import ChainRecord
from koinon.v1.identity_pb2 import Genesis, Parameters
from node import pruning, receipts
from node.config import Home
from node.doctor.ledger import retention
from node.examine import examine
from node.store.blocks import BlockStore
from node.store.kv import height_key
from node.store.leveldb import LevelStore
from node.store.memory import MemoryStore
from tests.contracts.consortium import publication
from tests.node.recorded_ledger import RecordedLedger

HEIGHT = 60
SEGMENT = 10


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "SEGMENT_BLOCKS", SEGMENT)


@pytest.fixture(scope="module")
def recorded() -> RecordedLedger:
    ledger = RecordedLedger(MemoryStore())
    ledger.tell()
    number = 0
    while ledger.chain.height < HEIGHT:
        names = [f"um.bulk.t{number + i}" for i in range(20)]
        ledger.decide(*(ledger.envelope("um/operator", publication(name)) for name in names))
        number += 20
    return ledger


@pytest.fixture
def home(recorded: RecordedLedger, tmp_path: Path) -> Home:
    """A stopped node's home with that ledger."""
    home = Home(tmp_path / "home")
    with closing(LevelStore(home.ledger)) as store:
        for block in recorded.store.scan(b""):
            store.write([block], sync=False)
    genesis_file.save(home.genesis, recorded.genesis)
    return home


class Silence:
    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def prune(store: LevelStore | MemoryStore, below: int) -> None:
    blocks = BlockStore(store)
    while pruning.step(store, blocks, below):
        pass
    store.write((), sync=True)


def test_whole_segments_go_and_the_newest_stay() -> None:
    assert [pruning.boundary(height, 25) for height in (0, 25, 34, 35, 44, 45)] == [0, 0, 0, 10, 10, 20]


def test_the_disk_falls_and_receipts_for_old_records_can_still_be_made(home: Home, recorded: RecordedLedger) -> None:
    with closing(LevelStore(home.ledger)) as store:
        store.compact(b"b/", b"b0")  # as a ledger of some age is

    def size() -> int:
        return sum(file.stat().st_size for file in home.ledger.iterdir())

    before = size()
    bodies = sum(len(value) for _, value in recorded.store.scan(b"b/"))
    code, shown, said = run("ledger", "prune", str(home.path), "--keep", "5", "--without-archive", "--json")
    assert code == 0, said
    facts = json.loads(shown)
    assert facts["first_block"] == 50
    assert facts["pruned"] == 49
    with closing(LevelStore(home.ledger)):
        pass  # opening tidies LevelDB's own log
    assert before - size() > bodies // 4  # blocks are compressed on the disk

    with closing(LevelStore(home.ledger)) as store:
        blocks = BlockStore(store)
        made = receipts.Receipts(recorded.app, blocks, recorded.validators, recorded.genesis)
        assert made.record(3).index == 3
        assert all(made.signed_header(height).header == recorded.blocks.header(height) for height in range(1, HEIGHT))
        old = next(key[2:] for key, value in recorded.store.scan(b"t/") if int.from_bytes(value[:8], "big") == 20)
        with pytest.raises(Unavailable, match="does not keep block 20") as refused:
            made.transaction(old)
        assert refused.value.hint == "ask another member's node"


def test_an_archive_is_written_before_and_replays(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "all.archive"
    assert run("ledger", "prune", str(home.path), "--keep", "0", "--archive", str(out))[0] == 0
    code, shown, said = run("ledger", "verify", str(out), "--json")
    assert code == 0, said
    assert json.loads(shown)["by"] == "replay"
    code, shown, said = run("ledger", "verify", str(home.path), "--json")
    assert code == 0, said
    facts = json.loads(shown)
    assert (facts["by"], facts["headers"], facts["first_block"]) == ("signatures", HEIGHT, HEIGHT)
    shown, said = run("ledger", "verify", str(home.path))[1:]
    assert "verified by signatures" in shown
    assert "was not verified" in said
    code, _, said = run("ledger", "export", str(home.path), "--out", str(tmp_path / "again"))
    assert (code, "[pruned]" in said) == (2, True)
    code, shown, said = run("ledger", "prune", str(home.path), "--keep", "0", "--without-archive")
    assert (code, shown.split()[1]) == (0, "0"), said
    assert "at a time, and none are that old yet" in said


def test_an_archive_is_on_the_disk_by_its_name_before_anything_is_dropped(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(str(Path(f"/proc/self/fd/{number}").readlink())))
    monkeypatch.setattr(pruning, "step", lambda *_: synced.append("dropped"))
    run("ledger", "prune", str(home.path), "--keep", "0", "--archive", str(tmp_path / "all.archive"))
    assert synced[-2:] == [str(tmp_path), "dropped"]


def test_a_home_without_a_ledger_has_nothing_to_prune(tmp_path: Path, recorded: RecordedLedger) -> None:
    genesis_file.save(tmp_path / "genesis.json", recorded.genesis)
    code, _, said = run("ledger", "prune", str(tmp_path), "--keep", "5", "--without-archive")
    assert (code, "holds no ledger" in said) == (2, True)


def test_without_a_word_about_the_archive_nothing_is_pruned(home: Home) -> None:
    code, _, said = run("ledger", "prune", str(home.path), "--keep", "5")
    assert code == 2
    assert "--archive FILE" in said
    with closing(LevelStore(home.ledger)) as store:
        assert BlockStore(store).first() == 1


def test_a_crash_between_leaves_a_ledger_that_holds(recorded: RecordedLedger) -> None:
    store = MemoryStore()
    store.write(recorded.store.scan(b""), sync=True)
    pruning.step(store, BlockStore(store), 30)
    store.crash()
    assert BlockStore(store).first() == 1
    pruning.step(store, BlockStore(store), 30)
    store.crash(survivors=7)
    assert BlockStore(store).first() == 8
    examine(recorded.genesis, store)


async def test_a_running_node_prunes_by_itself_and_never_what_a_joiner_needs(home: Home) -> None:
    with closing(LevelStore(home.ledger)) as store:
        blocks = BlockStore(store)
        upkeep = pruning.Upkeep(blocks, store, store, 5, lambda: 0, Silence())
        for _ in range(10):
            await upkeep.step(0)  # no snapshot is offered
        assert blocks.first() == 1
        for _ in range(10):
            await upkeep.step(32)
        await upkeep.stop()
        assert blocks.first() == 30
        for _ in range(10):
            await upkeep.step(60)
        await upkeep.stop()
        assert blocks.first() == 50
        everything = pruning.Upkeep(blocks, store, store, 0, lambda: 0, Silence())
        await everything.step(60)
        assert blocks.first() == 50


async def test_what_goes_wrong_while_space_is_given_back_is_raised(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_level: LevelStore, _below: int) -> None:
        raise Corrupt("a table is damaged")

    monkeypatch.setattr(pruning, "give_back", damaged)
    with closing(LevelStore(home.ledger)) as store:
        upkeep = pruning.Upkeep(BlockStore(store), store, store, 5, lambda: 0, Silence())
        await upkeep.step(32)
        await upkeep.stop()
        with pytest.raises(Corrupt):
            await upkeep.step(32)


# --- what the members demand


def since(recorded: RecordedLedger, height: int) -> int:
    """The retention under which blocks from this height on are demanded."""
    blocks = BlockStore(recorded.store)
    return blocks.time_ms(HEIGHT) - blocks.time_ms(height)


def test_what_is_demanded_is_found_by_block_time(recorded: RecordedLedger) -> None:
    store = MemoryStore()
    assert pruning.demanded(BlockStore(store), 1_000) == 1, "nothing is there as yet"
    store.write(recorded.store.scan(b""), sync=True)
    blocks = BlockStore(store)
    assert pruning.demanded(blocks, 0) == HEIGHT + 1
    for height in (1, 2, 33, HEIGHT):
        assert pruning.demanded(blocks, since(recorded, height) or 1) == height
    assert pruning.demanded(blocks, since(recorded, 33) + 1) == 33, "a block between two heights is the later"
    assert pruning.demanded(blocks, 10**15) == 1
    prune(store, 30)
    assert pruning.demanded(blocks, since(recorded, 30)) == 30
    assert pruning.demanded(blocks, since(recorded, 29)) == 29, "one that is not here is demanded"
    assert pruning.demanded(blocks, 10**15) == 29
    store.write([(height_key(b"h/", 29), None)], sync=True)  # as after a snapshot
    assert pruning.demanded(blocks, since(recorded, 31)) == 31
    assert pruning.demanded(blocks, since(recorded, 29)) == 29
    store.write([(height_key(b"b/", HEIGHT), None)], sync=True)
    with pytest.raises(Corrupt):
        pruning.demanded(blocks, 1)


async def test_a_node_keeps_what_the_members_demand_whatever_its_own_configuration(
    home: Home, recorded: RecordedLedger
) -> None:
    retention_ms = since(recorded, 25)
    with closing(LevelStore(home.ledger)) as store:
        blocks = BlockStore(store)
        upkeep = pruning.Upkeep(blocks, store, store, 5, lambda: retention_ms, Silence())
        for _ in range(10):
            await upkeep.step(60)
        await upkeep.stop()
        assert blocks.first() == 20
        retention_ms = since(recorded, 40)  # by another ballot
        for _ in range(10):
            await upkeep.step(60)
        await upkeep.stop()
        assert blocks.first() == 40
        retention_ms = 10**15
        await upkeep.step(60)
        assert blocks.first() == 40


def test_by_hand_no_more_is_dropped_than_the_members_allow(home: Home, recorded: RecordedLedger) -> None:
    with closing(LevelStore(home.ledger)) as store:
        (key,) = [key for key, _ in store.scan(b"s/parameters")]
        parameters = Parameters.FromString(store.get(key) or b"")
        parameters.block_retention_ms = since(recorded, 25)
        store.write([(key, parameters.SerializeToString())], sync=True)
    code, shown, said = run("ledger", "prune", str(home.path), "--keep", "5", "--without-archive")
    assert code == 0, said
    assert "kept whole from 20 on" in shown
    assert "the members demand the blocks of" in said


@pytest.mark.parametrize(
    ("first", "demanded", "keep_blocks", "weights"),
    [
        (1, 101, 10, []),  # nothing is demanded
        (1, 50, 0, ["ok"]),
        (1, 50, 51, ["ok"]),
        (1, 50, 50, ["warning"]),
        (60, 59, 0, ["warning"]),
        (60, 59, 10, ["warning", "warning"]),
        (60, 70, 31, ["ok"]),
    ],
)
def test_the_doctor_says_when_a_node_keeps_less_than_is_demanded(
    first: int, demanded: int, keep_blocks: int, weights: list[str]
) -> None:
    found = list(retention(100, first, demanded, keep_blocks))
    assert [finding.weight for finding in found] == weights
    assert all(finding.hint for finding in found if finding.weight != "ok")


# --- what is damaged in a pruned ledger is found


def _flip(store: MemoryStore, key: bytes) -> None:
    value = bytearray(store.get(key) or b"")
    value[len(value) // 2] ^= 1
    store.write([(key, bytes(value))], sync=True)


def _flip_first(store: MemoryStore, key: bytes) -> None:
    value = bytearray(store.get(key) or b"")
    value[7] ^= 1
    store.write([(key, bytes(value))], sync=True)


def _edit_chain(store: MemoryStore, field: str) -> None:
    record = ChainRecord.FromString(store.get(b"m/chain") or b"")
    if field.endswith("validators"):
        getattr(record, field)[0].power += 1
    elif field == "time_ms":
        record.time_ms += 1
    else:
        setattr(record, field, bytes(32))
    store.write([(b"m/chain", record.SerializeToString(deterministic=True))], sync=True)


def _first(store: MemoryStore, prefix: bytes, number: int = 0) -> bytes:
    return [key for key, _ in store.scan(prefix)][number]


def _decided(store: MemoryStore, height: int) -> bytes:
    """The key of a result of that block."""
    return next(key for key, value in store.scan(b"t/") if int.from_bytes(value[:8], "big") == height)


DAMAGE: dict[str, Callable[[MemoryStore], None]] = {
    "header edited": lambda store: _flip(store, height_key(b"h/", 7)),
    "certificate edited": lambda store: _flip(store, height_key(b"c/", 7)),
    "header missing": lambda store: store.write([(height_key(b"h/", 7), None)], sync=True),
    "block edited": lambda store: _flip(store, height_key(b"b/", 55)),
    "state edited": lambda store: _flip(store, _first(store, b"s/dataset/")),
    "state missing": lambda store: store.write([(_first(store, b"s/dataset/"), None)], sync=True),
    "state added": lambda store: store.write([(b"s/dataset/um.mine", b"")], sync=True),
    "record edited": lambda store: _flip(store, _first(store, b"l/r", 12)),
    "last record edited": lambda store: _flip(store, _first(store, b"l/r", -1)),
    "record missing": lambda store: store.write([(_first(store, b"l/r", 12), None)], sync=True),
    "tree edited": lambda store: _flip(store, _first(store, b"l/n", 5)),
    "log cut": lambda store: store.write([(b"l/s", (64).to_bytes(8, "big"))], sync=True),
    "chain edited": lambda store: _flip(store, b"m/chain"),
    "chain with another time": lambda store: _edit_chain(store, "time_ms"),
    "chain with other hashes": lambda store: _edit_chain(store, "state_commitment"),
    "chain with other validators": lambda store: _edit_chain(store, "validators"),
    "chain with other validators before": lambda store: _edit_chain(store, "last_validators"),
    "chain with other validators to come": lambda store: _edit_chain(store, "next_validators"),
    "chain missing": lambda store: store.write([(b"m/chain", None)], sync=True),
    "standing edited": lambda store: _flip(store, b"m/application"),
    "standing cut": lambda store: store.write([(b"m/application", b"x")], sync=True),
    "what was signed cut": lambda store: store.write([(b"m/signed", b"x")], sync=True),
    "validators edited": lambda store: _flip(store, height_key(b"v/", 1)),
    "certificate missing": lambda store: store.write([(height_key(b"c/", 53), None)], sync=True),
    "block missing": lambda store: store.write([(height_key(b"b/", 53), None)], sync=True),
    "block missing, its header kept": lambda store: store.write(BlockStore(store).prune_writes(53), sync=True),
    "blocks and certificates missing": lambda store: store.write(
        [(height_key(prefix, height), None) for prefix in (b"b/", b"c/") for height in (53, 54)], sync=True
    ),
    "headers missing, and their certificates": lambda store: store.write(
        [(height_key(prefix, height), None) for prefix in (b"h/", b"c/") for height in (20, 21)], sync=True
    ),
    "the first headers missing, and their certificates": lambda store: store.write(
        [(height_key(prefix, height), None) for prefix in (b"h/", b"c/") for height in (1, 2)], sync=True
    ),
    "first block missing, and its certificate": lambda store: store.write(
        [(height_key(b"b/", 50), None), (height_key(b"c/", 50), None)], sync=True
    ),
    "result edited": lambda store: _flip(store, _decided(store, 53)),
    "result of the last block edited": lambda store: _flip(store, _decided(store, HEIGHT)),
    "result missing": lambda store: store.write([(_decided(store, 53), None)], sync=True),
    "result of another height": lambda store: _flip_first(store, _decided(store, 53)),
    "decided transaction forgotten": lambda store: store.write([(_first(store, b"t/", 40), None)], sync=True),
    "decided at another height": lambda store: _flip_first(store, _first(store, b"t/", 40)),
    "last block missing": lambda store: store.write(
        [(height_key(b"b/", HEIGHT), None), (height_key(b"c/", HEIGHT), None)], sync=True
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_and_named(recorded: RecordedLedger, damage: Callable[[MemoryStore], None]) -> None:
    store = MemoryStore()
    store.write(recorded.store.scan(b""), sync=True)
    prune(store, 50)
    assert examine(recorded.genesis, store).blocks == HEIGHT - 49
    damage(store)
    with pytest.raises(Corrupt) as found:
        examine(recorded.genesis, store)
    assert found.value.rule in RULES
    assert found.value.hint


def test_a_whole_ledger_and_an_empty_one_hold(recorded: RecordedLedger) -> None:
    assert examine(recorded.genesis, recorded.store).blocks == HEIGHT
    empty = MemoryStore()
    fresh: Genesis = recorded.genesis
    assert examine(fresh, empty).headers == 0
