"""How the rulings of arbiters become a decision: by majority, remedy by remedy.

A remedy is ordered when more than half want it, a suspension when more than two thirds do. Of all arbiters, that is;
at the deadline, of those who ruled, if they are a quorum. A suspension always takes two thirds of all: one arbiter
who stayed up late must not shut out a member.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from koinon.v1.dispute_pb2 import (
    REMEDY_PAYOUT,
    REMEDY_REFUND,
    REMEDY_REVOCATION,
    REMEDY_SUSPENSION,
    Remedy,
)

REMEDIES = (REMEDY_REFUND, REMEDY_PAYOUT, REMEDY_REVOCATION, REMEDY_SUSPENSION)
Wanted = Collection[Remedy.ValueType]


def settled(rulings: Sequence[Wanted], arbiters: int) -> list[Remedy.ValueType] | None:
    """What is ordered once no ruling still to come could change it; None before, and where nobody can arbitrate."""
    ordered = []
    for remedy in REMEDIES:
        wanted = sum(remedy in ruling for ruling in rulings)
        against = len(rulings) - wanted
        if _enough(remedy, wanted, arbiters):
            ordered.append(remedy)
        elif arbiters == 0 or _enough(remedy, arbiters - against, arbiters):
            return None
    return ordered


def at_deadline(rulings: Sequence[Wanted], arbiters: int, quorum: int) -> list[Remedy.ValueType] | None:
    """What those who ruled in time order; None if too few did."""
    if len(rulings) < max(1, min(quorum, arbiters)):
        return None
    return [
        remedy
        for remedy in REMEDIES
        if _enough(
            remedy,
            sum(remedy in ruling for ruling in rulings),
            arbiters if remedy == REMEDY_SUSPENSION else len(rulings),
        )
    ]


def _enough(remedy: Remedy.ValueType, wanted: int, of: int) -> bool:
    return 3 * wanted > 2 * of if remedy == REMEDY_SUSPENSION else 2 * wanted > of
