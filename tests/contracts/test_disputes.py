"""Disputes: heard, decided by who is no party, and never blocked by silence."""

from __future__ import annotations

import fractions as rational
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance import arbitration, constitution
from koinon.errors import InvalidInput, NotFound, Refused
from koinon.v1.access_pb2 import TOKEN_STATUS_ACTIVE, TOKEN_STATUS_REVOKED
from koinon.v1.constitution_pb2 import ArbitrationPolicy, Fraction
from koinon.v1.dispute_pb2 import (
    DISPUTE_STATUS_ARBITRATION,
    DISPUTE_STATUS_DECIDED,
    DISPUTE_STATUS_OPEN,
    DISPUTE_STATUS_WITHDRAWN,
    REMEDY_PAYOUT,
    REMEDY_REFUND,
    REMEDY_REVOCATION,
    REMEDY_SUSPENSION,
    AnswerDispute,
    OpenDispute,
    Remedy,
    RuleDispute,
    WithdrawDispute,
)
from koinon.v1.governance_pb2 import Action, Propose, SetConstitution
from koinon.v1.identity_pb2 import KEY_PURPOSE_VALIDATOR, MEMBER_STATUS_ACTIVE, MEMBER_STATUS_SUSPENDED, RevokeKey
from koinon.v1.points_pb2 import (
    ESCROW_STATUS_FROZEN,
    ESCROW_STATUS_HELD,
    ESCROW_STATUS_REFUNDED,
    ESCROW_STATUS_SETTLED,
    PRICE_UNIT_USE,
    Account,
    Escrow,
    Price,
)
from node.contracts import actions, disputes, tables
from node.contracts.context import Context
from tests.contracts.consortium import BLOCK_MS, Consortium, claim, genesis, publication
from tests.contracts.decree import admit, decree, remove, suspend

DATA, ASKER, HOLDER = "iu.a.t", "um/analyst", "um"
ANSWER_MS, RULING_MS, DELAY_MS = 60_000, 80_000, 500_000
COMMITTEE = ("case", "iu", "um")


@pytest.fixture
def consortium() -> Consortium:
    """Six members; iu sells to um for 10 points a task; what is paid waits for disputes."""
    start = genesis(("au", "case", "iu", "uk", "um", "ut"))
    start.constitution.CopyFrom(constitution.founding())
    start.constitution.arbitration.MergeFrom(
        ArbitrationPolicy(quorum=2, answer_period_ms=ANSWER_MS, ruling_period_ms=RULING_MS)
    )
    start.parameters.settlement_delay_ms = DELAY_MS
    start.points.append(Account(id=f"person:{ASKER}", points=100))
    consortium = Consortium(genesis=start)
    consortium.do("iu/operator", publication(DATA, price=Price(unit=PRICE_UNIT_USE, points=10)))
    return consortium


def run_task(consortium: Consortium, token: str) -> str:
    submission = consortium.submission({DATA: token}, COMMITTEE)
    submission.max_price = 10
    task = consortium.do(ASKER, submission)
    consortium.accept_all(task)
    return task


def run_with_another(consortium: Consortium, token: str) -> str:
    """A task over data of case, too, for 7 points more."""
    consortium.do("case/operator", publication("case.a.t", price=Price(unit=PRICE_UNIT_USE, points=7)))
    submission = consortium.submission({DATA: token, "case.a.t": consortium.token("case.a.t")}, COMMITTEE)
    submission.max_price = 17
    task = consortium.do(ASKER, submission)
    consortium.accept_all(task)
    return task


def rule(consortium: Consortium, dispute: str, *remedies: Remedy.ValueType, by: str) -> None:
    consortium.do(f"{by}/operator", RuleDispute(dispute_id=dispute, remedies=remedies, reason="looked at it"))


def answered(consortium: Consortium, dispute: str, by: str = "iu/operator") -> None:
    consortium.do(by, AnswerDispute(dispute_id=dispute, statement="all as agreed", evidence_digests=[bytes(32)]))


def escrow(consortium: Consortium, escrow_id: str) -> Escrow:
    found = tables.ESCROWS.find(consortium.app._new_state(), escrow_id)
    assert found is not None
    return found


def test_a_dispute_is_heard_by_those_who_are_no_party(consortium: Consortium) -> None:
    token = consortium.token(DATA)
    dispute = consortium.do(ASKER, claim(token, "iu", REMEDY_REVOCATION))
    found = consortium.app.dispute(dispute)
    assert (found.status, found.claimant, list(found.arbiters)) == (
        DISPUTE_STATUS_OPEN,
        ASKER,
        ["au", "case", "uk", "ut"],
    )
    assert consortium.refused("uk/operator", RuleDispute(dispute_id=dispute, reason="too soon")) == "wrong-state"
    answered(consortium, dispute)
    assert consortium.app.dispute(dispute).answer.statement == "all as agreed"
    rule(consortium, dispute, REMEDY_REVOCATION, by="uk")
    rule(consortium, dispute, REMEDY_REVOCATION, by="au")
    assert consortium.app.dispute(dispute).status == DISPUTE_STATUS_ARBITRATION
    rule(consortium, dispute, by="uk")  # an arbiter may think again
    rule(consortium, dispute, REMEDY_REVOCATION, by="ut")
    rule(consortium, dispute, REMEDY_REVOCATION, by="case")
    decided = consortium.app.dispute(dispute)
    assert (decided.status, decided.decided_by, list(decided.remedies)) == (
        DISPUTE_STATUS_DECIDED,
        "arbiters",
        [REMEDY_REVOCATION],
    )
    assert [ruling.institution for ruling in decided.rulings] == ["au", "case", "uk", "ut"]
    assert consortium.app.token(token).status == TOKEN_STATUS_REVOKED
    assert dispute in consortium.app.token(token).status_reason


def test_half_against_is_dismissal(consortium: Consortium) -> None:
    token = consortium.token(DATA)
    dispute = consortium.do("iu/operator", claim(token, HOLDER, REMEDY_REVOCATION))
    answered(consortium, dispute, ASKER)
    for arbiter in ("au", "case"):
        rule(consortium, dispute, by=arbiter)
    assert consortium.app.dispute(dispute).status == DISPUTE_STATUS_DECIDED
    assert list(consortium.app.dispute(dispute).remedies) == []
    assert consortium.app.token(token).status == TOKEN_STATUS_ACTIVE


@pytest.mark.parametrize(
    ("remedy", "status", "left"),
    [
        (REMEDY_REFUND, ESCROW_STATUS_REFUNDED, 100),
        (REMEDY_PAYOUT, ESCROW_STATUS_SETTLED, 90),
    ],
)
def test_what_is_in_escrow_waits_for_the_decision(
    consortium: Consortium, remedy: Remedy.ValueType, status: int, left: int
) -> None:
    task = run_task(consortium, consortium.token(DATA))
    consortium.complete_all(task)
    dispute = consortium.do(ASKER, claim(task, "iu", remedy, task=True))
    assert escrow(consortium, task).status == ESCROW_STATUS_FROZEN
    consortium.do("iu/operator", AnswerDispute(dispute_id=dispute, statement="true", concede=True))
    assert consortium.app.dispute(dispute).decided_by == "concession"
    assert escrow(consortium, task).status == status
    account = tables.ACCOUNTS.get(consortium.app._new_state(), f"person:{ASKER}")
    assert account.points == left


@pytest.mark.parametrize("silent", [False, True], ids=["conceding", "silent"])
@pytest.mark.parametrize("over", ["task", "token"])
def test_who_gives_in_gives_back_its_own_part_alone(consortium: Consortium, over: str, silent: bool) -> None:
    """Else an asker and a friend among those who are paid take back what the others earned."""
    token = consortium.token(DATA)
    task = run_with_another(consortium, token)
    opened = claim(task, "iu", REMEDY_REFUND, task=True) if over == "task" else claim(token, "iu", REMEDY_REFUND)
    dispute = consortium.do(ASKER, opened)
    consortium.complete_all(task)
    if silent:
        consortium.wait(ANSWER_MS)
        consortium.wait(RULING_MS)
    else:
        consortium.do("iu/operator", AnswerDispute(dispute_id=dispute, statement="true", concede=True))
    assert list(consortium.app.dispute(dispute).remedies) == [REMEDY_REFUND]
    assert [(paid.account, paid.points) for paid in escrow(consortium, task).paid] == [("institution:case", 7)]
    assert tables.ACCOUNTS.get(consortium.app._new_state(), f"person:{ASKER}").points == 93


def test_who_gives_in_while_the_task_runs_leaves_to_others_what_they_will_earn(consortium: Consortium) -> None:
    task = run_with_another(consortium, consortium.token(DATA))
    dispute = consortium.do(ASKER, claim(task, "iu", REMEDY_REFUND, task=True))
    consortium.do("iu/operator", AnswerDispute(dispute_id=dispute, statement="true", concede=True))
    assert escrow(consortium, task).status == ESCROW_STATUS_HELD
    consortium.complete_all(task)
    consortium.wait(DELAY_MS)
    assert [(paid.account, paid.points) for paid in escrow(consortium, task).paid] == [("institution:case", 7)]
    assert tables.ACCOUNTS.get(consortium.app._new_state(), f"person:{ASKER}").points == 93
    assert not list(tables.WAIVED.entries(consortium.app._new_state()))
    alone = run_task(consortium, consortium.token(DATA))
    dispute = consortium.do(ASKER, claim(alone, "iu", REMEDY_REFUND, task=True))
    consortium.do("iu/operator", AnswerDispute(dispute_id=dispute, statement="true", concede=True))
    assert escrow(consortium, alone).status == ESCROW_STATUS_REFUNDED


def test_nobody_holds_points_back_for_ever_by_disputing_again(consortium: Consortium) -> None:
    token = consortium.token(DATA)
    task = run_task(consortium, token)
    consortium.complete_all(task)
    first = consortium.do(ASKER, claim(task, "iu", REMEDY_REFUND, task=True))
    consortium.wait(DELAY_MS // 50)
    again = claim(task, "iu", REMEDY_REFUND, task=True)
    consortium.do(ASKER, WithdrawDispute(dispute_id=first), again)
    assert escrow(consortium, task).status == ESCROW_STATUS_HELD
    other_side = consortium.do("iu/operator", claim(task, HOLDER, REMEDY_PAYOUT, task=True))
    assert list(consortium.app.dispute(other_side).escrows) == [task], "each side may, once"
    consortium.do("iu/operator", WithdrawDispute(dispute_id=other_side))
    consortium.wait(DELAY_MS)
    assert escrow(consortium, task).status == ESCROW_STATUS_SETTLED


def test_a_dispute_over_a_token_freezes_its_open_tasks(consortium: Consortium) -> None:
    token = consortium.token(DATA)
    task = run_task(consortium, token)
    first = consortium.do(ASKER, claim(token, "iu", REMEDY_REVOCATION))
    second = consortium.do("iu/operator", claim(token, HOLDER, REMEDY_PAYOUT))
    assert list(consortium.app.dispute(second).escrows) == [task]
    consortium.complete_all(task)
    consortium.do(ASKER, WithdrawDispute(dispute_id=first, reason="a misunderstanding"))
    assert consortium.app.dispute(first).status == DISPUTE_STATUS_WITHDRAWN
    assert escrow(consortium, task).status == ESCROW_STATUS_FROZEN  # the other still holds it
    consortium.do("iu/operator", WithdrawDispute(dispute_id=second))
    consortium.wait(DELAY_MS)
    assert escrow(consortium, task).status == ESCROW_STATUS_SETTLED


def test_a_dispute_over_a_token_freezes_completed_tasks_that_wait_for_their_settlement(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, other = consortium.token(DATA, uses=4), consortium.token(DATA)
    tasks = [run_task(consortium, used) for used in (token, token, other)]
    for task in tasks:
        consortium.complete_all(task)
    late = run_task(consortium, token)
    monkeypatch.setattr(disputes, "MAX_ESCROWS_PER_DISPUTE", 2)
    dispute = consortium.do(ASKER, claim(token, "iu", REMEDY_REFUND))
    assert list(consortium.app.dispute(dispute).escrows) == sorted(tasks[:2]), "the longest held"
    frozen = [escrow(consortium, task).status == ESCROW_STATUS_FROZEN for task in (*tasks, late)]
    assert frozen == [True, True, False, False]
    consortium.do("iu/operator", AnswerDispute(dispute_id=dispute, statement="true", concede=True))
    assert [escrow(consortium, task).status for task in tasks[:2]] == [ESCROW_STATUS_REFUNDED] * 2
    consortium.complete_all(late)
    consortium.wait(DELAY_MS)
    assert [escrow(consortium, task).status for task in (tasks[2], late)] == [ESCROW_STATUS_SETTLED] * 2
    assert not list(consortium.store.scan(b"s/token-escrow/")), "nothing is left in the index"
    again = consortium.do("iu/operator", claim(token, HOLDER, REMEDY_PAYOUT))
    assert not consortium.app.dispute(again).escrows


@pytest.mark.parametrize(("over", "paid"), [("token", [("institution:case", 7)]), ("task", [])])
def test_arbiters_over_a_token_leave_to_others_what_they_delivered(
    consortium: Consortium, over: str, paid: list[tuple[str, int]]
) -> None:
    token = consortium.token(DATA)
    task = run_with_another(consortium, token)
    consortium.complete_all(task)
    opened = claim(task, "iu", REMEDY_REFUND, task=True) if over == "task" else claim(token, "iu", REMEDY_REFUND)
    dispute = consortium.do(ASKER, opened)
    answered(consortium, dispute)
    for arbiter in consortium.app.dispute(dispute).arbiters:
        if consortium.app.dispute(dispute).status == DISPUTE_STATUS_ARBITRATION:
            rule(consortium, dispute, REMEDY_REFUND, by=arbiter)
    assert consortium.app.dispute(dispute).decided_by == "arbiters"
    assert [(payout.account, payout.points) for payout in escrow(consortium, task).paid] == paid
    assert tables.ACCOUNTS.get(consortium.app._new_state(), f"person:{ASKER}").points == 100 - sum(p for _, p in paid)


def test_arbiters_over_a_token_leave_to_others_what_they_are_about_to_deliver(consortium: Consortium) -> None:
    """The task goes on, and nobody tells them that they would work for nothing."""
    token = consortium.token(DATA)
    task = run_with_another(consortium, token)
    dispute = consortium.do(ASKER, claim(token, "iu", REMEDY_REFUND))
    answered(consortium, dispute)
    for arbiter in ("au", "uk", "ut"):
        rule(consortium, dispute, REMEDY_REFUND, by=arbiter)
    assert consortium.app.dispute(dispute).decided_by == "arbiters"
    assert escrow(consortium, task).status == ESCROW_STATUS_HELD
    consortium.complete_all(task)
    consortium.wait(DELAY_MS)
    assert [(paid.account, paid.points) for paid in escrow(consortium, task).paid] == [("institution:case", 7)]


def test_a_settled_task_can_be_disputed_but_its_points_stay_paid(consortium: Consortium) -> None:
    task = run_task(consortium, consortium.token(DATA))
    consortium.complete_all(task)
    consortium.wait(DELAY_MS)
    dispute = consortium.do(ASKER, claim(task, "iu", REMEDY_REFUND, REMEDY_REVOCATION, task=True))
    assert list(consortium.app.dispute(dispute).escrows) == []
    consortium.do("iu/operator", AnswerDispute(dispute_id=dispute, statement="true", concede=True))
    assert escrow(consortium, task).status == ESCROW_STATUS_SETTLED


def test_a_silent_respondent_goes_unheard_and_silent_arbiters_let_the_claim_stand(consortium: Consortium) -> None:
    token = consortium.token(DATA)
    dispute = consortium.do(ASKER, claim(token, "iu", REMEDY_REVOCATION, REMEDY_SUSPENSION))
    consortium.wait(ANSWER_MS)
    assert consortium.app.dispute(dispute).status == DISPUTE_STATUS_ARBITRATION
    assert consortium.refused("iu/operator", AnswerDispute(dispute_id=dispute, statement="late")) == "wrong-state"
    rule(consortium, dispute, by="uk")  # one is no quorum
    consortium.wait(RULING_MS)
    decided = consortium.app.dispute(dispute)
    assert (decided.decided_by, list(decided.remedies)) == ("deadline", [REMEDY_REVOCATION])  # never a suspension
    assert consortium.app.institution("iu").status == MEMBER_STATUS_ACTIVE


def test_silent_arbiters_dismiss_what_was_answered(consortium: Consortium) -> None:
    token = consortium.token(DATA)
    dispute = consortium.do(ASKER, claim(token, "iu", REMEDY_REVOCATION))
    answered(consortium, dispute)
    consortium.wait(RULING_MS)
    decided = consortium.app.dispute(dispute)
    assert (decided.decided_by, list(decided.remedies)) == ("deadline", [])


def test_a_quorum_decides_at_the_deadline(consortium: Consortium) -> None:
    token = consortium.token(DATA)
    dispute = consortium.do(ASKER, claim(token, "iu", REMEDY_REVOCATION, REMEDY_SUSPENSION))
    answered(consortium, dispute)
    for arbiter in ("au", "uk"):
        rule(consortium, dispute, REMEDY_REVOCATION, REMEDY_SUSPENSION, by=arbiter)
    consortium.wait(RULING_MS)
    decided = consortium.app.dispute(dispute)
    assert (decided.decided_by, list(decided.remedies)) == ("arbiters", [REMEDY_REVOCATION])


def test_one_block_ends_as_many_disputes_as_their_escrows_allow(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may settle a hundred: those of a whole consortium in one block would hold it up for minutes."""
    tokens = [consortium.token(DATA) for _ in range(3)]
    tasks = [run_task(consortium, token) for token in tokens for _ in range(2)]
    for task in tasks:
        consortium.complete_all(task)
    for token in tokens:
        consortium.do(ASKER, claim(token, "iu", REMEDY_REFUND))
    consortium.wait(ANSWER_MS)
    monkeypatch.setattr(disputes, "MAX_DUE_PER_BLOCK", 3)
    blocks = [consortium.wait(after_ms) for after_ms in (RULING_MS, 1, 1, 1)]
    decided = [sum(record.kind == "dispute.decided" for record in block.records) for block in blocks]
    assert decided == [1, 1, 1, 0]
    assert {escrow(consortium, task).status for task in tasks} == {ESCROW_STATUS_REFUNDED}


def test_arbiters_may_suspend_where_the_others_can_go_on(consortium: Consortium) -> None:
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_SUSPENSION))
    answered(consortium, dispute)
    for arbiter in ("au", "case", "uk"):
        rule(consortium, dispute, REMEDY_SUSPENSION, by=arbiter)
    assert consortium.app.institution("iu").status == MEMBER_STATUS_SUSPENDED
    assert consortium.app.dispute(dispute).reason == ""


def test_who_left_is_no_arbiter_any_more(consortium: Consortium) -> None:
    """Two of four want it, and one of the two leaves: it takes two of three."""
    token = consortium.token(DATA)
    dispute = consortium.do(ASKER, claim(token, "iu", REMEDY_REVOCATION))
    answered(consortium, dispute)
    for arbiter in ("au", "case"):
        rule(consortium, dispute, REMEDY_REVOCATION, by=arbiter)
    decree(consortium, remove("au"))
    rule(consortium, dispute, REMEDY_REVOCATION, by="case")  # says it again: one of three
    assert consortium.app.dispute(dispute).status == DISPUTE_STATUS_ARBITRATION
    rule(consortium, dispute, REMEDY_REVOCATION, by="ut")
    assert list(consortium.app.dispute(dispute).remedies) == [REMEDY_REVOCATION]


def test_rulings_of_the_excluded_are_no_quorum_at_the_deadline(consortium: Consortium) -> None:
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_REVOCATION))
    answered(consortium, dispute)
    for arbiter in ("au", "uk"):
        rule(consortium, dispute, REMEDY_REVOCATION, by=arbiter)
    decree(consortium, suspend("au"))
    consortium.wait(RULING_MS)
    decided = consortium.app.dispute(dispute)
    assert (decided.decided_by, list(decided.remedies)) == ("deadline", [])


def test_without_its_claimant_a_suspension_takes_one_more(consortium: Consortium) -> None:
    """Of au, case, uk, um and ut four of five; without um, who claims it, three of four."""
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_SUSPENSION))
    answered(consortium, dispute)
    decree(consortium, remove("um"))
    for arbiter in ("au", "case"):
        rule(consortium, dispute, REMEDY_SUSPENSION, by=arbiter)
    assert consortium.app.institution("iu").status == MEMBER_STATUS_ACTIVE
    rule(consortium, dispute, REMEDY_SUSPENSION, by="uk")
    assert consortium.app.institution("iu").status == MEMBER_STATUS_SUSPENDED


def test_who_came_since_is_no_arbiter_but_is_asked_for_by_a_suspension(consortium: Consortium) -> None:
    """Four of five were enough; of seven they are not: a ballot would ask all of them, too."""
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_SUSPENSION))
    answered(consortium, dispute)
    decree(consortium, admit("osu", 8), admit("koi", 9))
    assert consortium.refused("osu/operator", RuleDispute(dispute_id=dispute, reason="new here")) == "permission"
    for arbiter in ("au", "case", "uk"):
        rule(consortium, dispute, REMEDY_SUSPENSION, by=arbiter)
    assert consortium.app.institution("iu").status == MEMBER_STATUS_ACTIVE
    rule(consortium, dispute, REMEDY_SUSPENSION, by="ut")
    assert consortium.app.institution("iu").status == MEMBER_STATUS_SUSPENDED


def test_no_friend_stops_a_suspension_by_a_change_of_its_own_in_that_block(consortium: Consortium) -> None:
    """Neither when an arbiter rules, nor at the deadline."""
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_SUSPENSION))
    answered(consortium, dispute)
    for arbiter in ("au", "case"):
        rule(consortium, dispute, REMEDY_SUSPENSION, by=arbiter)
    revocation = RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="to be in the way")
    in_the_way = consortium.envelope("ut/operator", revocation)
    last = RuleDispute(dispute_id=dispute, remedies=[REMEDY_SUSPENSION], reason="looked at it")
    block = consortium.decide(in_the_way, consortium.envelope("uk/operator", last))
    assert block.results[1].refusal.rule == "set-change"
    assert consortium.app.dispute(dispute).status == DISPUTE_STATUS_ARBITRATION
    consortium.do("uk/operator", last)
    assert consortium.app.institution("iu").status == MEMBER_STATUS_SUSPENDED


def test_a_deadline_in_a_block_of_other_changes_comes_again_in_the_next(consortium: Consortium) -> None:
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_REVOCATION, REMEDY_SUSPENSION))
    answered(consortium, dispute)
    for arbiter in ("au", "case"):
        rule(consortium, dispute, REMEDY_REVOCATION, REMEDY_SUSPENSION, by=arbiter)
    rule(consortium, dispute, REMEDY_SUSPENSION, by="uk")  # so one more could dismiss the revocation
    before = consortium.app.dispute(dispute)
    revocation = RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="to be in the way")
    in_the_way = consortium.envelope("um/operator", revocation, expires_in_ms=2 * RULING_MS)
    consortium.decide(in_the_way, after_ms=before.deadline_ms - consortium.time_ms)
    assert consortium.app.dispute(dispute) == before
    consortium.wait(1)
    assert list(consortium.app.dispute(dispute).remedies) == [REMEDY_REVOCATION, REMEDY_SUSPENSION]
    assert consortium.app.institution("iu").status == MEMBER_STATUS_SUSPENDED


def test_a_suspension_that_would_stop_the_ledger_is_not_done_and_said(consortium: Consortium) -> None:
    consortium.silent = {"au", "ut"}
    consortium.wait(10_000_000)
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_SUSPENSION))
    answered(consortium, dispute)
    for arbiter in ("au", "case", "uk"):
        rule(consortium, dispute, REMEDY_SUSPENSION, by=arbiter)
    assert consortium.app.institution("iu").status == MEMBER_STATUS_ACTIVE
    decided = consortium.app.dispute(dispute)
    assert decided.status == DISPUTE_STATUS_DECIDED
    assert decided.reason.startswith("the suspension was not possible: ")


def test_the_members_may_decide_by_ballot(consortium: Consortium) -> None:
    token = consortium.token(DATA)
    dispute = consortium.do(ASKER, claim(token, "iu", REMEDY_REFUND))
    app = consortium.app
    context = Context(app._new_state(), 99, consortium.time_ms, app.audit_log.size, app.parameters())
    with pytest.raises(NotFound):
        disputes.resolve(context, "0" * 32, [], "none such")
    with pytest.raises(InvalidInput):
        disputes.resolve(context, dispute, [REMEDY_REFUND, REMEDY_PAYOUT], "both")
    disputes.resolve(context, dispute, [REMEDY_REVOCATION], "proposal 7")
    decided = tables.DISPUTES.get(context.state, dispute)
    assert (decided.decided_by, decided.reason) == ("ballot", "proposal 7")
    assert tables.TOKENS.get(context.state, token).status == TOKEN_STATUS_REVOKED
    with pytest.raises(Refused):
        disputes.resolve(context, dispute, [], "again")


BAD_CLAIMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "against itself": (ASKER, {"respondent": "um"}, "dispute-parties"),
    "against a stranger": (ASKER, {"respondent": "uk"}, "dispute-parties"),
    "by a stranger": ("uk/operator", {"respondent": "um"}, "permission"),
    "against nobody": (ASKER, {"respondent": ""}, "invalid-name"),
    "without a claim": (ASKER, {"claim": ""}, "invalid-input"),
    "with a short digest": (ASKER, {"evidence_digests": [b"x"]}, "invalid-input"),
    "with many digests": (ASKER, {"evidence_digests": [bytes(32)] * 17}, "invalid-input"),
    "seeking nothing": (ASKER, {"remedies": []}, "invalid-input"),
    "seeking the unknown": (ASKER, {"remedies": [9]}, "invalid-input"),
    "seeking twice": (ASKER, {"remedies": [REMEDY_REFUND, REMEDY_REFUND]}, "invalid-input"),
    "seeking both ways": (ASKER, {"remedies": [REMEDY_REFUND, REMEDY_PAYOUT]}, "invalid-input"),
    "over nothing": (ASKER, {"token_id": None}, "invalid-input"),
    "over an unknown token": (ASKER, {"token_id": "0" * 32}, "not-found"),
    "over an unknown task": (ASKER, {"token_id": None, "task_id": "0" * 32}, "not-found"),
}


@pytest.mark.parametrize("case", BAD_CLAIMS)
def test_a_bad_claim_is_refused(consortium: Consortium, case: str) -> None:
    sender, change, by_rule = BAD_CLAIMS[case]
    usual = {
        "token_id": consortium.token(DATA),
        "respondent": "iu",
        "claim": "wrong",
        "remedies": [REMEDY_REVOCATION],
        "evidence_digests": [],
    }
    fields: dict[str, Any] = {name: value for name, value in {**usual, **change}.items() if value is not None}
    assert consortium.refused(sender, OpenDispute(**fields)) == by_rule


def test_one_dispute_of_a_side_over_a_thing_and_so_many_in_all(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (consortium.token(DATA) for _ in range(2))
    consortium.do(ASKER, claim(first, "iu", REMEDY_REVOCATION))
    assert consortium.refused(ASKER, claim(first, "iu", REMEDY_REFUND)) == "already-exists"
    monkeypatch.setattr(disputes, "MAX_OPEN_DISPUTES_PER_INSTITUTION", 1)
    assert consortium.refused(ASKER, claim(second, "iu", REMEDY_REVOCATION)) == "too-many"
    consortium.do("iu/operator", claim(first, "um", REMEDY_REVOCATION))


def test_arbiters_order_no_more_than_was_sought(consortium: Consortium) -> None:
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_REFUND))
    answered(consortium, dispute)
    ruling = RuleDispute(dispute_id=dispute, remedies=[REMEDY_SUSPENSION], reason="worse")
    assert consortium.refused("uk/operator", ruling) == "dispute-parties"
    assert consortium.refused("um/operator", RuleDispute(dispute_id=dispute, reason="mine")) == "permission"


def test_an_ended_dispute_takes_nothing_more(consortium: Consortium) -> None:
    dispute = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_REFUND))
    consortium.do(ASKER, WithdrawDispute(dispute_id=dispute))
    for sender, message in (
        ("iu/operator", AnswerDispute(dispute_id=dispute, statement="late")),
        ("uk/operator", RuleDispute(dispute_id=dispute, reason="late")),
        (ASKER, WithdrawDispute(dispute_id=dispute)),
    ):
        assert consortium.refused(sender, message) == "wrong-state"
    size = consortium.app.audit_log.size
    consortium.wait(ANSWER_MS + RULING_MS + BLOCK_MS)
    assert all(not record.kind.startswith("dispute") for record in consortium.records(size))


RULINGS = st.lists(
    st.sets(st.sampled_from(arbitration.REMEDIES)).filter(lambda r: not {REMEDY_REFUND, REMEDY_PAYOUT} <= r), max_size=7
)


PARTS = st.fractions(min_value="1/2", max_value="9/10", max_denominator=10)


def policy(*parts: rational.Fraction, quorum: int = 1) -> ArbitrationPolicy:
    refund, payout, revocation, suspension = (
        Fraction(numerator=part.numerator, denominator=part.denominator) for part in parts
    )
    return ArbitrationPolicy(refund=refund, payout=payout, revocation=revocation, suspension=suspension, quorum=quorum)


@given(
    rulings=RULINGS,
    silent=st.integers(0, 7),
    late=RULINGS,
    parties=st.integers(2, 5),
    parts=st.tuples(PARTS, PARTS, PARTS, PARTS),
)
def test_a_decision_stands_whoever_rules_later(
    rulings: list[set[Remedy.ValueType]],
    silent: int,
    late: list[set[Remedy.ValueType]],
    parties: int,
    parts: tuple[rational.Fraction, ...],
) -> None:
    arbiters, voted = len(rulings) + silent, policy(*parts)
    bench = arbitration.Bench(arbiters, others=arbiters + parties - 1)
    decided = arbitration.settled(rulings, bench, voted)
    if decided is not None:
        assert arbitration.settled([*rulings, *late[:silent]], bench, voted) == decided
        assert not {REMEDY_REFUND, REMEDY_PAYOUT} <= set(decided)
        for remedy, part in zip(arbitration.REMEDIES, parts, strict=True):  # counted the slow way
            agreed, of = [remedy in ruling for ruling in rulings].count(True), arbiters
            if remedy == REMEDY_SUSPENSION:
                agreed, of = agreed + 1, bench.others
            assert (remedy in decided) == (rational.Fraction(agreed, of) > part)
    if arbiters and not silent:
        assert decided is not None  # all have ruled
        assert arbitration.at_deadline(rulings, bench, voted) == decided


def test_two_do_not_shut_out_a_third() -> None:
    """Of four members a task has three as its parties: the fourth and one of them decide about points, no more."""
    wanted = [{REMEDY_REFUND, REMEDY_SUSPENSION}]
    usual = constitution.founding().arbitration
    assert arbitration.settled(wanted, arbitration.Bench(arbiters=1, others=3), usual) == [REMEDY_REFUND]
    assert arbitration.settled(wanted * 2, arbitration.Bench(arbiters=2, others=3), usual) == [
        REMEDY_REFUND,
        REMEDY_SUSPENSION,
    ]


def test_a_dispute_keeps_the_policy_that_it_was_opened_under(consortium: Consortium) -> None:
    """Else whoever is losing, and has friends enough, changes what it takes."""
    first = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_REVOCATION))
    stricter = constitution.founding()
    stricter.arbitration.MergeFrom(
        ArbitrationPolicy(
            revocation=Fraction(numerator=3, denominator=4), answer_period_ms=ANSWER_MS * 2, ruling_period_ms=60_000
        )
    )

    def amend(context: Context) -> None:
        amended = Action(set_constitution=SetConstitution(constitution=stricter))
        assert actions.apply(context, Propose(actions=[amended]))[0].endswith("other rules for arbitration")

    assert decree(consortium, amend) == ""
    second = consortium.do(ASKER, claim(consortium.token(DATA), "iu", REMEDY_REVOCATION))
    assert consortium.app.dispute(second).policy == stricter.arbitration
    consortium.wait(ANSWER_MS)
    assert consortium.app.dispute(first).status == DISPUTE_STATUS_ARBITRATION
    assert consortium.app.dispute(first).deadline_ms == consortium.time_ms + RULING_MS
    assert consortium.app.dispute(second).status == DISPUTE_STATUS_OPEN, "it has longer"
    answered(consortium, second)
    assert consortium.app.dispute(second).deadline_ms == consortium.time_ms + 60_000
    for arbiter in ("au", "uk", "ut"):
        rule(consortium, first, REMEDY_REVOCATION, by=arbiter)
        rule(consortium, second, REMEDY_REVOCATION, by=arbiter)
    assert consortium.app.dispute(first).status == DISPUTE_STATUS_DECIDED
    assert consortium.app.dispute(second).status == DISPUTE_STATUS_ARBITRATION, "three of four are not more than 3/4"
    rule(consortium, second, REMEDY_REVOCATION, by="case")
    assert consortium.app.dispute(second).status == DISPUTE_STATUS_DECIDED
