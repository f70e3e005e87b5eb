"""Signs without end: other blocks, other votes and ever later rounds, all of one height."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from koinon.v1 import consensus_pb2 as pb
from koinon.v1.peer_pb2 import DeliverRequest
from node.consensus.messages import NIL, NO_ROUND
from node.ledger import blocks
from testnet.simulation.attackers.attacker import Attacker, Outgoing, own_vote, signed_proposal, signed_vote, votes

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

_PROPOSALS, _VOTES, _ROUNDS = 5, 20, 120  # at a time; the rounds are later than all before


class EndlessSigner(Attacker):
    """Two of a kind are evidence. Whoever writes down the others, or keeps them, is out of room some day."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._round = 0  # the latest that it voted in

    def outgoing(self, node: SimNode, institution: str, message: DeliverRequest) -> Outgoing:
        vote = own_vote(node, message)
        lies: Iterator[DeliverRequest] = iter(())
        if vote is not None and self.rng.random() < 0.5:
            lies = self._votes(node, vote)
        elif message.HasField("proposal") and message.proposal.institution == node.institution:
            lies = self._proposals(node, message.proposal)
        return [(0, message), *((0, lie) for lie in lies)]

    def _votes(self, node: SimNode, vote: pb.Vote) -> Iterator[DeliverRequest]:
        """Each kind in one batch, which must be judged vote by vote."""

        def signed(round_: int, block_hash: bytes) -> pb.Vote:
            return signed_vote(node, vote.type, vote.height, round_, block_hash)

        yield votes(*(signed(vote.round, self.rng.randbytes(32)) for _ in range(_VOTES)))
        first = max(self._round, vote.round) + 1
        self._round = first + _ROUNDS - 1
        yield votes(*(signed(round_, NIL) for round_ in range(first, first + _ROUNDS)))

    def _proposals(self, node: SimNode, proposal: pb.Proposal) -> Iterator[DeliverRequest]:
        if node.engine is None or proposal.height != node.engine.chain.height + 1:
            return
        commit = blocks.parse(proposal.block).last_commit
        for _ in range(_PROPOSALS):
            other = blocks.build(node.engine.chain, [self.rng.randbytes(100)], (), commit, node.institution)
            valid_round = self.rng.randrange(NO_ROUND, proposal.round)
            yield signed_proposal(node, proposal.height, proposal.round, valid_round, other.value)
