"""People and nodes that sign transactions: sensible ones by what a node tells them, and some that no block may hold.

Each action looks at the ledger of the node it is sent to, as a client would, and yields who signs what. Whatever a
client signs is told to the checkers; what a node says became of it is held against every other node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from koinon import envelope
from koinon.limits import MAX_EXPIRY_MS, MAX_FEE
from koinon.names import PersonId
from koinon.v1.access_pb2 import DenyAccess, GrantAccess, RequestAccess, RevokeToken
from koinon.v1.catalog_pb2 import (
    ACCESS_MODE_AUTO,
    ACCESS_MODE_REVIEW,
    COLUMN_TYPE_INTEGER,
    TASK_OPERATION_COUNT,
    TASK_OPERATION_SUM,
    AccessPolicy,
    Column,
    PublishDataset,
    WithdrawDataset,
)
from koinon.v1.governance_pb2 import (
    CHOICE_NO,
    CHOICE_YES,
    PROPOSAL_STATUS_OPEN,
    CastBallot,
    Propose,
    SetParameter,
    SetPower,
)
from koinon.v1.governance_pb2 import Action as GovernanceAction
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_NODE,
    KEY_PURPOSE_VALIDATOR,
    MEMBER_STATUS_ACTIVE,
    ROLE_ANALYST,
    ROLE_OPERATOR,
    RegisterPerson,
    RevokePerson,
    RotateKey,
)
from koinon.v1.points_pb2 import PRICE_UNIT_PERIOD, PRICE_UNIT_ROW, PRICE_UNIT_USE, Price, TransferPoints
from koinon.v1.task_pb2 import AcceptTask, CancelTask, CompleteTask, FailTask, ReceiveResult, SubmitTask, TaskSource
from koinon.v1.transaction_pb2 import Operation
from node.application import Application
from testnet.simulation import market
from testnet.simulation.checkers import Checkers
from testnet.simulation.consortium import (
    ANALYST,
    NODE_KEYS,
    OPERATOR,
    VALIDATOR_KEYS,
    key,
    node_key_name,
    person,
    validator_key,
)
from testnet.simulation.nodes import Network, SimNode
from testnet.simulation.world import World

Signed = tuple[str, Any]
"""Whose key signs, and an operation's message."""

Action = Callable[[Application, Random, Sequence[str]], Signed | None]
"""From a node's ledger, chance and the members' names to a transaction; None where there is nothing to do."""

_GOVERNING = 0.15  # of what clients do is about how the members decide
_BY_MEMBERS = 0.9  # else by the suspended and removed, too
_CHANGING = 0.6  # where they change who belongs
_PLAN_HASH = bytes(range(32))
_OPERATIONS = (TASK_OPERATION_COUNT, TASK_OPERATION_SUM)
_PRICES = (
    None,
    None,
    Price(unit=PRICE_UNIT_USE, points=31),
    Price(unit=PRICE_UNIT_ROW, points=1),
    Price(unit=PRICE_UNIT_PERIOD, points=50, period_ms=20_000),
)
_FIELDS = {
    item.message_type.name: item.name
    for item in Operation.DESCRIPTOR.oneofs_by_name["operation"].fields
    if item.message_type is not None
}


def _register(app: Application, rng: Random, members: Sequence[str]) -> Signed:
    """A new person, or another key for one."""
    home, number = rng.choice(members), rng.randrange(6)
    name = f"{home}/p{number}"
    role = rng.choice((ROLE_ANALYST, ROLE_OPERATOR))
    return f"{home}/{OPERATOR}", RegisterPerson(person=person(name, role, key_name=f"{name} {rng.randrange(100)}"))


def _revoke_person(app: Application, rng: Random, members: Sequence[str]) -> Signed:
    home = rng.choice(members)
    return f"{home}/{OPERATOR}", RevokePerson(person_id=f"{home}/p{rng.randrange(6)}", reason="left")


def _rotate(app: Application, rng: Random, members: Sequence[str]) -> Signed:
    """Another validator key: who votes changes two heights later; or node key. One that was used is refused."""
    home = rng.choice(members)
    if rng.random() < 0.3:
        new = key(node_key_name(home, rng.randrange(NODE_KEYS))).public_key
        return f"{home}/{OPERATOR}", RotateKey(purpose=KEY_PURPOSE_NODE, key=new)
    new = validator_key(home, rng.randrange(VALIDATOR_KEYS)).public_key
    return f"{home}/{OPERATOR}", RotateKey(purpose=KEY_PURPOSE_VALIDATOR, key=new)


def _publish(app: Application, rng: Random, members: Sequence[str]) -> Signed:
    home = rng.choice(members)
    name = f"{home}.sim.t{rng.randrange(2)}"
    return f"{home}/{OPERATOR}", PublishDataset(
        name=name,
        title="A trial",
        description="Simulated.",
        columns=[Column(name="age", type=COLUMN_TYPE_INTEGER, unit="a")],
        row_count=100,
        row_count_step=10,
        policy=AccessPolicy(
            mode=ACCESS_MODE_REVIEW if name.endswith("1") else ACCESS_MODE_AUTO,
            operations=_OPERATIONS,
            min_cohort=5,
            max_uses=10,
            max_duration_ms=1_000_000,
        ),
        commitment=hashlib.sha256(name.encode()).digest(),
        price=rng.choice(_PRICES),
        payee=rng.choice(("", *(f"union:{name}" for name in market.unions(app) if name.startswith(home)))),
    )


def _transfer(app: Application, rng: Random, members: Sequence[str]) -> Signed:
    """Mostly what the account holds, and at times more."""
    payer = f"{rng.choice(members)}/{ANALYST}"
    target = rng.choice((f"institution:{rng.choice(members)}", f"person:{rng.choice(members)}/{ANALYST}"))
    points = rng.choice((1, 7, 2_000))
    return payer, TransferPoints(source=f"person:{payer}", target=target, points=points, reason="thanks")


def _withdraw(app: Application, rng: Random, members: Sequence[str]) -> Signed:
    home = rng.choice(members)
    return f"{home}/{OPERATOR}", WithdrawDataset(name=f"{home}.sim.t{rng.randrange(2)}", reason="over")


def _request(app: Application, rng: Random, members: Sequence[str]) -> Signed | None:
    datasets = app.datasets()
    if not datasets:
        return None
    return f"{rng.choice(members)}/{ANALYST}", RequestAccess(
        dataset=rng.choice(datasets).published.name,
        operations=_OPERATIONS,
        purposes=["to learn"],
        duration_ms=rng.choice((1_000, 60_000, 600_000)),
        uses=rng.randint(1, 3),
    )


def _decide_request(app: Application, rng: Random, members: Sequence[str]) -> Signed | None:
    home = rng.choice(members)
    open_requests = app.open_requests(f"{home}.sim.t1")
    if not open_requests:
        return None
    asked = rng.choice(open_requests).id
    message = GrantAccess(request_id=asked) if rng.random() < 0.7 else DenyAccess(request_id=asked, reason="no")
    return f"{home}/{OPERATOR}", message


def _revoke_token(app: Application, rng: Random, members: Sequence[str]) -> Signed | None:
    dataset = f"{rng.choice(members)}.sim.t{rng.randrange(2)}"
    tokens = app.active_tokens(PersonId.parse(f"{rng.choice(members)}/{ANALYST}"), dataset)
    if not tokens:
        return None
    return f"{dataset.partition('.')[0]}/{OPERATOR}", RevokeToken(token_id=tokens[0].id, reason="audit")


def _submit_task(app: Application, rng: Random, members: Sequence[str]) -> Signed | None:
    if len(members) < 3:
        return None
    askers = [f"{name}/{ANALYST}" for name in rng.sample(list(members), len(members))]
    asker, sources = next(((asker, found) for asker in askers if (found := _sources(app, asker))), ("", []))
    if not sources:
        return None
    owners = {source.dataset.partition(".")[0] for source in sources}
    others = [name for name in members if name not in owners]
    committee = sorted([*owners, *rng.sample(others, 3 - len(owners))])
    return asker, SubmitTask(
        sql="SELECT COUNT(*)",
        plan_hash=_PLAN_HASH,
        sources=sources,
        committee=committee,
        result_key=bytes(32),
        threshold=1,
        purpose="to learn",
        max_price=1_000,
    )


def _sources(app: Application, asker: str) -> list[TaskSource]:
    """Up to two, of those that this person has tokens for."""
    sources: list[TaskSource] = []
    for dataset in app.datasets():
        tokens = app.active_tokens(PersonId.parse(asker), dataset.published.name)
        if tokens and len(sources) < 2:
            sources.append(
                TaskSource(
                    dataset=dataset.published.name,
                    version=dataset.version,
                    token_id=tokens[0].id,
                    columns=["age"],
                    operations=[TASK_OPERATION_COUNT],
                )
            )
    return sources


def _work_on_task(app: Application, rng: Random, members: Sequence[str]) -> Signed | None:
    """A party accepts or reports, or somebody gives up."""
    tasks = app.open_tasks()
    if not tasks:
        return None
    task = rng.choice(tasks)
    lazy = [party for party in task.parties if not party.accepted] or [
        party for party in task.parties if not party.output_digest
    ]
    if rng.random() < 0.05:
        return task.asker, CancelTask(task_id=task.id)
    party = rng.choice(lazy or list(task.parties))
    if rng.random() < 0.05:
        return party.institution, FailTask(task_id=task.id, rule="deadline", reason="gave up")
    digest = hashlib.sha256(f"{party.institution} {task.id}".encode()).digest()
    if party.accepted:
        return party.institution, CompleteTask(task_id=task.id, output_digest=digest)
    return party.institution, AcceptTask(task_id=task.id, plan_hash=_PLAN_HASH, session_certificate=digest)


def _receive_result(app: Application, rng: Random, members: Sequence[str]) -> Signed | None:
    """An asker says that it opened a result of late; at times again."""
    completed = market.lately(app, "task.completed")
    if not completed:
        return None
    task = app.task(rng.choice(completed))
    digests = [party.output_digest for party in task.parties]
    return task.asker, ReceiveResult(task_id=task.id, output_digests=digests[rng.randrange(4) == 0 :])


ACTIONS: list[tuple[int, Action]] = [
    (10, _register),
    (2, _revoke_person),
    (6, _publish),
    (1, _withdraw),
    (8, _request),
    (4, _decide_request),
    (1, _revoke_token),
    (6, _submit_task),
    (16, _work_on_task),
    (2, _receive_result),
    (2, _rotate),
    (4, _transfer),
    (2, market.define_union),
    (2, market.set_union_members),
    (2, market.claim_earnings),
    (4, market.quarrel),
]
"""What clients do, and how often."""

_SUPPLY: tuple[Action, ...] = (_request, _request, _decide_request, _publish)
"""What there must be before tasks; whoever trades first goes on with those that there are."""

_TRADING = 0.6  # of what clients do, where there is a market
_ATTEMPTS = 4  # to find something that can be done, before somebody is registered


class Clients:
    """All clients of one run. Members that are ``reliable`` may gain power by ballots; who is faulty must not."""

    def __init__(self, world: World, network: Network, checkers: Checkers, chain_id: str) -> None:
        self._world = world
        self._network = network
        self._checkers = checkers
        self._chain_id = chain_id
        self._rng = world.random("clients")
        self._nonce = 0
        self._sent: list[tuple[bytes, bytes]] = []  # id and envelope, newest last
        self.reliable: dict[str, int] = {}  # with the power they began with
        self.trading = False  # is most of what they do about tasks that cost something?
        self.membership: Callable[[Application, Random, Sequence[str]], Signed] | None = None
        """How who belongs is changed, where it changes."""

    def envelope(self, sender: str, message: Any, *, expires_in_ms: int = 60_000, chain_id: str = "") -> bytes:
        """A transaction signed with the key of this name; expiry counts from now."""
        self._nonce += 1
        wrapped: dict[str, Any] = {_FIELDS[type(message).__name__]: message}
        signed = envelope.sign(
            chain_id or self._chain_id,
            [Operation(**wrapped)],
            key(sender),
            self._world.now_ms + expires_in_ms,
            self._nonce.to_bytes(16, "big"),
            max_fee=MAX_FEE,
        )
        self._checkers.contents.made.add(signed)
        return signed

    def act(self, node: SimNode) -> None:
        """One client does one thing through this node."""
        if node.up:
            node.enter(lambda: self._act(node))

    def _act(self, node: SimNode) -> None:
        rng = self._rng
        known = node.app.institutions()
        active = [item.descriptor.id for item in known if item.status == MEMBER_STATUS_ACTIVE]
        members = active if rng.random() < _BY_MEMBERS else [item.descriptor.id for item in known]
        chosen = rng.choices([action for _, action in ACTIONS], [weight for weight, _ in ACTIONS], k=_ATTEMPTS)
        if self.trading and rng.random() < _TRADING:
            chosen = [_work_on_task, _submit_task, *rng.sample(_SUPPLY, len(_SUPPLY))]
        governing = _CHANGING if self.membership is not None else _GOVERNING
        signed = self._govern(node.app, members) if self.reliable and rng.random() < governing else None
        for action in chosen:
            signed = signed or action(node.app, rng, members)
        sender, message = signed or _register(node.app, rng, members)
        if "/" not in sender:
            sender = self.node_key_name(node.app, sender)
        self.submit(node, self.envelope(sender, message, expires_in_ms=rng.choice((500, 5_000, 60_000, 60_000))))

    def node_key_name(self, app: Application, institution: str) -> str:
        """Of the node key that the ledger names for a member now."""
        in_force = app.institution(institution).descriptor.node_key
        names = [node_key_name(institution, number) for number in range(NODE_KEYS)]
        return next((name for name in names if key(name).public_key == in_force), institution)

    def _govern(self, app: Application, members: Sequence[str]) -> Signed:
        """A ballot on what is open, or a proposal: of another power for a member, or of a parameter."""
        rng = self._rng
        pending = [proposal for proposal in app.pending_proposals() if proposal.status == PROPOSAL_STATUS_OPEN]
        sender = f"{rng.choice(members)}/{OPERATOR}"
        if pending and rng.random() < 0.9:
            choice = rng.choice((CHOICE_YES, CHOICE_YES, CHOICE_YES, CHOICE_NO))
            chosen = rng.choice(pending)
            cast = {ballot.institution for ballot in chosen.ballots}
            waiting = [name for name in members if name not in cast]
            if waiting and rng.random() < 0.8:
                sender = f"{rng.choice(waiting)}/{OPERATOR}"
            return sender, CastBallot(proposal_id=chosen.id, choice=choice)
        if self.membership is not None and rng.random() < 0.8:
            return self.membership(app, rng, members)
        name, power = rng.choice(sorted(self.reliable.items()))
        action = rng.choice(
            (
                GovernanceAction(set_power=SetPower(institution=name, power=power + rng.randint(0, 2))),
                GovernanceAction(set_parameter=SetParameter(name="min_cohort_floor", value=rng.randint(1, 5))),
                GovernanceAction(set_parameter=SetParameter(name="task_fee", value=rng.randint(0, 5))),
            )
        )
        return sender, Propose(title="A change", reason="to see what happens", actions=[action])

    def submit(self, node: SimNode, data: bytes) -> bytes:
        """Hand in an envelope; the transaction's id."""
        name = envelope.identify(data)
        self._sent.append((name, data))
        node.submit(data)
        return name

    def registration(self, home: str) -> bytes:
        """An envelope that no state of an active member refuses: a person registers for the first time."""
        new = person(f"{home}/x{self._nonce}", ROLE_ANALYST)
        return self.envelope(f"{home}/{OPERATOR}", RegisterPerson(person=new), expires_in_ms=MAX_EXPIRY_MS // 2)

    def misbehave(self, node: SimNode) -> None:
        """What no pool may admit: replays, other chains' transactions, expired and broken ones."""
        rng = self._rng
        old = rng.choice(self._sent)[1] if self._sent else b"nothing"
        home = rng.choice(self._network.institutions)
        message = RevokePerson(person_id=f"{home}/nobody", reason="left")
        broken = bytearray(old)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        node.submit(
            rng.choice(
                (
                    old,
                    bytes(broken),
                    rng.randbytes(rng.randint(0, 200)),
                    self.envelope(f"{home}/{OPERATOR}", message, chain_id="sim-0000000000000000"),
                    self.envelope(f"{home}/{OPERATOR}", message, expires_in_ms=-1),
                    self.envelope("a stranger", message),
                )
            )
        )

    def ask(self, node: SimNode) -> None:
        """A client asks a correct node what became of something sent lately."""
        if not node.up or not node.correct or not self._sent:
            return
        name, _ = self._rng.choice(self._sent[-30:])

        def answer() -> None:
            result = node.app.result(name)
            if result is not None:
                self._checkers.contents.tell(name, result)

        node.enter(answer)
