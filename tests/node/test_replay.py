"""A whole ledger is verified offline: an honest one holds, and whatever is changed in it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon import genesis as genesis_file
from koinon.cli import main
from koinon.errors import Corrupt, InvalidFile
from koinon.rules import RULES
from koinon.v1.access_pb2 import RevokeToken
from koinon.v1.consensus_pb2 import Block, Commit, Header, ValidatorSetRecord
from koinon.v1.identity_pb2 import Genesis
from node import archive, replay
from node.archive import Archive, Decided
from node.replay import Replayed
from node.store.kv import KeyValueStore, height_key
from node.store.leveldb import LevelStore
from node.store.memory import MemoryStore
from tests.node.recorded_ledger import RecordedLedger

LAST = 6


def record(store: KeyValueStore) -> RecordedLedger:
    ledger = RecordedLedger(store)
    token, _ = ledger.tell()
    ledger.decide(ledger.envelope("iu/operator", RevokeToken(token_id=token, reason="over")))
    ledger.decide()
    assert ledger.chain.height == LAST
    return ledger


def check(store: KeyValueStore, genesis: Genesis) -> Replayed:
    scratch = MemoryStore()
    found = replay.replay(genesis, replay.stored(store), scratch)
    replay.compare(store, scratch, found.chain)
    return found


@pytest.fixture
def ledger() -> RecordedLedger:
    return record(MemoryStore())


def test_an_honest_ledger_holds(ledger: RecordedLedger) -> None:
    told: list[tuple[int, int]] = []
    found = replay.replay(
        ledger.genesis, replay.stored(ledger.store), MemoryStore(), lambda *progress: told.append(progress)
    )
    assert found == check(ledger.store, ledger.genesis)
    assert found.chain == ledger.chain
    assert found.records == ledger.app.audit_log.size
    assert told == [(1, 1), (2, 4), (3, 5), (4, 5), (5, 6), (6, 6)]


def test_a_ledger_of_the_genesis_alone_holds() -> None:
    store = MemoryStore()
    assert check(store, RecordedLedger(store).genesis).chain.height == 0


# --- what is changed, and what the replay says of it: height, rule, and a word of the message


def edit_block(store: KeyValueStore, height: int, change: Callable[[Block], object]) -> None:
    block = Block.FromString(store.get(height_key(b"b/", height)) or b"")
    change(block)
    store.write([(height_key(b"b/", height), block.SerializeToString(deterministic=True))], sync=True)


def edit_header(store: KeyValueStore, height: int, change: Callable[[Header], None]) -> None:
    def edit(block: Block) -> None:
        header = Header.FromString(block.header)
        change(header)
        block.header = header.SerializeToString(deterministic=True)

    edit_block(store, height, edit)


def edit_commit(store: KeyValueStore, height: int, change: Callable[[Commit], None]) -> None:
    commit = Commit.FromString(store.get(height_key(b"c/", height)) or b"")
    change(commit)
    store.write([(height_key(b"c/", height), commit.SerializeToString(deterministic=True))], sync=True)


def flip(store: KeyValueStore, prefix: bytes) -> None:
    """The last byte of the last value under a prefix."""
    key, value = next(store.scan(prefix, reverse=True))
    store.write([(key, value[:-1] + bytes([value[-1] ^ 1]))], sync=True)


def transaction_changed(store: KeyValueStore) -> None:
    edit_block(store, 2, lambda block: block.transactions.__setitem__(0, block.transactions[0][:-1] + b"\0"))


def transaction_dropped(store: KeyValueStore) -> None:
    edit_block(store, 2, lambda block: block.transactions.pop())


def transactions_root_changed(store: KeyValueStore) -> None:
    def change(header: Header) -> None:
        header.transactions_root = bytes(32)

    edit_header(store, 3, change)


def link_changed(store: KeyValueStore) -> None:
    def change(header: Header) -> None:
        header.previous_block_hash = bytes(32)

    edit_header(store, 3, change)


def results_root_changed(store: KeyValueStore) -> None:
    def change(header: Header) -> None:
        header.results_root = bytes(32)

    edit_header(store, 4, change)


def state_commitment_changed(store: KeyValueStore) -> None:
    def change(header: Header) -> None:
        header.state_commitment = bytes(32)

    edit_header(store, 4, change)


def audit_root_changed(store: KeyValueStore) -> None:
    def change(header: Header) -> None:
        header.audit_root = bytes(32)

    edit_header(store, 5, change)


def time_changed(store: KeyValueStore) -> None:
    def change(header: Header) -> None:
        header.time_ms += 1

    edit_header(store, 5, change)


def certificate_inside_changed(store: KeyValueStore) -> None:
    edit_block(store, 4, lambda block: block.last_commit.signatures.pop())


def certificate_too_small(store: KeyValueStore) -> None:
    def change(commit: Commit) -> None:
        del commit.signatures[2:]

    edit_commit(store, 5, change)


def certificate_forged(store: KeyValueStore) -> None:
    def change(commit: Commit) -> None:
        commit.signatures[0].signature = bytes(64)

    edit_commit(store, LAST, change)


def block_missing(store: KeyValueStore) -> None:
    store.write([(height_key(b"b/", 3), None)], sync=True)


def block_twice(store: KeyValueStore) -> None:
    store.write([(height_key(b"b/", 4), store.get(height_key(b"b/", 3)))], sync=True)


def block_is_noise(store: KeyValueStore) -> None:
    store.write([(height_key(b"b/", 3), b"\xff" * 100)], sync=True)


def last_block_missing(store: KeyValueStore) -> None:
    store.write([(height_key(b"b/", LAST), None)], sync=True)


def state_changed(store: KeyValueStore) -> None:
    flip(store, b"s/institution/")


def state_added(store: KeyValueStore) -> None:
    store.write([(b"s/zzz", b"1")], sync=True)


def state_dropped(store: KeyValueStore) -> None:
    store.write([(next(store.scan(b"s/"))[0], None)], sync=True)


def state_cut(store: KeyValueStore) -> None:
    """Its last entry: what remains is a beginning of what should be."""
    store.write([(next(store.scan(b"s/", reverse=True))[0], None)], sync=True)


def record_changed(store: KeyValueStore) -> None:
    flip(store, b"l/r")


def tree_changed(store: KeyValueStore) -> None:
    flip(store, b"l/n")


def result_changed(store: KeyValueStore) -> None:
    flip(store, b"t/")


def standing_changed(store: KeyValueStore) -> None:
    flip(store, b"m/application")


def chain_changed(store: KeyValueStore) -> None:
    flip(store, b"m/chain")


def voters_changed(store: KeyValueStore) -> None:
    record = ValidatorSetRecord.FromString(store.get(height_key(b"v/", 1)) or b"")
    record.validators[0].power += 1
    store.write([(height_key(b"v/", 1), record.SerializeToString(deterministic=True))], sync=True)


def voters_added(store: KeyValueStore) -> None:
    store.write([(height_key(b"v/", 4), store.get(height_key(b"v/", 1)))], sync=True)


def header_added(store: KeyValueStore) -> None:
    """What a node would show in the place of the one in its block."""
    block = Block.FromString(store.get(height_key(b"b/", 3)) or b"")
    store.write([(height_key(b"h/", 4), block.header)], sync=True)


CHANGES: list[tuple[Callable[[KeyValueStore], None], int, str, str]] = [
    (transaction_changed, 2, "malformed-block", "header does not commit"),
    (transaction_dropped, 2, "malformed-block", "header does not commit"),
    (transactions_root_changed, 3, "malformed-block", "header does not commit"),
    (certificate_inside_changed, 4, "malformed-block", "header does not commit"),
    (block_is_noise, 3, "malformed-block", "do not decode"),
    (link_changed, 3, "invalid-block", "previous_block_hash"),
    (results_root_changed, 4, "invalid-block", "results_root"),
    (state_commitment_changed, 4, "invalid-block", "state_commitment"),
    (audit_root_changed, 5, "invalid-block", "audit_root"),
    (time_changed, 5, "invalid-block", "time_ms"),
    (block_twice, 4, "invalid-block", "another block"),
    (certificate_too_small, 5, "commit-certificate", "quorum"),
    (certificate_forged, LAST, "commit-certificate", "signature"),
    (block_missing, 3, "corrupt", "not there"),
    (last_block_missing, LAST, "corrupt", "not there"),
    (state_changed, LAST, "corrupt", "the state"),
    (state_added, LAST, "corrupt", "s/zzz"),
    (state_dropped, LAST, "corrupt", "the state"),
    (state_cut, LAST, "corrupt", "the state"),
    (record_changed, LAST, "corrupt", "audit log"),
    (tree_changed, LAST, "corrupt", "audit log"),
    (result_changed, LAST, "corrupt", "results"),
    (standing_changed, LAST, "corrupt", "application"),
    (chain_changed, LAST, "corrupt", "where the chain stands"),
    (voters_changed, LAST, "corrupt", "who voted"),
    (voters_added, LAST, "corrupt", "who voted"),
    (header_added, LAST, "corrupt", "headers"),
]


@pytest.mark.parametrize(("change", "height", "rule", "word"), CHANGES, ids=[change[0].__name__ for change in CHANGES])
def test_a_change_is_found_where_it_is(
    ledger: RecordedLedger, change: Callable[[KeyValueStore], None], height: int, rule: str, word: str
) -> None:
    change(ledger.store)
    with pytest.raises(Corrupt) as caught:
        check(ledger.store, ledger.genesis)
    assert f"height {height}:" in caught.value.message
    assert caught.value.rule == rule
    assert word in caught.value.message
    assert caught.value.hint
    assert rule in RULES


def test_what_the_node_signed_can_be_read(ledger: RecordedLedger) -> None:
    """It follows from no block, so it is looked at as far as it can be."""
    ledger.store.write([(b"m/signed", b"x")], sync=True)
    with pytest.raises(Corrupt, match="what its node signed"):
        check(ledger.store, ledger.genesis)


def test_another_genesis_makes_another_ledger(ledger: RecordedLedger) -> None:
    ledger.genesis.time_ms += 1
    with pytest.raises(Corrupt, match="height 1"):
        check(ledger.store, ledger.genesis)


# --- archives


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = record(MemoryStore())
    path = tmp_path_factory.mktemp("archive") / "ledger.archive"
    assert archive.write(path, made.genesis, replay.stored(made.store)) == LAST
    return path


def read(path: Path) -> Replayed:
    kept = Archive(path)
    return replay.replay(kept.genesis, kept.blocks(), MemoryStore())


def test_an_archive_holds_what_the_ledger_holds(whole: Path, ledger: RecordedLedger) -> None:
    assert read(whole).chain == ledger.chain


def test_an_archive_is_not_overwritten(whole: Path, ledger: RecordedLedger) -> None:
    with pytest.raises(InvalidFile, match="exists"):
        archive.write(whole, ledger.genesis, [])


def test_a_failed_export_leaves_nothing(tmp_path: Path, ledger: RecordedLedger) -> None:
    block_missing(ledger.store)
    with pytest.raises(Corrupt, match="height 3"):
        archive.write(tmp_path / "ledger.archive", ledger.genesis, replay.stored(ledger.store))
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_was_cut_is_refused_wherever(whole: Path, tmp_path: Path) -> None:
    data, path = whole.read_bytes(), tmp_path / "cut.archive"
    for size in {*range(0, len(data), 997), len(data) - 1, len(data) - 8, len(data) - 12}:
        path.write_bytes(data[:size])
        with pytest.raises((Corrupt, InvalidFile)):
            read(path)


def test_bytes_behind_the_end_are_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "long.archive").write_bytes(whole.read_bytes() + b"\0")
    with pytest.raises(Corrupt, match="the end"):
        read(tmp_path / "long.archive")


def test_an_archive_cut_between_two_blocks_and_closed_again_is_refused(whole: Path, tmp_path: Path) -> None:
    """A last height that is not that of the blocks before it."""
    data = bytearray(whole.read_bytes())
    data[-1] -= 1
    (tmp_path / "closed.archive").write_bytes(data)
    with pytest.raises(Corrupt, match="the end"):
        read(tmp_path / "closed.archive")


def test_a_length_beyond_the_limit_is_refused_before_it_is_read(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "huge.archive").write_bytes(archive.MAGIC + b"\xff" * 64)
    with pytest.raises(Corrupt, match="damaged: the genesis"):
        Archive(tmp_path / "huge.archive")


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_nothing_that_is_believed(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    """At most it drops a signature more than needed."""
    data = bytearray(whole.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path = tmp_path_factory.mktemp("flipped") / "ledger.archive"
    path.write_bytes(data)
    try:
        found = read(path)
    except (Corrupt, InvalidFile):
        return
    assert found == read(whole)


def test_blocks_of_nobody_are_refused(ledger: RecordedLedger) -> None:
    with pytest.raises(Corrupt, match="height 1"):
        replay.replay(ledger.genesis, [Decided(b"", Commit())], MemoryStore())


# --- the commands, on a directory


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with closing(LevelStore(tmp_path / "home" / "data" / "ledger")) as store:
        made = record(store)
    genesis_file.save(tmp_path / "home" / "genesis.json", made.genesis)
    return tmp_path / "home"


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_a_home_is_verified_exported_and_the_archive_verified(home: Path, tmp_path: Path) -> None:
    code, shown, said = run("ledger", "verify", str(home), "--json")
    assert code == 0, said
    facts = json.loads(shown)
    assert (facts["verified"], facts["height"], facts["transactions"]) == (True, LAST, 6)
    out = tmp_path / "ledger.archive"
    assert run("ledger", "export", str(home), "--out", str(out))[0] == 0
    code, shown, said = run("ledger", "verify", str(out), "--genesis", str(home / "genesis.json"), "--json")
    assert code == 0, said
    assert json.loads(shown) == facts
    assert "every block follows from the genesis" in run("ledger", "verify", str(out))[1]


def test_flipped_bytes_in_the_files_of_a_home_are_found(home: Path) -> None:
    """Below the store's keys and values: LevelDB's own checksums find these."""
    (log,) = (home / "data" / "ledger").glob("*.log")
    data = bytearray(log.read_bytes())
    for place in (len(data) // 4, len(data) // 2, len(data) - 100):
        changed = bytearray(data)
        changed[place] ^= 1
        log.write_bytes(changed)
        code, _, said = run("ledger", "verify", str(home))
        assert code == 8, said
        assert "[corrupt]" in said
    log.write_bytes(data)


def test_a_changed_value_in_a_home_is_found(home: Path) -> None:
    with closing(LevelStore(home / "data" / "ledger")) as store:
        record_changed(store)
    code, _, said = run("ledger", "verify", str(home))
    assert code == 8
    assert "audit log" in said


def test_a_home_of_another_network_and_no_home_are_refused(home: Path, tmp_path: Path) -> None:
    other = genesis_file.load(home / "genesis.json")
    other.time_ms += 1
    genesis_file.save(tmp_path / "other.json", other)
    code, _, said = run("ledger", "verify", str(home), "--genesis", str(tmp_path / "other.json"))
    assert (code, "[invalid-genesis]" in said) == (2, True)
    (tmp_path / "empty").mkdir()
    genesis_file.save(tmp_path / "empty" / "genesis.json", other)
    assert run("ledger", "verify", str(tmp_path / "empty"))[0] == 2
    assert run("ledger", "verify", str(tmp_path / "absent"))[0] == 2
    assert not (tmp_path / "empty" / "data").exists()


def test_a_running_node_is_left_alone(home: Path) -> None:
    with closing(LevelStore(home / "data" / "ledger")):
        code, _, said = run("ledger", "verify", str(home))
    assert (code, "[store-locked]" in said) == (6, True)
