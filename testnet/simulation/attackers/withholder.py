"""Proposes to too few: its blocks reach one member, in the last moment, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon.v1.peer_pb2 import DeliverRequest
from testnet.simulation.attackers.attacker import Attacker, Outgoing

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class Withholder(Attacker):
    """Votes as it should, so that others lock on what most of them never saw."""

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        if not message.HasField("proposal"):
            return [(0, message)]
        chosen = sorted(set(node.network.institutions) - {node.institution})[message.proposal.height % 3 :: 3]
        if institution in chosen:
            return [(self.rng.choice((0, 0, 300)), message)]
        return []
