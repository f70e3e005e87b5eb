"""Proposals and ballots: open -> accepted -> executed | failed; or rejected, expired, withdrawn, dropped.

Operators propose and cast their institution's ballot: one per member, replaceable while the proposal is open. What a
proposal takes is fixed when it is made (``governance.constitution.policy_for``); a new constitution drops whatever was
made under rules that it changes. Nothing is executed inside a transaction: proposals are executed at the end of a
block, all actions or none, and what fails there ends the proposal with its refusal; but where it is other changes of
power in the same block that are in its way, it waits for the next.
"""

from __future__ import annotations

from governance import ballots, constitution
from governance.actions import kinds_of
from governance.ballots import Outcome
from koinon import canonical
from koinon.errors import KoinonError, Refused
from koinon.limits import MAX_OPEN_PROPOSALS, MAX_TEXT
from koinon.names import PersonId, check_id
from koinon.v1.constitution_pb2 import Constitution
from koinon.v1.governance_pb2 import (
    PROPOSAL_STATUS_ACCEPTED,
    PROPOSAL_STATUS_OPEN,
    Ballot,
    CastBallot,
    Choice,
    GovernanceProposal,
    Propose,
    WithdrawProposal,
)
from koinon.v1.identity_pb2 import MemberStatus
from node.contracts import actions, keys, membership, shapes, tables, upgrades, weights
from node.contracts.context import REFUSALS, Context
from node.contracts.transitions import PROPOSAL
from node.ledger.state import State

_CHOICES = range(1, max(Choice.values()) + 1)


def propose(context: Context, operation: Propose) -> str:
    """An operator proposes. Returns the proposal's id."""
    constitution.validate(operation)
    context.authorise()
    state, proposer = context.state, PersonId.parse(context.sender.id)
    if tables.PENDING_PROPOSALS.count_under(state, proposer.institution, at_most=MAX_OPEN_PROPOSALS) == (
        MAX_OPEN_PROPOSALS
    ):
        raise Refused(
            f"{proposer.institution} has {MAX_OPEN_PROPOSALS} proposals that are not decided",
            rule="too-many",
            hint="wait, or withdraw some",
        )
    content = operation.SerializeToString(deterministic=True)
    proposal_id = canonical.proposal_id(context.chain_id, context.sender.id, context.time_ms, content)
    if tables.PROPOSALS.find(state, proposal_id) is not None:
        raise Refused("the same was proposed in this block", rule="already-exists", hint="once is enough")
    policy = constitution.policy_for(actions.constitution(state), operation)
    proposal = GovernanceProposal(
        id=proposal_id,
        proposed=operation,
        proposer=context.sender.id,
        proposed_at_ms=context.time_ms,
        closes_at_ms=context.time_ms + policy.voting_period_ms,
        policy=policy,
    )
    context.move(PROPOSAL, proposal_id, proposal, "proposal.made", related=_related(proposal), detail=operation.title)
    tables.PROPOSALS.put(state, proposal_id, proposal)
    tables.PENDING_PROPOSALS.add(state, proposer.institution, proposal_id)
    tables.PROPOSAL_TIMES.add(state, proposal.closes_at_ms, proposal_id.encode())
    keys.reserve(state, actions.named_keys(operation), f"proposal:{proposal_id}")
    return proposal_id


def cast_ballot(context: Context, operation: CastBallot) -> str:
    """An operator casts its institution's ballot, or replaces it."""
    shapes.between("choice", operation.choice, _CHOICES[0], _CHOICES[-1])
    shapes.text("reason", operation.reason, MAX_TEXT, required=False)
    context.authorise()
    proposal = tables.PROPOSALS.get(context.state, check_id(operation.proposal_id))
    institution = context.sender.institution
    others = [ballot for ballot in proposal.ballots if ballot.institution != institution]
    kind = "ballot.cast" if len(others) == len(proposal.ballots) else "ballot.replaced"
    choice = Choice.Name(operation.choice).removeprefix("CHOICE_").lower()
    detail = f"{choice}: {operation.reason}" if operation.reason else choice
    related = [f"institution:{institution}", f"person:{context.sender.id}"]
    context.move(PROPOSAL, proposal.id, proposal, kind, related=related, detail=detail)
    if proposal.closes_at_ms <= context.time_ms:
        raise Refused(
            f"ballots on proposal {proposal.id} are closed", rule="ballots-closed", hint="propose the same again"
        )
    members = weights.of_all(context.state)
    if not members.get(institution):
        raise Refused(
            f"the ballot of {institution} has no weight", rule="no-ballot", hint="koinon gov constitution shows weights"
        )
    ballot = Ballot(
        institution=institution,
        choice=operation.choice,
        cast_by=context.sender.id,
        cast_at_ms=context.time_ms,
        reason=operation.reason,
    )
    del proposal.ballots[:]
    proposal.ballots.extend(sorted([*others, ballot], key=lambda each: each.institution))
    tables.PROPOSALS.put(context.state, proposal.id, proposal)
    _resolve(context, proposal, members, closed=False)
    return ""


def withdraw(context: Context, operation: WithdrawProposal) -> str:
    """The proposing institution takes an open proposal back."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    proposal = tables.PROPOSALS.get(context.state, check_id(operation.proposal_id))
    context.authorise(institution=PersonId.parse(proposal.proposer).institution)
    _end(context, proposal, "proposal.withdrawn", operation.reason)
    return ""


def end_block(context: Context) -> None:
    """Decide what is closed, execute what is due, and let a scheduled upgrade begin.

    Raises nothing that a block could cause.
    """
    while due := tables.PROPOSAL_TIMES.pop_due(context.state, context.time_ms):
        for proposal_id in due:
            proposal = tables.PROPOSALS.get(context.state, proposal_id.decode())
            if proposal.status == PROPOSAL_STATUS_OPEN:
                _resolve(context, proposal, weights.of_all(context.state), closed=True)
            elif proposal.status == PROPOSAL_STATUS_ACCEPTED and proposal.executes_at_ms <= context.time_ms:
                _execute(context, proposal)
    upgrades.activate_due(context)


def recount(context: Context) -> None:
    """Who decides has changed: where do the ballots lead now? What a member proposed that is none any more is dropped.

    What is accepted was decided by all, and waits on. Bounded by limits.MAX_OPEN_PROPOSALS of each institution.
    """
    members = weights.of_all(context.state)
    for proposal in _pending(context.state):
        if proposal.status != PROPOSAL_STATUS_OPEN:
            continue
        proposer = PersonId.parse(proposal.proposer).institution
        if proposer in members:
            _resolve(context, proposal, members, closed=False)
        else:
            member = tables.INSTITUTIONS.get(context.state, proposer)
            status = MemberStatus.Name(member.status).removeprefix("MEMBER_STATUS_").lower()
            because = f"{proposer}, which proposed it, is {status}: {member.status_reason}"[:MAX_TEXT]
            _end(context, proposal, "proposal.dropped", because)


def preview(context: Context, operation: Propose) -> tuple[list[str], KoinonError | None]:
    """What executing the proposal now would change, or what would refuse it; the context is left as it was."""
    parameters, records = context.parameters, len(context.records)
    context.state.savepoint()
    context.cause = "proposal:"  # one without an id as yet
    try:
        return actions.apply(context, operation), None
    except REFUSALS as error:
        return [], error
    finally:
        context.cause = ""
        context.state.rollback()
        context.parameters = parameters
        del context.records[records:]


# --- within


def _resolve(context: Context, proposal: GovernanceProposal, members: dict[str, int], *, closed: bool) -> None:
    """Take the proposal where its ballots lead, if they lead anywhere."""
    outcome = constitution.resolve(proposal, proposal.ballots, members, closed=closed)
    if outcome is Outcome.OPEN:
        return
    proposal.tally.CopyFrom(ballots.tally(proposal.ballots, members))
    proposal.decided_at_ms = context.time_ms
    count = proposal.tally
    said = f"{count.yes} yes, {count.no} no, {count.abstain} abstain of {count.total}"
    match outcome:
        case Outcome.ACCEPTED:
            _forget_time(context, proposal)
            proposal.executes_at_ms = context.time_ms + proposal.policy.delay_ms
            related = _related(proposal)
            context.move(PROPOSAL, proposal.id, proposal, "proposal.accepted", related=related, detail=said)
            tables.PROPOSALS.put(context.state, proposal.id, proposal)
            tables.PROPOSAL_TIMES.add(context.state, proposal.executes_at_ms, proposal.id.encode())
        case Outcome.REJECTED:
            _end(context, proposal, "proposal.rejected", said)
        case Outcome.EXPIRED:
            _end(context, proposal, "proposal.expired", said)


def _execute(context: Context, proposal: GovernanceProposal) -> None:
    state, records, before = context.state, len(context.records), actions.constitution(context.state)
    members = weights.of_all(state)
    context.cause = f"proposal:{proposal.id}"
    state.savepoint()
    try:
        effects = actions.apply(context, proposal.proposed)
    except REFUSALS as error:
        state.rollback()
        del context.records[records:]
        context.parameters = tables.PARAMETERS.get(state, "")
        if error.rule == "set-change" and membership.validators(state) != context.validators:
            _postpone(context, proposal, error)
            return
        proposal.rule = error.rule
        _end(context, proposal, "proposal.failed", f"{error.message} [{error.rule}]"[:MAX_TEXT])
        return
    finally:
        context.cause = ""
    state.release()
    proposal.effects.extend(effects)
    _end(context, proposal, "proposal.executed", "; ".join(effects)[:MAX_TEXT])
    if "set_constitution" in kinds_of(proposal.proposed):
        _drop_others(context, before, actions.constitution(state))
    if weights.of_all(state) != members:
        recount(context)


def _postpone(context: Context, proposal: GovernanceProposal, error: KoinonError) -> None:
    """Others' powers change in this block: it is executed in the next one. Else any of them could stop a ballot."""
    detail = f"to the next block: {error.message}"[:MAX_TEXT]
    context.move(PROPOSAL, proposal.id, proposal, "proposal.postponed", related=_related(proposal), detail=detail)
    proposal.executes_at_ms = context.time_ms + 1
    tables.PROPOSALS.put(context.state, proposal.id, proposal)
    tables.PROPOSAL_TIMES.add(context.state, proposal.executes_at_ms, proposal.id.encode())


def _drop_others(context: Context, before: Constitution, after: Constitution) -> None:
    """What was proposed under rules that no longer hold means something else now: it ends.

    What is accepted already was decided under the rules of its time, and waits on; but for another constitution, which
    would undo this one.
    """
    for other in _pending(context.state):
        replaces = "set_constitution" in kinds_of(other.proposed)
        is_open = other.status == PROPOSAL_STATUS_OPEN
        if replaces or (is_open and constitution.loses_its_meaning(other.proposed, before, after)):
            _end(context, other, "proposal.dropped", "the constitution that it was made under was changed")


def _pending(state: State) -> list[GovernanceProposal]:
    return [tables.PROPOSALS.get(state, proposal_id) for proposal_id in list(tables.PENDING_PROPOSALS.under(state))]


def _end(context: Context, proposal: GovernanceProposal, kind: str, because: str) -> None:
    """Raises Refused with rule ``wrong-state``."""
    context.move(PROPOSAL, proposal.id, proposal, kind, related=_related(proposal), detail=because)
    proposal.ended_because, proposal.ended_at_ms = because, context.time_ms
    tables.PROPOSALS.put(context.state, proposal.id, proposal)
    _forget_time(context, proposal)
    institution = PersonId.parse(proposal.proposer).institution
    tables.PENDING_PROPOSALS.remove(context.state, institution, proposal.id)
    keys.release(context.state, actions.named_keys(proposal.proposed), f"proposal:{proposal.id}")


def _forget_time(context: Context, proposal: GovernanceProposal) -> None:
    time_ms = proposal.executes_at_ms or proposal.closes_at_ms
    tables.PROPOSAL_TIMES.remove(context.state, time_ms, proposal.id.encode())


def _related(proposal: GovernanceProposal) -> list[str]:
    """The proposer, and the institutions that the actions name."""
    named = set()
    for action in proposal.proposed.actions:
        content = getattr(action, action.WhichOneof("action") or "")
        if institution := getattr(content, "institution", ""):
            named.add(f"institution:{institution}")
    return [f"person:{proposal.proposer}", *sorted(named)]
