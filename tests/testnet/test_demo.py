"""The demo from the outside: what a newcomer sees, and that it leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KOINON = Path(sys.executable).with_name("koinon")
STEPS = 8


@contextmanager
def _demo(directory: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [KOINON, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(directory), "PYTHONUTF8": "1", "COLUMNS": "100"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _processes_in(directory: Path) -> list[str]:
    """Command lines of processes that work in a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue  # it ended while we looked
        if str(directory) in command:
            found.append(command)
    return found


def test_the_story_is_told_to_its_end(tmp_path: Path) -> None:
    with _demo(tmp_path) as process:
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 0, output
    assert output.count("✓ proves:") == STEPS
    for said in (
        "tolerates 1 that fails",
        "27 of 295 (9.2 %)",
        "52 of 307 (16.9 %)",
        "[minimum-cohort]",
        "[token-revoked]",
        "signed by",
    ):
        assert said in output
    assert list(tmp_path.iterdir()) == []
    assert _processes_in(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with _demo(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("1  "):
                break  # nodes are starting
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(60) == 130, rest
    assert list(tmp_path.iterdir()) == []
    assert _processes_in(tmp_path) == []
