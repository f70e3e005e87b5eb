"""Seeds and corpus hold for every target, and libFuzzer runs a moment on each: longer runs are ``make fuzz``."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.lone_engine import LoneEngine
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_are_good_inputs(name: str) -> None:
    """Else a target explores nothing but its first refusal."""
    seeds = list(TARGETS[name].seeds())
    assert seeds
    for seed in seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_failed_is_read_or_refused(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_programs_make_the_engine_decide() -> None:
    """Else the engine's fuzzing would never leave its first height."""
    heights = []
    for seed in TARGETS["engine"].seeds():
        engine = LoneEngine()
        engine.run(seed)
        heights.append(engine.engine.chain.height)
    assert max(heights) >= 1


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not built for this Python")
def test_libfuzzer_finds_nothing_in_a_moment(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--runs", "400"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, check=False)
    findings = [str(path) for path in tmp_path.glob("fuzz-findings/*/*")]
    assert (done.returncode, findings) == (0, []), done.stderr.decode(errors="replace")[-3_000:]
