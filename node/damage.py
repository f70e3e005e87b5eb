"""Damage of what a node stores, said so that its operator knows the remedy."""

from __future__ import annotations

from koinon.errors import Corrupt

REMEDY = "stop the node, then: koinon node repair --home HOME. The node fetches the ledger anew"


def damaged(problem: str) -> Corrupt:
    """The ledger on this node's disk is not what was written there."""
    return Corrupt(problem, hint=REMEDY)
