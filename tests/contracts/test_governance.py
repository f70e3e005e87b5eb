"""Proposals and ballots on the ledger: who decides, when, what is executed, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from governance import constitution
from governance.actions import ACTIONS
from koinon import canonical
from koinon.errors import Unavailable
from koinon.rules import RULES
from koinon.v1.access_pb2 import TOKEN_STATUS_REVOKED
from koinon.v1.catalog_pb2 import Taxonomy, Theme
from koinon.v1.constitution_pb2 import Constitution, Fraction
from koinon.v1.dispute_pb2 import REMEDY_REVOCATION
from koinon.v1.governance_pb2 import (
    APPLICATION_STATUS_ADMITTED,
    APPLICATION_STATUS_WITHDRAWN,
    CHOICE_ABSTAIN,
    CHOICE_NO,
    CHOICE_YES,
    PROPOSAL_STATUS_ACCEPTED,
    PROPOSAL_STATUS_DROPPED,
    PROPOSAL_STATUS_EXECUTED,
    PROPOSAL_STATUS_EXPIRED,
    PROPOSAL_STATUS_FAILED,
    PROPOSAL_STATUS_OPEN,
    PROPOSAL_STATUS_REJECTED,
    PROPOSAL_STATUS_WITHDRAWN,
    Action,
    AdmitInstitution,
    ApplyForMembership,
    AssertConstitution,
    AssertMemberStatus,
    AssertParameter,
    BurnPoints,
    CancelUpgrade,
    CastBallot,
    GovernanceProposal,
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
    WithdrawApplication,
    WithdrawProposal,
)
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_VALIDATOR,
    MEMBER_STATUS_ACTIVE,
    MEMBER_STATUS_REMOVED,
    MEMBER_STATUS_SUSPENDED,
    ROLE_OPERATOR,
    ROLE_REGULATOR,
    BeginVoting,
    Person,
    RegisterPerson,
    RevokeKey,
)
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_COMMITTED
from node.contracts import actions, upgrades
from tests.contracts.consortium import MEMBERS, Consortium, claim, genesis, key, person, publication
from tests.contracts.decree import descriptor

FUND = "fund:consortium"
PERIOD_MS = 7 * 24 * 60 * 60 * 1000


def set_parameter(name: str, value: int) -> Action:
    return Action(set_parameter=SetParameter(name=name, value=value))


def remove(institution: str) -> Action:
    return Action(remove=RemoveInstitution(institution=institution, reason="left the study"))


def suspend(institution: str) -> Action:
    return Action(suspend=SuspendInstitution(institution=institution, reason="broke the rules"))


def propose(consortium: Consortium, *actions: Action, who: str = "um", title: str = "a change") -> str:
    return consortium.do(f"{who}/operator", Propose(title=title, reason="agreed", actions=actions))


def ballot(consortium: Consortium, proposal: str, choice: Any, *members: str) -> None:
    for member in members:
        consortium.do(f"{member}/operator", CastBallot(proposal_id=proposal, choice=choice))


def decide(consortium: Consortium, *actions: Action) -> GovernanceProposal:
    """Propose, and let all say yes until it is decided."""
    proposal = propose(consortium, *actions)
    for member in MEMBERS:
        if consortium.app.proposal(proposal).status == PROPOSAL_STATUS_OPEN:
            consortium.send(f"{member}/operator", CastBallot(proposal_id=proposal, choice=CHOICE_YES))
    return consortium.app.proposal(proposal)


def status(consortium: Consortium, proposal: str) -> int:
    return consortium.app.proposal(proposal).status


# --- from proposal to effect


@pytest.mark.parametrize("named", ["node", "operator"])
def test_nobody_stops_an_admission_by_registering_its_keys_first(consortium: Consortium, named: str) -> None:
    """They are public from the application on, and ballots take weeks."""
    newcomer = descriptor("osu", 5)
    theirs = Person(id="iu/thief", roles=[ROLE_OPERATOR])
    theirs.public_key = newcomer.node_key if named == "node" else newcomer.people[0].public_key
    steal = RegisterPerson(person=theirs)
    admission = Action(admit=AdmitInstitution(institution="osu", descriptor=newcomer))
    consortium.do("um/operator", ApplyForMembership(descriptor=newcomer, motivation="data"))
    assert consortium.refused("iu/operator", steal) == "already-exists"
    consortium.do("um/operator", WithdrawApplication(institution="osu", reason="by proposal alone"))
    proposal = propose(consortium, admission)
    assert consortium.refused("iu/operator", steal) == "already-exists"
    withdrawn = propose(consortium, admission, title="the same again")
    consortium.do("um/operator", WithdrawProposal(proposal_id=withdrawn, reason="once is enough"))
    assert consortium.refused("iu/operator", steal) == "already-exists"
    assert consortium.app.preview(Propose(title="t", reason="r", actions=[admission]))[1] is None
    ballot(consortium, proposal, CHOICE_YES, "um", "uk", "case")
    assert status(consortium, proposal) == PROPOSAL_STATUS_EXECUTED
    assert consortium.app.institution("osu").status == MEMBER_STATUS_ACTIVE


def test_an_application_does_not_wait_for_a_sponsor_who_left(consortium: Consortium) -> None:
    consortium.do("iu/operator", ApplyForMembership(descriptor=descriptor("osu", 5), motivation="data"))
    again = ApplyForMembership(descriptor=descriptor("osu", 6), motivation="data")
    assert consortium.refused("um/operator", again) == "wrong-state"
    decide(consortium, remove("iu"))
    consortium.do("um/operator", again)
    application = consortium.app.application("osu")
    assert (application.sponsor, application.descriptor) == ("um/operator", descriptor("osu", 6))
    former = Person(id="uk/second", public_key=descriptor("osu", 5).node_key, roles=[ROLE_OPERATOR])
    consortium.do("uk/operator", RegisterPerson(person=former))


def test_what_is_no_longer_proposed_keeps_no_key(consortium: Consortium) -> None:
    lost = Action(
        recover=RecoverInstitution(
            institution="um", person_id="um/second", public_key=key("iu/new").public_key, reason="lost"
        )
    )
    inspector = Action(
        register_regulator=RegisterRegulator(person=person("fda/ann", ROLE_REGULATOR, key_name="iu/new"))
    )
    proposal = propose(consortium, lost, inspector)
    new = RegisterPerson(person=person("iu/new", ROLE_OPERATOR))
    assert consortium.refused("iu/operator", new) == "already-exists"
    consortium.do("um/operator", WithdrawProposal(proposal_id=proposal, reason="found"))
    consortium.do("iu/operator", new)


def test_a_larger_cohort_holds_for_later_tasks_on_whatever_was_granted_before(consortium: Consortium) -> None:
    consortium.publish("iu.a.t", "um.a.t")
    before = consortium.token("um.a.t", uses=10)
    running = consortium.do("um/analyst", consortium.submission({"um.a.t": before}))
    decide(consortium, set_parameter("min_cohort_floor", 7))
    assert consortium.refused("um/analyst", consortium.submission({"um.a.t": before})) == "policy"
    consortium.accept_all(running)
    later = consortium.token("iu.a.t")
    assert consortium.app.token(later).min_cohort == 7
    consortium.do("um/analyst", consortium.submission({"iu.a.t": later, "um.a.t": before}))  # the largest one counts
    larger = publication("um.a.t")
    larger.policy.min_cohort = 7
    consortium.do("um/operator", larger)
    consortium.do("um/analyst", consortium.submission({"um.a.t": before}))


def test_a_majority_changes_a_parameter_at_once(consortium: Consortium) -> None:
    proposal = propose(consortium, set_parameter("min_cohort_floor", 7))
    ballot(consortium, proposal, CHOICE_YES, "case", "iu")
    assert status(consortium, proposal) == PROPOSAL_STATUS_OPEN, "the other two may still say no"
    assert consortium.app.parameters().min_cohort_floor == 5
    ballot(consortium, proposal, CHOICE_YES, "uk")
    decided = consortium.app.proposal(proposal)
    assert decided.status == PROPOSAL_STATUS_EXECUTED
    assert (decided.tally.yes, decided.tally.total) == (3, 4)
    assert list(decided.effects) == ["min_cohort_floor: 5 -> 7"]
    assert consortium.app.parameters().min_cohort_floor == 7


def test_everything_an_execution_records_is_related_to_its_proposal(consortium: Consortium) -> None:
    decided = decide(consortium, set_parameter("min_cohort_floor", 7), remove("um"))
    subject = f"proposal:{decided.id}"
    last = consortium.app.info().height
    records = [record for record in consortium.records() if record.height == last]
    kinds = {record.kind for record in records}
    assert {"parameter.changed", "institution.removed", "proposal.executed"} <= kinds
    begin = [record.kind for record in records].index("proposal.accepted")
    assert all(record.subject == subject or subject in record.related for record in records[begin:])


def test_the_id_binds_chain_proposer_time_and_content(consortium: Consortium) -> None:
    message = Propose(title="t", reason="r", actions=[set_parameter("min_cohort_floor", 7)])
    first = consortium.do("um/operator", message)
    made = consortium.app.proposal(first)
    content = message.SerializeToString(deterministic=True)
    assert first == canonical.proposal_id(consortium.chain_id, "um/operator", made.proposed_at_ms, content)
    assert consortium.do("um/operator", message) != first, "at another time it is another proposal"


def test_the_same_twice_in_one_block_is_one_proposal(consortium: Consortium) -> None:
    message = Propose(title="t", reason="r", actions=[set_parameter("min_cohort_floor", 7)])
    first, second = consortium.decide(*(consortium.envelope("um/operator", message) for _ in range(2))).results
    assert first.status == TRANSACTION_STATUS_COMMITTED
    assert second.refusal.rule == "already-exists"


def test_a_ballot_may_be_replaced_while_the_proposal_is_open(consortium: Consortium) -> None:
    proposal = propose(consortium, set_parameter("min_cohort_floor", 7))
    ballot(consortium, proposal, CHOICE_NO, "case")
    ballot(consortium, proposal, CHOICE_YES, "case", "iu")
    found = consortium.app.proposal(proposal)
    assert [(each.institution, each.choice) for each in found.ballots] == [("case", CHOICE_YES), ("iu", CHOICE_YES)]
    assert [record.kind for record in consortium.records() if record.subject == f"proposal:{proposal}"] == [
        "proposal.made",
        "ballot.cast",
        "ballot.replaced",
        "ballot.cast",
    ]
    ballot(consortium, proposal, CHOICE_YES, "uk")
    assert consortium.refused("case/operator", CastBallot(proposal_id=proposal, choice=CHOICE_NO)) == "wrong-state"


def test_two_operators_of_one_member_have_one_ballot(consortium: Consortium) -> None:
    consortium.do("case/operator", RegisterPerson(person=person("case/second", ROLE_OPERATOR)))
    proposal = propose(consortium, set_parameter("min_cohort_floor", 7))
    ballot(consortium, proposal, CHOICE_YES, "case")
    consortium.do("case/second", CastBallot(proposal_id=proposal, choice=CHOICE_NO))
    (cast,) = consortium.app.proposal(proposal).ballots
    assert (cast.choice, cast.cast_by) == (CHOICE_NO, "case/second")


def test_two_of_four_against_reject_at_once(consortium: Consortium) -> None:
    proposal = propose(consortium, set_parameter("min_cohort_floor", 7))
    ballot(consortium, proposal, CHOICE_NO, "case", "iu")
    assert status(consortium, proposal) == PROPOSAL_STATUS_REJECTED
    assert consortium.app.parameters().min_cohort_floor == 5


def test_at_the_end_participation_and_approval_decide(consortium: Consortium) -> None:
    silent = propose(consortium, set_parameter("min_cohort_floor", 7))
    half = propose(consortium, set_parameter("min_cohort_floor", 8))
    split = propose(consortium, set_parameter("min_cohort_floor", 9))
    ballot(consortium, silent, CHOICE_YES, "um")
    ballot(consortium, half, CHOICE_YES, "um", "uk")
    ballot(consortium, split, CHOICE_YES, "um")
    ballot(consortium, split, CHOICE_NO, "uk")
    ballot(consortium, split, CHOICE_ABSTAIN, "iu")
    consortium.wait(PERIOD_MS - 100_000)
    assert {status(consortium, one) for one in (silent, half, split)} == {PROPOSAL_STATUS_OPEN}
    consortium.wait(100_000)
    assert status(consortium, silent) == PROPOSAL_STATUS_EXPIRED
    assert status(consortium, half) == PROPOSAL_STATUS_EXECUTED
    assert status(consortium, split) == PROPOSAL_STATUS_REJECTED
    assert consortium.app.parameters().min_cohort_floor == 8


def test_a_ballot_in_the_last_block_comes_too_late(consortium: Consortium) -> None:
    proposal = propose(consortium, set_parameter("min_cohort_floor", 7))
    consortium.wait(PERIOD_MS - 1_000)
    late = consortium.envelope("um/operator", CastBallot(proposal_id=proposal, choice=CHOICE_YES))
    (result,) = consortium.decide(late, after_ms=1_000).results
    assert result.refusal.rule == "ballots-closed"


def test_the_proposer_may_withdraw(consortium: Consortium) -> None:
    proposal = propose(consortium, set_parameter("min_cohort_floor", 7))
    consortium.do("um/operator", WithdrawProposal(proposal_id=proposal, reason="a mistake"))
    assert status(consortium, proposal) == PROPOSAL_STATUS_WITHDRAWN
    assert consortium.refused("um/operator", CastBallot(proposal_id=proposal, choice=CHOICE_YES)) == "wrong-state"


def test_undecided_proposals_of_one_member_are_bounded(consortium: Consortium) -> None:
    made = [propose(consortium, set_parameter("min_cohort_floor", 7)) for _ in range(16)]
    message = Propose(title="t", reason="r", actions=[set_parameter("min_cohort_floor", 8)])
    assert consortium.refused("um/operator", message) == "too-many"
    assert consortium.do("uk/operator", message)
    consortium.do("um/operator", WithdrawProposal(proposal_id=made[0], reason="room"))
    assert consortium.do("um/operator", message)


# --- all or none


def test_several_actions_are_applied_all_or_none(consortium: Consortium) -> None:
    before = dict(consortium.store.scan(b"s/parameters"))
    failed = decide(
        consortium, set_parameter("min_cohort_floor", 7), set_parameter("run_window_ms", 5_000), remove("nobody")
    )
    assert failed.status == PROPOSAL_STATUS_FAILED
    assert failed.rule == "not-found"
    assert "nobody" in failed.ended_because
    assert not failed.effects
    assert dict(consortium.store.scan(b"s/parameters")) == before
    assert "parameter.changed" not in [record.kind for record in consortium.records()]


def test_a_condition_that_does_not_hold_fails_the_proposal(consortium: Consortium) -> None:
    change = set_parameter("min_cohort_floor", 7)
    for condition in (
        Action(assert_parameter=AssertParameter(name="min_cohort_floor", value=6)),
        Action(assert_member_status=AssertMemberStatus(institution="um", status=MEMBER_STATUS_SUSPENDED)),
        Action(assert_member_status=AssertMemberStatus(institution="um")),
        Action(assert_constitution=AssertConstitution(digest=bytes(32))),
    ):
        failed = decide(consortium, condition, change)
        assert (failed.status, failed.rule) == (PROPOSAL_STATUS_FAILED, "condition")
    digest = consortium.app.constitution_digest()
    held = decide(
        consortium,
        Action(assert_parameter=AssertParameter(name="min_cohort_floor", value=5)),
        Action(assert_member_status=AssertMemberStatus(institution="um", status=MEMBER_STATUS_ACTIVE)),
        Action(assert_member_status=AssertMemberStatus(institution="nobody")),
        Action(assert_constitution=AssertConstitution(digest=digest)),
        change,
    )
    assert held.status == PROPOSAL_STATUS_EXECUTED


def test_parameters_must_fit_together_when_it_comes_to_it(consortium: Consortium) -> None:
    failed = decide(consortium, set_parameter("max_committee", 3), set_parameter("min_committee", 4))
    assert (failed.status, failed.rule) == (PROPOSAL_STATUS_FAILED, "parameters")


def test_a_preview_changes_nothing_and_says_what_would(consortium: Consortium) -> None:
    consortium.wait(1)  # signs of life
    before = dict(consortium.store.scan(b""))
    good = Propose(title="t", reason="r", actions=[set_parameter("min_cohort_floor", 7), remove("um")])
    effects, refusal = consortium.app.preview(good)
    assert effects == ["min_cohort_floor: 5 -> 7", "member um: active -> removed"]
    assert refusal is None
    _, refusal = consortium.app.preview(Propose(title="t", reason="r", actions=[remove("nobody")]))
    assert refusal is not None
    assert refusal.rule == "not-found"
    assert dict(consortium.store.scan(b"")) == before
    assert consortium.app.parameters().min_cohort_floor == 5


# --- running tasks keep the terms they were submitted under


def test_parameters_change_for_later_tasks_only(consortium: Consortium) -> None:
    consortium.publish("iu.a.t")
    token = consortium.token("iu.a.t", duration_ms=1_000_000)
    task = consortium.do("um/analyst", consortium.submission({"iu.a.t": token}))
    before = consortium.app.task(task)
    decide(consortium, set_parameter("run_window_ms", 77_000), set_parameter("accept_window_ms", 33_000))
    assert consortium.app.task(task) == before
    consortium.accept_all(task)
    assert consortium.app.task(task).deadline_ms == consortium.time_ms + 120_000
    later = consortium.do("um/analyst", consortium.submission({"iu.a.t": token}))
    assert consortium.app.task(later).deadline_ms == consortium.time_ms + 33_000
    consortium.accept_all(later)
    assert consortium.app.task(later).deadline_ms == consortium.time_ms + 77_000


# --- members


def test_from_application_to_validator(consortium: Consortium) -> None:
    applied = descriptor("osu", 5)
    consortium.do("um/operator", ApplyForMembership(descriptor=applied, motivation="brings a trial"))
    admission = Action(admit=AdmitInstitution(institution="osu", descriptor=applied, power=1))
    decided = decide(consortium, admission)
    assert decided.status == PROPOSAL_STATUS_EXECUTED, decided.ended_because
    assert consortium.app.application("osu").status == APPLICATION_STATUS_ADMITTED
    assert consortium.app.ballot_weights()["osu"] == 1
    observer = consortium.app.institution("osu")
    assert (observer.status, observer.descriptor.power, observer.approved_power) == (MEMBER_STATUS_ACTIVE, 0, 1)
    consortium.do("osu node 5", BeginVoting(height=consortium.app.info().height))
    assert consortium.app.institution("osu").descriptor.power == 1


def test_a_new_member_has_a_ballot_and_a_removed_one_none(consortium: Consortium) -> None:
    admission = AdmitInstitution(institution="osu", descriptor=descriptor("osu", 5), weight=2)
    decide(consortium, Action(admit=admission))
    open_one = propose(consortium, set_parameter("min_cohort_floor", 7))
    ballot(consortium, open_one, CHOICE_YES, "um", "uk")
    assert consortium.app.ballot_weights() == {"case": 1, "iu": 1, "osu": 2, "uk": 1, "um": 1}
    removal = propose(consortium, remove("osu"))
    ballot(consortium, removal, CHOICE_YES, "um", "uk", "case", "iu")
    assert status(consortium, removal) == PROPOSAL_STATUS_OPEN, "4 of 6 are not more than two thirds"
    consortium.wait(2 * PERIOD_MS)
    assert status(consortium, removal) == PROPOSAL_STATUS_EXECUTED
    assert consortium.app.institution("osu").status == MEMBER_STATUS_REMOVED
    assert "osu" not in consortium.app.ballot_weights()
    message = CastBallot(proposal_id=removal, choice=CHOICE_NO)
    assert consortium.refused("osu/operator", message) == "member-removed"


def test_a_removal_decides_what_only_the_removed_one_kept_open(consortium: Consortium) -> None:
    decide(consortium, Action(set_weight=SetWeight(institution="case", weight=3)))
    waiting = propose(consortium, set_parameter("min_cohort_floor", 7))
    ballot(consortium, waiting, CHOICE_YES, "um", "uk", "iu")
    assert status(consortium, waiting) == PROPOSAL_STATUS_OPEN, "case may still say no, with weight 3"
    decide(consortium, Action(set_weight=SetWeight(institution="case", weight=1)))
    assert status(consortium, waiting) == PROPOSAL_STATUS_EXECUTED


def test_no_weight_no_ballot_and_never_nobody_left(consortium: Consortium) -> None:
    decide(consortium, Action(set_weight=SetWeight(institution="case", weight=0)))
    proposal = propose(consortium, set_parameter("min_cohort_floor", 7))
    assert consortium.refused("case/operator", CastBallot(proposal_id=proposal, choice=CHOICE_YES)) == "no-ballot"
    failed = decide(
        consortium, *(Action(set_weight=SetWeight(institution=name, weight=0)) for name in ("iu", "uk", "um"))
    )
    assert (failed.status, failed.rule) == (PROPOSAL_STATUS_FAILED, "constitution")


def test_a_removal_that_would_leave_no_quorum_fails_and_says_so(consortium: Consortium) -> None:
    failed = decide(consortium, remove("um"), remove("uk"), remove("iu"))
    assert failed.status == PROPOSAL_STATUS_FAILED
    assert failed.rule in ("no-live-quorum", "set-change")
    assert set(consortium.app.ballot_weights()) == set(MEMBERS)


def test_suspend_readmit_power_and_recovery(consortium: Consortium) -> None:
    suspended = decide(consortium, Action(suspend=SuspendInstitution(institution="um", reason="an inquiry")))
    assert list(suspended.effects) == ["member um: active -> suspended"]
    back = propose(consortium, Action(readmit=ReadmitInstitution(institution="um")), who="uk")
    ballot(consortium, back, CHOICE_YES, "case", "iu", "uk")
    assert consortium.app.institution("um").status == MEMBER_STATUS_ACTIVE
    powered = decide(consortium, Action(set_power=SetPower(institution="uk", power=2)))
    assert list(powered.effects) == ["power of uk: 1 -> 2"]
    new = key("um operator found again").public_key
    recover = RecoverInstitution(institution="um", person_id="um/operator", public_key=new, reason="lost")
    proposal = propose(consortium, Action(recover=recover), who="uk")
    ballot(consortium, proposal, CHOICE_YES, "case", "iu", "uk")
    assert consortium.app.proposal(proposal).status == PROPOSAL_STATUS_EXECUTED
    assert consortium.refused("um/operator", WithdrawProposal(proposal_id=proposal, reason="x")) == "revoked-key"
    assert consortium.refused("um operator found again", WithdrawProposal(proposal_id=proposal, reason="x")) == (
        "permission"
    )


def test_applications_are_sponsored_and_withdrawn(consortium: Consortium) -> None:
    apply = ApplyForMembership(descriptor=descriptor("osu", 5), motivation="brings a trial")
    assert consortium.do("um/operator", apply) == "osu"
    assert consortium.refused("uk/operator", apply) == "wrong-state"
    bad = ApplyForMembership(descriptor=descriptor("osu", 5), motivation="x")
    bad.descriptor.validator_key = b"short"
    assert consortium.refused("um/operator", bad) in ("invalid-genesis", "invalid-input")
    assert consortium.refused("um/operator", ApplyForMembership(descriptor=descriptor("um", 6), motivation="x")) == (
        "already-exists"
    )
    withdraw = WithdrawApplication(institution="osu", reason="not now")
    assert consortium.refused("uk/operator", withdraw) == "permission"
    consortium.do("um/operator", withdraw)
    assert consortium.app.application("osu").status == APPLICATION_STATUS_WITHDRAWN
    assert consortium.do("uk/operator", apply) == "osu"


# --- regulators, points, taxonomy, disputes


def test_a_regulator_of_an_authority_outside(consortium: Consortium) -> None:
    regulator = person("fda/inspector", ROLE_REGULATOR)
    decided = decide(consortium, Action(register_regulator=RegisterRegulator(person=regulator)))
    assert decided.status == PROPOSAL_STATUS_EXECUTED, decided.ended_because
    sender = consortium.app.sender(regulator.public_key)
    assert (sender.id, sender.institution, list(sender.roles)) == ("fda/inspector", "fda", [ROLE_REGULATOR])
    message = Propose(title="t", reason="r", actions=[set_parameter("min_cohort_floor", 7)])
    assert consortium.refused("fda/inspector", message) == "permission"
    taken = Action(admit=AdmitInstitution(institution="fda", descriptor=descriptor("fda", 7)))
    assert decide(consortium, taken).rule == "already-exists"
    revoked = decide(consortium, Action(revoke_regulator=RevokeRegulator(person_id="fda/inspector", reason="retired")))
    assert list(revoked.effects) == ["regulator fda/inspector: active -> revoked"]
    assert consortium.refused("fda/inspector", message) == "revoked-key"


def test_nobody_is_made_a_regulator_at_the_cost_of_other_roles(consortium: Consortium) -> None:
    taken = person("um/operator", ROLE_REGULATOR, key_name="um second")
    assert decide(consortium, Action(register_regulator=RegisterRegulator(person=taken))).rule == "already-exists"
    nobody = Action(revoke_regulator=RevokeRegulator(person_id="um/analyst", reason="r"))
    assert decide(consortium, nobody).rule == "wrong-state"


def test_points_come_and_go_by_ballot(consortium: Consortium) -> None:
    decide(consortium, Action(mint_points=MintPoints(account=FUND, points=100, reason="the year")))
    burned = decide(consortium, Action(burn_points=BurnPoints(account=FUND, points=40, reason="unspent")))
    assert list(burned.effects) == [f"{FUND}: 100 -> 60 points, burned"]
    failed = decide(consortium, Action(burn_points=BurnPoints(account=FUND, points=61, reason="too much")))
    assert (failed.status, failed.rule) == (PROPOSAL_STATUS_FAILED, "insufficient-points")


def test_a_taxonomy_by_ballot(consortium: Consortium) -> None:
    taxonomy = Taxonomy(title="Ours", themes=[Theme(code="A", label="Arts")])
    decided = decide(consortium, Action(set_taxonomy=SetTaxonomy(taxonomy=taxonomy)))
    assert decided.status == PROPOSAL_STATUS_EXECUTED, decided.ended_because
    assert decided.effects[0].endswith("1 themes")


def test_a_dispute_is_resolved_by_ballot(consortium: Consortium) -> None:
    consortium.publish("iu.a.t")
    token = consortium.token("iu.a.t", duration_ms=1_000_000)
    dispute = consortium.do("um/analyst", claim(token, "iu", REMEDY_REVOCATION))
    ruling = ResolveDispute(dispute_id=dispute, remedies=[REMEDY_REVOCATION], reason="seen")
    decided = decide(consortium, Action(resolve_dispute=ruling))
    assert decided.status == PROPOSAL_STATUS_EXECUTED, decided.ended_because
    assert consortium.app.token(token).status == TOKEN_STATUS_REVOKED


def test_a_dispute_that_is_not_there_is_not_resolved(consortium: Consortium) -> None:
    missing = Action(resolve_dispute=ResolveDispute(dispute_id="0" * 32, reason="seen"))
    assert decide(consortium, missing).rule == "not-found"


def test_no_friend_stops_a_suspension_by_a_change_of_its_own_in_that_block(consortium: Consortium) -> None:
    """It would take another ballot, and the friend would do the same again."""
    consortium.wait(1)
    proposal = propose(consortium, suspend("iu"))
    ballot(consortium, proposal, CHOICE_YES, "um", "uk")
    last = consortium.envelope("case/operator", CastBallot(proposal_id=proposal, choice=CHOICE_YES))
    revocation = RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="to be in the way")
    block = consortium.decide(last, consortium.envelope("uk/operator", revocation))
    assert [record.kind for record in block.records][-3:] == ["proposal.accepted", "key.revoked", "proposal.postponed"]
    assert status(consortium, proposal) == PROPOSAL_STATUS_ACCEPTED
    consortium.wait(1)
    assert status(consortium, proposal) == PROPOSAL_STATUS_EXECUTED
    assert consortium.app.institution("iu").status == MEMBER_STATUS_SUSPENDED


def test_what_is_too_much_by_itself_fails_at_once(consortium: Consortium) -> None:
    consortium.wait(1)
    assert decide(consortium, suspend("iu"), suspend("uk")).rule == "set-change"


# --- the constitution


def other(**usual: Any) -> Constitution:
    result = constitution.founding()
    for name, value in usual.items():
        if isinstance(value, Fraction):
            getattr(result.usual, name).CopyFrom(value)
        else:
            setattr(result.usual, name, value)
    return result


def amend(result: Constitution) -> Action:
    return Action(set_constitution=SetConstitution(constitution=result))


def test_a_new_constitution_drops_what_was_made_under_rules_that_it_changes(consortium: Consortium) -> None:
    usual = propose(consortium, set_parameter("min_cohort_floor", 7))
    grave = propose(consortium, remove("um"))
    rival = propose(consortium, amend(other(voting_period_ms=100_000)))
    decided = decide(consortium, amend(other(delay_ms=60_000)))
    assert decided.status == PROPOSAL_STATUS_EXECUTED, decided.ended_because
    assert status(consortium, usual) == PROPOSAL_STATUS_DROPPED
    assert status(consortium, rival) == PROPOSAL_STATUS_DROPPED
    assert status(consortium, grave) == PROPOSAL_STATUS_OPEN
    assert consortium.refused("um/operator", CastBallot(proposal_id=usual, choice=CHOICE_YES)) == "wrong-state"


def test_a_delay_lies_between_acceptance_and_execution(consortium: Consortium) -> None:
    decide(consortium, amend(other(delay_ms=60_000)))
    decided = decide(consortium, set_parameter("min_cohort_floor", 7))
    assert decided.status == PROPOSAL_STATUS_ACCEPTED
    message = WithdrawProposal(proposal_id=decided.id, reason="too late")
    assert consortium.refused("um/operator", message) == "wrong-state"
    consortium.wait(decided.executes_at_ms - consortium.time_ms - 1)
    assert consortium.app.parameters().min_cohort_floor == 5
    consortium.wait(1)
    assert consortium.app.parameters().min_cohort_floor == 7
    assert status(consortium, decided.id) == PROPOSAL_STATUS_EXECUTED


def test_who_is_gone_shortens_no_delay(consortium: Consortium) -> None:
    """A removal is executed in the block that closes another proposal, which is accepted by it: its delay begins."""
    rules = other(delay_ms=60_000)
    next(entry for entry in rules.policies if entry.action == "remove").policy.delay_ms = 60_000
    decide(consortium, amend(rules))
    change = propose(consortium, set_parameter("min_cohort_floor", 7))
    ballot(consortium, change, CHOICE_YES, "um", "uk")
    closes_at_ms = consortium.app.proposal(change).closes_at_ms
    removal = propose(consortium, remove("iu"))
    ballot(consortium, removal, CHOICE_YES, "um", "uk")
    consortium.wait(closes_at_ms - 60_000 - consortium.time_ms - 2_000)
    ballot(consortium, removal, CHOICE_YES, "case")
    assert consortium.app.proposal(removal).executes_at_ms < closes_at_ms
    consortium.wait(closes_at_ms - consortium.time_ms)
    assert status(consortium, removal) == PROPOSAL_STATUS_EXECUTED
    accepted = consortium.app.proposal(change)
    assert (accepted.status, accepted.executes_at_ms) == (PROPOSAL_STATUS_ACCEPTED, consortium.time_ms + 60_000)
    consortium.wait(60_000)
    assert consortium.app.parameters().min_cohort_floor == 7


def test_what_is_accepted_keeps_its_acceptance_but_for_another_constitution(consortium: Consortium) -> None:
    delayed = constitution.founding()
    delayed.usual.delay_ms = 60_000
    for entry in delayed.policies:
        if entry.action == "set_constitution":
            entry.policy.delay_ms = 60_000
    decide(consortium, amend(delayed))
    first = decide(consortium, amend(other(voting_period_ms=100_000)))
    second = decide(consortium, amend(other(voting_period_ms=200_000)))
    change = decide(consortium, set_parameter("min_cohort_floor", 7))
    assert {first.status, second.status, change.status} == {PROPOSAL_STATUS_ACCEPTED}
    consortium.wait(60_000)
    assert status(consortium, first.id) == PROPOSAL_STATUS_EXECUTED
    assert status(consortium, second.id) == PROPOSAL_STATUS_DROPPED
    assert status(consortium, change.id) == PROPOSAL_STATUS_EXECUTED


def test_a_veto(consortium: Consortium) -> None:
    decide(consortium, amend(other(veto=Fraction(numerator=1, denominator=4))))
    proposal = propose(consortium, set_parameter("min_cohort_floor", 7))
    ballot(consortium, proposal, CHOICE_YES, "um", "uk", "iu")
    assert status(consortium, proposal) == PROPOSAL_STATUS_OPEN
    ballot(consortium, proposal, CHOICE_NO, "case")
    assert status(consortium, proposal) == PROPOSAL_STATUS_REJECTED


def test_a_genesis_may_bring_a_constitution() -> None:
    chosen = genesis()
    chosen.constitution.CopyFrom(other(voting_period_ms=60_000))
    consortium = Consortium(genesis=chosen)
    assert consortium.app.constitution() == chosen.constitution
    assert Consortium().app.constitution() == constitution.founding()


# --- upgrades


def schedule(consortium: Consortium, version: int = 2, ahead: int = 20, **more: Any) -> GovernanceProposal:
    upgrade = ScheduleUpgrade(
        version=version, height=consortium.app.info().height + ahead, install="koinon 0.2", **more
    )
    return decide(consortium, Action(schedule_upgrade=upgrade))


def test_no_block_of_an_unknown_version_is_executed(consortium: Consortium) -> None:
    scheduled = schedule(consortium, features=["faster"])
    height = scheduled.proposed.actions[0].schedule_upgrade.height
    assert consortium.app.protocol().version == 1
    while consortium.app.info().height < height - 1:
        consortium.app.check_protocol()
        consortium.wait(1)
    assert consortium.records()[-1].kind == "upgrade.active"
    with pytest.raises(Unavailable) as caught:
        consortium.wait(1)
    assert caught.value.rule == "upgrade-needed"
    assert "koinon 0.2" in caught.value.hint
    assert consortium.app.info().height == height - 1
    assert consortium.app.protocol().version == 2


def test_a_node_that_knows_the_version_goes_on(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrades, "KNOWN_VERSION", 2)
    height = schedule(consortium).proposed.actions[0].schedule_upgrade.height
    while consortium.app.info().height <= height:
        consortium.wait(1)
    assert consortium.app.protocol().version == 2


def test_one_upgrade_at_a_time_to_a_later_version_far_enough_ahead(consortium: Consortium) -> None:
    assert schedule(consortium, version=1).rule == "upgrade"
    assert schedule(consortium, ahead=3).rule == "upgrade"
    assert schedule(consortium).status == PROPOSAL_STATUS_EXECUTED
    assert schedule(consortium, version=3).rule == "upgrade"
    assert decide(consortium, Action(cancel_upgrade=CancelUpgrade(version=3))).rule == "upgrade"
    assert decide(consortium, Action(cancel_upgrade=CancelUpgrade(version=2))).status == PROPOSAL_STATUS_EXECUTED
    assert not consortium.app.protocol().HasField("next")
    assert schedule(consortium).status == PROPOSAL_STATUS_EXECUTED, "again"


# --- the tables


def test_every_action_can_be_applied() -> None:
    assert set(actions._APPLY) == set(ACTIONS)


def test_every_rule_named_here_is_a_rule() -> None:
    assert {"ballots-closed", "no-ballot", "condition", "upgrade", "constitution"} <= set(RULES)
