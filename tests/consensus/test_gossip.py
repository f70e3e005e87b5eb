"""What is sent again: exactly what a peer lacks by its own account. And whom a node that is behind asks."""

from __future__ import annotations

from koinon.v1 import peer_pb2
from node import gossip
from node.catch_up import CatchUp
from node.consensus.events import Step
from node.consensus.messages import NIL, VoteType
from tests.consensus.rig import HEIGHT, A, Rig, proposal, validators_of


def senders(message: peer_pb2.DeliverRequest) -> list[tuple[int, int, str]]:
    return [(int(vote.type), vote.round, vote.institution) for vote in message.votes.votes]


def test_the_status_says_what_we_hold() -> None:
    rig = Rig()
    rig.propose(0, A)
    rig.prevotes(0, A.block_hash, "v0")
    status = gossip.round_status(HEIGHT, rig.core).round_status
    assert (status.height, status.round, status.step, status.has_proposal) == (HEIGHT, 0, Step.PREVOTE, True)
    assert (list(status.prevotes), list(status.precommits)) == (["v0", "v3"], [])


def test_before_the_height_has_started_the_status_says_only_which() -> None:
    status = gossip.round_status(HEIGHT + 1, Rig().core).round_status
    assert status == peer_pb2.RoundStatus(height=HEIGHT + 1)


def test_a_peer_gets_what_it_lacks_and_nothing_else() -> None:
    rig = Rig()
    rig.propose(0, A)
    rig.prevotes(0, A.block_hash, "v0", "v1")
    status = peer_pb2.RoundStatus(height=HEIGHT, has_proposal=True, prevotes=["v1", "v2"])
    (votes,) = gossip.missing(rig.core, status)
    assert senders(votes) == [(1, 0, "v0"), (1, 0, "v3"), (2, 0, "v3")]
    everything = peer_pb2.RoundStatus(
        height=HEIGHT, has_proposal=True, prevotes=["v0", "v1", "v2", "v3"], precommits=["v3"]
    )
    assert gossip.missing(rig.core, everything) == []


def test_a_peer_in_an_earlier_round_also_gets_the_votes_that_bring_it_here() -> None:
    rig = Rig()
    rig.precommits(0, NIL, "v0", "v1", "v2")
    rig.time_out(Step.PROPOSE, 1)
    messages = gossip.missing(rig.core, peer_pb2.RoundStatus(height=HEIGHT, precommits=["v0", "v1", "v2"]))
    assert [senders(message) for message in messages] == [[(1, 1, "v3")]]


def test_a_proposal_that_refers_to_a_polka_travels_with_it() -> None:
    rig = Rig()
    rig.prevotes(0, A.block_hash, "v0", "v1", "v2")
    again, polka = gossip.proposal_messages(rig.core, proposal(1, A, valid_round=0))
    assert again.proposal.valid_round == 0
    assert senders(polka) == [(VoteType.PREVOTE, 0, name) for name in ("v0", "v1", "v2")]
    assert len(gossip.proposal_messages(rig.core, proposal(1, A))) == 1


# --- catching up

FOUR = validators_of(1, 1, 1, 1)


def test_one_liar_does_not_make_us_believe_that_we_are_behind() -> None:
    catch_up = CatchUp()
    catch_up.heard("v1", 2**63)
    catch_up.heard("stranger", 2**63)
    assert not catch_up.is_behind(7, FOUR)
    assert catch_up.credible_claim(FOUR) == 0
    catch_up.heard("v2", 8)
    assert catch_up.is_behind(7, FOUR)
    assert not catch_up.is_behind(8, FOUR)
    assert catch_up.credible_claim(FOUR) == 8
