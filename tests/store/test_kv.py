"""One suite for every KeyValueStore: LevelDB and its in-memory twin behave the same."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.errors import Corrupt, Exhausted, Unavailable
from node.abci import Write
from node.store.kv import KeyValueStore, end_of_prefix, height_key
from node.store.leveldb import LevelStore
from node.store.memory import MemoryStore

Reopen = Callable[[], KeyValueStore]
"""Closes the store if it is open, and opens the same data again."""


@pytest.fixture(params=["leveldb", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    memory = MemoryStore()
    opened: list[LevelStore] = []

    def open_level() -> KeyValueStore:
        while opened:
            opened.pop().close()
        opened.append(LevelStore(tmp_path / "ledger"))
        return opened[-1]

    def open_memory() -> KeyValueStore:
        memory.close()
        memory.reopen()
        return memory

    yield open_level if request.param == "leveldb" else open_memory
    while opened:
        opened.pop().close()


def test_a_value_is_what_was_last_written(reopen: Reopen) -> None:
    store = reopen()
    assert store.get(b"a") is None
    store.write([(b"a", b"1"), (b"b", b""), (b"a", b"2"), (b"c", b"3"), (b"c", None), (b"absent", None)], sync=False)
    assert [store.get(key) for key in (b"a", b"b", b"c", b"absent")] == [b"2", b"", None, None]


def test_what_was_written_is_there_after_reopening(reopen: Reopen) -> None:
    reopen().write([(b"a", b"1"), (b"b", b"2")], sync=True)
    store = reopen()
    store.write([(b"a", None)], sync=True)
    store = reopen()
    assert list(store.scan(b"")) == [(b"b", b"2")]


def test_a_scan_is_bounded_by_its_prefix(reopen: Reopen) -> None:
    store = reopen()
    store.write([(key, b"") for key in (b"a", b"a/1", b"a/2", b"a/3", b"a0", b"\xff", b"\xff\xff/1")], sync=False)

    def keys(prefix: bytes, *, start: bytes = b"", reverse: bool = False) -> list[bytes]:
        return [key for key, _ in store.scan(prefix, start=start, reverse=reverse)]

    assert keys(b"a/") == [b"a/1", b"a/2", b"a/3"]
    assert keys(b"a/", reverse=True) == [b"a/3", b"a/2", b"a/1"]
    assert keys(b"a/", start=b"a/2") == [b"a/2", b"a/3"]
    assert keys(b"a/", start=b"a/2", reverse=True) == [b"a/2", b"a/1"]
    assert keys(b"a/", start=b"a/25", reverse=True) == [b"a/2", b"a/1"]
    assert keys(b"a/1", start=b"a/1", reverse=True) == [b"a/1"]
    assert keys(b"b") == []
    assert keys(b"\xff") == [b"\xff", b"\xff\xff/1"]
    assert keys(b"\xff\xff", reverse=True) == [b"\xff\xff/1"]


def test_a_scan_shows_the_store_as_it_was_when_it_began(reopen: Reopen) -> None:
    store = reopen()
    store.write([(b"a", b"1"), (b"b", b"2")], sync=False)
    entries = store.scan(b"")
    store.write([(b"a", None), (b"b", b"3"), (b"c", b"4")], sync=False)
    assert list(entries) == [(b"a", b"1"), (b"b", b"2")]


def test_a_closed_store_says_so(reopen: Reopen) -> None:
    store = reopen()
    store.close()
    with pytest.raises(Unavailable):
        store.get(b"a")
    with pytest.raises(Unavailable):
        store.scan(b"")
    with pytest.raises(Unavailable):
        store.write([(b"a", b"1")], sync=True)


KEYS = st.binary(max_size=3).map(lambda tail: b"k" + tail.replace(b"\x80", b"\xff"))
BATCHES = st.lists(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=2)), max_size=6), max_size=6)


@settings(max_examples=60)
@given(batches=BATCHES, prefix=KEYS, start=KEYS, reverse=st.booleans())
def test_it_agrees_with_a_dictionary(
    reopen: Reopen, batches: list[list[Write]], prefix: bytes, start: bytes, reverse: bool
) -> None:
    store = reopen()
    store.write([(key, None) for key, _ in store.scan(b"")], sync=False)
    model: dict[bytes, bytes] = {}
    for batch in batches:
        store.write(batch, sync=False)
        for key, value in batch:
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
    everything = sorted(model.items(), reverse=reverse)
    assert list(store.scan(b"", reverse=reverse)) == everything
    inside = [entry for entry in everything if entry[0].startswith(prefix)]
    assert list(store.scan(prefix, reverse=reverse)) == inside
    if start.startswith(prefix):
        beyond = [entry for entry in inside if (entry[0] <= start if reverse else entry[0] >= start)]
        assert list(store.scan(prefix, start=start, reverse=reverse)) == beyond


@given(prefix=st.binary(max_size=4), key=st.binary(max_size=6))
def test_the_end_of_a_prefix_is_the_smallest_key_after_it(prefix: bytes, key: bytes) -> None:
    end = end_of_prefix(prefix)
    inside = key >= prefix and (end is None or key < end)
    assert inside == key.startswith(prefix)


def test_heights_sort_as_numbers() -> None:
    heights = [0, 1, 255, 256, 2**32, 2**63]
    assert sorted(height_key(b"b/", height) for height in heights) == [height_key(b"b/", h) for h in heights]


# --- what only the twin can show -----------------------------------------------------------------------


def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() -> None:
    def written() -> MemoryStore:
        store = MemoryStore()
        store.write([(b"a", b"1"), (b"b", b"1")], sync=False)
        store.write([(b"a", b"2")], sync=True)
        store.write([(b"a", b"3"), (b"a", b"4"), (b"c", b"4")], sync=False)
        store.write([(b"b", None), (b"c", b"5")], sync=False)
        return store

    expected = [
        {b"a": b"2", b"b": b"1"},
        {b"a": b"4", b"b": b"1", b"c": b"4"},
        {b"a": b"4", b"c": b"5"},
    ]
    for survivors, model in enumerate(expected):
        store = written()
        store.crash(survivors)
        assert dict(store.scan(b"")) == model
        store.crash()
        assert dict(store.scan(b"")) == model, "what survived one crash is on disk"


# --- what only the disk can do -------------------------------------------------------------------------


def test_two_nodes_cannot_use_one_directory(tmp_path: Path) -> None:
    store = LevelStore(tmp_path / "ledger")
    with pytest.raises(Unavailable) as caught:
        LevelStore(tmp_path / "ledger")
    assert caught.value.rule == "store-locked"
    store.close()
    LevelStore(tmp_path / "ledger").close()


def test_what_leveldb_says_is_said_as_text(tmp_path: Path) -> None:
    LevelStore(tmp_path / "ledger").close()
    next((tmp_path / "ledger").glob("MANIFEST-*")).unlink()
    with pytest.raises(Corrupt, match="damaged: Corruption: "):
        LevelStore(tmp_path / "ledger")


def test_another_process_finds_the_directory_locked(tmp_path: Path) -> None:
    store = LevelStore(tmp_path / "ledger")
    program = (
        "import sys, pathlib\nfrom koinon.errors import Unavailable\nfrom node.store.leveldb import LevelStore\n"
        "try:\n    LevelStore(pathlib.Path(sys.argv[1]))\nexcept Unavailable as error:\n    print(error.rule)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "ledger")], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "store-locked"
    store.close()


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("not a directory")
    with pytest.raises(Unavailable) as caught:
        LevelStore(tmp_path / "ledger")
    assert caught.value.hint


def test_damage_in_a_table_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    store = LevelStore(path)
    store.write([(b"s/%d" % index, bytes(100)) for index in range(1000)], sync=True)
    store.close()
    LevelStore(path).close()  # recovery moves the log into a table
    table = next(path.glob("*.ldb"))
    data = bytearray(table.read_bytes())
    data[len(data) // 3] ^= 0xFF
    table.write_bytes(data)
    damaged = LevelStore(path)
    with pytest.raises(Corrupt):
        list(damaged.scan(b"s/"))
    damaged.close()


def test_a_lost_manifest_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    LevelStore(path).close()
    (path / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises((Corrupt, Unavailable)) as caught:
        LevelStore(path)
    assert caught.value.hint


@pytest.mark.parametrize("compacted", [False, True])
def test_a_store_that_lost_its_file_current_is_damaged_and_stays_as_it_is(tmp_path: Path, *, compacted: bool) -> None:
    """LevelDB alone would begin a new store, and delete the tables of the old one."""
    path = tmp_path / "ledger"
    store = LevelStore(path)
    store.write([(b"a", b"1")], sync=True)
    if compacted:
        store.compact(b"", b"\xff")
    store.close()
    assert any(path.glob("*.ldb")) == compacted
    current = (path / "CURRENT").rename(tmp_path / "CURRENT")
    kept = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(Corrupt, match="its file CURRENT is missing") as caught:
        LevelStore(path)
    assert "node repair" in caught.value.hint
    assert {file.name: file.read_bytes() for file in path.iterdir()} == kept
    current.rename(path / "CURRENT")
    whole = LevelStore(path)
    assert whole.get(b"a") == b"1"
    whole.close()


def test_a_store_whose_making_was_interrupted_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.mkdir()
    (path / "MANIFEST-000001").write_bytes(b"half")
    (path / "LOCK").touch()
    store = LevelStore(path)
    store.write([(b"a", b"1")], sync=True)
    assert store.get(b"a") == b"1"
    store.close()


FULL_DISK = """
import pathlib, resource, signal, sys
from koinon.errors import KoinonError
from node.store.leveldb import LevelStore

store = LevelStore(pathlib.Path(sys.argv[1]))
store.write([(b"a", b"1")], sync=True)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # past the limit, writing fails with EFBIG
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
rules = []
for limit in (4096, most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        store.write([(b"b", bytes(100_000))], sync=True)
    except KoinonError as error:
        rules.append(error.rule)
print(*rules)
"""


def test_after_a_failed_write_nothing_is_written_behind_it(tmp_path: Path) -> None:
    """LevelDB would append a good record behind half a one, and might lose it at the next recovery."""
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "ledger")], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["disk-error", "disk-error"], result.stderr
    store = LevelStore(tmp_path / "ledger")
    assert dict(store.scan(b"")) == {b"a": b"1"}
    store.close()


@pytest.mark.parametrize(
    ("text", "kind", "rule"),
    [
        ("IO error: x/000003.log: No space left on device", Exhausted, "disk-full"),
        ("IO error: x/000003.log: Disk quota exceeded", Exhausted, "disk-full"),
        ("IO error: x/000003.log: Read-only file system", Unavailable, "disk-read-only"),
        ("IO error: x/LOCK: Permission denied", Unavailable, "disk-read-only"),
        ("IO error: x/000003.log: Input/output error", Unavailable, "disk-error"),
    ],
)
def test_errors_of_the_disk_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Exception], rule: str
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(text)

    monkeypatch.setattr("plyvel.DB", fail)
    with pytest.raises(kind) as caught:
        LevelStore(tmp_path / "ledger")
    assert getattr(caught.value, "rule", None) == rule


def test_threads_that_scan_see_one_moment_of_what_is_not_synced_yet(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Questions of people are answered beside the event loop, which writes."""
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    with closing(LevelStore(tmp_path / "store")) as store, ThreadPoolExecutor(1) as threads:
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                keys = [key for key, _ in store.scan(b"k")]
                assert keys == sorted(set(keys))

        looking = threads.submit(look)
        for number in range(2_000):
            store.write([(b"k%d" % (number * 7_919 % 2_000), b"v")], sync=number % 500 == 499)
        done.set()
        looking.result()
