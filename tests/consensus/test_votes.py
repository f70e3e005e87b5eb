"""The vote keeper against a dumb twin that keeps everything and counts by definition."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.limits import MAX_ROUNDS_AHEAD, MAX_ROUNDS_PASSED
from node.consensus.messages import NIL, Vote, VoteType
from node.consensus.votes import VoteKeeper
from tests.consensus.rig import A, B, validators_of, vote

SENDERS = ["v0", "v1", "v2", "v3"]
votes = st.builds(
    vote,
    st.sampled_from(SENDERS),
    st.sampled_from(VoteType),
    st.integers(0, 4),
    st.sampled_from([NIL, A.block_hash, B.block_hash]),
)


class Dumb:
    """Every vote ever sent; powers as fractions of the whole."""

    def __init__(self, powers: list[int]) -> None:
        self.share = {name: Fraction(power, sum(powers)) for name, power in zip(SENDERS, powers, strict=False)}
        self.all: list[Vote] = []

    def quorum_for(self, vote_type: VoteType, round_: int, block_hash: bytes | None) -> bool:
        senders = {
            v.institution
            for v in self.all
            if (v.type, v.round) == (vote_type, round_) and block_hash in (None, v.block_hash)
        }
        return sum(self.share[name] for name in senders) > Fraction(2, 3)

    def has_equivocated(self, new: Vote) -> bool:
        return any(
            (v.institution, v.type, v.round) == (new.institution, new.type, new.round)
            and v.block_hash != new.block_hash
            for v in self.all
        )


@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.lists(votes, max_size=60))
@settings(max_examples=200)
def test_counts_as_the_definition_does(powers: list[int], sequence: list[Vote]) -> None:
    keeper, dumb = VoteKeeper(validators_of(*powers)), Dumb(powers)
    accused: set[tuple[str, VoteType, int]] = set()
    for new in sequence:
        first = keeper.add(new, 4, {A.block_hash, B.block_hash})
        box = (new.institution, new.type, new.round)
        assert (first is not None) == (dumb.has_equivocated(new) and box not in accused)
        if first is not None:
            accused.add(box)
            assert (first.institution, first.type, first.round) == box
            assert first.block_hash != new.block_hash
        dumb.all.append(new)
        assert not keeper.wants(new, 4, {A.block_hash, B.block_hash})
    for vote_type in VoteType:
        for round_ in range(5):
            assert keeper.has_quorum_of_any(vote_type, round_) == dumb.quorum_for(vote_type, round_, None)
            for block_hash in (NIL, A.block_hash, B.block_hash):
                expected = dumb.quorum_for(vote_type, round_, block_hash)
                assert keeper.has_quorum_for(vote_type, round_, block_hash) == expected
                held = keeper.votes(vote_type, round_, block_hash)
                assert [v.institution for v in held] == sorted({v.institution for v in held})


def test_a_conflicting_vote_for_an_unknown_block_takes_no_memory() -> None:
    keeper = VoteKeeper(validators_of(1, 1, 1, 1))
    keeper.add(vote("v0", VoteType.PREVOTE, 0, A.block_hash), 0, ())
    for i in range(100):
        keeper.add(vote("v0", VoteType.PREVOTE, 0, i.to_bytes(32, "big")), 0, ())
    assert len(keeper.votes(VoteType.PREVOTE, 0)) == 1
    assert not any(keeper.votes(VoteType.PREVOTE, 0, i.to_bytes(32, "big")) for i in range(100))


def test_a_sender_that_runs_ahead_without_end_is_followed_for_so_long_in_each_round() -> None:
    keeper = VoteKeeper(validators_of(1, 1, 1, 1))
    for current in (0, 1):
        ahead = range(current + 1, 10 * MAX_ROUNDS_PASSED)
        wanted = 0
        for round_ in ahead:
            new = vote("v0", VoteType.PREVOTE, 1_000 * current + round_, NIL)
            wanted += keeper.wants(new, current, ())
            keeper.add(new, current, ())
        assert wanted == MAX_ROUNDS_PASSED + (MAX_ROUNDS_AHEAD if current == 0 else 0)
        keeper.forget_before(0, keep=0)


@given(st.lists(votes, max_size=60), st.integers(0, 3))
def test_of_later_rounds_at_most_two_are_kept_per_sender(sequence: list[Vote], current: int) -> None:
    keeper = VoteKeeper(validators_of(1, 1, 1, 1))
    for new in sequence:
        keeper.add(new, current, ())
    for name in SENDERS:
        later = {r for r in range(current + 1, 5) for t in VoteType if name in keeper.senders(t, r)}
        seen = {v.round for v in sequence if v.institution == name and v.round > current}
        assert later == set(sorted(seen)[-MAX_ROUNDS_AHEAD:])


@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.lists(votes, max_size=30), st.integers(0, 3))
def test_the_round_to_join_is_the_highest_that_one_third_has_reached(
    powers: list[int], sequence: list[Vote], current: int
) -> None:
    keeper = VoteKeeper(validators_of(*powers))
    for new in sequence:
        keeper.add(new, current, ())
    reached = {
        round_: sum(
            Fraction(power, sum(powers))
            for name, power in zip(SENDERS, powers, strict=True)
            if any(v.institution == name and v.round >= round_ for v in sequence)
        )
        for round_ in {v.round for v in sequence if v.round > current}
    }
    assert keeper.round_to_join(current) == max((r for r, p in reached.items() if p >= Fraction(1, 3)), default=None)
