"""Accounts, prices, escrow and data unions: what moves points, what refuses to, and that none is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.errors import Corrupt, Refused
from koinon.limits import MAX_POINTS, MAX_PRICE
from koinon.v1.access_pb2 import RevokeToken
from koinon.v1.catalog_pb2 import WithdrawDataset
from koinon.v1.identity_pb2 import MEMBER_STATUS_REMOVED, GiveNotice
from koinon.v1.points_pb2 import (
    PRICE_UNIT_PERIOD,
    PRICE_UNIT_ROW,
    PRICE_UNIT_USE,
    Account,
    ClaimEarnings,
    DefineUnion,
    EscrowStatus,
    Price,
    SetUnionMembers,
    Supply,
    TransferPoints,
    UnionMember,
)
from koinon.v1.task_pb2 import CancelTask, FailTask
from node.contracts import accounts, tables
from node.contracts.context import Context
from tests.contracts.consortium import MEMBERS, Consortium, genesis, publication
from tests.contracts.decree import decree, remove

ANALYST = "person:um/analyst"
PER_USE = Price(unit=PRICE_UNIT_USE, points=101)
PER_ROW = Price(unit=PRICE_UNIT_ROW, points=2)
PER_PERIOD = Price(unit=PRICE_UNIT_PERIOD, points=100, period_ms=50_000)
RICH = 1_000


def start(*, points: int = RICH, **parameters: int) -> Consortium:
    """A consortium whose asker has points, and whose parameters differ so."""
    initial = genesis()
    initial.points.append(Account(id=ANALYST, points=points))
    for name, value in parameters.items():
        setattr(initial.parameters, name, value)
    return Consortium(genesis=initial)


def submitted(consortium: Consortium, price: Price | None = PER_USE, *, uses: int = 2, **changes: Any) -> str:
    """A task on iu's table at this price."""
    consortium.do("iu/operator", publication("iu.a.t", price=price, **changes))
    submission = consortium.submission({"iu.a.t": consortium.token("iu.a.t", uses=uses)})
    submission.max_price = 10**6
    return consortium.do("um/analyst", submission)


def again(consortium: Consortium, task: str) -> str:
    """The same once more, with the same token."""
    return consortium.do("um/analyst", consortium.app.task(task).submitted)


def balance(consortium: Consortium, account: str = ANALYST) -> int:
    return consortium.app.account(account).points


def state_of(consortium: Consortium, escrow_id: str) -> str:
    escrow = consortium.app.escrow(escrow_id)
    assert escrow is not None
    return EscrowStatus.Name(escrow.status).removeprefix("ESCROW_STATUS_").lower()


def conserved(consortium: Consortium) -> None:
    """The stored totals are those of a full scan."""
    supply = consortium.app.supply()
    held = sum(account.points for account in consortium.app.accounts(at_most=10_000))
    assert held + supply.escrowed == supply.minted - supply.burned
    consortium.app.check_conservation()


def by_ledger(consortium: Consortium, act: Callable[[Context], None]) -> None:
    """What another contract does, as one more block would."""
    app = consortium.app
    context = Context(app._new_state(), app.info().height + 1, app.time_ms, app.audit_log.size, app.parameters())
    act(context)
    app._store.write(app._settle(context, bytes(32)), sync=True)
    app.commit()


# --- tasks and their price


def test_a_completed_task_pays_the_provider() -> None:
    consortium = start()
    task = submitted(consortium)
    assert balance(consortium) == RICH - 101
    assert state_of(consortium, task) == "held"
    consortium.accept_all(task)
    consortium.complete_all(task)
    assert state_of(consortium, task) == "settled"
    assert balance(consortium, "institution:iu") == 101
    conserved(consortium)


def test_the_voted_shares_are_paid() -> None:
    consortium = start(computing_share_bp=1000, coordinator_share_bp=1000, fund_share_bp=500)
    task = submitted(consortium, Price(unit=PRICE_UNIT_USE, points=100))
    consortium.accept_all(task)
    consortium.complete_all(task)
    got = {account.id: account.points for account in consortium.app.accounts(at_most=100)}
    assert got == {
        ANALYST: RICH - 100,
        "fund:consortium": 5,
        "institution:case": 4,
        "institution:iu": 3 + 75,
        "institution:um": 3 + 10,
    }
    conserved(consortium)


def test_a_price_per_row_counts_published_rows() -> None:
    consortium = start()
    task = submitted(consortium, PER_ROW)
    assert consortium.app.task(task).terms.points == 2 * 160


def test_a_running_task_keeps_the_terms_it_was_submitted_under() -> None:
    consortium = start()
    task = submitted(consortium)
    consortium.accept_all(task)

    def vote(context: Context) -> None:
        changed = context.parameters
        changed.fund_share_bp = 10_000
        tables.PARAMETERS.put(context.state, "", changed)

    by_ledger(consortium, vote)
    consortium.complete_all(task)
    assert balance(consortium, "institution:iu") == 101
    later = again(consortium, task)
    consortium.accept_all(later)
    consortium.complete_all(later)
    assert balance(consortium, "fund:consortium") == 101


def test_a_token_keeps_the_price_of_its_grant() -> None:
    consortium = start()
    task = submitted(consortium)
    consortium.do("um/analyst", CancelTask(task_id=task))
    consortium.do("iu/operator", publication("iu.a.t", price=Price(unit=PRICE_UNIT_USE, points=900)))
    submission = consortium.app.task(task).submitted
    submission.sources[0].version = 2
    assert consortium.app.task(consortium.do("um/analyst", submission)).terms.points == 101


def test_rows_that_grew_beyond_all_bounds_cost_no_more_than_a_price_may() -> None:
    consortium = start(points=MAX_POINTS)
    consortium.do("iu/operator", publication("iu.a.t", row_count=10, price=Price(unit=PRICE_UNIT_ROW, points=10**12)))
    token = consortium.token("iu.a.t")
    consortium.do("iu/operator", publication("iu.a.t", row_count=100_000_000))
    submission = consortium.submission({"iu.a.t": token})
    submission.max_price = MAX_POINTS
    assert consortium.app.task(consortium.do("um/analyst", submission)).terms.points == MAX_PRICE


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("how", ["fail", "cancel", "expire", "revoke", "give up", "withdraw"])
def test_whatever_did_not_complete_is_refunded(how: str, running: bool) -> None:
    consortium = start()
    task = submitted(consortium)
    token = consortium.app.task(task).submitted.sources[0].token_id
    if running:
        consortium.accept_all(task)
    match how:
        case "fail":
            consortium.do("case", FailTask(task_id=task, rule="worker-crashed", reason="gone"))
        case "cancel":
            consortium.do("um/analyst", CancelTask(task_id=task))
        case "expire":
            consortium.wait(99_000)
            consortium.wait(99_000)
        case "revoke":
            consortium.do("iu/operator", RevokeToken(token_id=token, reason="audit"))
        case "give up":
            consortium.do("um/analyst", RevokeToken(token_id=token, reason="enough"))
        case _:
            consortium.do("iu/operator", WithdrawDataset(name="iu.a.t", reason="over"))
    assert state_of(consortium, task) == "refunded"
    assert balance(consortium) == RICH
    assert consortium.app.token(token).uses_left == (1 if running else 2), "the use and the points part ways"
    conserved(consortium)


def test_a_settlement_may_wait_for_disputes() -> None:
    consortium = start(settlement_delay_ms=60_000)
    task = submitted(consortium)
    consortium.accept_all(task)
    consortium.complete_all(task)
    assert state_of(consortium, task) == "held"
    consortium.wait(60_000)
    assert state_of(consortium, task) == "settled"
    assert balance(consortium, "institution:iu") == 101


@pytest.mark.parametrize("ends", ["completes", "fails"])
def test_what_a_dispute_froze_waits_for_its_end(ends: str) -> None:
    consortium = start()
    task = submitted(consortium)
    by_ledger(consortium, lambda context: accounts.freeze(context, task))
    consortium.accept_all(task)
    if ends == "completes":
        consortium.complete_all(task)
    else:
        consortium.do("um/analyst", CancelTask(task_id=task))
    assert state_of(consortium, task) == "frozen"
    by_ledger(consortium, lambda context: accounts.thaw(context, task))
    consortium.wait(1)
    assert state_of(consortium, task) == ("settled" if ends == "completes" else "refunded")
    conserved(consortium)


def test_a_free_task_leaves_no_trace_of_points() -> None:
    consortium = start()
    task = submitted(consortium, None)
    assert not consortium.app.task(task).HasField("terms")
    assert consortium.app.escrow(task) is None


# --- subscriptions


def test_a_period_is_paid_once_and_settled_when_it_is_over() -> None:
    consortium = start(fund_share_bp=1000, computing_share_bp=5000)
    task = submitted(consortium, PER_PERIOD)
    token = consortium.app.task(task).submitted.sources[0].token_id
    assert balance(consortium) == RICH - 100
    assert consortium.app.task(again(consortium, task)).terms.sources[0].subscription == 0
    assert balance(consortium) == RICH - 100
    consortium.wait(PER_PERIOD.period_ms)
    assert state_of(consortium, f"{token}:1") == "settled"
    assert balance(consortium, "institution:iu") == 90
    assert balance(consortium, "fund:consortium") == 10
    conserved(consortium)


def test_a_task_that_fails_does_not_end_the_period() -> None:
    consortium = start()
    task = submitted(consortium, PER_PERIOD)
    consortium.do("um/analyst", CancelTask(task_id=task))
    again(consortium, task)
    assert balance(consortium) == RICH - 100


def test_of_a_token_taken_back_what_has_passed_is_earned() -> None:
    consortium = start()
    task = submitted(consortium, PER_PERIOD)
    token = consortium.app.task(task).submitted.sources[0].token_id
    consortium.wait(19_000)
    consortium.do("iu/operator", RevokeToken(token_id=token, reason="audit"))  # a second later
    assert balance(consortium, "institution:iu") == 100 * 20 // 50
    assert balance(consortium) == RICH - 40
    conserved(consortium)


def test_whoever_gives_a_token_up_has_had_what_it_paid_for() -> None:
    consortium = start()
    task = submitted(consortium, PER_PERIOD)
    token = consortium.app.task(task).submitted.sources[0].token_id
    consortium.do("um/analyst", RevokeToken(token_id=token, reason="enough"))
    assert balance(consortium, "institution:iu") == 100
    conserved(consortium)


def test_whoever_leaves_gives_its_tokens_up_and_whoever_is_removed_does_not() -> None:
    for leaves, earned in ((True, 100), (False, 100 * 20 // 50)):
        consortium = start()
        consortium.wait(1)
        submitted(consortium, PER_PERIOD)
        if leaves:
            consortium.do("um/operator", GiveNotice(height=consortium.app.info().height + 11, reason="enough"))
            for _ in range(10):
                consortium.wait(1)
        else:
            consortium.wait(19_000)
            assert decree(consortium, remove("um")) == ""
        assert consortium.app.institution("um").status == MEMBER_STATUS_REMOVED
        assert balance(consortium, "institution:iu") == earned
        conserved(consortium)


def test_a_period_ends_with_its_token() -> None:
    consortium = start()
    task = submitted(consortium, Price(unit=PRICE_UNIT_PERIOD, points=100, period_ms=10**9))
    token = consortium.app.task(task).submitted.sources[0].token_id
    consortium.wait(100_000)
    assert state_of(consortium, f"{token}:1") == "settled"
    assert balance(consortium, "institution:iu") == 100


# --- refusals


def union_of_iu(consortium: Consortium, **weights: int) -> None:
    consortium.do("iu/operator", DefineUnion(name="patients", title="Patients", administrator="iu/analyst"))
    if weights:
        consortium.do("iu/analyst", members(**weights))


def members(**weights: int) -> SetUnionMembers:
    changes = [UnionMember(account=f"person:{name}/analyst", weight=weight) for name, weight in sorted(weights.items())]
    return SetUnionMembers(union="patients", members=changes)


def transfer(**changes: Any) -> TransferPoints:
    usual = TransferPoints(source=ANALYST, target="institution:iu", points=1, reason="thanks")
    for name, value in changes.items():
        setattr(usual, name, value)
    return usual


@pytest.mark.parametrize(
    ("sender", "message", "rule"),
    [
        ("um/analyst", transfer(points=RICH + 1), "insufficient-points"),
        ("um/analyst", transfer(points=0), "invalid-input"),
        ("um/analyst", transfer(points=2**64 - 1), "invalid-input"),
        ("um/analyst", transfer(target=ANALYST), "invalid-input"),
        ("um/analyst", transfer(reason=""), "invalid-input"),
        ("um/analyst", transfer(target="person:um/nobody"), "not-found"),
        ("um/analyst", transfer(target="institution:nobody"), "not-found"),
        ("um/analyst", transfer(target="union:nobody"), "not-found"),
        ("um/analyst", transfer(target="fund:other"), "invalid-name"),
        ("um/analyst", transfer(target="um"), "invalid-name"),
        ("um/analyst", transfer(source="institution:um"), "permission"),
        ("um/analyst", transfer(source="fund:consortium"), "permission"),
        ("um/analyst", transfer(source="union:patients"), "permission"),
        ("iu/analyst", transfer(), "permission"),
        ("um/operator", transfer(), "permission"),
        ("um/operator", transfer(source="institution:um"), "insufficient-points"),
        ("um/operator", publication("um.a.t", price=Price(points=1)), "invalid-input"),
        ("um/operator", publication("um.a.t", price=Price(unit=PRICE_UNIT_USE)), "invalid-input"),
        ("um/operator", publication("um.a.t", price=Price(unit=99, points=1)), "invalid-input"),  # type: ignore[arg-type]
        ("um/operator", publication("um.a.t", price=Price(unit=PRICE_UNIT_PERIOD, points=1)), "invalid-input"),
        ("um/operator", publication("um.a.t", price=Price(unit=PRICE_UNIT_ROW, points=MAX_PRICE)), "invalid-input"),
        (
            "um/operator",
            publication("um.a.t", price=Price(unit=PRICE_UNIT_USE, points=1, period_ms=1)),
            "invalid-input",
        ),
        ("um/operator", publication("um.a.t", payee="union:patients"), "payee"),
        ("um/operator", publication("um.a.t", payee="institution:iu"), "payee"),
        ("um/operator", publication("um.a.t", payee="union:nobody"), "not-found"),
        ("um/operator", DefineUnion(name="patients", title="Mine", administrator="um/analyst"), "permission"),
        ("um/operator", DefineUnion(name="mine", title="Mine", administrator="iu/analyst"), "invalid-input"),
        ("um/operator", DefineUnion(name="mine", title="Mine", administrator="um/nobody"), "not-found"),
        ("um/operator", DefineUnion(name="Mine", title="Mine", administrator="um/analyst"), "invalid-name"),
        ("um/analyst", members(um=1), "permission"),
        ("iu/analyst", SetUnionMembers(union="patients"), "invalid-input"),
        ("iu/analyst", members(um=0), "not-found"),
        ("iu/analyst", members(um=2**32 - 1, case=1), "union-members"),
        ("um/analyst", ClaimEarnings(union="patients", account=ANALYST), "not-found"),
        ("iu/analyst", ClaimEarnings(union="patients", account="person:iu/analyst"), "insufficient-points"),
        ("um/analyst", ClaimEarnings(union="patients", account="person:iu/analyst"), "permission"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_refused(sender: str, message: Any, rule: str) -> None:
    consortium = start()
    union_of_iu(consortium, iu=1)
    assert consortium.refused(sender, message) == rule
    assert balance(consortium) == RICH
    conserved(consortium)


def test_a_task_that_costs_more_than_agreed_or_owned_is_refused() -> None:
    consortium = start(points=100)
    consortium.do("iu/operator", publication("iu.a.t", price=PER_USE))
    token = consortium.token("iu.a.t")
    submission = consortium.submission({"iu.a.t": token})
    for agreed in (0, 100):
        submission.max_price = agreed
        assert consortium.refused("um/analyst", submission) == "max-price"
    submission.max_price = 101
    assert consortium.refused("um/analyst", submission) == "insufficient-points"
    assert consortium.app.token(token).uses_left == 2
    conserved(consortium)


def test_a_period_counts_towards_what_was_agreed_to() -> None:
    consortium = start()
    consortium.do("iu/operator", publication("iu.a.t", price=PER_PERIOD))
    submission = consortium.submission({"iu.a.t": consortium.token("iu.a.t")})
    submission.max_price = PER_PERIOD.points - 1
    assert consortium.refused("um/analyst", submission) == "max-price"


def test_no_more_than_the_limit_is_ever_minted() -> None:
    consortium = start(points=MAX_POINTS)

    def too_many(context: Context) -> None:
        accounts.burn(context, ANALYST, 5)
        with pytest.raises(Refused) as caught:
            accounts.mint(context, ANALYST, 1)
        assert caught.value.rule == "points-limit"

    by_ledger(consortium, too_many)
    assert balance(consortium) == MAX_POINTS - 5
    conserved(consortium)


def test_an_escrow_pays_no_more_than_it_holds_and_ends_once() -> None:
    consortium = start()

    def act(context: Context) -> None:
        accounts.hold(context, "e", ANALYST, 10)
        for wrong in ([("institution:iu", 11)], [("institution:iu", 12), ("institution:um", -2)]):
            with pytest.raises(Refused, match="holds 10"):
                accounts.settle(context, "e", wrong)
        accounts.settle(context, "e", [("institution:iu", 7)])
        for end in (accounts.refund, accounts.freeze, accounts.thaw):
            with pytest.raises(Refused) as caught:
                end(context, "e")
            assert caught.value.rule == "wrong-state"
        with pytest.raises(Refused) as caught:
            accounts.hold(context, "e", ANALYST, 1)
        assert caught.value.rule == "already-exists"

    by_ledger(consortium, act)
    assert balance(consortium) == RICH - 7
    conserved(consortium)


# --- data unions


def test_a_union_divides_by_weight_and_its_administrator_has_a_share() -> None:
    consortium = start(union_administrator_share_bp=1000)
    union_of_iu(consortium, um=3, case=1)
    task = submitted(consortium, Price(unit=PRICE_UNIT_USE, points=100), payee="union:patients")
    consortium.accept_all(task)
    consortium.complete_all(task)
    assert balance(consortium, "person:iu/analyst") == 10
    assert balance(consortium, "union:patients") == 90
    consortium.do("um/analyst", ClaimEarnings(union="patients", account=ANALYST))
    consortium.do("case/analyst", ClaimEarnings(union="patients", account="person:case/analyst"))
    assert balance(consortium) == RICH - 100 + 67
    assert balance(consortium, "person:case/analyst") == 22
    assert balance(consortium, "union:patients") == 1  # halves of two members
    consortium.do("um/analyst", transfer(target="union:patients", points=1))
    consortium.do("um/analyst", transfer(target="union:patients", points=1))
    consortium.do("um/analyst", ClaimEarnings(union="patients", account=ANALYST))
    assert balance(consortium) == RICH - 100 + 67 - 2 + 2  # 3/4 of 2, and its half from before
    conserved(consortium)


def test_weights_hold_for_what_came_while_they_held() -> None:
    consortium = start()
    union_of_iu(consortium, um=1)
    consortium.do("um/analyst", transfer(target="union:patients", points=100))
    consortium.do("iu/analyst", members(case=1))
    consortium.do("um/analyst", transfer(target="union:patients", points=100))
    consortium.do("iu/analyst", members(um=0))
    assert balance(consortium) == RICH - 200 + 150, "who leaves is paid"
    assert consortium.app.union_earnings("patients", "person:case/analyst") == 50


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("pay"), st.integers(1, 50)),
            st.tuples(st.sampled_from(MEMBERS), st.integers(0, 7)),
            st.tuples(st.just("claim"), st.sampled_from(MEMBERS)),
        ),
        max_size=20,
    )
)
def test_no_fraction_of_a_point_is_lost_or_made(steps: list[tuple[str, Any]]) -> None:
    """Whatever comes, whoever joins and leaves: what members can claim and what waits are what the union has."""
    consortium = start(points=10_000)
    union_of_iu(consortium)
    for what, value in steps:
        match what:
            case "pay":
                consortium.send("um/analyst", transfer(target="union:patients", points=value))
            case "claim":
                consortium.send(f"{value}/analyst", ClaimEarnings(union="patients", account=f"person:{value}/analyst"))
            case _:
                consortium.send("iu/analyst", members(**{what: value}))
        union = consortium.app.union("patients")
        found = consortium.app.union_members("patients", at_most=10)
        assert (union.members, union.weight) == (len(found), sum(member.weight for member in found))
        earned = int.from_bytes(union.earned_per_weight, "big")
        owed = sum(
            (earned - int.from_bytes(member.settled_at, "big")) * member.weight + member.fraction for member in found
        )
        assert owed + union.remainder == union.divided * 2**32
        assert balance(consortium, "union:patients") >= union.divided
    conserved(consortium)


@pytest.mark.parametrize("wrong", ["account", "escrow", "supply"])
def test_a_ledger_whose_points_do_not_add_up_is_found(wrong: str) -> None:
    consortium = start()
    task = submitted(consortium)
    consortium.app.check_conservation()

    def tamper(context: Context) -> None:
        if wrong == "account":
            tables.ACCOUNTS.put(context.state, ANALYST, Account(id=ANALYST, points=10**6))
        elif wrong == "escrow":
            escrow = tables.ESCROWS.get(context.state, task)
            escrow.points += 1
            tables.ESCROWS.put(context.state, task, escrow)
        else:
            tables.SUPPLY.put(context.state, "", Supply(minted=RICH, burned=1, escrowed=101))

    by_ledger(consortium, tamper)
    with pytest.raises(Corrupt, match="do not add up"):
        consortium.app.check_conservation()


# --- the log


def test_the_log_alone_shows_every_balance() -> None:
    consortium = start(fund_share_bp=1000)
    task = submitted(consortium)
    consortium.accept_all(task)
    consortium.complete_all(task)
    consortium.do("um/analyst", transfer(points=3))
    sums: dict[str, int] = {}
    for record in consortium.records():
        for posting in record.postings:
            sums[posting.account] = sums.get(posting.account, 0) + posting.change
            assert posting.balance == sums[posting.account]
    assert sums == {account.id: account.points for account in consortium.app.accounts(at_most=100)}
    held = next(record for record in consortium.records() if record.kind == "escrow.held")
    assert f"task:{task}" in held.related


def test_a_genesis_without_points_makes_none() -> None:
    consortium = Consortium()
    assert consortium.app.supply().ByteSize() == 0
    assert consortium.app.accounts() == []
