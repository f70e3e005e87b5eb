"""Says one thing to some and another to others: votes and proposals, now and then both to the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon.v1 import consensus_pb2 as pb
from koinon.v1.peer_pb2 import DeliverRequest
from node.consensus.messages import NIL, NO_ROUND
from node.ledger import blocks
from testnet.simulation.attackers.attacker import Attacker, Outgoing, own_vote, signed_proposal, signed_vote, votes

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class Equivocator(Attacker):
    """Arbitrary votes within a round, told apart by receiver: the strongest lie that one key can sign."""

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        lie = self._lie(node, message) if self.rng.random() < 0.5 else None
        if lie is None:
            return [(0, message)]
        return [(0, message), (0, lie)] if self.rng.random() < 0.3 else [(0, lie)]

    def _lie(self, node: SimNode, message: DeliverRequest) -> DeliverRequest | None:
        if node.engine is None:
            return None  # its process is only starting
        vote = own_vote(node, message)
        if vote is not None:
            proposal = node.engine._core.proposal(vote.round)
            known = proposal.value.block_hash if proposal is not None else NIL
            other = NIL if vote.block_hash else known
            return votes(signed_vote(node, vote.type, vote.height, vote.round, other))
        if message.HasField("proposal") and message.proposal.institution == node.institution:
            return self._other_proposal(node, message.proposal)
        return None

    def _other_proposal(self, node: SimNode, proposal: pb.Proposal) -> DeliverRequest | None:
        """Another block for the same round: the same transactions, but for the last; valid if there were any."""
        assert node.engine is not None
        chain, block = node.engine.chain, blocks.parse(proposal.block)
        if block.header.height != chain.height + 1:
            return None
        other = blocks.build(chain, block.transactions[:-1], block.evidence, block.last_commit, node.institution)
        return signed_proposal(node, proposal.height, proposal.round, NO_ROUND, other.value)
