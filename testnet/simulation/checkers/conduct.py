"""What nodes say in their own names: correct ones never contradict themselves; who does so is accused."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from koinon.v1 import consensus_pb2 as pb
from koinon.v1.peer_pb2 import DeliverRequest
from testnet.simulation.checkers.chain import Chain, vote_bytes
from testnet.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

_Position = tuple[str, int, int, int]  # institution, height, round, 0 for proposals or vote type


class Conduct:
    """Everything that was said, by whom, and before whom."""

    def __init__(self, chain_id: str, chain: Chain, faulty: Collection[str]) -> None:
        self.equivocations: set[tuple[str, int, int]] = set()  # that were sent: institution, height, round
        self.witnessed: set[str] = set()  # institutions that contradicted themselves before a correct node's eyes
        self.witnessing = False
        self._chain_id = chain_id
        self._chain = chain
        self._faulty = faulty
        self._sent: dict[_Position, tuple[int, bytes]] = {}
        self._heard: dict[tuple[str, int, _Position], bytes] = {}  # by node and life

    def on_send(self, node: SimNode, message: DeliverRequest) -> None:
        for vote in message.votes.votes:
            if vote.institution == node.institution:
                self._said(node, (vote.institution, vote.height, vote.round, int(vote.type)), (0, vote.block_hash))
        if message.HasField("proposal") and message.proposal.institution == node.institution:
            proposal = message.proposal
            header = pb.Block.FromString(proposal.block).header
            said = (proposal.valid_round, hashlib.sha256(header).digest())
            self._said(node, (proposal.institution, proposal.height, proposal.round, 0), said)

    def _said(self, node: SimNode, position: _Position, said: tuple[int, bytes]) -> None:
        if self._sent.setdefault(position, said) != said:
            if node.correct:
                raise Violation(f"{node.name} signs twice at {position}, after {node.crashes} crashes")
            self.equivocations.add(position[:3])

    def on_voting_again(self, institution: str, height: int, nodes: Iterable[SimNode]) -> None:
        """A validator that does not know what it signed signs again after this height, because its operator says so.

        What it signed there and no log holds is forgotten by all, so it decided nothing. The rest it must not
        contradict.
        """
        records = [record for node in nodes for record in node.disk.files[0].records()]
        votes = [pb.Vote.FromString(record[1:]) for record in records if record[:1] == b"V"]
        proposals = [pb.Proposal.FromString(record[34:]) for record in records if record[:1] == b"P"]
        known = {(vote.institution, vote.height, vote.round, int(vote.type)) for vote in votes}
        known |= {(proposal.institution, proposal.height, proposal.round, 0) for proposal in proposals}
        for position in list(self._sent):
            if position[0] == institution and position[1] > height and position not in known:
                del self._sent[position]

    def on_delivery(self, node: SimNode, message: DeliverRequest) -> None:
        """A message that ``node`` has just taken in. Two votes for different blocks in its own round are evidence.

        Votes of other rounds may be too many to keep, and those of a batch behind a forged one are not read.
        """
        if not self.witnessing or not node.correct or node.engine is None:
            return
        for vote in message.votes.votes:
            if vote.institution not in self._faulty or len(message.votes.votes) != 1:
                return
            status = node.engine.status()
            if (vote.height, vote.round) != (status.height + 1, status.round) or not status.deciding:
                return
            voter = self._chain.voters.get(vote.height, {}).get(vote.institution)
            kind = int(vote.type)
            if voter is None or kind not in (1, 2) or vote.time_ms > node.now_ms():
                return
            signed = vote_bytes(self._chain_id, kind, vote.height, vote.round, vote.block_hash, vote.time_ms)
            if self._chain.holds(voter.public_key, signed, vote.signature):
                position = (vote.institution, vote.height, vote.round, kind)
                if self._heard.setdefault((node.name, node.lives, position), vote.block_hash) != vote.block_hash:
                    self.witnessed.add(vote.institution)

    def unpunished(self, accused: Collection[tuple[str, int, int]]) -> set[str]:
        """Who contradicted itself before witnesses, still votes, and is not on the ledger for anything.

        Who left the validators before it was accused cannot be any more: evidence is taken of those who vote.
        """
        voters = self._chain.voters[max(self._chain.voters)]
        return (self.witnessed & voters.keys()) - {institution for institution, _, _ in accused}
