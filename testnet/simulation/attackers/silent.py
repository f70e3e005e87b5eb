"""Listens and says nothing, to all or to some."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from koinon.v1.peer_pb2 import DeliverRequest
from testnet.simulation.attackers.attacker import Attacker, Outgoing

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class Silent(Attacker):
    """Its votes never come; with some luck only half of the members know."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._to_all = rng.random() < 0.5

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        return [] if self._to_all or institution < node.institution else [(0, message)]
