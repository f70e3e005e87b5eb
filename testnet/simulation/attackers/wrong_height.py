"""Votes on heights that are over, or far away, and claims to be where nobody is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from testnet.simulation.attackers.attacker import Attacker, signed_vote, votes

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class WrongHeight(Attacker):
    """Validly signed, so that only the height is wrong."""

    period_ms = 120

    def act(self, node: SimNode) -> None:
        rng = self.rng
        here = len(node.committed) + 1
        height = max(here + rng.choice((-5, -1, 1, 2, 3, 1_000, 2**40)), 1)
        block_hash = rng.choice((b"", rng.randbytes(32), node.committed[-1] if node.committed else b""))
        vote = signed_vote(node, rng.choice((1, 2)), height, rng.choice((0, 1, 5)), block_hash)
        message = rng.choice(
            (
                votes(vote),
                DeliverRequest(round_status=peer_pb2.RoundStatus(height=height, round=rng.randrange(9))),
                DeliverRequest(hello=peer_pb2.Hello(institution=node.institution, height=height)),
            )
        )
        for institution in node.network.institutions:
            if institution != node.institution and rng.random() < 0.7:
                node.post(institution, message)
