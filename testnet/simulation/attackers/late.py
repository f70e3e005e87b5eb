"""Says everything too late, but for what it says to a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon.v1.peer_pb2 import DeliverRequest
from testnet.simulation.attackers.attacker import Attacker, Outgoing

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class Late(Attacker):
    """By less or more than a timeout, so that members disagree about who voted in which round."""

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        return [(self.rng.choice((0, 150, 400, 700, 2_000)), message)]
