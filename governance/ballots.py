"""Ballots: one per member, counted by weight.

With weights yes, no and abstain of a total, and fractions as integers:

- *participation* is reached when yes + no + abstain are at least its part of the total;
- *approval* when yes is more than its part of yes + no;
- a *veto* when no is at least its part of the total.

Once ballots are closed, a veto rejects; without participation the proposal expires; with it, approval accepts and
anything else rejects. Before, an outcome is final as soon as no ballots that are still missing could change it; so the
order in which ballots come cannot matter (tests/governance/test_ballots.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from koinon.v1.constitution_pb2 import DecisionPolicy, Fraction
from koinon.v1.governance_pb2 import CHOICE_ABSTAIN, CHOICE_NO, CHOICE_YES, Ballot, Tally


class Outcome(Enum):
    """What the ballots say."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"


def tally(ballots: Iterable[Ballot], members: Mapping[str, int]) -> Tally:
    """Weights by choice; ``members`` are the weights of all active members. A ballot of anybody else counts nothing."""
    weights = {CHOICE_YES: 0, CHOICE_NO: 0, CHOICE_ABSTAIN: 0}
    for ballot in ballots:
        weights[ballot.choice] += members.get(ballot.institution, 0)
    return Tally(
        yes=weights[CHOICE_YES],
        no=weights[CHOICE_NO],
        abstain=weights[CHOICE_ABSTAIN],
        total=sum(members.values()),
    )


def resolve(policy: DecisionPolicy, count: Tally, *, closed: bool) -> Outcome:
    """What follows from the ballots counted, when no more can come (``closed``) or while some are missing."""
    if _vetoed(policy, count.no, count.total):
        return Outcome.REJECTED
    if closed:
        if not _reaches(policy.participation, _cast(count), count.total):
            return Outcome.EXPIRED
        return Outcome.ACCEPTED if _approved(policy, count.yes, count.no) else Outcome.REJECTED
    missing = missing_weight(count)
    if (
        _reaches(policy.participation, _cast(count), count.total)
        and _approved(policy, count.yes, count.no + missing)
        and not _vetoed(policy, count.no + missing, count.total)
    ):
        return Outcome.ACCEPTED
    return Outcome.OPEN if _approved(policy, count.yes + missing, count.no) else Outcome.REJECTED


def missing_weight(count: Tally) -> int:
    """Weight of the members who cast no ballot."""
    return count.total - _cast(count)


def _cast(count: Tally) -> int:
    return count.yes + count.no + count.abstain


def _reaches(part: Fraction, weight: int, of: int) -> bool:
    return weight * part.denominator >= part.numerator * of


def _approved(policy: DecisionPolicy, yes: int, no: int) -> bool:
    return yes * policy.approval.denominator > policy.approval.numerator * (yes + no)


def _vetoed(policy: DecisionPolicy, no: int, total: int) -> bool:
    return policy.HasField("veto") and no > 0 and _reaches(policy.veto, no, total)
