"""What a newcomer installs: pinned, hashed, from nowhere in particular, on the Pythons that work."""

from __future__ import annotations

import re
import shutil
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


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 16, 0)])
def test_another_python_is_told_so(version: tuple[int, int, int]) -> None:
    program = f"import sys; sys.version_info = {version!r}; import koinon"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith(f"Koinon runs on Python 3.11 to 3.15; this is Python {version[0]}.{version[1]}")


class Machine:
    """A machine with these Pythons and nothing else: each makes no environment but says its name."""

    def __init__(self, path: Path, *pythons: str) -> None:
        self._root, self._path = path / "koinon", path / "bin"
        (self._root / "requirements").mkdir(parents=True)
        shutil.copy(ROOT / "requirements" / "install.sh", self._root / "requirements")
        self._path.mkdir()
        for tool in ("cat", "dirname", "rm"):
            (self._path / tool).symlink_to(shutil.which(tool) or tool)
        for name in pythons:
            minor = name.rpartition(".")[2]
            program = f"import sys; sys.version_info = (3, {minor}, 0); exec(sys.argv[1])"
            python = self._path / name
            python.write_text(
                f"#!/bin/sh\n[ $1 = -m ] && {{ echo {name} >&2; exit 1; }}\n"
                f"[ \"$2\" = 'import sys, sysconfig; print(sys.executable)' ] && {{ echo {python}; exit; }}\n"
                f"exec {sys.executable} -c '{program}' \"$2\"\n"
            )
            python.chmod(0o755)

    def install(self, **environment: str) -> list[str]:
        """What the installation, which fails, says."""
        done = subprocess.run(
            ["/bin/sh", str(self._root / "requirements" / "install.sh"), "node"],
            env={"PATH": str(self._path), "CXX": shutil.which("false") or "", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert not done.stdout
        return done.stderr.splitlines()


CAN_BUILD = {"CXX": shutil.which("true") or ""}


def test_a_python_that_needs_a_compiler_says_what_to_install(tmp_path: Path) -> None:
    said, hint = Machine(tmp_path, "python3.14").install()
    assert "This is Python 3.14" in said
    assert "on Debian: apt-get install g++ libleveldb-dev" in hint


def test_the_python_that_was_named_is_not_exchanged_for_another(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "python3.14", "python3.12")
    assert "This is Python 3.14" in machine.install(PYTHON="python3.14")[0]
    assert machine.install(PYTHON="python3.14", **CAN_BUILD)[0] == "python3.14"


def test_a_python_that_needs_no_compiler_is_preferred(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "python3.15", "python3.14", "python3.11", "python3.10")
    assert machine.install(**CAN_BUILD)[0] == "python3.11"


def test_of_newer_pythons_the_newest_that_builds_is_taken(tmp_path: Path) -> None:
    assert Machine(tmp_path, "python3.14", "python3.15").install(**CAN_BUILD)[0] == "python3.15"


def test_a_machine_without_a_python_that_works_is_told_so(tmp_path: Path) -> None:
    said, hint = Machine(tmp_path, "python3.10").install()
    assert said == "Koinon runs on Python 3.11 to 3.15, and none was found."
    assert "make PYTHON=" in hint
