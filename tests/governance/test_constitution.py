"""The constitution: what is well formed, which policy holds, and which proposals lose their meaning."""

from __future__ import annotations

from typing import Any

import pytest

from governance import constitution
from governance.actions import ACTIONS, DECIDED
from koinon.errors import InvalidInput
from koinon.v1.constitution_pb2 import ActionPolicy, ArbitrationPolicy, Constitution, DecisionPolicy, Fraction
from koinon.v1.dispute_pb2 import REMEDY_REFUND, REMEDY_SUSPENSION
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


def part(numerator: int, denominator: int) -> Fraction:
    return Fraction(numerator=numerator, denominator=denominator)


BAD_ARBITRATION: dict[str, dict[str, Any]] = {
    "by a minority": {"refund": part(49, 100)},
    "by everybody and one more": {"payout": part(1, 1)},
    "by nobody": {"revocation": Fraction()},
    "in very small parts": {"revocation": part(6_000, 10_001)},
    "shutting out by half": {"suspension": part(1, 2)},
    "shutting out by almost two thirds": {"suspension": part(6_666, 10_000)},
    "shutting out by more than all": {"suspension": part(3, 2)},
    "without a quorum": {"quorum": 0},
    "with a quorum of more than can be members": {"quorum": 501},
    "without time to answer": {"answer_period_ms": 59_999},
    "with an answer in the past": {"answer_period_ms": -1},
    "without time to rule": {"ruling_period_ms": 0},
    "never ruled": {"ruling_period_ms": 2**60},
}


@pytest.mark.parametrize("case", BAD_ARBITRATION)
def test_arbitration_that_cannot_work_is_refused(case: str) -> None:
    bad = constitution.founding()
    for name, value in BAD_ARBITRATION[case].items():
        bad.arbitration.ClearField(name)  # type: ignore[arg-type]
        bad.arbitration.MergeFrom(ArbitrationPolicy(**{name: value}))
    with pytest.raises(InvalidInput) as caught:
        constitution.check(bad)
    assert caught.value.rule == "constitution"
    assert caught.value.hint


def test_arbitration_has_its_bounds_too() -> None:
    edge = constitution.founding()
    edge.arbitration.CopyFrom(
        ArbitrationPolicy(
            refund=part(1, 2),
            payout=part(9_999, 10_000),
            revocation=part(1, 2),
            suspension=part(6_667, 10_000),
            quorum=500,
            answer_period_ms=60_000,
            ruling_period_ms=366 * 86_400_000,
        )
    )
    constitution.check(edge)
    edge.ClearField("arbitration")
    with pytest.raises(InvalidInput, match="disputes"):
        constitution.check(edge)


def test_arbiters_shut_nobody_out_by_less_than_a_ballot_takes() -> None:
    rules = constitution.founding()
    next(entry for entry in rules.policies if entry.action == "suspend").policy.approval.CopyFrom(part(3, 4))
    with pytest.raises(InvalidInput, match="suspension by arbiters takes 2/3"):
        constitution.check(rules)
    rules.arbitration.suspension.CopyFrom(part(3, 4))
    constitution.check(rules)


def test_what_differs_between_two_constitutions_is_named() -> None:
    before, after = constitution.founding(), changed(delay_ms=1)
    assert constitution.changed(before, before) == []
    assert "usual" in constitution.changed(before, after)
    after = constitution.founding()
    after.arbitration.quorum = 3
    after.policies.add(action="mint_points", policy=after.policies[0].policy)
    del after.policies[0]
    assert constitution.changed(before, after) == ["admit", "arbitration", "mint_points"]


@pytest.mark.parametrize("names", [["remove", "admit"], ["admit", "admit"], ["assert_parameter"], ["nothing"], [""]])
def test_entries_are_known_actions_in_order(names: list[str]) -> None:
    usual = constitution.founding().usual
    bad = Constitution(
        usual=usual,
        policies=[ActionPolicy(action=name, policy=usual) for name in names],
        arbitration=constitution.founding().arbitration,
    )
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


def test_who_is_suspended_for_a_dispute_is_suspended_by_no_fewer() -> None:
    """Else one quarrel would be enough to shut a member out by half of the ballots."""
    rules = constitution.founding()
    resolved, suspended = (
        Action(resolve_dispute=ResolveDispute(dispute_id="0" * 32, reason="r", remedies=[remedy]))
        for remedy in (REMEDY_REFUND, REMEDY_SUSPENSION)
    )
    suspension = Action(suspend=SuspendInstitution(institution="um", reason="r"))
    assert constitution.policy_for(rules, proposal(resolved)) == rules.usual
    assert constitution.policy_for(rules, proposal(suspended)) == constitution.policy_for(rules, proposal(suspension))


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
