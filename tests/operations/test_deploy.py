"""What deploy/ starts: an image is built of files that there are; it and the unit run a command that there is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from click.testing import CliRunner

from koinon.cli import main
from koinon.errors import Corrupt, InvalidInput, Unauthenticated
from node.cli import init

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
UNIT = DEPLOY / "koinon-node.service"


def _instructions(word: str) -> list[str]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text("utf-8"))
    return [line.removeprefix(f"{word} ") for line in text.splitlines() if line.startswith(f"{word} ")]


def _copied() -> set[str]:
    """Sources that the build takes from the repository."""
    return {source for line in _instructions("COPY") if "--from" not in line for source in line.split()[:-1]}


def _settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)


def test_an_image_is_built_of_files_that_there_are_and_that_reach_it() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").split()
    assert ignored[0] == "*"
    let_through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert _copied() == let_through
    for source in _copied():
        assert (ROOT / source).exists(), source


def test_an_image_holds_all_that_is_installed() -> None:
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert all(any(fnmatch(source, package) for source in _copied()) for package in packages)
    assert {PROJECT["project"]["readme"], "pyproject.toml", "requirements/node.txt"} <= _copied()


def test_an_image_has_a_python_that_is_supported() -> None:
    images = {line.split()[0] for line in _instructions("FROM")}
    assert len(images) == 1, "what is built on one runs on the other"
    (version,) = re.findall(r"^python:(3\.\d+)-", images.pop())
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]


def test_what_is_started_is_a_command() -> None:
    (entry,), (arguments,) = _instructions("ENTRYPOINT"), _instructions("CMD")
    (unit,) = _settings("ExecStart")
    shell = shlex.split(unit)[-1].replace("$$", "$")
    started = [json.loads(entry) + json.loads(arguments), shlex.split(shell.partition("/bin/koinon ")[2])]
    started[1].insert(0, "koinon")
    assert started[0] == started[1], "one home, one command"
    assert CliRunner().invoke(main, [*started[0][1:], "--help"]).exit_code == 0


def test_image_and_unit_take_the_same_allocator_and_say_where_it_comes_from() -> None:
    (environment,) = _instructions("ENV")
    (unit,) = _settings("Environment")
    assert unit == "LD_PRELOAD=libjemalloc.so.2"
    assert unit in environment.split()
    assert "libjemalloc2" in " ".join(_instructions("RUN"))
    assert "apt-get install libjemalloc2" in UNIT.read_text("utf-8")


def test_an_image_offers_the_ports_that_a_home_has() -> None:
    (ports,) = (str(option.default) for option in init.params if option.name == "ports")
    assert _instructions("EXPOSE") == [ports.replace(",", " ")]


def test_a_unit_does_not_restart_what_does_not_mend_itself() -> None:
    (stays_down,) = _settings("RestartPreventExitStatus")
    assert stays_down.split() == [str(error.exit_code) for error in (InvalidInput, Unauthenticated, Corrupt)]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_reads_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    unit = shutil.copy(UNIT, tmp_path)  # in a directory where no other unit is
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    limit = ["--offline=true", "--threshold=20"]  # 2.0 of 10; a unit without any protection has 9.6
    rated = subprocess.run(["systemd-analyze", "security", *limit, unit], capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout
