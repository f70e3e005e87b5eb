"""Every command on every page runs as written, against real nodes, and gives what the page says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.console import Example, Shell, environment, examples

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
README = tuple(examples(ROOT / "README.md"))


def _directory(path: Path) -> Path:
    """A directory like a fresh clone, as far as the pages are concerned."""
    (path / "testnet").symlink_to(ROOT / "testnet")
    return path


def _ends_the_network(example: Example) -> bool:
    return "testnet down" in example.command


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory in which the README's session was played, its network running."""
    directory = _directory(tmp_path_factory.mktemp("readme"))
    shell = Shell(directory, environment(BIN))
    try:
        for example in README:
            if not _ends_the_network(example):
                shell.run(example)
        yield directory
    finally:
        for example in filter(_ends_the_network, README):
            shell.run(example)


def test_the_readme_is_a_session_of_ten_lines(session: Path) -> None:
    assert 10 <= len(README) <= 12
    assert (session / "receipt.json").is_file()


@pytest.mark.parametrize("page", ["analyst.md", "regulator.md"])
def test_a_page_about_the_readme_s_network(page: str, session: Path) -> None:
    shell = Shell(session, environment(BIN))
    for example in examples(ROOT / "docs" / page):
        shell.run(example)


@pytest.mark.parametrize("page", ["operator.md", "developer.md", "points.md", "governance.md"])
def test_a_page_of_its_own(page: str, tmp_path: Path) -> None:
    shell = Shell(_directory(tmp_path), environment(BIN))
    try:
        for example in examples(ROOT / "docs" / page):
            shell.run(example)
    finally:
        shell.close()


def test_no_page_is_left_out() -> None:
    run = {"analyst.md", "regulator.md", "operator.md", "developer.md", "points.md", "governance.md"}
    assert {path.name for path in (ROOT / "docs").glob("*.md") if list(examples(path))} == run
