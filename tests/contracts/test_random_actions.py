"""Random actions by random people: no state without an allowed path, no effect without a record, no drift.

After every block: the records of each subject form a path through the written-out transitions, and what a
token has given is exactly what was granted less what open and completed tasks hold. At the end the same
blocks, executed anew, make the same bytes; and the indexes hold what a full scan finds.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from governance import constitution
from koinon import trail
from koinon.limits import MIN_NOTICE_BLOCKS
from koinon.rules import RULES
from koinon.v1.access_pb2 import (
    TOKEN_STATUS_ACTIVE,
    TOKEN_STATUS_USED_UP,
    AccessRequest,
    DenyAccess,
    GrantAccess,
    RevokeToken,
    Token,
)
from koinon.v1.audit_pb2 import READING_KIND_LIST, RecordReading
from koinon.v1.catalog_pb2 import TASK_OPERATION_COUNT, WithdrawDataset
from koinon.v1.constitution_pb2 import Constitution
from koinon.v1.governance_pb2 import (
    CHOICE_YES,
    PROPOSAL_STATUS_ACCEPTED,
    PROPOSAL_STATUS_OPEN,
    PROPOSAL_STATUS_REJECTED,
    Action,
    AdmitInstitution,
    AssertParameter,
    BurnPoints,
    CancelUpgrade,
    CastBallot,
    GovernanceProposal,
    MintPoints,
    Propose,
    ReadmitInstitution,
    RemoveInstitution,
    ScheduleUpgrade,
    SetConstitution,
    SetParameter,
    SetPower,
    SetWeight,
    SuspendInstitution,
    WithdrawProposal,
)
from koinon.v1.identity_pb2 import (
    ROLE_ANALYST,
    ROLE_FEEDER,
    ROLE_GATEWAY,
    ROLE_OPERATOR,
    Genesis,
    GiveNotice,
    RegisterPerson,
    RevokePerson,
    WithdrawNotice,
)
from koinon.v1.points_pb2 import (
    ESCROW_STATUS_FROZEN,
    ESCROW_STATUS_HELD,
    ESCROW_STATUS_REFUNDED,
    PRICE_UNIT_PERIOD,
    PRICE_UNIT_ROW,
    PRICE_UNIT_USE,
    Account,
    ClaimEarnings,
    DataUnion,
    DefineUnion,
    Escrow,
    Price,
    SetUnionMembers,
    TransferPoints,
    UnionMember,
)
from koinon.v1.task_pb2 import (
    TASK_STATUS_RUNNING,
    TASK_STATUS_SUBMITTED,
    CancelTask,
    FailTask,
    SubmitTask,
    Task,
    TaskSource,
)
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_COMMITTED
from node.store.memory import MemoryStore
from tests.contracts.consortium import (
    PLAN_HASH,
    Consortium,
    accept,
    access_request,
    complete,
    genesis,
    person,
    publication,
    receive,
)
from tests.contracts.decree import descriptor
from tests.contracts.test_transitions import paths

DATASETS = ("iu.a.t", "um.a.t", "um.a.review")
COMMITTEES = (("case", "iu", "um"), ("iu", "uk", "um"), ("case", "iu", "uk", "um"))
DEVICES = ("um/gateway", "um/feeder")
NODES = ("case", "iu", "uk", "um")
PEOPLE = ("iu/operator", "um/operator", "iu/analyst", "um/analyst", "um/regulator")
NOTHING = "0" * 32


def mostly(right: str) -> st.SearchStrategy[str]:
    """Whoever may, and now and then somebody else."""
    return st.one_of(st.just(right), st.just(right), st.sampled_from((*PEOPLE, *NODES)))


RARELY = st.sampled_from((False, False, False, True))
"""For what ends everything else."""

ALLOWED = {subject: {(kind, before, after) for kind, before, after in moves} for subject, moves in paths().items()}


PRICES = st.sampled_from(
    (
        None,
        Price(unit=PRICE_UNIT_USE, points=101),
        Price(unit=PRICE_UNIT_ROW, points=1),
        Price(unit=PRICE_UNIT_PERIOD, points=77, period_ms=400),
        Price(unit=PRICE_UNIT_PERIOD, points=77, period_ms=400_000),
    )
)
OWNERS = ("iu/operator", "iu/analyst", "um/operator", "um/analyst")
ACCOUNTS = (*(f"person:{owner}" for owner in OWNERS), "institution:iu", "union:crew", "fund:consortium", "union:none")


OPERATORS = ("case/operator", "iu/operator", "uk/operator", "um/operator")


def brisk(delay_ms: int) -> Constitution:
    """The founding constitution, with little time for anything."""
    rules = constitution.founding()
    for policy in (rules.usual, *(entry.policy for entry in rules.policies)):
        policy.voting_period_ms, policy.delay_ms = 100_000, delay_ms
    rules.arbitration.answer_period_ms = rules.arbitration.ruling_period_ms = 60_000
    return rules


ACTIONS = (
    *(Action(set_parameter=SetParameter(name="min_cohort_floor", value=value)) for value in (1, 5)),
    Action(set_parameter=SetParameter(name="run_window_ms", value=3_000)),
    Action(set_parameter=SetParameter(name="max_committee", value=3)),
    *(Action(set_parameter=SetParameter(name="task_fee", value=value)) for value in (0, 6)),
    Action(set_parameter=SetParameter(name="request_fee", value=7)),  # more than transactions agree to
    Action(assert_parameter=AssertParameter(name="min_cohort_floor", value=5)),
    *(Action(set_weight=SetWeight(institution="case", weight=weight)) for weight in (0, 3)),
    *(Action(set_power=SetPower(institution="uk", power=power)) for power in (0, 1, 2)),
    Action(admit=AdmitInstitution(institution="osu", descriptor=descriptor("osu", 5), power=1)),
    Action(remove=RemoveInstitution(institution="osu", reason="left")),
    Action(suspend=SuspendInstitution(institution="iu", reason="an inquiry")),
    Action(readmit=ReadmitInstitution(institution="iu")),
    Action(mint_points=MintPoints(account="fund:consortium", points=50, reason="the year")),
    Action(burn_points=BurnPoints(account="fund:consortium", points=40, reason="unspent")),
    *(Action(set_constitution=SetConstitution(constitution=brisk(delay))) for delay in (0, 50_000)),
    Action(schedule_upgrade=ScheduleUpgrade(version=2, height=1_000_000, install="koinon 0.2")),
    Action(cancel_upgrade=CancelUpgrade(version=2)),
)


def rich() -> Genesis:
    """A genesis in which people have points, and everybody gets a share of a price."""
    initial = genesis()
    initial.points.extend(Account(id=f"institution:{owner}", points=20) for owner in ("iu", "um"))
    initial.points.extend(Account(id=f"person:{owner}", points=1_000) for owner in ("iu/analyst", "um/analyst"))
    shares = initial.parameters
    shares.computing_share_bp, shares.coordinator_share_bp, shares.fund_share_bp = 1_001, 333, 500
    shares.union_administrator_share_bp, shares.provider_weighting = 1_000, 3
    shares.settlement_delay_ms = 10
    shares.task_fee, shares.dataset_fee, shares.request_fee = 3, 2, 1
    shares.request_window_ms = 30_000
    initial.constitution.CopyFrom(brisk(0))
    return initial


class Ledger(RuleBasedStateMachine):
    requests = Bundle("requests")
    tokens = Bundle("tokens")
    tasks = Bundle("tasks")
    proposals = Bundle("proposals")

    def __init__(self) -> None:
        super().__init__()
        self.consortium = Consortium(genesis=rich(), max_fee=5)
        self.seen = 0  # records checked
        self.states: dict[str, str] = {}  # of every subject, by its records

    def act(self, sender: str, message: Any) -> str | None:
        """Send it; the id it made if it was applied. If it was not, nothing but its id may be there."""
        before = self.state()
        size = self.consortium.app.audit_log.size
        finalized = self.consortium.decide(self.consortium.envelope(sender, message), after_ms=1)
        result = finalized.results[0]
        if result.status == TRANSACTION_STATUS_COMMITTED:
            assert self.consortium.app.audit_log.size > size, "an effect without a record"
            return result.created[0]
        assert result.refusal.rule in RULES
        assert result.refusal.hint
        if not finalized.records:  # nothing expired in the same block
            after = self.state()
            assert {name for name in after if before.get(name) != after[name]} <= {
                name for name in after if name.startswith(b"s/seen/")
            }
            assert all(name.startswith(b"s/seen/") for name in set(before) - set(after))
        return None

    def state(self) -> dict[bytes, bytes]:
        """All but who was seen to vote last, which every block may change."""
        return {
            name: value for name, value in self.consortium.store.scan(b"s/") if not name.startswith(b"s/last-sign/")
        }

    @initialize(target=tokens)
    def begin(self) -> Any:
        for name in DATASETS:
            price = Price(unit=PRICE_UNIT_USE, points=10) if name == "iu.a.t" else None
            assert self.act(f"{name[:2]}/operator", publication(name, auto="review" not in name, price=price))
        return multiple(*(self.consortium.token(name, uses=1) for name in ("iu.a.t", "um.a.t")))

    @rule(
        sender=st.sampled_from((*PEOPLE, "um/feeder")),
        name=st.sampled_from(DATASETS),
        price=PRICES,
        payee=st.sampled_from(("", "union:crew")),
    )
    def publish(self, sender: str, name: str, price: Price | None, payee: str) -> None:
        self.act(sender, publication(name, auto="review" not in name, price=price, payee=payee))

    @rule(sender=mostly("um/analyst"), source=st.sampled_from(ACCOUNTS), to=st.sampled_from(ACCOUNTS))
    def transfer(self, sender: str, source: str, to: str) -> None:
        self.act(sender, TransferPoints(source=source, target=to, points=3, reason="thanks"))

    @rule(owner=st.sampled_from(OWNERS), to=st.sampled_from(ACCOUNTS), points=st.sampled_from((1, 7, 100, 10**6)))
    def spend(self, owner: str, to: str, points: int) -> None:
        self.act(owner, TransferPoints(source=f"person:{owner}", target=to, points=points, reason="thanks"))

    @rule(sender=mostly("um/operator"), administrator=st.sampled_from(("um/operator", "um/analyst", "iu/analyst")))
    def define_union(self, sender: str, administrator: str) -> None:
        self.act(sender, DefineUnion(name="crew", title="Crew", administrator=administrator))

    @rule(sender=mostly("um/operator"), weights=st.dictionaries(st.sampled_from(OWNERS), st.integers(0, 3), min_size=1))
    def set_union_members(self, sender: str, weights: dict[str, int]) -> None:
        members = [UnionMember(account=f"person:{owner}", weight=weights[owner]) for owner in sorted(weights)]
        self.act(sender, SetUnionMembers(union="crew", members=members))

    @rule(sender=st.sampled_from(OWNERS))
    def claim_earnings(self, sender: str) -> None:
        self.act(sender, ClaimEarnings(union="crew", account=f"person:{sender}"))

    @rule(sender=mostly("um/operator"), name=st.sampled_from(DATASETS), really=RARELY)
    def withdraw(self, sender: str, name: str, really: bool) -> None:
        if really:
            self.act(sender, WithdrawDataset(name=name, reason="over"))

    @rule(sender=mostly("um/operator"), second=st.booleans(), operator=st.booleans())
    def register(self, sender: str, second: bool, operator: bool) -> None:
        key_name = "um/analyst second" if second else "um/analyst"
        roles = (ROLE_OPERATOR, ROLE_ANALYST) if operator else (ROLE_ANALYST,)
        self.act(sender, RegisterPerson(person=person("um/analyst", *roles, key_name=key_name)))

    @rule(sender=mostly("um/operator"), name=st.sampled_from(DEVICES), second=st.booleans())
    def register_device(self, sender: str, name: str, second: bool) -> None:
        role = ROLE_GATEWAY if name == "um/gateway" else ROLE_FEEDER
        self.act(sender, RegisterPerson(person=person(name, role, key_name=f"{name} second" if second else name)))

    @rule(sender=mostly("um/operator"), who=st.sampled_from((*PEOPLE, *DEVICES)), really=RARELY)
    def revoke_person(self, sender: str, who: str, really: bool) -> None:
        if really:
            self.act(sender, RevokePerson(person_id=who, reason="left"))

    @rule(
        target=requests,
        sender=st.one_of(mostly("um/analyst"), st.sampled_from(("um/analyst second", "um/gateway"))),
        name=st.sampled_from(DATASETS),
        uses=st.sampled_from((1, 2, 0)),
        duration_ms=st.sampled_from((100_000, 500_000, 5)),
    )
    def request(self, sender: str, name: str, uses: int, duration_ms: int) -> Any:
        return self.act(sender, access_request(name, uses=uses, duration_ms=duration_ms)) or multiple()

    @rule(target=tokens, request=requests)
    def granted(self, request: str) -> Any:
        return self.consortium.app.request(request).token_id or multiple()

    @rule(target=tokens, sender=mostly("um/operator"), request=requests, uses=st.integers(0, 2))
    def grant(self, sender: str, request: str, uses: int) -> Any:
        return self.act(sender, GrantAccess(request_id=request, uses=uses)) or multiple()

    @rule(sender=mostly("um/operator"), request=requests)
    def deny(self, sender: str, request: str) -> None:
        self.act(sender, DenyAccess(request_id=request, reason="no"))

    @rule(sender=mostly("um/operator"), token=tokens, really=RARELY)
    def revoke_token(self, sender: str, token: str, really: bool) -> None:
        if really:
            self.act(sender, RevokeToken(token_id=token, reason="audit"))

    @rule(target=tasks, chosen=st.lists(tokens, min_size=1, max_size=2), committee=st.sampled_from(COMMITTEES))
    def submit(self, chosen: list[str], committee: tuple[str, ...]) -> Any:
        return self.ask(chosen, committee)

    @rule(target=tasks, uses=st.sampled_from((1, 2)), committee=st.sampled_from(COMMITTEES))
    def request_and_submit(self, uses: int, committee: tuple[str, ...]) -> Any:
        requests = [
            self.act("iu/analyst", access_request(name, uses=uses, duration_ms=300_000))
            for name in ("iu.a.t", "um.a.t")
        ]
        granted = [self.consortium.app.request(request).token_id for request in requests if request]
        return self.ask(granted, committee) if granted else multiple()

    def ask(self, chosen: list[str], committee: tuple[str, ...]) -> Any:
        found = [self.consortium.app.token(token) for token in chosen]
        sources = [
            TaskSource(
                dataset=token.dataset,
                version=self.consortium.app.dataset(token.dataset).version,
                token_id=token.id,
                operations=[TASK_OPERATION_COUNT],
            )
            for token in sorted(found, key=lambda token: token.dataset)
        ]
        task = SubmitTask(
            sql="SELECT COUNT(*)",
            plan_hash=PLAN_HASH,
            sources=sources,
            committee=committee,
            result_key=bytes(32),
            threshold=1,
            purpose="to learn",
            max_price=10_000,
        )
        return self.act(found[0].holder, task) or multiple()

    @rule(party=st.sampled_from(NODES), task=tasks)
    def accept(self, party: str, task: str) -> None:
        self.act(party, accept(task, party))

    @rule(task=tasks)
    def accept_by_all(self, task: str) -> None:
        for party in self.consortium.app.task(task).submitted.committee:
            self.act(party, accept(task, party))

    @rule(party=st.sampled_from(NODES), task=tasks)
    def complete(self, party: str, task: str) -> None:
        self.act(party, complete(task, party))

    @rule(task=tasks)
    def complete_by_all(self, task: str) -> None:
        for party in self.consortium.app.task(task).submitted.committee:
            self.act(party, complete(task, party))

    @rule(sender=mostly("iu/analyst"), task=tasks, parties=st.one_of(st.none(), st.lists(st.sampled_from(NODES))))
    def receive(self, sender: str, task: str, parties: list[str] | None) -> None:
        self.act(
            sender, receive(task, *self.consortium.app.task(task).submitted.committee if parties is None else parties)
        )

    @rule(party=st.sampled_from(NODES), task=tasks)
    def fail(self, party: str, task: str) -> None:
        self.act(party, FailTask(task_id=task, rule="deadline", reason="gave up"))

    @rule(sender=mostly("um/analyst"), task=tasks)
    def cancel(self, sender: str, task: str) -> None:
        self.act(sender, CancelTask(task_id=task))

    @rule(target=proposals, sender=mostly("um/operator"), actions=st.lists(st.sampled_from(ACTIONS), max_size=3))
    def propose(self, sender: str, actions: list[Action]) -> Any:
        return self.act(sender, Propose(title="a change", reason="agreed", actions=actions)) or multiple()

    @rule(sender=st.sampled_from((*OPERATORS, "um/analyst")), proposal=proposals, choice=st.sampled_from((0, 1, 2, 3)))
    def cast_ballot(self, sender: str, proposal: str, choice: Any) -> None:
        self.act(sender, CastBallot(proposal_id=proposal, choice=choice))

    @rule(proposal=proposals, order=st.permutations(OPERATORS))
    def all_agree(self, proposal: str, order: list[str]) -> None:
        for operator in order:
            self.act(operator, CastBallot(proposal_id=proposal, choice=CHOICE_YES))
        assert self.consortium.app.proposal(proposal).status != PROPOSAL_STATUS_REJECTED or any(
            ballot.choice != CHOICE_YES for ballot in self.consortium.app.proposal(proposal).ballots
        )

    @rule(sender=mostly("um/operator"), proposal=proposals, really=RARELY)
    def withdraw_proposal(self, sender: str, proposal: str, really: bool) -> None:
        if really:
            self.act(sender, WithdrawProposal(proposal_id=proposal, reason="no longer"))

    @rule(sender=mostly("um/regulator"), name=st.sampled_from(DATASETS))
    def read(self, sender: str, name: str) -> None:
        self.act(sender, RecordReading(kind=READING_KIND_LIST, filter=trail.make(f"dataset:{name}"), purpose="audit"))

    @rule(sender=st.sampled_from(("iu/operator", "uk/operator", "um/analyst")), stays=st.booleans())
    def give_notice(self, sender: str, stays: bool) -> None:
        height = self.consortium.app.info().height + 1 + MIN_NOTICE_BLOCKS
        self.act(sender, WithdrawNotice(reason="stays") if stays else GiveNotice(height=height, reason="moves on"))

    @rule(after_ms=st.sampled_from((1, 1, 5, 5, 20_000, 150_000)))
    def wait(self, after_ms: int) -> None:
        self.consortium.wait(after_ms)

    @invariant()
    def records_follow_the_transitions(self) -> None:
        for record in self.consortium.records(self.seen):
            move = (record.kind, record.from_state, record.to_state)
            assert move in ALLOWED[record.subject.partition(":")[0]], record
            assert self.states.get(record.subject, "") == record.from_state, record
            self.states[record.subject] = record.to_state
            self.seen = record.index + 1

    @invariant()
    def uses_add_up(self) -> None:
        held = Counter[str]()
        for task in self.all("task", Task):
            ran = all(party.accepted for party in task.parties)  # then its uses are spent, however it ended
            if ran or task.status == TASK_STATUS_SUBMITTED:
                held.update(source.token_id for source in task.submitted.sources)
        for token in self.all("token", Token):
            assert token.uses_left + held[token.id] == token.uses_granted

    @invariant()
    def points_are_conserved(self) -> None:
        supply = self.consortium.app.supply()
        held = [
            escrow.points
            for escrow in self.all("escrow", Escrow)
            if escrow.status in (ESCROW_STATUS_HELD, ESCROW_STATUS_FROZEN)
        ]
        assert sum(held) == supply.escrowed
        spendable = sum(account.points for account in self.all("account", Account))
        assert spendable + supply.escrowed == supply.minted - supply.burned
        for union in self.all("union", DataUnion):
            assert self.consortium.app.account(f"union:{union.name}").points >= union.divided

    def refunded(self) -> set[str]:
        """Escrows given back by something else than their task."""
        return set()

    @invariant()
    def escrow_follows_its_task(self) -> None:
        refunded = self.refunded()
        for task in self.all("task", Task):
            escrow = self.consortium.app.escrow(task.id)
            assert (escrow is not None) == bool(task.terms.points + task.terms.fee)
            if escrow is None or escrow.status == ESCROW_STATUS_FROZEN or escrow.paid or escrow.planned:
                continue
            open_ = task.status in (TASK_STATUS_SUBMITTED, TASK_STATUS_RUNNING)
            if escrow.id not in refunded:
                assert escrow.status == (ESCROW_STATUS_HELD if open_ else ESCROW_STATUS_REFUNDED), task

    @invariant()
    def nothing_open_is_without_means(self) -> None:
        tokens = {token.id: token for token in self.all("token", Token)}
        for task in self.consortium.app.open_tasks():
            assert not self.consortium.app.person(task.asker).revoked
            assert task.deadline_ms > self.consortium.time_ms
            for source in task.submitted.sources:
                assert tokens[source.token_id].status == TOKEN_STATUS_ACTIVE
                assert tokens[source.token_id].expires_at_ms > self.consortium.time_ms

    @invariant()
    def somebody_decides(self) -> None:
        assert any(self.consortium.app.ballot_weights().values())
        assert self.consortium.app.info().validators

    def all(self, table: str, message: type[Any]) -> list[Any]:
        return [message.FromString(data) for _, data in self.consortium.store.scan(f"s/{table}/".encode())]

    def teardown(self) -> None:
        self.indexes_hold_what_a_scan_finds()
        other = Consortium(MemoryStore(), rich())
        for block in self.consortium.blocks:
            other.replay(block)
        assert other.app.info() == self.consortium.app.info()
        assert dict(other.store.scan(b"")) == dict(self.consortium.store.scan(b""))

    def indexes_hold_what_a_scan_finds(self) -> None:
        app = self.consortium.app
        tasks = self.all("task", Task)
        open_tasks = {task.id for task in tasks if not task.ended_at_ms}
        assert {task.id for task in app.open_tasks()} == open_tasks
        active = [token for token in self.all("token", Token) if token.status == TOKEN_STATUS_ACTIVE]
        requests = self.all("request", AccessRequest)
        keys = [key for key, _ in self.consortium.store.scan(b"s/")]
        assert sum(key.startswith(b"s/token-expiry/") for key in keys) == len(active)
        assert sum(key.startswith(b"s/asker-task/") for key in keys) == len(open_tasks)
        assert sum(key.startswith(b"s/token-task/") for key in keys) == sum(
            len(task.submitted.sources) for task in tasks if task.id in open_tasks
        )
        held = [
            escrow
            for escrow in self.all("escrow", Escrow)
            if escrow.status in (ESCROW_STATUS_HELD, ESCROW_STATUS_FROZEN)
        ]
        assert sum(key.startswith(b"s/token-escrow/") for key in keys) == sum(len(escrow.tokens) for escrow in held)
        for name in DATASETS:
            wanted = {item.id for item in requests if item.requested.dataset == name and not item.decided_by}
            assert {item.id for item in app.open_requests(name)} == wanted
        for token in self.all("token", Token):
            assert (token.status == TOKEN_STATUS_USED_UP) <= (token.uses_left == 0)
        pending = [
            proposal.id
            for proposal in self.all("proposal", GovernanceProposal)
            if proposal.status in (PROPOSAL_STATUS_OPEN, PROPOSAL_STATUS_ACCEPTED)
        ]
        assert sorted(key[-32:].decode() for key in keys if key.startswith(b"s/proposal-time/")) == sorted(pending)
        assert sorted(key[-32:].decode() for key in keys if key.startswith(b"s/pending-proposal/")) == sorted(pending)


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=30,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
