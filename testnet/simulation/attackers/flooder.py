"""Says everything a hundred times: votes, questions, transactions, claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon.limits import MAX_PEER_MESSAGE_BYTES
from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from testnet.simulation.attackers.attacker import Attacker, signed_vote, votes

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

_COPIES = 10


class Flooder(Attacker):
    """Each message is cheap to make and dear to answer. Nobody may lose more by it than time."""

    period_ms = 150

    def act(self, node: SimNode) -> None:
        rng = self.rng
        height = len(node.committed) + 1
        flood = rng.choice(
            (
                DeliverRequest(block_request=peer_pb2.BlockRequest(from_height=1, count=2**32 - 1)),
                DeliverRequest(round_status=peer_pb2.RoundStatus(height=max(height - 3, 1))),
                votes(*(signed_vote(node, 1, height, round_, b"") for round_ in range(rng.randint(1, 8)))),
                DeliverRequest(transactions=peer_pb2.TransactionBatch(envelopes=[rng.randbytes(40)] * 20)),
                DeliverRequest(hello=peer_pb2.Hello(institution=node.institution, height=height + rng.randrange(9))),
            )
        )
        assert flood.ByteSize() < MAX_PEER_MESSAGE_BYTES
        target = rng.choice([name for name in node.network.institutions if name != node.institution])
        for _ in range(_COPIES):
            node.post(target, flood)
