"""Who gives way when LevelDB merges tables: a process of its own, since LevelDB's thread is the process's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_NICENESS_OF_THREADS = """
import os, sys
from pathlib import Path
from node.store.leveldb import LevelStore

behind = sys.argv[2] == "behind"
store = LevelStore(Path(sys.argv[1]), merge_behind=behind)
for number in range(4):  # more than the memory table holds: tables are written, and merged
    store.write([(bytes([number, key]), os.urandom(1 << 20)) for key in range(16)], sync=True)
print(sorted({os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")}))
print(store.get(bytes([0, 0])) is not None, os.getpriority(os.PRIO_PROCESS, os.getpid()))
store.close()
"""


@pytest.mark.parametrize(("how", "niceness"), [("behind", "[0, 10]"), ("beside", "[0]")])
def test_the_thread_that_merges_gives_way_where_it_is_to(how: str, niceness: str, tmp_path: Path) -> None:
    """And no other thread does, nor anything that the process starts."""
    said = subprocess.run(
        [sys.executable, "-c", _NICENESS_OF_THREADS, str(tmp_path / "ledger"), how],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.splitlines() == [niceness, "True 0"]
