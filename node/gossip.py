"""What was lost on the way is sent again: where we stand, and what a peer lacks by its own account.

Pure. A validator that makes no progress says where it stands; whoever has more answers. So the paper's assumption
holds that what one correct validator received, all receive in the end, and nothing is repeated while all is well.
"""

from __future__ import annotations

from collections.abc import Sequence

from koinon.v1 import peer_pb2
from node.consensus.core import Core
from node.consensus.messages import NO_ROUND, Proposal, Vote, VoteType


def round_status(height: int, core: Core) -> peer_pb2.DeliverRequest:
    """Where we stand: about to decide ``height``, or, if the core is at it, in which round with what."""
    status = peer_pb2.RoundStatus(height=height)
    if core.is_deciding(height):
        status.round, status.step = core.round, core.step
        status.has_proposal = core.proposal(core.round) is not None
        status.prevotes.extend(core.votes.senders(VoteType.PREVOTE, core.round))
        status.precommits.extend(core.votes.senders(VoteType.PRECOMMIT, core.round))
    return peer_pb2.DeliverRequest(round_status=status)


def missing(core: Core, status: peer_pb2.RoundStatus) -> list[peer_pb2.DeliverRequest]:
    """What a peer at the same height, in our round or an earlier one, says it lacks and we have."""
    round_ = status.round
    messages = []
    proposal = core.proposal(round_)
    if proposal is not None and not status.has_proposal:
        messages += proposal_messages(core, proposal)
    held = {VoteType.PREVOTE: set(status.prevotes), VoteType.PRECOMMIT: set(status.precommits)}
    votes = [
        vote
        for vote_type in VoteType
        for vote in core.votes.votes(vote_type, round_)
        if vote.institution not in held[vote_type]
    ]
    if round_ < core.round:  # so that it joins our round
        votes += [vote for vote_type in VoteType for vote in core.votes.votes(vote_type, core.round)]
    if votes:
        messages.append(votes_message(votes))
    return messages


def proposal_messages(core: Core, proposal: Proposal) -> list[peer_pb2.DeliverRequest]:
    """The proposal and, where it refers to a polka, the polka: who missed that could not accept it (line 28)."""
    messages = [peer_pb2.DeliverRequest(proposal=proposal.to_proto())]
    if proposal.valid_round != NO_ROUND:
        polka = core.votes.votes(VoteType.PREVOTE, proposal.valid_round, proposal.value.block_hash)
        messages.append(votes_message(polka))
    return messages


def votes_message(votes: Sequence[Vote]) -> peer_pb2.DeliverRequest:
    return peer_pb2.DeliverRequest(votes=peer_pb2.VoteBatch(votes=[vote.to_proto() for vote in votes]))
