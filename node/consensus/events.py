"""The two closed sets the core speaks in, and the timeouts.

The engine feeds an ``Event`` to ``Core.handle`` and performs the returned ``Effect`` values in order. What the core
asks to be signed (``Propose``, ``CastVote``) comes back to it as an event like everybody else's
messages: the paper's broadcast includes the sender.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from koinon.v1 import consensus_pb2 as pb
from koinon.validators import ValidatorSet
from node.consensus.messages import Proposal, Value, Vote, VoteType


class Step(IntEnum):
    """Where a validator stands in a round."""

    PROPOSE = 1
    PREVOTE = 2
    PRECOMMIT = 3


@dataclass(frozen=True, slots=True)
class Timer:
    """The step of a round that a timeout belongs to. One that fires late is recognised by this and ignored."""

    step: Step
    height: int
    round: int


# --- events


@dataclass(frozen=True, slots=True)
class HeightStarted:
    """Decide the next height among these validators. Ends the height before, decided or not."""

    height: int
    validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A proposal signed by its round's proposer; ``valid`` is the paper's valid(v), the application's judgement."""

    proposal: Proposal
    valid: bool

    @property
    def height(self) -> int:
        return self.proposal.height


@dataclass(frozen=True, slots=True)
class VoteReceived:
    """A vote signed by a validator of its height."""

    vote: Vote

    @property
    def height(self) -> int:
        return self.vote.height


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A timer that the core started has run out."""

    timer: Timer

    @property
    def height(self) -> int:
        return self.timer.height


Event = HeightStarted | ProposalReceived | VoteReceived | TimedOut

# --- effects


@dataclass(frozen=True, slots=True)
class Propose:
    """Sign and send a proposal: of ``value``, which had a polka in ``valid_round``, or of a new block if None."""

    height: int
    round: int
    valid_round: int
    value: Value | None


@dataclass(frozen=True, slots=True)
class CastVote:
    """Sign and send a vote."""

    type: VoteType
    height: int
    round: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class StartTimer:
    timer: Timer
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Decide:
    """``value`` is final; ``precommits`` (one per validator, ascending) are its commit certificate."""

    height: int
    round: int
    value: Value
    precommits: tuple[Vote, ...]

    def to_commit(self) -> pb.Commit:
        """The certificate as it is stored and sent."""
        return pb.Commit(
            height=self.height,
            round=self.round,
            block_hash=self.value.block_hash,
            signatures=[
                pb.CommitSignature(institution=vote.institution, time_ms=vote.time_ms, signature=vote.signature)
                for vote in self.precommits
            ],
        )


@dataclass(frozen=True, slots=True)
class Accuse:
    """One validator signed two messages that exclude each other. Reported once per validator, round and kind."""

    first: Vote | Proposal
    second: Vote | Proposal


Effect = Propose | CastVote | StartTimer | Decide | Accuse


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for what, in milliseconds. Growth lets slow networks in; the cap lets stalled ones resume.

    They grow with the square of the round: two dead proposers in a row cost no more each than one, and a network that
    needs the cap has it within a few rounds. Every height begins at the least again.
    """

    propose_ms: int = 1_500  # a dead proposer costs this once: clients shall miss a commit for at most two seconds
    propose_late_ms: int = 300  # for a proposer that missed its last turn, or to whom we have no connection
    vote_ms: int = 500  # for the other votes, once a quorum has voted for different things
    growth_ms: int = 500  # added to the second round after the first; to later ones, as much more each time
    cap_ms: int = 5_000  # as long as the largest block takes to three members at 10 Mbit/s

    def propose(self, round_: int, late: bool) -> int:
        return self._grown(self.propose_late_ms if late else self.propose_ms, round_)

    def vote(self, round_: int) -> int:
        return self._grown(self.vote_ms, round_)

    def _grown(self, delay_ms: int, round_: int) -> int:
        return min(delay_ms + self.growth_ms * round_ * (round_ - 1) // 2, self.cap_ms)
