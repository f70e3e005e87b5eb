"""Replays, deforms and makes up messages, under its own name and others'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from testnet.simulation.attackers.attacker import Attacker, signed_vote, votes

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class Garbage(Attacker):
    """Everything that a receiver has to survive without believing it."""

    period_ms = 80

    def act(self, node: SimNode) -> None:
        rng, overheard = self.rng, node.network.overheard
        target = rng.choice([other for other in node.network.nodes.values() if other.institution != node.institution])
        data = bytearray(rng.choice(overheard) if overheard else b"")
        match rng.randint(0, 5):
            case 0:
                pass  # a replay, under its own name
            case 1 if data:
                for _ in range(rng.randint(1, 4)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            case 2:
                data = bytearray(self._forged(node, bytes(data)))
            case 3:
                data = bytearray(rng.randbytes(rng.randint(0, 300)))
            case 4:
                data = bytearray(self._impersonating(node).SerializeToString())
            case _:
                data = bytearray(self._made_up().SerializeToString())
        node.network.send(node, target.institution, bytes(data))

    def _forged(self, node: SimNode, data: bytes) -> bytes:
        """Somebody's words in another mouth, of another round or height; signatures cannot follow."""
        rng = self.rng
        try:
            message = DeliverRequest.FromString(data)
        except DecodeError:
            return data
        for vote in message.votes.votes:
            vote.institution = rng.choice(node.network.institutions)
            vote.round = min(vote.round + rng.choice((0, 1, 7, 1_000_000)), 2**32 - 1)
            vote.height = min(vote.height + rng.choice((0, 0, 1, 2)), 2**64 - 1)
        if message.HasField("proposal"):
            message.proposal.round = min(message.proposal.round + rng.choice((0, 1, 2, 100)), 2**32 - 1)
        return message.SerializeToString()

    def _impersonating(self, node: SimNode) -> DeliverRequest:
        """Everybody's votes for what is being decided, none of them signed by whom it names."""
        rng, engine = self.rng, node.engine
        if engine is None:
            return DeliverRequest()
        round_ = engine.status().round
        proposal = engine._core.proposal(round_)
        block_hash = proposal.value.block_hash if proposal is not None else b""
        named = rng.sample(node.network.institutions, len(node.network.institutions))
        forged = [signed_vote(node, rng.choice((1, 2)), engine.chain.height + 1, round_, block_hash) for _ in named]
        for vote, name in zip(forged, named, strict=True):
            vote.institution = name
        return votes(*forged)

    def _made_up(self) -> DeliverRequest:
        rng = self.rng
        height, round_ = rng.choice((0, 1, 5, 2**40, 2**64 - 1)), rng.choice((0, 2**32 - 1))
        return rng.choice(
            (
                DeliverRequest(round_status=peer_pb2.RoundStatus(height=height, round=round_)),
                DeliverRequest(block_request=peer_pb2.BlockRequest(from_height=height, count=2**32 - 1)),
                DeliverRequest(hello=peer_pb2.Hello(height=height)),
                DeliverRequest(block_response=peer_pb2.BlockResponse(blocks=[peer_pb2.CommittedBlock()])),
                DeliverRequest(),
            )
        )
