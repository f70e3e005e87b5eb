"""Proposals as people write and read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koinon import genesis, proposals
from koinon.errors import InvalidFile
from koinon.v1.constitution_pb2 import DecisionPolicy, Fraction
from koinon.v1.governance_pb2 import Action, Propose, SetParameter
from koinon.v1.identity_pb2 import ROLE_REGULATOR
from tests.contracts.decree import descriptor

KEY = bytes(range(32))

TOML = f"""
title = "Several things"
reason = "Agreed."

[[actions]]
assert_parameter = {{ name = "min_cohort_floor", value = 5 }}

[[actions]]
admit = {{ descriptor = "osu.json", power = 1 }}

[[actions]]
register_regulator = {{ person = {{ id = "fda/inspector", public_key = "{KEY.hex()}", roles = ["regulator"] }} }}

[[actions]]
recover = {{ institution = "um", person_id = "um/operator", public_key = "{KEY.hex()}", reason = "1/2 of it is lost" }}

[[actions]]
resolve_dispute = {{ dispute_id = "{"0" * 32}", remedies = ["refund"], reason = "seen" }}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    genesis.save_descriptor(tmp_path / "osu.json", descriptor("osu", 5))
    path = tmp_path / "proposal.toml"
    path.write_text(TOML)
    return path


def test_a_file_in_toml(file: Path) -> None:
    proposal = proposals.load(file)
    assert (proposal.title, len(proposal.actions)) == ("Several things", 5)
    admission = proposal.actions[1].admit
    assert (admission.institution, admission.power) == ("osu", 1)
    assert admission.descriptor == descriptor("osu", 5)
    regulator = proposal.actions[2].register_regulator.person
    assert (regulator.public_key, list(regulator.roles)) == (KEY, [ROLE_REGULATOR])
    assert proposal.actions[3].recover.reason == "1/2 of it is lost", "only fractions are fractions"


def test_the_same_in_json(tmp_path: Path) -> None:
    path = tmp_path / "proposal.json"
    action = {"set_parameter": {"name": "min_cohort_floor", "value": 7}}
    path.write_text(json.dumps({"title": "t", "reason": "r", "actions": [action]}))
    wanted = Action(set_parameter=SetParameter(name="min_cohort_floor", value=7))
    assert proposals.load(path) == Propose(title="t", reason="r", actions=[wanted])


@pytest.mark.parametrize(
    "text",
    [
        "title = ",
        "{",
        '{"title": 7}',
        '{"title": "t", "actions": 7}',
        '{"title": "t", "actions": [7]}',
        '{"title": "t", "actions": [{"explode": {}}]}',
        '{"title": "t", "actions": [{"set_parameter": {"name": "x", "value": "7"}}]}',
        '{"title": "t", "actions": [{"set_parameter": {"name": "x", "value": 9223372036854775808}}]}',
        '{"title": "t", "actions": [{"admit": {"descriptor": "nowhere.json"}}]}',
        '{"title": "t", "actions": [{"recover": {"public_key": "zz"}}]}',
        '{"title": "t", "actions": [{"admit": {"descriptor": "a\\u0000b"}}]}',
        "[" * 100_000,
        '{"actions": ' + "[" * 400 + "]" * 400 + "}",
    ],
)
def test_a_bad_file_says_what_is_wrong(text: str, tmp_path: Path) -> None:
    path = tmp_path / "proposal"
    path.write_text(text)
    with pytest.raises(InvalidFile) as caught:
        proposals.load(path)
    assert caught.value.hint


def test_a_constitution_alone_or_as_exported(tmp_path: Path) -> None:
    usual = {"participation": "1/2", "approval": {"numerator": 2, "denominator": 3}, "voting_period_ms": 60_000}
    for number, table in enumerate(({"usual": usual}, {"constitution": {"usual": usual}, "digest": "00"})):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(table))
        loaded = proposals.load_constitution(path)
        assert loaded.usual == DecisionPolicy(
            participation=Fraction(numerator=1, denominator=2),
            approval=Fraction(numerator=2, denominator=3),
            voting_period_ms=60_000,
        )


def test_every_action_has_words() -> None:
    for field in Action.DESCRIPTOR.oneofs_by_name["action"].fields:
        action = Action()
        getattr(action, field.name).SetInParent()
        assert "later version" not in proposals.describe(action), field.name
    assert "later version" in proposals.describe(Action())


def test_a_policy_in_words() -> None:
    policy = DecisionPolicy(
        participation=Fraction(numerator=1, denominator=2),
        approval=Fraction(numerator=2, denominator=3),
        veto=Fraction(numerator=1, denominator=4),
        voting_period_ms=7 * 86_400_000,
        delay_ms=3_600_000,
    )
    assert proposals.policy(policy) == (
        "more than 2/3 yes, at least 1/2 taking part, ballots for 7 days, vetoed by 1/4, done 1 hour later"
    )
