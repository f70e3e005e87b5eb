"""How the rulings of arbiters become a decision: by majority, remedy by remedy.

A remedy is ordered when more than half want it: of all arbiters, or at the deadline, of those who ruled, if they are a
quorum. A suspension takes more than two thirds of all members but the respondent, the claimant among them, as a ballot
would: where few are no party, two friends must not shut out a third.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from koinon.v1.dispute_pb2 import (
    REMEDY_PAYOUT,
    REMEDY_REFUND,
    REMEDY_REVOCATION,
    REMEDY_SUSPENSION,
    Remedy,
)

REMEDIES = (REMEDY_REFUND, REMEDY_PAYOUT, REMEDY_REVOCATION, REMEDY_SUSPENSION)
Wanted = Collection[Remedy.ValueType]


@dataclass(frozen=True, slots=True)
class Bench:
    """How many decide: arbiters, and all who are not the respondent, arbiters included."""

    arbiters: int
    others: int


def settled(rulings: Sequence[Wanted], bench: Bench) -> list[Remedy.ValueType] | None:
    """What is ordered once no ruling still to come could change it; None before, and where nobody can arbitrate."""
    ordered = []
    for remedy in REMEDIES:
        wanted = sum(remedy in ruling for ruling in rulings)
        against = len(rulings) - wanted
        if _enough(remedy, wanted, bench.arbiters, bench):
            ordered.append(remedy)
        elif bench.arbiters == 0 or _enough(remedy, bench.arbiters - against, bench.arbiters, bench):
            return None
    return ordered


def at_deadline(rulings: Sequence[Wanted], bench: Bench, quorum: int) -> list[Remedy.ValueType] | None:
    """What those who ruled in time order; None if too few did."""
    if len(rulings) < max(1, min(quorum, bench.arbiters)):
        return None
    return [
        remedy
        for remedy in REMEDIES
        if _enough(remedy, sum(remedy in ruling for ruling in rulings), len(rulings), bench)
    ]


def _enough(remedy: Remedy.ValueType, wanted: int, of: int, bench: Bench) -> bool:
    if remedy == REMEDY_SUSPENSION:
        return 3 * (wanted + 1) > 2 * bench.others
    return 2 * wanted > of
