"""A process is killed while it writes: everything it was told is on disk is there, whole and in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node.store.kv import height_key
from node.store.leveldb import LevelStore
from node.store.wal import FileWal

LEDGER = """
import pathlib, sys
from node.store.kv import height_key
from node.store.leveldb import LevelStore
store = LevelStore(pathlib.Path(sys.argv[1]))
for height in range(1_000_000):
    store.write([(height_key(space, height), bytes(2_000)) for space in (b"b/", b"c/")], sync=True)
    print(height, flush=True)
"""

WAL = """
import pathlib, sys
from node.store.wal import FileWal
log = FileWal(pathlib.Path(sys.argv[1]))
for number in range(1_000_000):
    log.append(b"%d" % number * 500)
    log.sync()
    print(number, flush=True)
"""


def acknowledged(program: str, path: Path, count: int) -> int:
    """Run the program, kill it after ``count`` acknowledged writes; how many it acknowledged in the end."""
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = -1
        for line in process.stdout:
            last = int(line)
            if last == count:
                process.kill()
    return last + 1


@pytest.mark.parametrize("count", [0, 7, 60])
def test_the_ledger_holds_every_batch_that_was_acknowledged(tmp_path: Path, count: int) -> None:
    done = acknowledged(LEDGER, tmp_path / "ledger", count)
    assert done > count
    store = LevelStore(tmp_path / "ledger")
    blocks, commits = (list(store.scan(space)) for space in (b"b/", b"c/"))
    store.close()
    assert done <= len(blocks) <= done + 1, "one more may have been written and not yet acknowledged"
    assert blocks == [(height_key(b"b/", height), bytes(2_000)) for height in range(len(blocks))]
    assert len(commits) == len(blocks), "a batch is whole or absent"


@pytest.mark.parametrize("count", [0, 7, 60])
def test_the_log_holds_every_record_that_was_acknowledged(tmp_path: Path, count: int) -> None:
    done = acknowledged(WAL, tmp_path / "wal", count)
    assert done > count
    log = FileWal(tmp_path / "wal")
    records = log.records()
    log.close()
    assert done <= len(records) <= done + 1
    assert records == [b"%d" % number * 500 for number in range(len(records))]
