"""Evidence: what holds, what does not by name, and that arrival order does not matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from koinon.limits import MAX_BLOCK_EVIDENCE, MAX_EVIDENCE_AGE_BLOCKS, MAX_PENDING_EVIDENCE
from koinon.v1 import consensus_pb2 as pb
from koinon.validators import ValidatorSet
from node.consensus.messages import NIL, Vote, VoteType
from node.ledger import evidence
from node.ledger.evidence import InvalidEvidence, Offence, PendingEvidence
from tests.consensus.rig import CHAIN, validators_of
from tests.ledger.chain import FOUR, digest, signed_proposal, signed_vote

HEIGHT = 7


def a_vote(block: str = "a", name: str = "v1", **fields: int) -> Vote:
    return signed_vote(
        name,
        VoteType(fields.get("type", VoteType.PRECOMMIT)),
        fields.get("height", HEIGHT),
        fields.get("round", 2),
        digest(block) if block else NIL,
    )


def duplicate_vote(first: Vote, second: Vote) -> pb.Evidence:
    return pb.Evidence(duplicate_vote=pb.DuplicateVote(first=first.to_proto(), second=second.to_proto()))


def ordered(first: Vote, second: Vote) -> tuple[Vote, Vote]:
    return (first, second) if first.block_hash < second.block_hash else (second, first)


@pytest.mark.parametrize("other", ["b", ""])
def test_two_votes_for_different_blocks(other: str) -> None:
    made = evidence.accuse(a_vote("a"), a_vote(other))
    assert made == evidence.accuse(a_vote(other), a_vote("a"))
    assert evidence.verify(CHAIN, FOUR, HEIGHT + 1, made) == Offence("v1", HEIGHT, 2, VoteType.PRECOMMIT)


def test_two_proposals_of_different_blocks_or_valid_rounds() -> None:
    first, second = signed_proposal("v1", HEIGHT, 2, "a"), signed_proposal("v1", HEIGHT, 2, "b")
    third = signed_proposal("v1", HEIGHT, 2, "a", valid_round=1)
    for other in (second, third):
        made = evidence.accuse(first, other)
        assert made == evidence.accuse(other, first)
        assert evidence.verify(CHAIN, FOUR, HEIGHT + 1, made) == Offence("v1", HEIGHT, 2, 0)


def test_a_key_changed_since_does_not_save_the_offender() -> None:
    made = evidence.accuse(a_vote("a"), a_vote("b"))
    members = [replace(m, public_key=bytes(31) + b"x") if m.institution == "v1" else m for m in FOUR.members]
    now = ValidatorSet(tuple(members))
    with pytest.raises(InvalidEvidence):
        evidence.verify(CHAIN, now, HEIGHT + 5, made)
    then = {("v1", HEIGHT): next(m.public_key for m in FOUR if m.institution == "v1")}
    evidence.verify(CHAIN, now, HEIGHT + 5, made, lambda name, height: then.get((name, height)))
    with pytest.raises(InvalidEvidence):  # it did not vote then
        evidence.verify(CHAIN, now, HEIGHT + 5, made, lambda name, height: None)


def test_a_pause_in_voting_does_not_save_the_offender() -> None:
    """Who revokes its own key votes for one more block, and begins again, with another key, when it likes."""
    made = evidence.accuse(a_vote("a"), a_vote("b"))
    others = ValidatorSet(tuple(member for member in FOUR if member.institution != "v1"))
    keys = {member.institution: member.public_key for member in FOUR}
    evidence.verify(CHAIN, others, HEIGHT + 1, made, lambda name, height: keys[name])
    pending = PendingEvidence()
    pending.add(made)
    assert pending.fitting(CHAIN, others, HEIGHT + 1, lambda name, height: keys[name]) == [made]


def _tampered() -> pb.Evidence:
    made = evidence.accuse(a_vote("a"), a_vote("b"))
    made.duplicate_vote.first.time_ms += 1
    return made


def _swapped() -> pb.Evidence:
    made = evidence.accuse(signed_proposal("v1", HEIGHT, 2, "a"), signed_proposal("v1", HEIGHT, 2, "b"))
    pair = made.duplicate_proposal
    return pb.Evidence(
        duplicate_proposal=pb.DuplicateProposal(
            height=pair.height, round=pair.round, institution=pair.institution, first=pair.second, second=pair.first
        )
    )


BAD: dict[str, Callable[[], pb.Evidence]] = {
    "nothing": pb.Evidence,
    "one vote twice": lambda: duplicate_vote(a_vote(), a_vote()),
    "descending": lambda: duplicate_vote(*reversed(ordered(a_vote("a"), a_vote("b")))),
    "different types": lambda: duplicate_vote(*ordered(a_vote("a"), a_vote("b", type=VoteType.PREVOTE))),
    "different rounds": lambda: duplicate_vote(*ordered(a_vote("a"), a_vote("b", round=3))),
    "different heights": lambda: duplicate_vote(*ordered(a_vote("a"), a_vote("b", height=6))),
    "different validators": lambda: duplicate_vote(*ordered(a_vote("a"), a_vote("b", name="v2"))),
    "a stranger": lambda: evidence.accuse(a_vote("a", name="v9"), a_vote("b", name="v9")),
    "a signature that is not its own": _tampered,
    "proposals descending": _swapped,
    "of this very height": lambda: evidence.accuse(a_vote("a", height=8), a_vote("b", height=8)),
    "no vote type": lambda: pb.Evidence(duplicate_vote=pb.DuplicateVote(first=pb.Vote(institution="v1", height=7))),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_evidence_is_refused(name: str) -> None:
    with pytest.raises(InvalidEvidence) as refusal:
        evidence.verify(CHAIN, FOUR, HEIGHT + 1, BAD[name]())
    assert refusal.value.rule == "invalid-evidence"


def test_evidence_ages() -> None:
    made = evidence.accuse(a_vote("a"), a_vote("b"))
    evidence.verify(CHAIN, FOUR, HEIGHT + MAX_EVIDENCE_AGE_BLOCKS, made)
    with pytest.raises(InvalidEvidence):
        evidence.verify(CHAIN, FOUR, HEIGHT + MAX_EVIDENCE_AGE_BLOCKS + 1, made)


def test_pending_evidence_is_bounded_ordered_and_leaves_with_its_block() -> None:
    pending = PendingEvidence()
    made = [
        evidence.accuse(a_vote("a", height=h), a_vote("b", height=h)) for h in range(MAX_PENDING_EVIDENCE + 5, 0, -1)
    ]
    added = [pending.add(item) for item in made]
    assert sum(added) == MAX_PENDING_EVIDENCE
    assert not pending.add(made[0])
    fitting = pending.fitting(CHAIN, FOUR, 10_000)
    heights = [evidence.offence(item).height for item in fitting]
    assert heights == list(range(6, 6 + MAX_BLOCK_EVIDENCE))
    pending.remove(fitting)
    assert evidence.offence(pending.fitting(CHAIN, FOUR, 10_000)[0]).height == 6 + MAX_BLOCK_EVIDENCE


def test_pending_evidence_waits_for_its_height_and_is_dropped_when_the_accused_leaves() -> None:
    pending = PendingEvidence()
    pending.add(evidence.accuse(a_vote("a", name="v3"), a_vote("b", name="v3")))
    assert pending.fitting(CHAIN, FOUR, HEIGHT) == []
    assert len(pending.fitting(CHAIN, FOUR, HEIGHT + 1)) == 1
    assert pending.fitting(CHAIN, validators_of(1, 1, 1), HEIGHT + 1) == []
    assert pending.fitting(CHAIN, FOUR, HEIGHT + 1) == []
