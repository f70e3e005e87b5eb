"""Answers whoever is behind with blocks that were never decided, and offers them unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon.v1 import consensus_pb2 as pb
from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from node.ledger import blocks
from testnet.simulation.attackers.attacker import Attacker, Outgoing, signed_vote

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class BlockForger(Attacker):
    """Its certificates are too small, of another block or height, or signed by itself alone."""

    period_ms = 400

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        if not message.block_response.blocks:
            return [(0, message)]
        forged = DeliverRequest()
        forged.CopyFrom(message)
        self._forge(node, self.rng.choice(forged.block_response.blocks))
        return [(0, forged)]

    def act(self, node: SimNode) -> None:
        """A block of its own after its last, certified by itself."""
        if node.engine is None:
            return
        chain = node.engine.chain
        height = chain.height + 1
        block = blocks.build(chain, (), (), node.engine.blocks.commit(chain.height), node.institution)
        commit = self._own_commit(node, height, block.value.block_hash)
        response = peer_pb2.BlockResponse(blocks=[peer_pb2.CommittedBlock(block=block.value.block, commit=commit)])
        for institution in node.network.institutions:
            if institution != node.institution:
                node.post(institution, DeliverRequest(block_response=response))

    def _forge(self, node: SimNode, item: peer_pb2.CommittedBlock) -> None:
        rng, commit = self.rng, item.commit
        match rng.randint(0, 5):
            case 0:
                del commit.signatures[rng.randint(0, 2) :]
            case 1:
                commit.signatures.append(commit.signatures[0])
            case 2:
                del commit.signatures[1:]
                commit.signatures.extend([commit.signatures[0]] * 6)
            case 3:
                commit.CopyFrom(self._own_commit(node, commit.height, commit.block_hash))
            case 4:
                item.block = item.block[:-1] + bytes([item.block[-1] ^ 1])
            case _:
                for signature in commit.signatures:
                    signature.time_ms += 1

    def _own_commit(self, node: SimNode, height: int, block_hash: bytes) -> pb.Commit:
        """A certificate with the names of all, and its own signature under each."""
        vote = signed_vote(node, 2, height, 0, block_hash)
        signatures = [
            pb.CommitSignature(institution=name, time_ms=vote.time_ms, signature=vote.signature)
            for name in sorted(node.network.institutions)
        ]
        return pb.Commit(height=height, round=0, block_hash=block_hash, signatures=signatures)
