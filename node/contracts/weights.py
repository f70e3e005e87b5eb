"""Ballot weights: what each member's ballot counts. Somebody's always does, or nothing could be decided again."""

from __future__ import annotations

from koinon.errors import Refused
from koinon.v1.constitution_pb2 import MemberWeight
from koinon.v1.identity_pb2 import MEMBER_STATUS_ACTIVE
from node.contracts import tables
from node.ledger.state import State

USUAL_WEIGHT = 1
"""One member, one ballot, unless the members decided otherwise."""


def of(state: State, institution: str) -> int:
    """What an institution's ballot counts while it is active."""
    found = tables.WEIGHTS.find(state, institution)
    return USUAL_WEIGHT if found is None else found.weight


def put(state: State, institution: str, weight: int) -> None:
    """Let it count so much from now on."""
    tables.WEIGHTS.put(state, institution, MemberWeight(weight=weight))


def of_all(state: State) -> dict[str, int]:
    """The ballot weights of all active members, ascending by institution."""
    return {
        member.descriptor.id: of(state, member.descriptor.id)
        for member in tables.INSTITUTIONS.scan(state)
        if member.status == MEMBER_STATUS_ACTIVE
    }


def check(state: State) -> None:
    """Can the active members still decide something? Raises Refused with rule ``constitution``."""
    if not any(of_all(state).values()):
        raise Refused(
            "no active member's ballot would have weight", rule="constitution", hint="leave somebody a ballot"
        )
