"""What every attacker is: the production node of a member, with its real key, and something wrong."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from koinon.keys import SigningKey
from koinon.v1 import consensus_pb2 as pb
from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from node.consensus.messages import Proposal, Value, Vote, VoteType
from testnet.simulation.consortium import VALIDATOR_KEYS, validator_key

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

Outgoing = list[tuple[int, DeliverRequest]]
"""What is sent instead of a message, each with its delay in milliseconds."""


class Attacker:
    """Does nothing wrong. Each kind overrides what it needs."""

    processes = 1  # with the same key and institution
    period_ms = 0  # between two calls of ``act``; 0: never

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def arm(self, node: SimNode) -> None:
        """Its process has just opened; ``node.engine`` and ``node.app`` may be tampered with."""

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        """What to send to this member instead of what the engine wants to send."""
        return [(0, message)]

    def act(self, node: SimNode) -> None:
        """Called now and then while the process is up."""


def signing_key(node: SimNode) -> SigningKey:
    """The key that the ledger, as this node has it, names for the next height."""
    member = node.engine.chain.validators.member(node.institution) if node.engine is not None else None
    keys = [validator_key(node.institution, number) for number in range(VALIDATOR_KEYS)]
    return next((key for key in keys if member is not None and key.public_key == member.public_key), node.key)


def signed_vote(node: SimNode, vote_type: int, height: int, round_: int, block_hash: bytes) -> pb.Vote:
    """A vote with this node's signature, whatever its journal says."""
    chain = node.config.chain_id
    unsigned = Vote(VoteType(vote_type), height, round_, block_hash, node.now_ms(), node.institution, b"")
    vote = unsigned.to_proto()
    vote.signature = signing_key(node).sign(unsigned.signed_bytes(chain))
    return vote


def signed_proposal(node: SimNode, height: int, round_: int, valid_round: int, value: Value) -> DeliverRequest:
    """A proposal with this node's signature, whatever its journal says."""
    unsigned = Proposal(height, round_, valid_round, value, node.institution, b"")
    proposal = unsigned.to_proto()
    proposal.signature = signing_key(node).sign(unsigned.signed_bytes(node.config.chain_id))
    return DeliverRequest(proposal=proposal)


def votes(*items: pb.Vote) -> DeliverRequest:
    return DeliverRequest(votes=peer_pb2.VoteBatch(votes=items))


def own_vote(node: SimNode, message: DeliverRequest) -> pb.Vote | None:
    """The first vote of its own in a message."""
    return next((vote for vote in message.votes.votes if vote.institution == node.institution), None)
