"""How the rulings of arbiters become a decision: by majority, remedy by remedy, as the members voted.

A remedy is ordered when more than its part want it: of all arbiters, or at the deadline, of those who ruled, if they
are a quorum. A suspension is counted among all members but the respondent, the claimant included, as a ballot would be:
where few are no party, two friends must not shut out a third. Bounds of the policy: ``governance.constitution``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from koinon.v1.constitution_pb2 import ArbitrationPolicy, Fraction
from koinon.v1.dispute_pb2 import (
    REMEDY_PAYOUT,
    REMEDY_REFUND,
    REMEDY_REVOCATION,
    REMEDY_SUSPENSION,
    Remedy,
)

_PARTS = {
    REMEDY_REFUND: "refund",
    REMEDY_PAYOUT: "payout",
    REMEDY_REVOCATION: "revocation",
    REMEDY_SUSPENSION: "suspension",
}
"""Field of the policy by remedy."""

REMEDIES = tuple(_PARTS)
Wanted = Collection[Remedy.ValueType]


@dataclass(frozen=True, slots=True)
class Bench:
    """How many decide: arbiters, and all but the respondent, arbiters included; is the claimant one of these?"""

    arbiters: int
    others: int
    claimant: bool = True


def settled(rulings: Sequence[Wanted], bench: Bench, policy: ArbitrationPolicy) -> list[Remedy.ValueType] | None:
    """What is ordered once no ruling still to come could change it; None before, and where nobody can arbitrate."""
    ordered = []
    for remedy in REMEDIES:
        wanted = sum(remedy in ruling for ruling in rulings)
        against = len(rulings) - wanted
        if _enough(remedy, wanted, bench.arbiters, bench, policy):
            ordered.append(remedy)
        elif bench.arbiters == 0 or _enough(remedy, bench.arbiters - against, bench.arbiters, bench, policy):
            return None
    return ordered


def at_deadline(rulings: Sequence[Wanted], bench: Bench, policy: ArbitrationPolicy) -> list[Remedy.ValueType] | None:
    """What those who ruled in time order; None if too few did."""
    if len(rulings) < max(1, min(policy.quorum, bench.arbiters)):
        return None
    return [
        remedy
        for remedy in REMEDIES
        if _enough(remedy, sum(remedy in ruling for ruling in rulings), len(rulings), bench, policy)
    ]


def _enough(remedy: Remedy.ValueType, wanted: int, of: int, bench: Bench, policy: ArbitrationPolicy) -> bool:
    if remedy == REMEDY_SUSPENSION:
        wanted, of = wanted + bench.claimant, bench.others
    part: Fraction = getattr(policy, _PARTS[remedy])
    return wanted * part.denominator > part.numerator * of
