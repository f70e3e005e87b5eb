"""The constitution: what members may decide together, and what each decision takes.

``validate`` looks at a proposal's form alone, ``resolve`` at its ballots, and what it does once it is accepted is in
``node.contracts.actions``, which needs the ledger. Policies are data on the ledger: a usual one, and others for single
kinds of action; of a proposal with several actions, the strictest in every respect holds. What arbiters need to decide
a dispute stands beside them, so that it is as hard to change.

The shape is that of CCF's constitution (validate / resolve / apply, preconditions as actions, proposals dropped when
the rules change under them), with fixed actions in place of programs (``governance.actions``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from governance import actions, ballots
from governance.actions import DECIDED, check_text, effective, kinds_of
from governance.ballots import Outcome
from koinon.errors import InvalidInput
from koinon.limits import (
    MAX_ACTIONS,
    MAX_DELAY_MS,
    MAX_DENOMINATOR,
    MAX_INSTITUTIONS,
    MAX_TEXT,
    MAX_TITLE,
    MAX_VOTING_PERIOD_MS,
    MIN_VOTING_PERIOD_MS,
)
from koinon.v1.constitution_pb2 import ActionPolicy, ArbitrationPolicy, Constitution, DecisionPolicy, Fraction
from koinon.v1.governance_pb2 import Ballot, GovernanceProposal, Propose

_DAY_MS = 24 * 60 * 60 * 1000

GRAVE = (
    "admit",
    "readmit",
    "recover",
    "remove",
    "schedule_upgrade",
    "set_constitution",
    "set_power",
    "set_weight",
    "suspend",
)
"""Actions that decide who decides: more than two thirds, unless the constitution says otherwise."""

_HALF = Fraction(numerator=1, denominator=2)
_TWO_THIRDS = Fraction(numerator=2, denominator=3)


def founding() -> Constitution:
    """The constitution of a consortium whose genesis brings none."""
    usual = DecisionPolicy(participation=_HALF, approval=_HALF, voting_period_ms=7 * _DAY_MS)
    grave = DecisionPolicy(participation=_TWO_THIRDS, approval=_TWO_THIRDS, voting_period_ms=14 * _DAY_MS)
    return Constitution(
        usual=usual,
        policies=[ActionPolicy(action=action, policy=grave) for action in GRAVE],
        arbitration=ArbitrationPolicy(
            refund=_HALF,
            payout=_HALF,
            revocation=_HALF,
            suspension=_TWO_THIRDS,
            quorum=1,
            answer_period_ms=7 * _DAY_MS,
            ruling_period_ms=14 * _DAY_MS,
        ),
    )


# --- validate: form only, nothing is looked up


def validate(proposal: Propose) -> None:
    """Check the form of a proposal from outside. Raises InvalidInput (with InvalidName), naming the action."""
    check_text("title", proposal.title, MAX_TITLE)
    check_text("reason", proposal.reason, MAX_TEXT)
    if not 1 <= len(proposal.actions) <= MAX_ACTIONS:
        raise InvalidInput(f"a proposal of {len(proposal.actions)} actions", hint=f"propose 1 to {MAX_ACTIONS}")
    if not effective(proposal):
        raise InvalidInput("the proposal has conditions only", hint="add an action that changes something")
    for action in proposal.actions:
        actions.check(action)
        if action.HasField("set_constitution"):
            check(action.set_constitution.constitution)
    if "set_constitution" in kinds_of(proposal) and len(effective(proposal)) > 1:
        raise InvalidInput(
            "a new constitution comes with other actions",
            hint="propose it alone, so that each is decided under rules that are known",
        )


def check(constitution: Constitution) -> None:
    """Check a constitution from outside: of a genesis, or proposed. Raises InvalidInput with rule ``constitution``."""
    _check_policy("the usual policy", constitution.usual)
    for entry in constitution.policies:
        if entry.action not in DECIDED:
            raise _invalid(f"{entry.action!a} is no action that is decided", f"use one of {', '.join(DECIDED)}")
        _check_policy(f"the policy of {entry.action}", entry.policy)
    if any(before.action >= after.action for before, after in pairwise(constitution.policies)):
        raise _invalid("policies are not in ascending order of their actions, or one is there twice", "sort them")
    _check_arbitration(constitution)


def _check_policy(what: str, policy: DecisionPolicy) -> None:
    for name in ("participation", "approval", "veto"):
        part: Fraction = getattr(policy, name)
        if name == "veto" and not policy.HasField("veto"):
            continue
        if not 0 < part.numerator <= part.denominator <= MAX_DENOMINATOR:
            raise _invalid(
                f"the {name} of {what} is {part.numerator}/{part.denominator}",
                f"use a fraction above 0, up to 1, with a denominator of at most {MAX_DENOMINATOR}",
            )
    _check_majority(f"the approval of {what}", policy.approval)
    _check_between(f"voting_period_ms of {what}", policy.voting_period_ms, MIN_VOTING_PERIOD_MS, MAX_VOTING_PERIOD_MS)
    _check_between(f"delay_ms of {what}", policy.delay_ms, 0, MAX_DELAY_MS)


def _check_arbitration(constitution: Constitution) -> None:
    policy = constitution.arbitration
    if not constitution.HasField("arbitration"):
        raise _invalid("it does not say what disputes take", "add the entry arbitration of koinon gov constitution")
    for name in ("refund", "payout", "revocation", "suspension"):
        part: Fraction = getattr(policy, name)
        if not 0 < part.denominator <= MAX_DENOMINATOR:
            raise _invalid(
                f"the {name} by arbiters takes {part.numerator}/{part.denominator}",
                f"use a fraction with a denominator of at most {MAX_DENOMINATOR}",
            )
        _check_majority(f"the {name} by arbiters", part)
    by_ballot = next(
        (entry.policy for entry in constitution.policies if entry.action == "suspend"), constitution.usual
    ).approval
    for least, why in ((_TWO_THIRDS, "fewer shut nobody out"), (by_ballot, "a ballot takes as much")):
        if _less(policy.suspension, least):
            raise _invalid(
                f"the suspension by arbiters takes {policy.suspension.numerator}/{policy.suspension.denominator}",
                f"use {least.numerator}/{least.denominator} or more: {why}",
            )
    _check_between("the quorum of arbiters", policy.quorum, 1, MAX_INSTITUTIONS)
    for name, value in (("answer_period_ms", policy.answer_period_ms), ("ruling_period_ms", policy.ruling_period_ms)):
        _check_between(f"{name} of disputes", value, MIN_VOTING_PERIOD_MS, MAX_VOTING_PERIOD_MS)


def _check_majority(what: str, part: Fraction) -> None:
    if not part.denominator <= 2 * part.numerator < 2 * part.denominator:
        raise _invalid(
            f"{what} is more than {part.numerator}/{part.denominator}",
            "use 1/2 or more, so that a minority decides nothing, and less than 1, so that something can be decided",
        )


def _check_between(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _invalid(f"{what} is {value}", f"use {least} to {most}")


def _invalid(message: str, hint: str) -> InvalidInput:
    return InvalidInput(message, rule="constitution", hint=hint)


# --- resolve: what a decision takes, and what the ballots say


def policy_for(constitution: Constitution, proposal: Propose) -> DecisionPolicy:
    """The strictest of the policies of a valid proposal's actions, in every respect by itself."""
    own = {entry.action: entry.policy for entry in constitution.policies}
    policies = [own.get(kind, constitution.usual) for kind in effective(proposal)]
    vetoes = [policy.veto for policy in policies if policy.HasField("veto")]
    return DecisionPolicy(
        participation=_extreme([policy.participation for policy in policies], largest=True),
        approval=_extreme([policy.approval for policy in policies], largest=True),
        veto=_extreme(vetoes, largest=False) if vetoes else None,
        voting_period_ms=max(policy.voting_period_ms for policy in policies),
        delay_ms=max(policy.delay_ms for policy in policies),
    )


def _extreme(parts: Sequence[Fraction], *, largest: bool) -> Fraction:
    """By cross multiplication; of equal ones the first."""
    found = parts[0]
    for part in parts[1:]:
        if _less(found, part) if largest else _less(part, found):
            found = part
    return found


def _less(one: Fraction, other: Fraction) -> bool:
    return one.numerator * other.denominator < other.numerator * one.denominator


def resolve(
    proposal: GovernanceProposal, cast: Iterable[Ballot], members: Mapping[str, int], *, closed: bool = False
) -> Outcome:
    """What the ballots say about a proposal; ``members`` are the weights of all active members."""
    return ballots.resolve(proposal.policy, ballots.tally(cast, members), closed=closed)


def changed(before: Constitution, after: Constitution) -> list[str]:
    """What two constitutions say differently: actions whose policy it is, ``usual``, ``arbitration``; ascending."""
    old, new = ({entry.action: entry.policy for entry in each.policies} for each in (before, after))
    found = {action for action in {*old, *new} if old.get(action, before.usual) != new.get(action, after.usual)}
    if before.usual != after.usual:
        found.add("usual")
    if before.arbitration != after.arbitration:
        found.add("arbitration")
    return sorted(found)


def loses_its_meaning(proposal: Propose, before: Constitution, after: Constitution) -> bool:
    """Was this written for rules that no longer hold: does its policy change, or does it replace the constitution?"""
    return "set_constitution" in kinds_of(proposal) or policy_for(before, proposal) != policy_for(after, proposal)
