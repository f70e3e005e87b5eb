"""Builders for consensus tests: validators v0, v1, …, unsigned messages, and a core with a memory of its effects.

At height 4 the proposer of round r is validator r (of four equal ones), so heights start there.
"""

from __future__ import annotations

import hashlib

from koinon.keys import SigningKey
from koinon.v1 import consensus_pb2 as pb
from koinon.validators import ValidatorSet
from node.consensus.core import Core
from node.consensus.events import (
    CastVote,
    Effect,
    HeightStarted,
    ProposalReceived,
    Step,
    TimedOut,
    Timeouts,
    Timer,
    VoteReceived,
)
from node.consensus.messages import NIL, NO_ROUND, Proposal, Value, Vote, VoteType

CHAIN = "test-0123456789abcdef"
HEIGHT = 4
TIMEOUTS = Timeouts(propose_ms=1_000, propose_late_ms=100, vote_ms=300, growth_ms=50, cap_ms=2_000)
NAMES = [f"v{i}" for i in range(10)]
KEYS = {name: SigningKey(hashlib.sha256(name.encode()).digest()) for name in NAMES}


def validators_of(*powers: int) -> ValidatorSet:
    return ValidatorSet.of(
        pb.Validator(institution=name, public_key=KEYS[name].public_key, power=power)
        for name, power in zip(NAMES, powers, strict=False)
    )


def value(text: str) -> Value:
    return Value(hashlib.sha256(text.encode()).digest(), text.encode())


A, B = value("a"), value("b")


def vote(sender: str, vote_type: VoteType, round_: int, block_hash: bytes, height: int = HEIGHT) -> Vote:
    return Vote(vote_type, height, round_, block_hash, 0, sender, sender.encode())


def proposal(round_: int, of: Value, valid_round: int = NO_ROUND, sender: str = "", height: int = HEIGHT) -> Proposal:
    return Proposal(height, round_, valid_round, of, sender or f"v{round_ % 4}", b"")


class Rig:
    """One core among four equal validators. What it casts comes back to it, as in the engine."""

    def __init__(self, own: str = "v3", validators: ValidatorSet | None = None) -> None:
        self.core = Core(own, TIMEOUTS)
        self.own = own
        self.effects: list[Effect] = []
        self.feed(HeightStarted(HEIGHT, validators or validators_of(1, 1, 1, 1)))

    def feed(self, event: HeightStarted | ProposalReceived | VoteReceived | TimedOut) -> list[Effect]:
        """The effects of this event and of our own votes that follow from it."""
        effects = self.core.handle(event)
        for effect in list(effects):
            if isinstance(effect, CastVote):
                own = vote(self.own, effect.type, effect.round, effect.block_hash, effect.height)
                effects += self.feed(VoteReceived(own))
        self.effects += [effect for effect in effects if effect not in self.effects]
        return effects

    def propose(self, round_: int, of: Value, valid_round: int = NO_ROUND, *, valid: bool = True) -> list[Effect]:
        return self.feed(ProposalReceived(proposal(round_, of, valid_round), valid))

    def prevotes(self, round_: int, block_hash: bytes, *senders: str) -> list[Effect]:
        return [e for s in senders for e in self.feed(VoteReceived(vote(s, VoteType.PREVOTE, round_, block_hash)))]

    def precommits(self, round_: int, block_hash: bytes, *senders: str) -> list[Effect]:
        return [e for s in senders for e in self.feed(VoteReceived(vote(s, VoteType.PRECOMMIT, round_, block_hash)))]

    def time_out(self, step: Step, round_: int) -> list[Effect]:
        return self.feed(TimedOut(Timer(step, HEIGHT, round_)))

    def lock(self, round_: int, of: Value) -> None:
        """Lock this value in this round by a polka, then go on to the next round."""
        self.propose(round_, of)
        self.prevotes(round_, of.block_hash, "v0", "v1", "v2")
        self.precommits(round_, NIL, "v0", "v1")
        self.time_out(Step.PRECOMMIT, round_)


def prevote(round_: int, block_hash: bytes) -> CastVote:
    return CastVote(VoteType.PREVOTE, HEIGHT, round_, block_hash)


def precommit(round_: int, block_hash: bytes) -> CastVote:
    return CastVote(VoteType.PRECOMMIT, HEIGHT, round_, block_hash)
