"""The constitution: what is well formed, which policy holds, and which proposals lose their meaning."""

from __future__ import annotations

from typing import Any

import pytest

from governance import constitution
from governance.actions import ACTIONS, DECIDED
from koinon.errors import InvalidInput
from koinon.v1.constitution_pb2 import ActionPolicy, Constitution, DecisionPolicy, Fraction
from koinon.v1.governance_pb2 import (
    Action,
    AdmitInstitution,
    AssertConstitution,
    AssertParameter,
    BurnPoints,
    MintPoints,
    Propose,
    ReadmitInstitution,
    RecoverInstitution,
    RegisterRegulator,
    RemoveInstitution,
    ResolveDispute,
    RevokeRegulator,
    ScheduleUpgrade,
    SetConstitution,
    SetParameter,
    SetPower,
    SetTaxonomy,
    SetWeight,
    SuspendInstitution,
)
from koinon.v1.identity_pb2 import ROLE_OPERATOR, ROLE_REGULATOR, InstitutionDescriptor, Person

FLOOR = Action(set_parameter=SetParameter(name="min_cohort_floor", value=7))
REMOVAL = Action(remove=RemoveInstitution(institution="um", reason="left"))


def proposal(*actions: Action) -> Propose:
    return Propose(title="t", reason="r", actions=actions)


def changed(**terms: Any) -> Constitution:
    """The founding constitution with another usual policy."""
    result = constitution.founding()
    result.usual.MergeFrom(DecisionPolicy(**terms))
    return result


def test_the_founding_constitution_holds_and_names_real_actions() -> None:
    constitution.check(constitution.founding())
    assert set(constitution.GRAVE) <= set(DECIDED)
    assert set(DECIDED) < set(ACTIONS)


@pytest.mark.parametrize(
    "terms",
    [
        {"approval": Fraction(numerator=1, denominator=3)},
        {"approval": Fraction(numerator=499, denominator=1000)},
        {"approval": Fraction(numerator=1, denominator=1)},
        {"approval": Fraction(numerator=3, denominator=2)},
        {"approval": Fraction()},
        {"participation": Fraction(numerator=0, denominator=1)},
        {"participation": Fraction(numerator=2, denominator=1)},
        {"participation": Fraction(numerator=1, denominator=10_001)},
        {"veto": Fraction(numerator=0, denominator=2)},
        {"veto": Fraction()},
        {"voting_period_ms": 59_999},
        {"voting_period_ms": -1},
        {"voting_period_ms": 2**60},
        {"delay_ms": -1},
        {"delay_ms": 2**60},
    ],
)
def test_a_policy_that_cannot_work_is_refused(terms: dict[str, Any]) -> None:
    bad = constitution.founding()
    for name, value in terms.items():
        if isinstance(value, Fraction):
            getattr(bad.usual, name).CopyFrom(value)
        else:
            setattr(bad.usual, name, value)
    with pytest.raises(InvalidInput) as caught:
        constitution.check(bad)
    assert caught.value.rule == "constitution"
    assert caught.value.hint


@pytest.mark.parametrize(
    "terms",
    [
        {"approval": Fraction(numerator=1, denominator=2)},
        {"approval": Fraction(numerator=9_999, denominator=10_000)},
        {"participation": Fraction(numerator=1, denominator=1)},
        {"participation": Fraction(numerator=1, denominator=10_000)},
        {"veto": Fraction(numerator=1, denominator=1)},
        {"voting_period_ms": 60_000},
        {"delay_ms": 1},
    ],
)
def test_the_boundaries_themselves_are_fine(terms: dict[str, Any]) -> None:
    constitution.check(changed(**terms))


@pytest.mark.parametrize("names", [["remove", "admit"], ["admit", "admit"], ["assert_parameter"], ["nothing"], [""]])
def test_entries_are_known_actions_in_order(names: list[str]) -> None:
    usual = constitution.founding().usual
    bad = Constitution(usual=usual, policies=[ActionPolicy(action=name, policy=usual) for name in names])
    with pytest.raises(InvalidInput):
        constitution.check(bad)


BAD_ACTIONS = {
    "nothing": Action(),
    "no institution": Action(readmit=ReadmitInstitution(institution="Um!")),
    "no reason": Action(suspend=SuspendInstitution(institution="um")),
    "control characters": Action(remove=RemoveInstitution(institution="um", reason="a\x1bb")),
    "no such parameter": Action(set_parameter=SetParameter(name="speed", value=1)),
    "parameter out of bounds": Action(set_parameter=SetParameter(name="min_committee", value=2)),
    "assertion of no parameter": Action(assert_parameter=AssertParameter(name="chain_name", value=1)),
    "another descriptor": Action(admit=AdmitInstitution(institution="um", descriptor=InstitutionDescriptor(id="iu"))),
    "no descriptor": Action(admit=AdmitInstitution(institution="um")),
    "no whole descriptor": Action(admit=AdmitInstitution(institution="um", descriptor=InstitutionDescriptor(id="um"))),
    "weight": Action(set_weight=SetWeight(institution="um", weight=10_001)),
    "regulator without a key": Action(
        register_regulator=RegisterRegulator(person=Person(id="fda/x", roles=[ROLE_REGULATOR]))
    ),
    "recovery without a key": Action(recover=RecoverInstitution(institution="um", person_id="um/op", reason="r")),
    "operator as regulator": Action(
        register_regulator=RegisterRegulator(person=Person(id="fda/x", roles=[ROLE_OPERATOR, ROLE_REGULATOR]))
    ),
    "no person": Action(revoke_regulator=RevokeRegulator(person_id="fda", reason="r")),
    "version": Action(schedule_upgrade=ScheduleUpgrade(version=0, height=9, install="i")),
    "features": Action(schedule_upgrade=ScheduleUpgrade(version=2, height=9, install="i", features=["b", "a"])),
    "nothing to install": Action(schedule_upgrade=ScheduleUpgrade(version=2, height=9)),
    "no points": Action(mint_points=MintPoints(account="fund:consortium", points=0, reason="r")),
    "negative points": Action(burn_points=BurnPoints(account="fund:consortium", points=-1, reason="r")),
    "no account": Action(burn_points=BurnPoints(points=1, reason="r")),
    "no dispute": Action(resolve_dispute=ResolveDispute(dispute_id="7", reason="r")),
    "recovery of another": Action(recover=RecoverInstitution(institution="um", person_id="iu/op", reason="r")),
    "digest": Action(assert_constitution=AssertConstitution(digest=b"short")),
    "empty constitution": Action(set_constitution=SetConstitution()),
    "empty taxonomy": Action(set_taxonomy=SetTaxonomy()),
    "unknown field": Action.FromString(b"\xba\x06\x00"),
}


@pytest.mark.parametrize("name", BAD_ACTIONS)
def test_an_action_of_bad_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        constitution.validate(proposal(FLOOR, BAD_ACTIONS[name]))
    assert caught.value.hint


@pytest.mark.parametrize(
    "bad",
    [
        Propose(reason="r", actions=[FLOOR]),
        Propose(title="t", actions=[FLOOR]),
        Propose(title="t" * 201, reason="r", actions=[FLOOR]),
        proposal(),
        proposal(*[FLOOR] * 17),
        proposal(Action(assert_parameter=AssertParameter(name="min_committee", value=3))),
        proposal(Action(set_constitution=SetConstitution(constitution=constitution.founding())), FLOOR),
    ],
)
def test_a_proposal_of_bad_form_is_refused(bad: Propose) -> None:
    with pytest.raises(InvalidInput):
        constitution.validate(bad)


def test_of_several_actions_the_strictest_holds_in_every_respect() -> None:
    rules = constitution.founding()
    assert constitution.policy_for(rules, proposal(FLOOR)) == rules.usual
    rules.usual.veto.CopyFrom(Fraction(numerator=1, denominator=4))
    rules.usual.delay_ms = 5
    both = constitution.policy_for(rules, proposal(FLOOR, REMOVAL))
    assert (both.approval.numerator, both.approval.denominator) == (2, 3)
    assert both.veto == rules.usual.veto
    assert both.delay_ms == 5
    assert both.voting_period_ms == 2 * rules.usual.voting_period_ms
    assert both == constitution.policy_for(rules, proposal(REMOVAL, FLOOR))


def test_conditions_ask_for_nothing() -> None:
    condition = Action(assert_parameter=AssertParameter(name="min_committee", value=3))
    rules = constitution.founding()
    assert constitution.policy_for(rules, proposal(condition, REMOVAL)) == constitution.policy_for(
        rules, proposal(REMOVAL)
    )


def test_a_proposal_loses_its_meaning_when_its_own_policy_changes() -> None:
    before = constitution.founding()
    after = changed(delay_ms=1)
    assert constitution.loses_its_meaning(proposal(FLOOR), before, after)
    assert not constitution.loses_its_meaning(proposal(REMOVAL), before, after)
    assert not constitution.loses_its_meaning(proposal(FLOOR), before, before)


def test_another_constitution_always_loses_its_meaning() -> None:
    before = constitution.founding()
    other = proposal(Action(set_constitution=SetConstitution(constitution=before)))
    assert constitution.loses_its_meaning(other, before, changed(delay_ms=1))


def test_power_is_checked_by_the_ledger() -> None:
    constitution.validate(proposal(Action(set_power=SetPower(institution="um", power=2**40))))
