"""Proof that one validator signed two messages that exclude each other: made, checked and named.

Pure. Two votes of one type, height and round for different blocks, or two proposals of one height and round that
differ. A correct validator never signs both, whatever the network, a crash or a restart does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from koinon import canonical, keys
from koinon.errors import Corrupt
from koinon.limits import MAX_BLOCK_EVIDENCE, MAX_EVIDENCE_AGE_BLOCKS, MAX_PENDING_EVIDENCE
from koinon.v1 import consensus_pb2 as pb
from koinon.validators import ValidatorSet
from node.consensus.messages import Proposal, Vote

KeyAt = Callable[[str, int], bytes | None]
"""With which key an institution voted at a height, if it did."""


class InvalidEvidence(Corrupt):
    """The accusation does not hold."""

    default_rule = "invalid-evidence"


class Offence(NamedTuple):
    """What was done by whom, once; the same offence can be proved by different evidence."""

    institution: str
    height: int
    round: int
    kind: int  # 0 for proposals, else the vote type


def accuse(first: Vote | Proposal, second: Vote | Proposal) -> pb.Evidence:
    """Evidence from two conflicting messages of one validator, in an order that does not depend on arrival."""
    if isinstance(first, Proposal) and isinstance(second, Proposal):
        low, high = sorted((first, second), key=lambda p: (p.value.block_hash, p.valid_round))
        return pb.Evidence(
            duplicate_proposal=pb.DuplicateProposal(
                height=low.height,
                round=low.round,
                institution=low.institution,
                first=_proposal_id(low),
                second=_proposal_id(high),
            )
        )
    votes = [message for message in (first, second) if isinstance(message, Vote)]
    low_vote, high_vote = sorted(votes, key=lambda vote: vote.block_hash)
    return pb.Evidence(duplicate_vote=pb.DuplicateVote(first=low_vote.to_proto(), second=high_vote.to_proto()))


def _proposal_id(proposal: Proposal) -> pb.SignedProposalId:
    return pb.SignedProposalId(
        valid_round=proposal.valid_round, block_hash=proposal.value.block_hash, signature=proposal.signature
    )


def offence(evidence: pb.Evidence) -> Offence:
    """What this evidence accuses of. Raises InvalidEvidence if it accuses of nothing."""
    match evidence.WhichOneof("evidence"):
        case "duplicate_vote":
            vote = evidence.duplicate_vote.first
            return Offence(vote.institution, vote.height, vote.round, int(vote.type))
        case "duplicate_proposal":
            proposal = evidence.duplicate_proposal
            return Offence(proposal.institution, proposal.height, proposal.round, 0)
        case _:
            raise InvalidEvidence("the evidence names no offence")


def verify(
    chain_id: str, validators: ValidatorSet, height: int, evidence: pb.Evidence, key_at: KeyAt | None = None
) -> Offence:
    """Check evidence for the block at ``height``, on which ``validators`` vote. ``evidence`` comes from anyone.

    1. The offence is of an earlier height, but not older than MAX_EVIDENCE_AGE_BLOCKS.
    2. The two messages are of one kind, height and round, and differ, in ascending order.
    3. Both signatures are the accused's, by the key that it had then (``key_at``; without it, the one it votes with
       now). Neither another key nor a pause in voting, which it may end by itself, saves it.

    Raises InvalidEvidence.
    """
    accused = offence(evidence)
    if not height - MAX_EVIDENCE_AGE_BLOCKS <= accused.height < height:
        raise InvalidEvidence(f"evidence about height {accused.height} does not belong in block {height}")
    match evidence.WhichOneof("evidence"):
        case "duplicate_vote":
            signed = _signed_votes(chain_id, accused, evidence.duplicate_vote)
        case _:
            signed = _signed_proposals(chain_id, accused, evidence.duplicate_proposal)
    member = validators.member(accused.institution)
    key = key_at(accused.institution, accused.height) if key_at else getattr(member, "public_key", None)
    if key is None or not all(keys.verify(key, message, signature) for message, signature in signed):
        raise InvalidEvidence(f"a signature in the evidence is not {accused.institution}'s")
    return accused


class PendingEvidence:
    """Evidence that waits for a block, one piece per offence, at most MAX_PENDING_EVIDENCE."""

    def __init__(self) -> None:
        self._items: dict[Offence, pb.Evidence] = {}

    def add(self, evidence: pb.Evidence) -> bool:
        """Keep it; returns whether it is the first about its offence and there was room."""
        accused = offence(evidence)
        if accused in self._items or len(self._items) >= MAX_PENDING_EVIDENCE:
            return False
        self._items[accused] = evidence
        return True

    def remove(self, included: Iterable[pb.Evidence]) -> None:
        """Forget what a block says."""
        for item in included:
            self._items.pop(offence(item), None)

    def fitting(
        self, chain_id: str, validators: ValidatorSet, height: int, key_at: KeyAt | None = None
    ) -> list[pb.Evidence]:
        """What belongs in the block at ``height``, oldest first; what has become invalid is dropped."""
        chosen = []
        for accused, item in sorted(self._items.items(), key=lambda pair: (pair[0].height, pair[0])):
            if accused.height >= height:
                continue
            try:
                verify(chain_id, validators, height, item, key_at)
            except InvalidEvidence:
                del self._items[accused]
            else:
                chosen.append(item)
        return chosen[:MAX_BLOCK_EVIDENCE]


def _signed_votes(chain_id: str, accused: Offence, pair: pb.DuplicateVote) -> list[tuple[bytes, bytes]]:
    votes = [Vote.from_proto(pair.first), Vote.from_proto(pair.second)]
    first, second = votes
    if first is None or second is None or first.block_hash >= second.block_hash:
        raise InvalidEvidence("the evidence does not hold two votes for different blocks, in ascending order")
    if Offence(second.institution, second.height, second.round, int(second.type)) != accused:
        raise InvalidEvidence("the votes in the evidence do not exclude each other")
    return [(vote.signed_bytes(chain_id), vote.signature) for vote in (first, second)]


def _signed_proposals(chain_id: str, accused: Offence, pair: pb.DuplicateProposal) -> list[tuple[bytes, bytes]]:
    if (pair.first.block_hash, pair.first.valid_round) >= (pair.second.block_hash, pair.second.valid_round):
        raise InvalidEvidence("the evidence does not hold two different proposals, in ascending order")
    return [
        (
            canonical.proposal_bytes(chain_id, accused.height, accused.round, item.valid_round, item.block_hash),
            item.signature,
        )
        for item in (pair.first, pair.second)
    ]
