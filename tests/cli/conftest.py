"""The koinon command, run in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from koinon import profile
from koinon.cli import main
from tests.koinon.fake_node import FakeNode

Run = Callable[..., Result]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with FakeNode(tmp_path) as fake:
        yield fake


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs ``koinon`` with these arguments and no profile of its own."""
    monkeypatch.delenv(profile.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, arguments, input=stdin)

    return invoke


@pytest.fixture
def ask(run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``koinon`` with the profile of the scripted node."""
    monkeypatch.setenv(profile.ENVIRONMENT, str(node.profile))
    return run
