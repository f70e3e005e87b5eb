"""Who voted for what at one height, bounded whatever arrives.

Memory is bounded per sender, so that nobody can crowd out another's votes:

- of rounds after the current one, the MAX_ROUNDS_AHEAD highest that the sender voted in are kept; a lower one is given
  up for a higher at most MAX_ROUNDS_PASSED times while we stay in our round;
- of rounds up to the current one, the first vote of each type is kept. A second, conflicting one is evidence. It
  still counts in the tally of *its* block if that is nil or a known proposal, since the paper counts all messages
  received and a validator that saw only the other half of an equivocation must be able to catch up;
  honest validators vote once, so quorums still intersect.

What is not kept and is no evidence is not ``wanted``: of that a faulty validator can sign any number, so it must not
get into the log either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field

from koinon.limits import MAX_ROUNDS_AHEAD, MAX_ROUNDS_PASSED
from koinon.validators import ValidatorSet
from node.consensus.messages import NIL, Vote, VoteType

_Box = tuple[int, VoteType]


@dataclass(slots=True)
class _Tally:
    """The votes of one type and round."""

    first: dict[str, Vote] = field(default_factory=dict)  # by sender
    by_hash: dict[bytes, dict[str, Vote]] = field(default_factory=dict)
    accused: set[str] = field(default_factory=set)


class VoteKeeper:
    """All votes of one height. Every vote added is signed by one of the validators."""

    def __init__(self, validators: ValidatorSet) -> None:
        self._validators = validators
        self._tallies: dict[_Box, _Tally] = {}
        self._ahead: dict[str, set[int]] = {}  # by sender: the later rounds it was seen in
        self._passed: Counter[str] = Counter()  # by sender: later rounds given up for still later ones, in this round

    def wants(self, vote: Vote, current_round: int, proposed: Container[bytes]) -> bool:
        """Would ``add`` keep this vote, or make evidence of it? If not, its signature need not be checked."""
        if vote.round > current_round and not self._has_room(vote, current_round):
            return False
        tally = self._tallies.get((vote.round, vote.type))
        if tally is None or vote.institution not in tally.first:
            return True
        if vote.institution in tally.by_hash.get(vote.block_hash, ()):
            return False  # this one, or another for the same block
        return vote.institution not in tally.accused or vote.block_hash == NIL or vote.block_hash in proposed

    def add(self, vote: Vote, current_round: int, proposed: Container[bytes]) -> Vote | None:
        """Keep the vote if it is wanted; ``proposed`` are the hashes of the known proposals.

        Returns the sender's earlier vote when this one is the first to conflict with it.
        """
        if not self.wants(vote, current_round, proposed):
            return None
        if vote.round > current_round:
            self._make_room(vote, current_round)
        tally = self._tallies.setdefault((vote.round, vote.type), _Tally())
        first = tally.first.setdefault(vote.institution, vote)
        conflicts = first.block_hash != vote.block_hash
        if not conflicts or vote.block_hash == NIL or vote.block_hash in proposed:
            tally.by_hash.setdefault(vote.block_hash, {}).setdefault(vote.institution, vote)
        if conflicts and vote.institution not in tally.accused:
            tally.accused.add(vote.institution)
            return first
        return None

    def _later(self, institution: str, current_round: int) -> set[int]:
        return {round_ for round_ in self._ahead.get(institution, ()) if round_ > current_round}

    def _has_room(self, vote: Vote, current_round: int) -> bool:
        """May a vote of a later round be kept?"""
        ahead = self._later(vote.institution, current_round)
        if vote.round in ahead or len(ahead) < MAX_ROUNDS_AHEAD:
            return True
        return vote.round > min(ahead) and self._passed[vote.institution] < MAX_ROUNDS_PASSED

    def _make_room(self, vote: Vote, current_round: int) -> None:
        """Give up the sender's lowest later round for a higher one, if it takes that."""
        ahead = self._later(vote.institution, current_round) | {vote.round}
        self._ahead[vote.institution] = ahead
        if len(ahead) > MAX_ROUNDS_AHEAD:
            lowest = min(ahead)
            ahead.discard(lowest)
            self._passed[vote.institution] += 1
            for vote_type in VoteType:
                self._forget(lowest, vote_type, vote.institution)

    def _forget(self, round_: int, vote_type: VoteType, institution: str) -> None:
        tally = self._tallies.get((round_, vote_type))
        if tally is None:
            return
        tally.first.pop(institution, None)
        for block_hash in list(tally.by_hash):
            tally.by_hash[block_hash].pop(institution, None)
            if not tally.by_hash[block_hash]:
                del tally.by_hash[block_hash]
        if not tally.first:
            del self._tallies[round_, vote_type]

    def forget_before(self, round_: int, keep: int) -> None:
        """A round begins: forget the votes of the rounds before ``round_``, but not of ``keep``."""
        self._passed.clear()
        for box in [box for box in self._tallies if box[0] < round_ and box[0] != keep]:
            del self._tallies[box]

    def senders(self, vote_type: VoteType, round_: int) -> list[str]:
        """Whose votes of this type and round are kept, ascending."""
        tally = self._tallies.get((round_, vote_type))
        return sorted(tally.first) if tally else []

    def votes(self, vote_type: VoteType, round_: int, block_hash: bytes | None = None) -> list[Vote]:
        """The votes of this type and round, for this block if one is named, ascending by sender."""
        tally = self._tallies.get((round_, vote_type))
        if tally is None:
            return []
        chosen = tally.first if block_hash is None else tally.by_hash.get(block_hash, {})
        return [chosen[name] for name in sorted(chosen)]

    def has_quorum_of_any(self, vote_type: VoteType, round_: int) -> bool:
        """The paper's 2f + 1 ⟨type, h, round, *⟩."""
        tally = self._tallies.get((round_, vote_type))
        return tally is not None and self._validators.power(tally.first) >= self._validators.quorum

    def has_quorum_for(self, vote_type: VoteType, round_: int, block_hash: bytes) -> bool:
        """The paper's 2f + 1 ⟨type, h, round, id(v)⟩."""
        tally = self._tallies.get((round_, vote_type))
        if tally is None:
            return False
        return self._validators.power(tally.by_hash.get(block_hash, ())) >= self._validators.quorum

    def may_reach_quorum(self, vote_type: VoteType, round_: int) -> bool:
        """Would some block have a quorum, if all who are silent voted for it too? Not so with a quorum for nil."""
        tally = self._tallies.get((round_, vote_type))
        if tally is None:
            return True
        silent = self._validators.total_power - self._validators.power(tally.first)
        for_blocks = [voters for block_hash, voters in tally.by_hash.items() if block_hash != NIL]
        most = max((self._validators.power(voters) for voters in for_blocks), default=0)
        return silent + most >= self._validators.quorum

    def round_to_join(self, current_round: int) -> int | None:
        """The highest later round that validators with one third of the power have reached: one of them is correct.

        A validator seen in a later round has passed those before, so rounds need not match exactly.
        """
        latest = {name: max(rounds) for name, rounds in self._ahead.items()}
        for round_ in sorted({r for r in latest.values() if r > current_round}, reverse=True):
            if self._validators.power(n for n, r in latest.items() if r >= round_) >= self._validators.one_third:
                return round_
        return None
