"""Fees: who pays them, when, and when they come back; and what never costs one."""

from __future__ import annotations

import pytest

from koinon.limits import MAX_FEE
from koinon.v1.access_pb2 import DenyAccess, WithdrawRequest
from koinon.v1.catalog_pb2 import WithdrawDataset
from koinon.v1.dispute_pb2 import REMEDY_REFUND, AnswerDispute, RuleDispute
from koinon.v1.governance_pb2 import CHOICE_YES, Action, CastBallot, Propose, SetParameter
from koinon.v1.points_pb2 import PRICE_UNIT_USE, Account, Price
from koinon.v1.task_pb2 import CancelTask
from tests.contracts.consortium import MEMBERS, Consortium, access_request, claim, genesis, publication

ASKER, OWNER, FUND = "person:um/analyst", "institution:iu", "fund:consortium"
TEN = Price(unit=PRICE_UNIT_USE, points=10)


def start(*, max_fee: int = 100, points: int = 100, **parameters: int) -> Consortium:
    """A consortium in which analyst and publisher have points, whose transactions agree to fees."""
    initial = genesis()
    if points:
        initial.points.extend(Account(id=name, points=points) for name in (OWNER, ASKER))
    for name, value in parameters.items():
        setattr(initial.parameters, name, value)
    return Consortium(genesis=initial, max_fee=max_fee)


def balances(consortium: Consortium) -> dict[str, int]:
    consortium.app.check_conservation()
    return {account.id: account.points for account in consortium.app.accounts(at_most=100) if account.points}


def submitted(consortium: Consortium, price: Price | None = None, *, max_price: int = 100) -> str:
    consortium.do("iu/operator", publication("iu.a.t", price=price))
    submission = consortium.submission({"iu.a.t": consortium.token("iu.a.t")})
    submission.max_price = max_price
    return consortium.do("um/analyst", submission)


def decide(consortium: Consortium, parameter: str, value: int) -> None:
    """All members agree."""
    action = Action(set_parameter=SetParameter(name=parameter, value=value))
    proposal = consortium.do("um/operator", Propose(title="t", reason="r", actions=[action]))
    for member in MEMBERS:
        if consortium.app.proposal(proposal).ended_at_ms:
            break
        consortium.do(f"{member}/operator", CastBallot(proposal_id=proposal, choice=CHOICE_YES))
    consortium.wait(1)


# --- tasks


@pytest.mark.parametrize(("price", "paid"), [(None, 0), (TEN, 10)], ids=["free data", "data with a price"])
def test_a_task_that_completes_pays_its_fee_to_the_fund(price: Price | None, paid: int) -> None:
    consortium = start(task_fee=7)
    task = submitted(consortium, price)
    escrow = consortium.app.escrow(task)
    assert escrow is not None
    assert escrow.points == paid + 7
    consortium.accept_all(task)
    consortium.complete_all(task)
    assert balances(consortium) == {ASKER: 93 - paid, OWNER: 100 + paid, FUND: 7}


def test_a_task_that_ends_otherwise_gets_its_fee_back() -> None:
    consortium = start(task_fee=7)
    task = submitted(consortium, TEN)
    consortium.do("um/analyst", CancelTask(task_id=task))
    assert balances(consortium) == {ASKER: 100, OWNER: 100}
    late = consortium.do("um/analyst", consortium.app.task(task).submitted)
    consortium.wait(20_000)
    assert consortium.app.task(late).rule == "accept-deadline"
    assert balances(consortium) == {ASKER: 100, OWNER: 100}


def test_a_fee_is_within_what_the_asker_agrees_to_pay() -> None:
    consortium = start(task_fee=7)
    consortium.do("iu/operator", publication("iu.a.t", price=TEN))
    submission = consortium.submission({"iu.a.t": consortium.token("iu.a.t")})
    submission.max_price = 16
    assert consortium.refused("um/analyst", submission) == "max-price"
    submission.max_price = 17
    consortium.do("um/analyst", submission)


def test_who_cannot_pay_is_refused_and_keeps_what_it_has() -> None:
    consortium = start(points=0, task_fee=1)
    consortium.do("iu/operator", publication("iu.a.t"))
    token = consortium.token("iu.a.t")
    submission = consortium.submission({"iu.a.t": token})
    submission.max_price = 5
    assert consortium.refused("um/analyst", submission) == "insufficient-points"
    assert consortium.app.token(token).uses_left == 2
    for parameter, sender, message in (
        ("dataset_fee", "iu/operator", publication("iu.a.t")),
        ("request_fee", "um/analyst", access_request("iu.a.t")),
    ):
        consortium = start(points=0, max_fee=9, **{parameter: 1})
        if parameter == "request_fee":
            consortium.publish("iu.a.t")
        assert consortium.refused(sender, message) == "insufficient-points"
        assert balances(consortium) == {}


def test_a_fee_voted_later_is_for_later_tasks() -> None:
    consortium = start(task_fee=7)
    task = submitted(consortium)
    consortium.accept_all(task)
    decide(consortium, "task_fee", 50)
    consortium.complete_all(task)
    assert balances(consortium)[FUND] == 7
    again = consortium.do("um/analyst", consortium.app.task(task).submitted)
    assert consortium.app.task(again).terms.fee == 50


@pytest.mark.parametrize(("concede", "left"), [(True, 90 + 3), (False, 100)], ids=["concession", "arbiters"])
def test_a_dispute_moves_the_fee_as_it_moves_what_others_earned(concede: bool, left: int) -> None:
    """Else an asker and a friend take back what is the consortium's."""
    consortium = start(task_fee=7, settlement_delay_ms=10**9)
    consortium.do("iu/operator", publication("iu.a.t", price=Price(unit=PRICE_UNIT_USE, points=90)))
    submission = consortium.submission({"iu.a.t": consortium.token("iu.a.t")})
    submission.max_price = 97
    task = consortium.do("um/analyst", submission)
    consortium.accept_all(task)
    consortium.complete_all(task)
    dispute = consortium.do("um/analyst", claim(task, "iu", REMEDY_REFUND, task=True))
    answer = AnswerDispute(dispute_id=dispute, statement="so it is", concede=concede)
    consortium.do("iu/operator", answer)
    if not concede:
        ruling = RuleDispute(dispute_id=dispute, remedies=[REMEDY_REFUND], reason="nothing was delivered")
        consortium.do("uk/operator", ruling)
    assert balances(consortium)[ASKER] == left


def test_who_gives_in_while_the_task_runs_is_not_paid_and_the_fund_is() -> None:
    consortium = start(task_fee=7)
    task = submitted(consortium, TEN)
    consortium.accept_all(task)
    dispute = consortium.do("um/analyst", claim(task, "iu", REMEDY_REFUND, task=True))
    consortium.do("iu/operator", AnswerDispute(dispute_id=dispute, statement="so it is", concede=True))
    consortium.complete_all(task)
    assert balances(consortium) == {ASKER: 93, OWNER: 100, FUND: 7}


# --- datasets and requests


def test_a_new_dataset_is_paid_for_and_a_further_version_is_free() -> None:
    consortium = start(dataset_fee=5)
    before = consortium.app.audit_log.size
    consortium.do("iu/operator", publication("iu.a.t"))
    assert balances(consortium) == {ASKER: 100, OWNER: 95, FUND: 5}
    (charged,) = [record for record in consortium.records(before) if record.kind == "points.charged"]
    assert charged.subject == f"account:{OWNER}"
    assert list(charged.related) == ["dataset:iu.a.t", OWNER, FUND]
    assert [(posting.account, posting.change) for posting in charged.postings] == [(OWNER, -5), (FUND, 5)]
    consortium.max_fee = 0
    consortium.do("iu/operator", publication("iu.a.t", title="corrected"))
    consortium.do("iu/operator", WithdrawDataset(name="iu.a.t", reason="wrong"))
    consortium.do("iu/operator", publication("iu.a.t"))
    assert balances(consortium) == {ASKER: 100, OWNER: 95, FUND: 5}


@pytest.mark.parametrize("end", ["granted", "denied", "withdrawn", "expired"])
def test_a_request_is_paid_for_whatever_the_answer(end: str) -> None:
    consortium = start(request_fee=5)
    consortium.publish("iu.a.t", auto=end == "granted")
    request = consortium.do("um/analyst", access_request("iu.a.t"))
    if end == "denied":
        consortium.do("iu/operator", DenyAccess(request_id=request, reason="no"))
    elif end == "withdrawn":
        consortium.do("um/analyst", WithdrawRequest(request_id=request))
    elif end == "expired":
        consortium.wait(31 * 86_400_000)
    assert balances(consortium) == {ASKER: 95, OWNER: 100, FUND: 5}
    paid = [record for record in consortium.records() if record.kind == "points.charged"]
    assert [record.related[0] for record in paid] == [f"request:{request}"]


def test_a_transaction_agrees_to_all_its_fees_together() -> None:
    consortium = start(request_fee=5, max_fee=9)
    consortium.publish("iu.a.t", "uk.a.t")
    both = [access_request(name) for name in ("iu.a.t", "uk.a.t")]
    assert consortium.refused("um/analyst", *both) == "max-fee"
    assert balances(consortium)[ASKER] == 100, "all or none"
    consortium.max_fee = 10
    consortium.do("um/analyst", *both)
    assert balances(consortium)[ASKER] == 90


def test_nothing_is_paid_by_who_does_not_know_of_fees() -> None:
    consortium = start(request_fee=1, dataset_fee=1, max_fee=0)
    assert consortium.refused("iu/operator", publication("iu.a.t")) == "max-fee"
    assert balances(consortium) == {ASKER: 100, OWNER: 100}


# --- what a majority may not do with fees


@pytest.mark.parametrize("parameter", ["task_fee", "dataset_fee", "request_fee"])
@pytest.mark.parametrize("value", [MAX_FEE + 1, -1, 2**32, 2**62])
def test_a_fee_has_bounds(parameter: str, value: int) -> None:
    action = Action(set_parameter=SetParameter(name=parameter, value=value))
    proposal = Propose(title="t", reason="r", actions=[action])
    assert Consortium().refused("um/operator", proposal) == "parameters"


def test_who_has_no_points_still_does_all_that_protects_it() -> None:
    """Publishing, asking and computing may cost; withdrawing, revoking, disputing, deciding and leaving never do."""
    consortium = start(points=0)
    task = submitted(consortium)
    for parameter in ("task_fee", "dataset_fee", "request_fee"):
        decide(consortium, parameter, MAX_FEE)
    consortium.max_fee = 0
    dispute = consortium.do("um/analyst", claim(task, "iu", REMEDY_REFUND, task=True))
    consortium.do("iu/operator", AnswerDispute(dispute_id=dispute, statement="no"))
    consortium.do("uk/operator", RuleDispute(dispute_id=dispute, reason="nothing to see"))
    consortium.do("iu/operator", publication("iu.a.t", title="corrected"))
    consortium.do("iu/operator", WithdrawDataset(name="iu.a.t", reason="too dear"))
    decide(consortium, "task_fee", 0)
