"""What a newcomer installs: pinned, hashed, from nowhere in particular, on the Pythons that work."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
_PIN = re.compile(r"^([a-z0-9-]+)==([^\s;]+)(?: ; ([^\\]+))? \\$")


def _pins(path: Path) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        if found := _PIN.match(line):
            pins.setdefault(found[1], set()).add(found[2])
    return pins


def _names(requirements: list[object]) -> set[str]:
    return {re.split(r"[<>=~!\[ ]", item)[0] for item in requirements if isinstance(item, str)}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(path: Path) -> None:
    for line in path.read_text("utf-8").splitlines():
        assert _PIN.match(line) or re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line


def test_the_locks_hold_what_the_project_needs_and_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = project["dependency-groups"]
    node, dev = _pins(ROOT / "requirements" / "node.txt"), _pins(ROOT / "requirements" / "dev.txt")
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["node"] + groups["build"]
    assert _names(wanted) <= set(node)
    assert _names(groups["dev"]) <= set(dev)
    assert node.items() <= dev.items()


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 13, 0)])
def test_another_python_is_told_so(version: tuple[int, int, int]) -> None:
    program = f"import sys; sys.version_info = {version!r}; import koinon"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "Python 3.11 and 3.12" in last
    assert last.endswith(f"this is Python {version[0]}.{version[1]}")
