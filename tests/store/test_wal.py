"""The write-ahead log: a torn tail is cut off, any other damage is told."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.errors import Corrupt, Exhausted, Unavailable
from node.store.wal import FileWal, MemoryWal, WriteAheadLog

RECORDS = st.lists(st.binary(max_size=40) | st.just(bytes(30)), max_size=6)
FRAME = 13  # bytes that each record takes beyond its own


@pytest.fixture
def instant_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files are written below; none needs to survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)


def written(path: Path, records: list[bytes]) -> bytes:
    """The bytes of a log file with these records, made anew at ``path``."""
    path.unlink(missing_ok=True)
    log = FileWal(path)
    for record in records:
        log.append(record)
    log.close()
    return path.read_bytes()


def opened(path: Path, data: bytes) -> list[bytes]:
    path.write_bytes(data)
    log = FileWal(path)
    try:
        return log.records()
    finally:
        log.close()


def test_what_an_opened_log_holds_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wal"
    data = written(path, [b"synced"])
    synced: dict[int, bytes] = {}
    fsync = os.fsync

    def noted(file: int) -> None:
        fsync(file)
        if os.fstat(file).st_mode & stat.S_IFREG:
            synced[os.fstat(file).st_ino] = Path(f"/proc/self/fd/{file}").read_bytes()

    path.write_bytes(data + data[8:])  # as a process leaves it that was killed between write and sync
    monkeypatch.setattr(os, "fsync", noted)
    log = FileWal(path)
    assert log.records() == [b"synced", b"synced"]
    assert synced[path.stat().st_ino] == path.read_bytes()


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_records_come_back_in_order(kind: str, tmp_path: Path) -> None:
    log: WriteAheadLog = FileWal(tmp_path / "wal") if kind == "file" else MemoryWal()
    assert log.records() == []
    log.append(b"one")
    log.append(b"")
    assert log.records() == [b"one", b""]
    log.sync()
    log.append(b"three")
    assert log.records() == [b"one", b"", b"three"]
    log.reset()
    assert log.records() == []
    log.append(b"four")
    log.sync()
    assert log.records() == [b"four"]
    log.close()


def test_records_are_there_after_reopening_and_more_can_follow(tmp_path: Path) -> None:
    path = tmp_path / "home" / "wal"
    for number in range(3):
        log = FileWal(path)
        assert log.records() == [b"%d" % earlier for earlier in range(number)]
        log.append(b"%d" % number)
        log.close()
    log = FileWal(path)
    log.reset()
    log.close()
    assert FileWal(path).records() == []
    assert [entry.name for entry in path.parent.iterdir()] == ["wal"]


def test_what_was_synced_is_in_the_file_without_closing(tmp_path: Path) -> None:
    log = FileWal(tmp_path / "wal")
    log.append(b"one")
    log.sync()
    assert opened(tmp_path / "copy", (tmp_path / "wal").read_bytes()) == [b"one"]
    log.close()


@pytest.mark.usefixtures("instant_disk")
@settings(max_examples=20)
@given(records=RECORDS)
def test_cut_at_any_byte_the_log_keeps_the_whole_records_before(tmp_path: Path, records: list[bytes]) -> None:
    data = written(tmp_path / "wal", records)
    ends = [8]
    for record in records:
        ends.append(ends[-1] + len(record) + FRAME)
    assert ends[-1] == len(data)
    for cut in range(8, len(data) + 1):
        whole = sum(end <= cut for end in ends) - 1
        assert opened(tmp_path / "torn", data[:cut]) == records[:whole]
        assert (tmp_path / "torn").stat().st_size == ends[whole], "the torn tail is gone from the disk"


@pytest.mark.usefixtures("instant_disk")
@given(records=RECORDS, zeros=st.integers(1, 600), at=st.floats(0, 1))
def test_a_tail_that_never_reached_the_disk_reads_as_zeros(
    tmp_path: Path, records: list[bytes], zeros: int, at: float
) -> None:
    data = written(tmp_path / "wal", records)
    cut = 8 + round(at * (len(data) - 8))
    found = opened(tmp_path / "torn", data[:cut] + bytes(zeros))
    assert found == records[: len(found)]
    whole, end = 0, 8
    for record in records:
        end += len(record) + FRAME
        whole += end <= cut
    assert len(found) == whole


@pytest.mark.usefixtures("instant_disk")
@given(records=RECORDS.filter(bool), data=st.data())
def test_a_flipped_bit_is_never_taken_for_a_torn_tail(
    tmp_path: Path, records: list[bytes], data: st.DataObject
) -> None:
    damaged = bytearray(written(tmp_path / "wal", records))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Corrupt) as caught:
        opened(tmp_path / "damaged", bytes(damaged))
    assert caught.value.hint
    assert (tmp_path / "damaged").read_bytes() == damaged, "nothing is changed"


@pytest.mark.usefixtures("instant_disk")
@given(data=st.binary(max_size=60))
def test_any_other_file_is_refused_or_read(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Corrupt):
        opened(tmp_path / "wal", b"x" + data)
    with contextlib.suppress(Corrupt):
        assert all(isinstance(record, bytes) for record in opened(tmp_path / "wal", b"koinwal1" + data))


def test_a_crash_of_the_twin_keeps_what_was_synced_and_a_prefix_of_the_rest() -> None:
    for survivors, expected in enumerate([[b"1"], [b"1", b"2"], [b"1", b"2", b"3"]]):
        log = MemoryWal()
        log.append(b"1")
        log.sync()
        log.append(b"2")
        log.append(b"3")
        log.crash(survivors)
        assert log.records() == expected
        log.crash()
        assert log.records() == expected, "what survived one crash is on disk"


@pytest.mark.parametrize(
    ("number", "kind", "rule"),
    [
        (errno.ENOSPC, Exhausted, "disk-full"),
        (errno.EROFS, Unavailable, "disk-read-only"),
        (errno.EIO, Unavailable, "disk-error"),
    ],
)
def test_a_log_that_failed_to_sync_stays_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], rule: str
) -> None:
    """After a failed fsync the next one may report success although the data is gone."""
    log = FileWal(tmp_path / "wal")

    def fail(_file: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        log.append(b"one")
        with pytest.raises(kind) as caught:
            log.sync()
        assert getattr(caught.value, "rule", None) == rule
    for action in (log.sync, log.reset, log.records):
        with pytest.raises(kind):
            action()
    log.close()


def test_a_reset_that_fails_leaves_the_old_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wal"
    log = FileWal(path)
    log.append(b"one")
    log.sync()

    def fail(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(Exhausted):
            log.reset()
    log.close()
    again = FileWal(path)
    assert again.records() == [b"one"]
    again.close()


def test_a_directory_is_not_a_log(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        FileWal(tmp_path)


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    log = FileWal(tmp_path / "wal")
    log.close()
    with pytest.raises(Unavailable):
        log.sync()
