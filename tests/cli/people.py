"""People at the nodes of a real network, typing commands."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from koinon.cli import main
from testnet.network import Testnet
from tests.waiting import eventually


class People:
    """``who`` is one of the network's profiles."""

    def __init__(self, network: Testnet) -> None:
        self.network = network

    def run(self, who: str, *arguments: str) -> Result:
        """One command, however it ends; its node, where it is in step, knows by then what others told people."""
        institution = who.partition("-")[0]
        newest = max(node.height for node in self.network.status())
        eventually(
            lambda: (
                not any(
                    node.institution == institution and node.ready and node.height < newest
                    for node in self.network.status()
                )
            ),
            f"{institution} is at height {newest}",
        )
        return CliRunner().invoke(main, ["--profile", str(self.network.profile(who)), *arguments])

    def ok(self, who: str, *arguments: str) -> str:
        """What a command that works prints."""
        result = self.run(who, *arguments)
        assert result.exit_code == 0, f"{arguments}: {result.stderr}"
        return result.stdout

    def data(self, who: str, *arguments: str) -> Any:
        """The same, for a program."""
        return json.loads(self.ok(who, *arguments, "--json"))

    def refused(self, who: str, code: int, rule: str, *arguments: str) -> str:
        """The first line of a refusal; the second one must be a hint."""
        result = self.run(who, *arguments)
        assert result.exit_code == code, f"{arguments}: {result.stdout}{result.stderr}"
        error, hint = result.stderr.splitlines()[-2:]
        assert error.startswith("error: ")
        assert error.endswith(f" [{rule}]"), result.stderr
        assert hint.startswith("hint: ")
        return error
