"""Disputes over a token or a task: open -> answered, or silent -> arbitration -> decided; or withdrawn.

The two sides are institutions: of a token its holder's and its publisher; of a task its asker's and any party to it.
The arbiters are all other active members that are no party to the task, as of the opening: nobody picks them. What part
of them orders a remedy, how many are a quorum and how long either side may think is the constitution's to say, as it
stood at the opening. A remedy is decided once enough arbiters want it, and the dispute once no open ruling could change
any of them (``governance.arbitration``). Who is no active member when it is counted, counts in nothing. Silence never
blocks:

* a respondent that does not answer in its window goes to arbitration unheard;
* at the arbiters' deadline the rulings there are decide by the same majorities of themselves, if they are a quorum;
* else what was sought is done if the respondent never answered, except a suspension, and dismissed if it did.

Who concedes or stays silent decides about itself alone: of points that others have earned too, a refund gives back only
the parts of the two sides, now or when the task ends; about the rest arbiters decide, or the members. A dispute over a
token is about its two sides, too: of a task that used it, arbiters leave to others what they earn.

While a dispute is open, what is in escrow for the task is frozen; or for the token's subscription, and for every task
that used the token and is not settled yet, ``limits.MAX_ESCROWS_PER_DISPUTE`` at most. Once by each claimant, so that
nobody holds points back for ever by disputing again. Points that were paid out before the dispute stay paid: parameter
``settlement_delay_ms`` leaves time for disputes. A ballot of the members may resolve a dispute at any time, however it
sees fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

from governance import arbitration
from governance.arbitration import Bench
from koinon.canonical import HASH_BYTES
from koinon.errors import InvalidInput, Refused
from koinon.limits import (
    MAX_DUE_PER_BLOCK,
    MAX_ESCROWS_PER_DISPUTE,
    MAX_EVIDENCE_DIGESTS,
    MAX_OPEN_DISPUTES_PER_INSTITUTION,
    MAX_TEXT,
)
from koinon.names import DatasetName, check_id, check_institution
from koinon.v1.access_pb2 import TOKEN_STATUS_ACTIVE
from koinon.v1.dispute_pb2 import (
    DISPUTE_STATUS_OPEN,
    REMEDY_PAYOUT,
    REMEDY_REFUND,
    REMEDY_REVOCATION,
    REMEDY_SUSPENSION,
    AnswerDispute,
    Dispute,
    DisputeAnswer,
    OpenDispute,
    Remedy,
    RuleDispute,
    Ruling,
    WithdrawDispute,
)
from koinon.v1.identity_pb2 import MEMBER_STATUS_ACTIVE
from node.contracts import access, accounts, membership, settlement, shapes, tables, weights
from node.contracts.context import Context
from node.contracts.transitions import DISPUTE
from node.ledger.state import State

Remedies = Sequence[Remedy.ValueType]
Payouts = Sequence[tuple[str, int]]


def open_dispute(context: Context, operation: OpenDispute) -> str:
    """One side of a token or task says that the other did wrong, and what should be done. Returns the dispute's id."""
    shapes.text("claim", operation.claim, MAX_TEXT)
    _check_evidence(operation.evidence_digests)
    _check_remedies(operation.remedies, at_least=1)
    check_institution(operation.respondent)
    user, owners = _sides(context, operation)
    claimant = context.sender.institution
    home = user.partition("/")[0]
    context.authorise(parties={home, *owners}, person=user)
    state, respondent = context.state, operation.respondent
    if claimant == respondent or not (
        (claimant == home and respondent in owners) or (claimant in owners and respondent == home)
    ):
        raise Refused(
            f"{claimant} and {respondent} are not the two sides",
            rule="dispute-parties",
            hint=f"one side is {home}, the other {' or '.join(sorted(owners))}",
        )
    subject = _subject(operation)
    if tables.OPEN_DISPUTES.count_under(state, claimant, subject, at_most=1):
        raise Refused(
            f"{claimant} has an open dispute over {subject}", rule="already-exists", hint="wait for it, or withdraw it"
        )
    if tables.OPEN_DISPUTES.count(state, claimant) >= MAX_OPEN_DISPUTES_PER_INSTITUTION:
        raise Refused(
            f"{claimant} has {MAX_OPEN_DISPUTES_PER_INSTITUTION} open disputes",
            rule="too-many",
            hint="wait until some are decided, or withdraw some",
        )
    dispute = Dispute(
        id=context.new_id(),
        opened=operation,
        claimant=context.sender.id,
        opened_at_ms=context.time_ms,
        arbiters=[
            member.descriptor.id
            for member in tables.INSTITUTIONS.scan(state)
            if member.status == MEMBER_STATUS_ACTIVE and member.descriptor.id not in {home, *owners}
        ],
        escrows=_escrows(context, operation, claimant),
        policy=tables.CONSTITUTION.get(state, "").arbitration,
    )
    context.move(DISPUTE, dispute.id, dispute, "dispute.opened", related=_related(dispute), detail=operation.claim)
    for escrow_id in dispute.escrows:
        if not accounts.is_frozen(state, escrow_id):
            accounts.freeze(context, escrow_id)
        tables.FROZEN_BY.add(state, escrow_id, dispute.id)
        tables.FROZEN_ONCE.add(state, escrow_id, claimant)
    tables.OPEN_DISPUTES.add(state, claimant, subject, dispute.id)
    _wait(context, dispute, dispute.policy.answer_period_ms)
    return dispute.id


def answer(context: Context, operation: AnswerDispute) -> str:
    """The respondent tells its side, or concedes."""
    shapes.text("statement", operation.statement, MAX_TEXT)
    _check_evidence(operation.evidence_digests)
    dispute = tables.DISPUTES.get(context.state, check_id(operation.dispute_id))
    respondent = dispute.opened.respondent
    user, _ = _sides(context, dispute.opened)
    context.authorise(institution=respondent, person=user if user.partition("/")[0] == respondent else "")
    made = DisputeAnswer(
        made_by=context.sender.id,
        made_at_ms=context.time_ms,
        statement=operation.statement,
        evidence_digests=operation.evidence_digests,
    )
    context.move(
        DISPUTE, dispute.id, dispute, "dispute.answered", related=_related(dispute), detail=operation.statement
    )
    dispute.answer.CopyFrom(made)
    if operation.concede:
        _decide(context, dispute, _without_suspension(dispute.opened.remedies), "concession")
    else:
        _wait(context, dispute, dispute.policy.ruling_period_ms)
    return ""


def rule(context: Context, operation: RuleDispute) -> str:
    """An arbiter says what should be done; it may say otherwise until the dispute is decided."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    _check_remedies(operation.remedies)
    dispute = tables.DISPUTES.get(context.state, check_id(operation.dispute_id))
    context.authorise(parties=dispute.arbiters)
    if excess := [remedy for remedy in operation.remedies if remedy not in dispute.opened.remedies]:
        raise Refused(
            f"dispute {dispute.id} is not about {_names(excess)}",
            rule="dispute-parties",
            hint=f"arbiters order what was sought, or less: {_names(dispute.opened.remedies)}",
        )
    institution = context.sender.institution
    made = Ruling(
        institution=institution,
        made_by=context.sender.id,
        made_at_ms=context.time_ms,
        remedies=operation.remedies,
        reason=operation.reason,
    )
    detail = f"{_names(operation.remedies) or 'dismissed'}: {operation.reason}"
    context.move(DISPUTE, dispute.id, dispute, "dispute.ruled", related=_related(dispute), detail=detail)
    rulings = [*(other for other in dispute.rulings if other.institution != institution), made]
    rulings.sort(key=lambda ruling: ruling.institution)
    del dispute.rulings[:]
    dispute.rulings.extend(rulings)
    ordered = arbitration.settled(*_bench(context, dispute), dispute.policy)
    if ordered is None:
        tables.DISPUTES.put(context.state, dispute.id, dispute)
    else:
        _decide(context, dispute, ordered, "arbiters")
    return ""


def withdraw(context: Context, operation: WithdrawDispute) -> str:
    """The claimant, or its institution, lets the matter rest."""
    shapes.text("reason", operation.reason, MAX_TEXT, required=False)
    dispute = tables.DISPUTES.get(context.state, check_id(operation.dispute_id))
    context.authorise(institution=dispute.claimant.partition("/")[0], person=dispute.claimant)
    related = _related(dispute)
    context.move(DISPUTE, dispute.id, dispute, "dispute.withdrawn", related=related, detail=operation.reason)
    _close(context, dispute, operation.reason)
    _release(context, dispute)
    return ""


def resolve(context: Context, dispute_id: str, remedies: Remedies, reason: str) -> None:
    """What the members decided by a ballot, in any state of an open dispute, whatever was sought.

    Raises InvalidInput, NotFound, or Refused with rule ``wrong-state``.
    """
    shapes.text("reason", reason, MAX_TEXT)
    _check_remedies(remedies)
    dispute = tables.DISPUTES.get(context.state, check_id(dispute_id))
    _decide(context, dispute, remedies, "ballot", reason)


def expire_due(context: Context) -> None:
    """Let the disputes go on whose deadline block time has reached, and as many of them as a block has time for.

    The others go on in the next, and so does one that suspends while others' powers change in this one.
    """
    state, left = context.state, MAX_DUE_PER_BLOCK  # disputes, and escrows that they froze
    for dispute_id in tables.DISPUTE_DEADLINES.pop_due(state, context.time_ms, at_most=MAX_DUE_PER_BLOCK):
        dispute = tables.DISPUTES.get(state, dispute_id.decode())
        deadline_ms, has_time = dispute.deadline_ms, left > 0
        left -= 1 + len(dispute.escrows)
        if not has_time or membership.attempt(context, partial(_go_on, context, dispute)):
            tables.DISPUTE_DEADLINES.add(state, deadline_ms, dispute_id)


def _go_on(context: Context, dispute: Dispute) -> None:
    """Without those who did not speak in time."""
    if dispute.status == DISPUTE_STATUS_OPEN:
        detail = f"{dispute.opened.respondent} did not answer in time"
        context.move(DISPUTE, dispute.id, dispute, "dispute.unanswered", related=_related(dispute), detail=detail)
        _wait(context, dispute, dispute.policy.ruling_period_ms)
        return
    ordered = arbitration.at_deadline(*_bench(context, dispute), dispute.policy)
    if ordered is not None:
        _decide(context, dispute, ordered, "arbiters")
    else:
        silent = not dispute.HasField("answer")
        _decide(context, dispute, _without_suspension(dispute.opened.remedies) if silent else [], "deadline")


def _decide(context: Context, dispute: Dispute, remedies: Remedies, by: str, reason: str = "") -> None:
    """End a dispute and do what was ordered; what cannot be done any more is named in its reason."""
    detail = f"by {by}: {_names(remedies) or 'dismissed'}"
    context.move(DISPUTE, dispute.id, dispute, "dispute.decided", related=_related(dispute), detail=detail)
    dispute.remedies.extend(remedies)
    dispute.decided_by = by
    _close(context, dispute, reason)
    _release(context, dispute)
    why = f"dispute {dispute.id} was decided by {by}"
    if REMEDY_REVOCATION in remedies:
        for token_id in _tokens(context, dispute.opened):
            token = tables.TOKENS.get(context.state, token_id)
            if token.status == TOKEN_STATUS_ACTIVE:
                access.revoke_token(context, token, why)
    if REMEDY_SUSPENSION in remedies:
        _suspend(context, dispute, why)


def _close(context: Context, dispute: Dispute, reason: str) -> None:
    """A dispute that has just ended waits for nothing."""
    state = context.state
    tables.DISPUTE_DEADLINES.remove(state, dispute.deadline_ms, dispute.id.encode())
    tables.OPEN_DISPUTES.remove(state, dispute.claimant.partition("/")[0], _subject(dispute.opened), dispute.id)
    dispute.deadline_ms, dispute.ended_at_ms, dispute.reason = 0, context.time_ms, reason
    tables.DISPUTES.put(state, dispute.id, dispute)


def _release(context: Context, dispute: Dispute) -> None:
    """Do with what the dispute froze as it was decided; what nothing was decided on goes its usual way."""
    state = context.state
    for escrow_id in dispute.escrows:
        tables.FROZEN_BY.remove(state, escrow_id, dispute.id)
        if not accounts.is_frozen(state, escrow_id):
            continue  # another dispute, or the end of the task, has decided on it
        planned = [(payout.account, payout.points) for payout in tables.ESCROWS.get(state, escrow_id).planned]
        due = planned or _expected(state, escrow_id)
        kept = _of_others(context, dispute, due) if _is_between_two(dispute, delivers=bool(due)) else []
        if REMEDY_REFUND in dispute.remedies and not kept:
            accounts.refund(context, escrow_id)
        elif REMEDY_REFUND in dispute.remedies and planned:
            accounts.settle(context, escrow_id, kept)
        elif REMEDY_PAYOUT in dispute.remedies and planned:
            accounts.settle(context, escrow_id, planned)
        else:
            if REMEDY_REFUND in dispute.remedies:  # the task runs: what others earn is decided when it ends
                for side in _both(dispute):
                    tables.WAIVED.add(state, escrow_id, side)
            if not tables.FROZEN_BY.count_under(state, escrow_id, at_most=1):
                accounts.thaw(context, escrow_id)


def _is_between_two(dispute: Dispute, *, delivers: bool) -> bool:
    """Does a refund concern the two sides alone? Where the respondent alone decided; and where a token is disputed,
    and what it is used for was delivered, or may be: others of whom nobody complains earn their part.
    """
    if dispute.decided_by in ("concession", "deadline"):
        return True
    return dispute.decided_by == "arbiters" and delivers and dispute.opened.WhichOneof("subject") == "token_id"


def _of_others(context: Context, dispute: Dispute, payouts: Payouts) -> Payouts:
    """Of these, what is not the two sides'."""
    sides = _both(dispute)
    return [
        (account, points) for account, points in payouts if accounts.institution_of(context.state, account) not in sides
    ]


def _both(dispute: Dispute) -> tuple[str, str]:
    """The two sides."""
    return dispute.claimant.partition("/")[0], dispute.opened.respondent


def _expected(state: State, escrow_id: str) -> Payouts:
    """What an open task would pay."""
    task = tables.TASKS.find(state, escrow_id)
    return settlement.payouts(state, task) if task is not None and not task.ended_at_ms else []


def _suspend(context: Context, dispute: Dispute, why: str) -> None:
    """Suspend the respondent, unless the others could not decide without it: then the ledger says so.

    Raises Refused with rule ``set-change`` where others' powers change in this block: it may be decided in the next.
    """
    refused = membership.attempt(context, partial(membership.suspend, context, dispute.opened.respondent, why))
    if refused is not None and refused.rule == "set-change":
        raise refused
    if refused is not None:
        dispute.reason = f"the suspension was not possible: {refused.message}"[:MAX_TEXT]
        tables.DISPUTES.put(context.state, dispute.id, dispute)


def _wait(context: Context, dispute: Dispute, period_ms: int) -> None:
    """Let an open dispute wait for whose turn it is."""
    if dispute.deadline_ms:
        tables.DISPUTE_DEADLINES.remove(context.state, dispute.deadline_ms, dispute.id.encode())
    dispute.deadline_ms = context.time_ms + period_ms
    tables.DISPUTE_DEADLINES.add(context.state, dispute.deadline_ms, dispute.id.encode())
    tables.DISPUTES.put(context.state, dispute.id, dispute)


def _bench(context: Context, dispute: Dispute) -> tuple[list[Remedies], Bench]:
    """What the arbiters want, and how many decide: whoever left or was excluded since counts in neither."""
    active = weights.of_all(context.state).keys()
    arbiters = active & set(dispute.arbiters)
    others = active - {dispute.opened.respondent}
    claimant = dispute.claimant.partition("/")[0] in active
    rulings: list[Remedies] = [ruling.remedies for ruling in dispute.rulings if ruling.institution in active]
    return rulings, Bench(len(arbiters), len(others), claimant=claimant)


def _sides(context: Context, opened: OpenDispute) -> tuple[str, set[str]]:
    """The person on one side, and the institutions on the other. Raises InvalidInput, InvalidName, NotFound."""
    match opened.WhichOneof("subject"):
        case "token_id":
            token = tables.TOKENS.get(context.state, check_id(opened.token_id))
            return token.holder, {DatasetName.parse(token.dataset).institution}
        case "task_id":
            task = tables.TASKS.get(context.state, check_id(opened.task_id))
            return task.asker, set(task.submitted.committee)
        case _:
            raise InvalidInput("the dispute is about nothing", hint="name a token or a task")


def _tokens(context: Context, opened: OpenDispute) -> list[str]:
    """The tokens that a revocation ends: the disputed one, or those that the task uses."""
    if opened.token_id:
        return [opened.token_id]
    task = tables.TASKS.get(context.state, opened.task_id)
    return [source.token_id for source in task.submitted.sources]


def _escrows(context: Context, opened: OpenDispute, claimant: str) -> list[str]:
    """What a dispute freezes, ascending."""
    state = context.state
    named: Iterable[str]
    if opened.token_id:
        named = accounts.of_token(state, opened.token_id)
    else:
        named = [opened.task_id] if accounts.is_open(state, opened.task_id) else []
    fresh = (escrow_id for escrow_id in named if not tables.FROZEN_ONCE.contains(state, escrow_id, claimant))
    return sorted(islice(fresh, MAX_ESCROWS_PER_DISPUTE))


def _check_evidence(digests: Sequence[bytes]) -> None:
    if len(digests) > MAX_EVIDENCE_DIGESTS:
        raise InvalidInput(f"{len(digests)} evidence digests", hint=f"at most {MAX_EVIDENCE_DIGESTS}; digest a list")
    for digest in digests:
        shapes.exactly("an evidence digest", digest, HASH_BYTES)


def _check_remedies(remedies: Remedies, *, at_least: int = 0) -> None:
    if len(remedies) < at_least:
        raise InvalidInput("no remedy is sought", hint="name one or more: refund, payout, revocation, suspension")
    if any(remedy not in arbitration.REMEDIES for remedy in remedies):
        raise InvalidInput("a remedy is unknown", hint="use refund, payout, revocation or suspension")
    shapes.ascending("remedies", remedies)
    if REMEDY_REFUND in remedies and REMEDY_PAYOUT in remedies:
        raise InvalidInput("points cannot be both refunded and paid out", hint="name one of the two")


def _without_suspension(remedies: Remedies) -> list[Remedy.ValueType]:
    return [remedy for remedy in remedies if remedy != REMEDY_SUSPENSION]


def _names(remedies: Remedies) -> str:
    return ", ".join(Remedy.Name(remedy).removeprefix("REMEDY_").lower() for remedy in remedies)


def _subject(opened: OpenDispute) -> str:
    return f"token:{opened.token_id}" if opened.token_id else f"task:{opened.task_id}"


def _related(dispute: Dispute) -> list[str]:
    return [
        _subject(dispute.opened),
        f"person:{dispute.claimant}",
        f"institution:{dispute.opened.respondent}",
    ]
