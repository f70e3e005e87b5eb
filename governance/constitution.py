"""The constitution: what members may decide together, and what each decision takes.

``validate`` looks at a proposal's form alone, ``resolve`` at its ballots, and what it does once it is accepted is in
``node.contracts.actions``, which needs the ledger. Policies are data on the ledger: a usual one, and others for single
kinds of action; of a proposal with several actions, the strictest in every respect holds.

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
    MAX_TEXT,
    MAX_TITLE,
    MAX_VOTING_PERIOD_MS,
    MIN_VOTING_PERIOD_MS,
)
from koinon.v1.constitution_pb2 import ActionPolicy, Constitution, DecisionPolicy, Fraction
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


def founding() -> Constitution:
    """The constitution of a consortium whose genesis brings none."""
    usual = DecisionPolicy(
        participation=Fraction(numerator=1, denominator=2),
        approval=Fraction(numerator=1, denominator=2),
        voting_period_ms=7 * _DAY_MS,
    )
    grave = DecisionPolicy(
        participation=Fraction(numerator=2, denominator=3),
        approval=Fraction(numerator=2, denominator=3),
        voting_period_ms=14 * _DAY_MS,
    )
    return Constitution(usual=usual, policies=[ActionPolicy(action=action, policy=grave) for action in GRAVE])


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
    approval = policy.approval
    if not approval.denominator <= 2 * approval.numerator < 2 * approval.denominator:
        raise _invalid(
            f"the approval of {what} is more than {approval.numerator}/{approval.denominator}",
            "use 1/2 or more, so that a minority decides nothing, and less than 1, so that something can be decided",
        )
    for name, value, least, most in (
        ("voting_period_ms", policy.voting_period_ms, MIN_VOTING_PERIOD_MS, MAX_VOTING_PERIOD_MS),
        ("delay_ms", policy.delay_ms, 0, MAX_DELAY_MS),
    ):
        if not least <= value <= most:
            raise _invalid(f"{name} of {what} is {value}", f"use {least} to {most}")


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
        left, right = part.numerator * found.denominator, found.numerator * part.denominator
        if left > right if largest else left < right:
            found = part
    return found


def resolve(
    proposal: GovernanceProposal, cast: Iterable[Ballot], members: Mapping[str, int], *, closed: bool = False
) -> Outcome:
    """What the ballots say about a proposal; ``members`` are the weights of all active members."""
    return ballots.resolve(proposal.policy, ballots.tally(cast, members), closed=closed)


def loses_its_meaning(proposal: Propose, before: Constitution, after: Constitution) -> bool:
    """Was this written for rules that no longer hold: does its policy change, or does it replace the constitution?"""
    return "set_constitution" in kinds_of(proposal) or policy_for(before, proposal) != policy_for(after, proposal)
