"""People who trade: data unions that earn, tasks that cost something, and quarrels over them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random

from koinon.v1.dispute_pb2 import (
    REMEDY_PAYOUT,
    REMEDY_REFUND,
    REMEDY_REVOCATION,
    AnswerDispute,
    Dispute,
    OpenDispute,
    RuleDispute,
    WithdrawDispute,
)
from koinon.v1.points_pb2 import ClaimEarnings, DefineUnion, SetUnionMembers, UnionMember
from node.application import Application
from testnet.simulation.consortium import ANALYST, OPERATOR

_LATELY = 60  # records that a client looks through
_MANY = 100  # of unions: all
_REMEDIES = ([REMEDY_REFUND], [REMEDY_PAYOUT], [REMEDY_REFUND, REMEDY_REVOCATION], [REMEDY_REVOCATION])


def lately(app: Application, kind: str) -> list[str]:
    """The ids of those of whom one of the last records says this."""
    size = app.audit_log.size
    records = (app.record(index) for index in range(max(0, size - _LATELY), size))
    return [record.subject.partition(":")[2] for record in records if record is not None and record.kind == kind]


def unions(app: Application) -> list[str]:
    """The names of all data unions."""
    return [union.name for union in app.unions(at_most=_MANY)]


def define_union(app: Application, rng: Random, members: Sequence[str]) -> tuple[str, DefineUnion]:
    """One data union for each institution, with its analyst as administrator."""
    home = rng.choice(members)
    return f"{home}/{OPERATOR}", DefineUnion(name=f"{home}-union", title="Patients", administrator=f"{home}/{ANALYST}")


def set_union_members(app: Application, rng: Random, members: Sequence[str]) -> tuple[str, SetUnionMembers] | None:
    """Weights for some; 0 lets go."""
    known = unions(app)
    if not known:
        return None
    union = rng.choice(known)
    accounts = sorted(f"person:{name}/{ANALYST}" for name in rng.sample(list(members), min(2, len(members))))
    weighed = [UnionMember(account=account, weight=rng.randint(0, 3)) for account in accounts]
    return f"{union.partition('-')[0]}/{ANALYST}", SetUnionMembers(union=union, members=weighed)


def claim_earnings(app: Application, rng: Random, members: Sequence[str]) -> tuple[str, ClaimEarnings] | None:
    """Somebody, of whom the union may or may not have heard."""
    known = unions(app)
    person = f"{rng.choice(members)}/{ANALYST}"
    return (person, ClaimEarnings(union=rng.choice(known), account=f"person:{person}")) if known else None


def quarrel(
    app: Application, rng: Random, members: Sequence[str]
) -> tuple[str, OpenDispute | AnswerDispute | RuleDispute | WithdrawDispute] | None:
    """Whoever's turn it is in an open dispute; else an asker or a party opens one over a task, under way or over."""
    opened = [app.dispute(name) for name in lately(app, "dispute.opened")]
    disputes = [dispute for dispute in opened if not dispute.ended_at_ms]
    if disputes and rng.random() < 0.8:
        return _go_on(rng, rng.choice(disputes), members)
    tasks = lately(app, "task.submitted")
    if not tasks:
        return None
    task = app.task(rng.choice(tasks))
    party = rng.choice(list(task.submitted.committee))
    home = task.asker.partition("/")[0]
    sender, other = rng.choice(((task.asker, party), (f"{party}/{OPERATOR}", home)))
    return sender, OpenDispute(
        task_id=task.id,
        respondent=other,
        claim="not what was agreed",
        evidence_digests=[hashlib.sha256(task.id.encode()).digest()],
        remedies=rng.choice(_REMEDIES),
    )


def _go_on(
    rng: Random, dispute: Dispute, members: Sequence[str]
) -> tuple[str, AnswerDispute | RuleDispute | WithdrawDispute]:
    if rng.random() < 0.1:
        return dispute.claimant, WithdrawDispute(dispute_id=dispute.id)
    if not dispute.HasField("answer") and rng.random() < 0.6:
        answer = AnswerDispute(dispute_id=dispute.id, statement="it was", concede=rng.random() < 0.3)
        return f"{dispute.opened.respondent}/{OPERATOR}", answer
    remedies = rng.choice(([], list(dispute.opened.remedies), list(dispute.opened.remedies)))
    arbiter = rng.choice(list(dispute.arbiters) or list(members))
    return f"{arbiter}/{OPERATOR}", RuleDispute(dispute_id=dispute.id, remedies=remedies, reason="heard both")
