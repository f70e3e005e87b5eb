"""The same random people, who also negotiate, verify, demand and quarrel.

Everything that holds of random actions holds here too. Beside it: nothing waits beyond its deadline, what a dispute
froze is frozen while it is open and not after it, and demands are found by their terms exactly while they are open.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, multiple, rule

from koinon.v1.access_pb2 import (
    REQUEST_STATUS_COUNTERED,
    REQUEST_STATUS_OPEN,
    AcceptOffer,
    AccessRequest,
    AccessTerms,
    CounterOffer,
    GrantAccess,
    WithdrawRequest,
)
from koinon.v1.catalog_pb2 import (
    TASK_OPERATION_COUNT,
    VERIFICATION_OUTCOME_CONFIRMED,
    VerifyDataset,
    WithdrawVerification,
)
from koinon.v1.demand_pb2 import DEMAND_STATUS_OPEN, Demand, WithdrawDemand
from koinon.v1.dispute_pb2 import (
    DISPUTE_STATUS_ARBITRATION,
    DISPUTE_STATUS_OPEN,
    REMEDY_PAYOUT,
    REMEDY_REFUND,
    REMEDY_REVOCATION,
    REMEDY_SUSPENSION,
    AnswerDispute,
    Dispute,
    RuleDispute,
    WithdrawDispute,
)
from koinon.v1.points_pb2 import (
    ESCROW_STATUS_FROZEN,
    PRICE_UNIT_USE,
    Escrow,
    Price,
)
from tests.contracts.consortium import access_request, claim, wanted
from tests.contracts.test_random_actions import DATASETS, NODES, RARELY, Ledger, mostly

REMEDIES = st.lists(
    st.sampled_from((REMEDY_REFUND, REMEDY_PAYOUT, REMEDY_REVOCATION, REMEDY_SUSPENSION)), unique=True, max_size=3
).map(sorted)
MORE = (REMEDY_REVOCATION, REMEDY_SUSPENSION)
DEAR = Price(unit=PRICE_UNIT_USE, points=3)
OPERATORS = tuple(f"{name}/operator" for name in NODES)


class Market(Ledger):
    demands = Bundle("demands")
    disputes = Bundle("disputes")

    @rule(
        sender=st.sampled_from(("um/operator", "um/analyst", "iu/operator")),
        request=Ledger.requests,
        uses=st.integers(0, 3),
        price=st.sampled_from((None, Price(), DEAR)),
    )
    def counter(self, sender: str, request: str, uses: int, price: Price | None) -> None:
        terms = AccessTerms(
            operations=[TASK_OPERATION_COUNT], purposes=["otherwise"], duration_ms=200_000, uses=uses, price=price
        )
        self.act(sender, CounterOffer(request_id=request, terms=terms))

    @rule(target=Ledger.tokens, sender=mostly("um/analyst"), request=Ledger.requests, offer=st.integers(0, 3))
    def accept_offer(self, sender: str, request: str, offer: int) -> Any:
        return self.act(sender, AcceptOffer(request_id=request, offer=offer)) or multiple()

    @rule(target=Ledger.tokens, sender=mostly("um/operator"), request=Ledger.requests, offer=st.integers(0, 3))
    def grant_offer(self, sender: str, request: str, offer: int) -> Any:
        return self.act(sender, GrantAccess(request_id=request, offer=offer)) or multiple()

    @rule(
        target=Ledger.tokens, rounds=st.integers(1, 3), price=st.sampled_from((None, Price(), DEAR)), take=st.booleans()
    )
    def negotiate(self, rounds: int, price: Price | None, take: bool) -> Any:
        request = self.act("iu/analyst", access_request("um.a.review"))
        if not request:
            return multiple()
        for sender in ("um/operator", "iu/analyst", "um/operator")[:rounds]:
            self.counter(sender, request, rounds, price)
        if not take:
            return multiple()
        if rounds == 2:
            return self.act("um/operator", GrantAccess(request_id=request, offer=2)) or multiple()
        return self.act("iu/analyst", AcceptOffer(request_id=request, offer=rounds)) or multiple()

    @rule(sender=mostly("um/analyst"), request=Ledger.requests, really=RARELY)
    def withdraw_request(self, sender: str, request: str, really: bool) -> None:
        if really:
            self.act(sender, WithdrawRequest(request_id=request))

    @rule(
        sender=st.sampled_from(OPERATORS),
        name=st.sampled_from(DATASETS),
        version=st.integers(1, 2),
        back=st.booleans(),
    )
    def verify(self, sender: str, name: str, version: int, back: bool) -> None:
        if back:
            self.act(sender, WithdrawVerification(dataset=name, version=version, reason="a mistake"))
        else:
            statement = VerifyDataset(
                dataset=name,
                version=version,
                outcome=VERIFICATION_OUTCOME_CONFIRMED,
                method="recounted",
                evidence_digest=bytes(32),
            )
            self.act(sender, statement)

    @rule(
        target=demands,
        sender=mostly("um/analyst"),
        columns=st.sampled_from(((), ("age",), ("age", "rx"), ("none",))),
        themes=st.sampled_from(((), ("HEAL",), ("NOWHERE",))),
        duration_ms=st.sampled_from((50, 30_000, 1_000_000)),
    )
    def post_demand(self, sender: str, columns: Any, themes: Any, duration_ms: int) -> Any:
        posted = self.act(sender, wanted(columns=columns, themes=themes, duration_ms=duration_ms))
        return posted or multiple()

    @rule(sender=mostly("um/operator"), demand=demands)
    def withdraw_demand(self, sender: str, demand: str) -> None:
        self.act(sender, WithdrawDemand(demand_id=demand))

    @rule(
        target=disputes,
        sender=st.sampled_from(("um/analyst", "um/operator", "iu/operator", "iu/analyst")),
        token=Ledger.tokens,
        respondent=st.sampled_from(NODES),
        remedies=REMEDIES,
    )
    def dispute_token(self, sender: str, token: str, respondent: str, remedies: Any) -> Any:
        return self.act(sender, claim(token, respondent, *remedies)) or multiple()

    @rule(
        target=disputes,
        sender=st.sampled_from(("um/analyst", "um/operator", "iu/operator", "case/operator")),
        task=Ledger.tasks,
        respondent=st.sampled_from(NODES),
        remedies=REMEDIES,
    )
    def dispute_task(self, sender: str, task: str, respondent: str, remedies: Any) -> Any:
        return self.act(sender, claim(task, respondent, *remedies, task=True)) or multiple()

    @rule(
        target=disputes, task=Ledger.tasks, remedy=st.sampled_from((REMEDY_REFUND, REMEDY_PAYOUT)), over=st.booleans()
    )
    def quarrel(self, task: str, remedy: Any, over: bool) -> Any:
        """Between the asker and an owner, over the task or its token, as it should be."""
        found = self.consortium.app.task(task)
        source, home = found.submitted.sources[0], found.asker.partition("/")[0]
        owner = source.dataset.partition(".")[0]
        if owner == home:
            return multiple()
        opened = claim(task, owner, remedy, task=True) if over else claim(source.token_id, owner, remedy, *MORE)
        return self.act(found.asker, opened) or multiple()

    @rule(dispute=disputes, part=st.integers(0, 3), concede=RARELY)
    def judge(self, dispute: str, part: int, concede: bool) -> None:
        """The respondent answers, and arbiters agree on a part of what is sought."""
        found = self.consortium.app.dispute(dispute)
        answer = AnswerDispute(dispute_id=dispute, statement="no", concede=concede)
        self.act(f"{found.opened.respondent}/operator", answer)
        for arbiter in found.arbiters:
            self.rule_on(f"{arbiter}/operator", dispute, found.opened.remedies[:part])

    @rule(sender=st.sampled_from((*OPERATORS, "um/analyst")), dispute=disputes, concede=RARELY)
    def answer(self, sender: str, dispute: str, concede: bool) -> None:
        self.act(sender, AnswerDispute(dispute_id=dispute, statement="no", concede=concede))

    @rule(sender=st.sampled_from(OPERATORS), dispute=disputes, remedies=REMEDIES)
    def rule_on(self, sender: str, dispute: str, remedies: Any) -> None:
        self.act(sender, RuleDispute(dispute_id=dispute, remedies=remedies, reason="seen"))

    @rule(sender=mostly("um/operator"), dispute=disputes, really=RARELY)
    def withdraw_dispute(self, sender: str, dispute: str, really: bool) -> None:
        if really:
            self.act(sender, WithdrawDispute(dispute_id=dispute))

    @invariant()
    def nothing_waits_beyond_its_deadline(self) -> None:
        now_ms = self.consortium.time_ms
        for request in self.all("request", AccessRequest):
            waits = request.status in (REQUEST_STATUS_OPEN, REQUEST_STATUS_COUNTERED)
            assert waits == (request.deadline_ms > now_ms) == bool(request.deadline_ms), request
        for demand in self.all("demand", Demand):
            assert demand.status != DEMAND_STATUS_OPEN or demand.expires_at_ms > now_ms
        for dispute in self.all("dispute", Dispute):
            waits = dispute.status in (DISPUTE_STATUS_OPEN, DISPUTE_STATUS_ARBITRATION)
            assert waits == (dispute.deadline_ms > now_ms) == bool(dispute.deadline_ms), dispute

    @invariant()
    def frozen_is_what_an_open_dispute_froze(self) -> None:
        frozen = {escrow.id for escrow in self.all("escrow", Escrow) if escrow.status == ESCROW_STATUS_FROZEN}
        holding = {name for dispute in self.all("dispute", Dispute) if dispute.deadline_ms for name in dispute.escrows}
        assert frozen <= holding

    def refunded(self) -> set[str]:
        return {
            name
            for dispute in self.all("dispute", Dispute)
            if REMEDY_REFUND in dispute.remedies
            for name in dispute.escrows
        }

    def teardown(self) -> None:
        super().teardown()
        keys = [key for key, _ in self.consortium.store.scan(b"s/")]

        def count(table: str) -> int:  # without the counters, which have one part
            return sum(key.startswith(f"s/{table}/".encode()) and b"\0" in key for key in keys)

        demands = [demand for demand in self.all("demand", Demand) if demand.status == DEMAND_STATUS_OPEN]
        disputes = [dispute for dispute in self.all("dispute", Dispute) if dispute.deadline_ms]
        assert count("open-demand") == len(demands)
        assert count("demand-term") == sum(1 if d.posted.columns else len(d.posted.themes) for d in demands)
        assert count("open-dispute") == len(disputes)
        assert count("frozen-by") == sum(len(dispute.escrows) for dispute in disputes)


TestMarket = Market.TestCase
TestMarket.settings = settings(
    max_examples=20,
    stateful_step_count=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
