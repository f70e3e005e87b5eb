"""Governance through the real command and real nodes: propose, decide, admit; and stop before an unknown upgrade."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from koinon.cli import main
from testnet.network import Testnet
from tests.cli.people import People
from tests.waiting import eventually

MEMBERS = ("a", "b", "c", "d")


class Consortium(People):
    """The operators; each is called by its institution alone."""

    def run(self, who: str, *arguments: str) -> Result:
        return super().run(f"{who}-operator", *arguments)

    def propose(self, who: str, *arguments: str) -> str:
        """The new proposal's id."""
        said = self.ok(who, "gov", "propose", *arguments, "--reason", "agreed in May")
        return said.splitlines()[-1].removeprefix("proposed: ")

    def agree(self, proposal: str, *members: str) -> Any:
        for member in members:
            self.ok(member, "gov", "ballot", "yes", proposal[:10])
        return self.data("a", "gov", "show", proposal)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Testnet.create(tmp_path_factory.mktemp("gov") / "net", MEMBERS) as network:
        yield Consortium(network)


def test_a_parameter_from_preview_to_effect(consortium: Consortium) -> None:
    change = ("--set", "min_cohort_floor=10", "--if", "min_cohort_floor=5")
    preview = consortium.ok("a", "gov", "propose", *change, "--reason", "agreed in May", "--dry-run")
    assert "min_cohort_floor: 5 -> 10" in preview
    assert "a, b, c, d; weight 4 in all" in preview
    assert "after 7 days" in preview
    assert consortium.data("a", "gov", "list") == []
    proposal = consortium.propose("a", *change)
    consortium.ok("b", "gov", "ballot", "yes", proposal, "--reason", "long overdue")
    consortium.ok("c", "gov", "ballot", "no", proposal)
    shown = consortium.ok("d", "gov", "show", proposal)
    assert "Missing" in shown
    assert "a, d" in shown
    assert "long overdue" in shown
    assert "more than 1/2 yes, at least 1/2 taking part" in shown
    consortium.ok("c", "gov", "ballot", "yes", proposal)
    decided = consortium.agree(proposal, "a")
    assert decided["status"] == "executed"
    assert decided["effects"] == ["min_cohort_floor is 5, as it must be", "min_cohort_floor: 5 -> 10"]
    rules = consortium.data("a", "gov", "constitution")
    assert rules["parameters"]["min_cohort_floor"] == 10
    assert "executed" in consortium.ok("b", "gov", "list")
    assert "min_cohort_floor" in consortium.ok("b", "gov", "constitution")


def test_a_notice_to_leave_from_preview_to_withdrawal(consortium: Consortium) -> None:
    asked = ("member", "leave", "--reason", "the study is over")
    preview = consortium.ok("c", *asked, "--dry-run")
    assert "member c: active -> removed, at height " in preview
    assert "power of c: 1 -> 0" in preview
    assert consortium.run("c", *asked, "--blocks", "1").exit_code == 2
    said = consortium.ok("c", *asked, "--yes")
    height = re.search(r"c leaves at height (\d+)", said)
    assert height, said
    assert f"leaves at {height[1]}" in consortium.ok("a", "member", "list")
    assert f"height {height[1]}: the study is over" in consortium.ok("a", "member", "show", "c")
    again = consortium.run("c", *asked, "--yes")
    assert (again.exit_code, "[already-exists]" in again.stderr) == (4, True)
    assert "c stays" in consortium.ok("c", "member", "stay", "--reason", "more patients came")
    assert consortium.run("c", "member", "stay", "--reason", "again").exit_code == 4
    assert "leaves" not in consortium.ok("a", "member", "list")


def test_what_would_fail_is_said_before_it_is_proposed(consortium: Consortium) -> None:
    result = consortium.run("a", "gov", "propose", "--remove", "nobody", "--reason", "unknown")
    assert result.exit_code == 3
    assert "Would fail" in result.stdout
    assert result.stderr.splitlines()[-2].endswith("[not-found]")
    assert consortium.run("a", "gov", "propose", "--set", "speed=1", "--reason", "fast").exit_code == 2
    assert consortium.run("a", "gov", "propose", "--set", "speed", "--reason", "fast").exit_code == 2
    assert consortium.run("a", "gov", "propose", "--reason", "nothing").exit_code == 2


def test_a_file_and_a_withdrawal(consortium: Consortium, tmp_path: Path) -> None:
    file = tmp_path / "changes.toml"
    file.write_text(
        'title = "Shorter runs"\nreason = "Nothing takes that long."\n\n'
        '[[actions]]\nset_parameter = { name = "run_window_ms", value = 60000 }\n\n'
        '[[actions]]\nset_weight = { institution = "a", weight = 2 }\n'
    )
    preview = consortium.data("a", "gov", "propose", str(file), "--dry-run")
    assert preview["effects"] == ["run_window_ms: 120000 -> 60000", "ballot weight of a: 1 -> 2"]
    assert preview["policy"]["approval"] == {"numerator": 2, "denominator": 3}
    made = consortium.data("a", "gov", "propose", str(file))
    assert made["proposed"]["title"] == "Shorter runs"
    result = consortium.run("b", "gov", "withdraw", made["id"], "--reason", "not mine")
    assert result.exit_code == 4
    consortium.ok("a", "gov", "withdraw", made["id"], "--reason", "on second thoughts")
    assert consortium.data("a", "gov", "show", made["id"][:8])["status"] == "withdrawn"


def test_the_constitution_is_changed_by_its_own_export(consortium: Consortium, tmp_path: Path) -> None:
    rules = consortium.data("a", "gov", "constitution")
    rules["constitution"]["usual"]["approval"] = "3/5"
    file = tmp_path / "constitution.json"
    file.write_text(json.dumps({"constitution": rules["constitution"]}))
    decided = consortium.agree(consortium.propose("a", "--constitution", str(file)), "a", "b", "c")
    assert decided["status"] == "executed"
    assert "more than 3/5 yes" in consortium.ok("d", "gov", "constitution")


def test_a_regulator_of_an_authority_that_is_no_member(consortium: Consortium, tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["key", "make", str(tmp_path / "inspector.key"), "--no-passphrase"])
    consortium.agree(consortium.propose("a", "--regulator", f"fda/inspector={made.stdout.strip()}"), "a", "b", "c")
    profile = consortium.network.profile("a-operator")
    text = profile.read_text()
    for name, value in (("person", "fda/inspector"), ("key_file", str(tmp_path / "inspector.key"))):
        text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {json.dumps(value)}", text)
    own = profile.with_name("inspector.toml")
    own.write_text(text)
    trail = CliRunner().invoke(main, ["--profile", str(own), "audit", "list", "--json", "--kind", "proposal.executed"])
    assert trail.exit_code == 0, trail.stderr
    assert "proposal.executed" in trail.stdout
    refused = CliRunner().invoke(main, ["--profile", str(own), "gov", "propose", "--set", "heartbeat_ms=300"])
    assert refused.exit_code in (2, 4)


def test_from_application_to_validator(consortium: Consortium) -> None:
    network = consortium.network
    network.add_institution("e")
    descriptor = network.home("e").descriptor
    said = consortium.ok("a", "member", "apply", str(descriptor), "--motivation", "brings a trial")
    assert said == "applied: e, sponsored by a/operator\n"
    assert "brings a trial" in consortium.ok("b", "member", "applications")
    assert "a/operator" in consortium.ok("b", "member", "show", "e")
    network.start("e")
    decided = consortium.agree(consortium.propose("b", "--admit", "e=1"), "b", "c", "d")
    assert decided["effects"] == ["member e: none -> active, votes with power 1 once it has caught up"]

    def votes() -> bool:
        status = consortium.data("a", "status")
        return "e" in {validator["institution"] for validator in status["validators"]}

    eventually(votes, "e votes")
    shown = consortium.data("a", "member", "show", "e")
    assert shown["institution"]["descriptor"]["power"] == 1
    assert shown["application"]["status"] == "admitted"
    ballot = consortium.propose("a", "--set", "min_cohort_floor=5")
    eventually(lambda: consortium.run("e", "gov", "ballot", "no", ballot).exit_code == 0, "e casts a ballot")


def test_nodes_stop_before_an_upgrade_that_they_do_not_know(consortium: Consortium) -> None:
    network = consortium.network
    height = consortium.data("a", "status")["height"] + 12
    pace = ("--set", "heartbeat_ms=300")  # with which the blocks before come soon
    proposal = consortium.propose("a", "--upgrade", f"2@{height}: koinon 2.0", *pace)
    consortium.agree(proposal, "a", "b", "c")
    assert consortium.run("d", "gov", "ballot", "yes", proposal).exit_code in (0, 4)
    assert f"version 2 from height {height}; install koinon 2.0" in consortium.ok("a", "gov", "constitution")
    assert f"protocol 2 from height {height}; install koinon 2.0 before" in consortium.ok("a", "status")
    eventually(lambda: not any(network.pid(name) for name in network.institutions), "all nodes stop")
    for name in MEMBERS:
        console = (network.home(name).log / "console").read_text()
        assert "[upgrade-needed]" in console, console
        assert "install koinon 2.0" in console
    network.start("a")
    eventually(lambda: not network.pid("a"), "it does not start again as it is")
