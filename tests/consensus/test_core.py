"""Every rule of the algorithm, by its line number, with the case just short of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.limits import MAX_ROUNDS_AHEAD, MAX_ROUNDS_BEHIND
from node.consensus.events import (
    Accuse,
    CastVote,
    Decide,
    Event,
    HeightStarted,
    ProposalReceived,
    Propose,
    StartTimer,
    Step,
    TimedOut,
    Timeouts,
    Timer,
    VoteReceived,
)
from node.consensus.messages import NIL, NO_ROUND, VoteType
from tests.consensus.rig import (
    HEIGHT,
    TIMEOUTS,
    A,
    B,
    Rig,
    precommit,
    prevote,
    proposal,
    validators_of,
    value,
    vote,
)


def timer(step: Step, round_: int, delay_ms: int) -> StartTimer:
    return StartTimer(Timer(step, HEIGHT, round_), delay_ms)


# --- line 11: rounds


def test_11_the_proposer_of_the_round_asks_for_a_new_block() -> None:
    assert Rig("v0").effects == [Propose(HEIGHT, 0, NO_ROUND, None), timer(Step.PROPOSE, 0, 1_000)]


def test_11_everyone_else_waits_for_it() -> None:
    assert Rig("v1").effects == [timer(Step.PROPOSE, 0, 1_000)]


def test_11_a_valid_value_is_proposed_again_with_its_round() -> None:
    rig = Rig("v1")
    rig.propose(0, A)
    rig.time_out(Step.PREVOTE, 0)  # too late to lock …
    rig.prevotes(0, A.block_hash, "v0", "v2", "v3")  # … but in time to know the valid value
    assert Propose(HEIGHT, 1, 0, A) in rig.precommits(0, NIL, "v0", "v2")


# --- line 22: a new proposal


def test_22_a_valid_proposal_is_prevoted() -> None:
    assert prevote(0, A.block_hash) in Rig().propose(0, A)


def test_22_an_invalid_proposal_is_not() -> None:
    assert prevote(0, NIL) in Rig().propose(0, A, valid=False)


def test_22_a_locked_validator_prevotes_nothing_else() -> None:
    rig = Rig()
    rig.lock(0, A)
    assert prevote(1, NIL) in rig.propose(1, B)


def test_22_a_locked_validator_prevotes_its_lock() -> None:
    rig = Rig()
    rig.lock(0, A)
    assert prevote(1, A.block_hash) in rig.propose(1, A)


def test_22_only_the_rounds_proposer_proposes() -> None:
    rig = Rig()
    assert rig.feed(ProposalReceived(proposal(0, A, sender="v2"), True)) == []


def test_22_only_the_first_proposal_of_a_round_is_prevoted() -> None:
    rig = Rig()
    rig.propose(0, A)
    assert not any(isinstance(effect, CastVote) for effect in rig.propose(0, B))


# --- line 28: a proposal that had a polka


def unlocked_in_round_2() -> Rig:
    rig = Rig()
    for round_ in (0, 1):
        rig.precommits(round_, NIL, "v0", "v1", "v2")
        rig.time_out(Step.PRECOMMIT, round_)
    assert rig.core.round == 2
    return rig


def test_28_waits_for_the_polka() -> None:
    rig = unlocked_in_round_2()
    assert rig.propose(2, A, valid_round=1) == []
    assert rig.prevotes(1, A.block_hash, "v0", "v1") == []
    assert prevote(2, A.block_hash) in rig.prevotes(1, A.block_hash, "v2")


def test_28_the_polka_must_be_of_the_named_round_and_value() -> None:
    rig = unlocked_in_round_2()
    rig.prevotes(0, A.block_hash, "v0", "v1", "v2")
    rig.prevotes(1, B.block_hash, "v0", "v1", "v2")
    assert rig.propose(2, A, valid_round=1) == []


def test_28_an_older_lock_gives_way() -> None:
    rig = Rig()
    rig.lock(0, A)
    rig.precommits(1, NIL, "v0", "v1", "v2")
    rig.time_out(Step.PRECOMMIT, 1)
    rig.prevotes(1, B.block_hash, "v0", "v1", "v2")
    assert prevote(2, B.block_hash) in rig.propose(2, B, valid_round=1)


def test_28_a_newer_lock_does_not() -> None:
    rig = Rig()
    rig.prevotes(0, B.block_hash, "v0", "v1", "v2")
    rig.precommits(0, NIL, "v0", "v1", "v2")
    rig.time_out(Step.PRECOMMIT, 0)
    rig.lock(1, A)
    assert prevote(2, NIL) in rig.propose(2, B, valid_round=0)


def test_28_the_lock_itself_is_prevoted_whatever_its_round() -> None:
    rig = Rig()
    rig.prevotes(0, A.block_hash, "v0", "v1", "v2")
    rig.precommits(0, NIL, "v0", "v1", "v2")
    rig.time_out(Step.PRECOMMIT, 0)
    rig.lock(1, A)
    assert prevote(2, A.block_hash) in rig.propose(2, A, valid_round=0)


def test_28_an_invalid_value_is_not_prevoted() -> None:
    rig = unlocked_in_round_2()
    rig.prevotes(1, A.block_hash, "v0", "v1", "v2")
    assert prevote(2, NIL) in rig.propose(2, A, valid_round=1, valid=False)


@pytest.mark.parametrize("valid_round", [-2, 2, 3])
def test_28_the_valid_round_is_an_earlier_one(valid_round: int) -> None:
    rig = unlocked_in_round_2()
    rig.prevotes(3, A.block_hash, "v0")
    assert rig.propose(2, A, valid_round=valid_round) == []


# --- lines 34, 44, 47: quorums of anything


def test_34_the_prevote_timer_starts_once_and_with_a_quorum() -> None:
    rig = Rig()
    rig.propose(0, A)  # we prevote A
    assert rig.prevotes(0, NIL, "v0") == []
    assert rig.prevotes(0, A.block_hash, "v1") == [timer(Step.PREVOTE, 0, 300)]
    assert timer(Step.PREVOTE, 0, 300) not in rig.prevotes(0, A.block_hash, "v2")


def test_34_not_before_we_have_prevoted() -> None:
    rig = Rig()
    assert rig.prevotes(0, NIL, "v0") == []
    assert rig.prevotes(0, A.block_hash, "v1", "v2") == []


def test_44_prevotes_that_leave_no_block_a_polka_end_the_wait_for_more() -> None:
    rig = Rig()
    rig.propose(0, A)  # we prevote A
    assert rig.prevotes(0, NIL, "v0") == []
    assert rig.prevotes(0, NIL, "v1") == [precommit(0, NIL)]  # two of four at most


def test_44_not_while_the_silent_could_make_one() -> None:
    rig = Rig()
    rig.propose(0, A)
    rig.prevotes(0, NIL, "v0")
    rig.prevotes(0, A.block_hash, "v1")
    assert rig.core.step is Step.PREVOTE  # v2 decides
    assert precommit(0, A.block_hash) in rig.prevotes(0, A.block_hash, "v2")


def test_44_not_before_we_have_prevoted() -> None:
    rig = Rig()
    assert rig.prevotes(0, NIL, "v0", "v1") == []
    assert rig.core.step is Step.PROPOSE


def test_47_the_precommit_timer_starts_once_and_with_a_quorum() -> None:
    rig = Rig()
    assert rig.precommits(0, NIL, "v0", "v1") == []
    assert rig.precommits(0, B.block_hash, "v2") == [timer(Step.PRECOMMIT, 0, 300)]
    assert rig.core.step is Step.PROPOSE  # it runs in any step
    rig.propose(0, A)
    assert timer(Step.PRECOMMIT, 0, 300) not in rig.prevotes(0, A.block_hash, "v0", "v1")


def test_47_a_quorum_for_nil_needs_no_timer() -> None:
    rig = Rig()
    rig.precommits(0, NIL, "v0", "v1")
    assert rig.precommits(0, NIL, "v2") == [timer(Step.PROPOSE, 1, 1_000)]


# --- line 36: the lock


def test_36_a_polka_locks_and_is_precommitted() -> None:
    rig = Rig()
    rig.propose(0, A)
    assert rig.prevotes(0, A.block_hash, "v0") == []
    assert precommit(0, A.block_hash) in rig.prevotes(0, A.block_hash, "v1")


def test_36_the_polka_may_come_before_the_proposal() -> None:
    rig = Rig()
    rig.prevotes(0, A.block_hash, "v0", "v1", "v2")
    assert rig.propose(0, A)[:2] == [prevote(0, A.block_hash), precommit(0, A.block_hash)]


def test_36_a_late_polka_gives_a_valid_value_but_no_lock() -> None:
    rig = Rig()
    rig.propose(0, A)
    rig.time_out(Step.PREVOTE, 0)
    assert rig.prevotes(0, A.block_hash, "v0", "v1", "v2") == []
    rig.precommits(0, NIL, "v0", "v1")
    rig.time_out(Step.PRECOMMIT, 0)
    assert prevote(1, B.block_hash) in rig.propose(1, B)


def test_36_a_polka_for_an_invalid_value_is_nothing() -> None:
    rig = Rig()
    rig.propose(0, A, valid=False)
    effects = rig.prevotes(0, A.block_hash, "v0", "v1", "v2")
    assert not any(isinstance(effect, CastVote) for effect in effects)


# --- line 49: the decision


def test_49_a_quorum_of_precommits_decides() -> None:
    rig = Rig()
    rig.propose(0, A)
    assert not any(isinstance(e, Decide) for e in rig.precommits(0, A.block_hash, "v0", "v1"))
    (decision,) = [e for e in rig.precommits(0, A.block_hash, "v2") if isinstance(e, Decide)]
    assert (decision.height, decision.round, decision.value) == (HEIGHT, 0, A)
    assert [v.institution for v in decision.precommits] == ["v0", "v1", "v2"]


def test_49_of_any_round_and_in_any_order() -> None:
    rig = Rig()
    rig.precommits(1, A.block_hash, "v0", "v1", "v2")
    assert rig.core.round == 1
    (decision,) = [e for e in rig.propose(1, A) if isinstance(e, Decide)]
    assert decision.round == 1


def test_49_precommits_of_different_rounds_do_not_add_up() -> None:
    rig = Rig()
    rig.propose(0, A)
    rig.propose(1, A)
    rig.precommits(0, A.block_hash, "v0", "v1")
    assert not any(isinstance(e, Decide) for e in rig.precommits(1, A.block_hash, "v2", "v1"))


def test_49_never_for_an_invalid_value() -> None:
    rig = Rig()
    rig.propose(0, A, valid=False)
    assert not any(isinstance(e, Decide) for e in rig.precommits(0, A.block_hash, "v0", "v1", "v2"))


def test_49_once_and_then_silence_until_the_next_height() -> None:
    rig = Rig()
    rig.propose(0, A)
    rig.precommits(0, A.block_hash, "v0", "v1", "v2")
    assert rig.precommits(0, A.block_hash, "v3") == []
    assert rig.time_out(Step.PRECOMMIT, 0) == []
    assert rig.propose(1, B) == []
    assert rig.feed(HeightStarted(HEIGHT + 1, validators_of(1, 1, 1, 1)))
    assert rig.core.round == 0


def test_49_power_counts_not_heads() -> None:
    rig = Rig("v0", validators_of(1, 1, 1, 7))
    height_4_proposer = rig.core.validators.proposer(HEIGHT, 0)
    rig.feed(ProposalReceived(proposal(0, A, sender=height_4_proposer), True))
    assert not any(isinstance(e, Decide) for e in rig.precommits(0, A.block_hash, "v1", "v2"))
    assert any(isinstance(e, Decide) for e in rig.precommits(0, A.block_hash, "v3"))


def test_a_single_validator_decides_alone() -> None:
    rig = Rig("v0", validators_of(1))
    effects = rig.feed(ProposalReceived(proposal(0, A, sender="v0"), True))
    assert any(isinstance(effect, Decide) for effect in effects)


# --- line 55: joining a later round


def test_55_one_third_in_a_later_round_is_joined() -> None:
    rig = Rig()
    assert rig.prevotes(2, NIL, "v0") == []
    assert timer(Step.PROPOSE, 2, 1_050) in rig.prevotes(2, NIL, "v1")
    assert rig.core.round == 2


def test_55_rounds_need_not_match() -> None:
    rig = Rig()
    rig.prevotes(5, NIL, "v0")
    rig.prevotes(3, NIL, "v1")
    assert rig.core.round == 3


def test_55_one_liar_moves_nobody() -> None:
    rig = Rig()
    for round_ in range(1, 50):
        rig.prevotes(round_, NIL, "v0")
    assert rig.core.round == 0


def test_55_of_one_sender_the_two_highest_later_rounds_are_kept() -> None:
    rig = Rig()
    for round_ in (1, 2, 9, 10):
        rig.prevotes(round_, NIL, "v0")
    assert [r for r in range(12) if rig.core.votes.senders(VoteType.PREVOTE, r)] == [9, 10]
    rig.prevotes(10, NIL, "v1")
    assert rig.core.round == 10


# --- lines 57, 61, 65: timeouts


def test_57_no_proposal_in_time_is_prevoted_as_nil() -> None:
    rig = Rig()
    assert prevote(0, NIL) in rig.time_out(Step.PROPOSE, 0)
    assert rig.time_out(Step.PROPOSE, 0) == []


def test_61_no_polka_in_time_is_precommitted_as_nil() -> None:
    rig = Rig()
    assert rig.time_out(Step.PREVOTE, 0) == []  # still in step propose
    rig.propose(0, A)
    assert precommit(0, NIL) in rig.time_out(Step.PREVOTE, 0)


def test_65_no_decision_in_time_begins_the_next_round() -> None:
    rig = Rig()
    assert rig.time_out(Step.PRECOMMIT, 0) == [timer(Step.PROPOSE, 1, 1_000)]


@pytest.mark.parametrize("step", list(Step))
def test_timers_of_other_rounds_and_heights_mean_nothing(step: Step) -> None:
    rig = Rig()
    rig.time_out(Step.PRECOMMIT, 0)
    assert rig.time_out(step, 0) == []
    assert rig.feed(TimedOut(Timer(step, HEIGHT + 1, 1))) == []
    assert rig.core.round == 1


def test_a_dead_proposer_costs_at_most_two_seconds_even_if_votes_split() -> None:
    assert Timeouts().propose(0, late=False) + Timeouts().vote(0) <= 2_000


def test_timeouts_grow_and_are_capped() -> None:
    delays = [TIMEOUTS.propose(round_, late=False) for round_ in range(100)]
    assert delays == sorted(delays)
    assert delays[:4] == [1_000, 1_000, 1_050, 1_150]
    assert delays[-1] == TIMEOUTS.cap_ms
    assert [Timeouts().propose(round_, late=False) for round_ in range(6)][-1] == Timeouts().cap_ms
    assert TIMEOUTS.vote(10**9) == TIMEOUTS.cap_ms
    assert Timeouts().propose(10**9, late=True) == Timeouts().cap_ms


# --- a proposer that is not there


def test_a_proposer_that_missed_its_turn_is_waited_for_briefly_until_it_proposes_again() -> None:
    rig = Rig()
    rig.time_out(Step.PROPOSE, 0)
    for round_ in range(3):
        rig.time_out(Step.PRECOMMIT, round_)
    assert rig.time_out(Step.PRECOMMIT, 3) == [timer(Step.PROPOSE, 4, 100 + 6 * 50)]
    rig.propose(4, A)
    for round_ in range(4, 7):
        rig.time_out(Step.PRECOMMIT, round_)
    assert rig.time_out(Step.PRECOMMIT, 7) == [timer(Step.PROPOSE, 8, TIMEOUTS.cap_ms)]


def test_a_proposer_out_of_reach_is_waited_for_briefly_in_this_round_and_its_next() -> None:
    rig = Rig()
    assert rig.core.lose("v0") == [timer(Step.PROPOSE, 0, TIMEOUTS.propose_late_ms)]
    rig.time_out(Step.PROPOSE, 0)
    assert rig.core.lose("v0") == []  # its time is over
    assert rig.core.lose("v2") == []  # not its turn
    assert timer(Step.PROPOSE, 2, 100 + 50) in rig.prevotes(2, NIL, "v0", "v1")


def test_who_has_proposed_may_go_out_of_reach() -> None:
    rig = Rig()
    rig.propose(0, A)
    assert rig.core.lose("v0") == []


def test_a_proposal_in_time_is_no_missed_turn() -> None:
    rig = Rig()
    rig.propose(0, A)
    rig.time_out(Step.PROPOSE, 0)
    for round_ in range(3):
        rig.time_out(Step.PRECOMMIT, round_)
    assert rig.time_out(Step.PRECOMMIT, 3) == [timer(Step.PROPOSE, 4, 1_000 + 6 * 50)]


# --- equivocation


@pytest.mark.parametrize("vote_type", list(VoteType))
def test_two_votes_of_one_round_are_accused_once(vote_type: VoteType) -> None:
    rig = Rig()
    first, second = (vote("v0", vote_type, 0, h) for h in (A.block_hash, B.block_hash))
    assert rig.feed(VoteReceived(first)) == []
    assert rig.feed(VoteReceived(second)) == [Accuse(first, second)]
    assert rig.feed(VoteReceived(second)) == []
    assert rig.feed(VoteReceived(vote("v0", vote_type, 0, NIL))) == []


def test_votes_of_different_types_rounds_or_times_are_no_equivocation() -> None:
    rig = Rig()
    assert rig.prevotes(0, A.block_hash, "v0") == []
    assert rig.precommits(0, B.block_hash, "v0") == []
    assert rig.prevotes(1, B.block_hash, "v0") == []
    later = vote("v0", VoteType.PREVOTE, 0, A.block_hash)
    assert rig.feed(VoteReceived(type(later)(later.type, HEIGHT, 0, A.block_hash, 99, "v0", b"other"))) == []


def test_two_proposals_of_one_round_are_accused_once() -> None:
    rig = Rig()
    rig.propose(0, A)
    assert rig.propose(0, B) == [Accuse(proposal(0, A), proposal(0, B))]
    assert rig.propose(0, value("c")) == []


def test_the_other_half_of_an_equivocation_can_still_be_decided() -> None:
    """v0 proposes A to us and B to the others, who decide B: we must be able to follow."""
    rig = Rig()
    rig.propose(0, A)
    rig.precommits(0, B.block_hash, "v0", "v1", "v2")
    assert any(isinstance(effect, Decide) for effect in rig.propose(0, B))


def test_an_equivocators_second_vote_counts_for_its_own_block_only() -> None:
    rig = Rig()
    rig.propose(0, A)
    rig.prevotes(0, B.block_hash, "v0")
    assert not any(isinstance(e, CastVote) for e in rig.prevotes(0, A.block_hash, "v0"))  # with ours two, not three
    assert precommit(0, A.block_hash) in rig.prevotes(0, A.block_hash, "v1")


# --- bounds


def test_proposals_of_far_rounds_are_not_kept() -> None:
    rig = Rig()
    rig.propose(MAX_ROUNDS_AHEAD, A)
    rig.propose(MAX_ROUNDS_AHEAD + 1, A)
    assert rig.core.proposal(MAX_ROUNDS_AHEAD) is not None
    assert rig.core.proposal(MAX_ROUNDS_AHEAD + 1) is None


def test_a_long_stall_does_not_fill_memory_but_keeps_the_valid_round() -> None:
    rig = Rig()
    rig.lock(0, A)
    for round_ in range(1, 200):
        rig.propose(round_, value(f"block {round_}"))
        rig.prevotes(round_, NIL, "v0", "v1")
        rig.precommits(round_, NIL, "v0", "v1")
        rig.time_out(Step.PRECOMMIT, round_)
    kept = [r for r in range(201) if rig.core.votes.senders(VoteType.PREVOTE, r)]
    assert kept == [0, *range(200 - MAX_ROUNDS_BEHIND, 200)]
    assert [r for r in range(201) if rig.core.proposal(r)] == list(range(200 - MAX_ROUNDS_BEHIND, 200))
    assert rig.core.votes.has_quorum_for(VoteType.PREVOTE, 0, A.block_hash)


def stalled(rounds: int) -> Rig:
    """In this round, after so many without a decision in which everyone voted nil."""
    rig = Rig()
    for round_ in range(rounds):
        rig.time_out(Step.PROPOSE, round_)
        rig.prevotes(round_, NIL, "v0", "v1")
        rig.precommits(round_, NIL, "v0", "v1")
    assert rig.core.round == rounds
    return rig


@pytest.mark.parametrize("vote_type", VoteType)
def test_votes_of_forgotten_rounds_are_not_taken_once_more_in_every_round(vote_type: VoteType) -> None:
    rig = stalled(MAX_ROUNDS_BEHIND + 1)
    forgotten, kept = vote("v0", vote_type, 0, A.block_hash), vote("v0", vote_type, 1, A.block_hash)
    assert not rig.core.wants_vote(forgotten)
    assert rig.core.wants_vote(kept)  # evidence: it voted nil there
    rig.feed(VoteReceived(forgotten))
    assert not rig.core.votes.senders(vote_type, 0)


def test_28_the_polka_of_a_forgotten_round_counts_when_its_value_is_proposed_again() -> None:
    rounds = 2 * MAX_ROUNDS_BEHIND
    rig = stalled(rounds)
    rig.propose(rounds, A, valid_round=1)
    polka = [vote(sender, VoteType.PREVOTE, 1, A.block_hash) for sender in ("v0", "v1", "v2")]
    assert all(rig.core.wants_vote(of_polka) for of_polka in polka)
    assert not rig.core.wants_vote(vote("v0", VoteType.PRECOMMIT, 1, A.block_hash))
    assert not rig.core.wants_vote(vote("v0", VoteType.PREVOTE, 2, A.block_hash))
    assert prevote(rounds, A.block_hash) in rig.prevotes(1, A.block_hash, "v0", "v1", "v2")


def test_an_observer_follows_and_never_votes() -> None:
    rig = Rig("v9")
    rig.propose(0, A)
    rig.prevotes(0, A.block_hash, "v0", "v1", "v2")
    rig.time_out(Step.PROPOSE, 0)
    effects = rig.precommits(0, A.block_hash, "v0", "v1", "v2")
    assert any(isinstance(effect, Decide) for effect in effects)
    assert not any(isinstance(effect, CastVote | Propose) for effect in rig.effects)


# --- any sequence of events

values = st.sampled_from([A, B, value("c")])
rounds = st.integers(0, 5)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        ProposalReceived,
        st.builds(proposal, rounds, values, st.integers(-1, 4)),
        st.booleans(),
    ),
    st.builds(
        VoteReceived,
        st.builds(
            vote,
            st.sampled_from(["v0", "v1", "v2"]),
            st.sampled_from(VoteType),
            rounds,
            st.one_of(st.just(NIL), values.map(lambda v: v.block_hash)),
        ),
    ),
    st.builds(TimedOut, st.builds(Timer, st.sampled_from(Step), st.just(HEIGHT), rounds)),
)


@given(st.lists(events, max_size=80))
@settings(max_examples=300)
def test_whatever_comes_we_vote_in_order_and_decide_once(sequence: list[Event]) -> None:
    rig, twin = Rig(), Rig()
    cast: list[tuple[int, int]] = []
    decided = 0
    for event in sequence:
        effects = rig.feed(event)
        assert effects == twin.feed(event)  # deterministic
        cast += [(e.round, int(e.type)) for e in effects if isinstance(e, CastVote)]
        decided += sum(isinstance(e, Decide) for e in effects)
    assert decided <= 1
    assert cast == sorted(set(cast))  # never twice in one round and step, never back
