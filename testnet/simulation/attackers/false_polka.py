"""Twins whose proposals claim that a quorum was for them in the round before: nobody was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon import canonical
from koinon.v1.consensus_pb2 import Block
from koinon.v1.peer_pb2 import DeliverRequest
from testnet.simulation.attackers.attacker import Outgoing, signing_key
from testnet.simulation.attackers.twin import Twin

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class FalsePolka(Twin):
    """Who believes it gives up a lock for a block that was never safe."""

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        proposal = message.proposal
        if not message.HasField("proposal") or proposal.institution != node.institution or proposal.round == 0:
            return [(0, message)]
        lie = DeliverRequest()
        lie.CopyFrom(message)
        lie.proposal.valid_round = proposal.round - 1
        block_hash = canonical.block_hash(Block.FromString(proposal.block).header)
        signed = canonical.proposal_bytes(
            node.config.chain_id, proposal.height, proposal.round, proposal.round - 1, block_hash
        )
        lie.proposal.signature = signing_key(node).sign(signed)
        return [(0, lie)]
