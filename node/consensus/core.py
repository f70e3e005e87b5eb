"""The Tendermint algorithm: arXiv:1807.04938, Algorithm 1, whose line numbers stand beside every rule.

==========  =====================================================================  ==================================
line        upon                                                                   do
==========  =====================================================================  ==================================
11          start of a round                                                       propose, if it is our turn
22          first proposal, no valid round; step propose                           prevote it, or nil
28          proposal with a polka in its valid round; step propose                 prevote it, or nil
34          quorum of any prevotes; step prevote; first time                       start the prevote timer
36          proposal with a polka in this round; step >= prevote; first time       lock, precommit; valid value
44          polka for nil; step prevote                                            precommit nil
(44)        no polka for a block can come any more; step prevote                   precommit nil
47          quorum of any precommits; first time                                   start the precommit timer
(47)        quorum of precommits for nil                                           start the next round
49          proposal of any round with a quorum of precommits                      decide
55          one third in a later round                                             start that round
57          propose timeout; step propose                                          prevote nil
61          prevote timeout; step prevote                                          precommit nil
65          precommit timeout                                                      start the next round
==========  =====================================================================  ==================================

Deviations, none of which touches safety:

- The proposer starts the propose timer too (line 21 excludes it): it may be unable to propose or to sign.
- Prevotes that leave no block a quorum end the wait for more: nobody can lock in this round.
- A quorum of precommits for nil starts the next round at once: nothing else can come of this one.
- A proposer that missed its last turn, or is out of reach, is waited for briefly (``Timeouts.propose_late_ms``).
- Line 55 counts validators seen in *that round or a later one*, by their votes.
- Messages are bounded (see ``votes``): what was dropped is sent again by the engine's gossip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from koinon.limits import MAX_ROUNDS_AHEAD, MAX_ROUNDS_BEHIND
from koinon.validators import ValidatorSet
from node.consensus.events import (
    Accuse,
    CastVote,
    Decide,
    Effect,
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
from node.consensus.messages import NIL, NO_ROUND, Proposal, Value, Vote, VoteType
from node.consensus.votes import VoteKeeper

_NO_VALIDATORS = ValidatorSet(())


class Core:
    """One validator (or, if ``own`` is not among the validators, an observer) deciding one height at a time.

    Deterministic: the same events in the same order give the same effects. Trust: messages carry valid
    signatures of validators of their height; everything else about them may be wrong.
    """

    def __init__(self, own: str, timeouts: Timeouts) -> None:
        self._own = own
        self._timeouts = timeouts
        self._late: set[str] = set()  # proposers that missed their last turn, or were out of reach since
        self._start_height(0, _NO_VALIDATORS)
        self._decided = True

    def _start_height(self, height: int, validators: ValidatorSet) -> None:
        self.height = height
        self.round = 0
        self.step = Step.PROPOSE
        self.validators = validators
        self._decided = False
        self._locked_value: Value | None = None
        self._locked_round = NO_ROUND
        self._valid_value: Value | None = None
        self._valid_round = NO_ROUND
        self._votes = VoteKeeper(validators)
        self._proposals: dict[int, dict[bytes, ProposalReceived]] = {}  # by round, then by block hash; first first
        self._proposed: set[bytes] = set()  # all their block hashes
        self._accused_rounds: set[int] = set()  # whose proposer was accused
        self._effects: list[Effect] = []
        self._start_round_flags()

    def _start_round_flags(self) -> None:
        self._prevote_timer_started = False  # line 34, for the first time
        self._precommit_timer_started = False  # line 47, for the first time
        self._polka_seen = False  # line 36, for the first time

    # --- what the engine may look at

    @property
    def votes(self) -> VoteKeeper:
        return self._votes

    def is_deciding(self, height: int) -> bool:
        """Is this the height in hand, and not yet decided? Events of any other mean nothing."""
        return height == self.height and not self._decided

    def has_quorum_for(self, round_: int, block_hash: bytes) -> bool:
        """Have validators with a quorum voted for this block in this round, in either way?"""
        return any(self._votes.has_quorum_for(vote_type, round_, block_hash) for vote_type in VoteType)

    def proposal(self, round_: int) -> Proposal | None:
        """The first proposal of this round, if it has come."""
        return next((received.proposal for received in self._proposals.get(round_, {}).values()), None)

    def wants_vote(self, vote: Vote) -> bool:
        """Would this vote, of the height in hand, change anything? If not, its signature need not be checked."""
        return self._still_counts(vote) and self._votes.wants(vote, self.round, self._proposed)

    def _still_counts(self, vote: Vote) -> bool:
        """Of rounds long forgotten, only the polka of our valid value or of one that is proposed again (line 28).

        Whatever else of them came would be forgotten with every round, and be taken, and logged, once more after it.
        """
        if vote.round >= self.round - MAX_ROUNDS_BEHIND:
            return True
        proposals = (received.proposal for known in self._proposals.values() for received in known.values())
        proven_by = {self._valid_round, *(proposal.valid_round for proposal in proposals)}
        return vote.type is VoteType.PREVOTE and vote.round in proven_by

    def wants_proposal(self, proposal: Proposal) -> bool:
        """Would this proposal, of the height in hand, change anything?

        It does as the first of its round, as evidence, and as a block that others have a quorum for. Of anything else
        its proposer can sign any number.
        """
        round_, valid_round, block_hash = proposal.round, proposal.valid_round, proposal.value.block_hash
        if proposal.institution != self.validators.proposer(self.height, round_):
            return False
        if not self.round - MAX_ROUNDS_BEHIND <= round_ <= self.round + MAX_ROUNDS_AHEAD:
            return False
        if not NO_ROUND <= valid_round < round_:
            return False
        first = self.proposal(round_)
        if first is None or (round_ not in self._accused_rounds and _conflict(first, proposal)):
            return True
        return block_hash not in self._proposals[round_] and self.has_quorum_for(round_, block_hash)

    # --- events

    def handle(self, event: Event) -> list[Effect]:
        """Take one event; return what is to be done, in order."""
        self._effects = []
        match event:
            case HeightStarted(height, validators):
                self._start_height(height, validators)
                self._start_round(0)  # line 10
            case ProposalReceived(proposal, _):
                if self.is_deciding(proposal.height):
                    self._keep_proposal(event)
            case VoteReceived(vote):
                if self.is_deciding(vote.height):
                    self._keep_vote(vote)
            case TimedOut(timer):
                if self.is_deciding(timer.height) and timer.round == self.round:
                    self._on_timeout(timer.step)
            case _:
                assert_never(event)
        self._apply_rules()
        return self._effects

    def lose(self, institution: str) -> list[Effect]:
        """A validator is out of reach: until it proposes again it is waited for briefly, and so in this round."""
        self._late.add(institution)
        waiting = self.step is Step.PROPOSE and not self._decided and self.round not in self._proposals
        if not waiting or self.validators.proposer(self.height, self.round) != institution:
            return []
        return [self._propose_timer(institution)]

    def _propose_timer(self, proposer: str) -> StartTimer:
        delay_ms = self._timeouts.propose(self.round, proposer in self._late)
        return StartTimer(Timer(Step.PROPOSE, self.height, self.round), delay_ms)

    def _keep_proposal(self, received: ProposalReceived) -> None:
        proposal = received.proposal
        if not self.wants_proposal(proposal):
            return
        self._late.discard(proposal.institution)
        known = self._proposals.setdefault(proposal.round, {})
        first = next(iter(known.values()), received).proposal
        block_hash = proposal.value.block_hash
        if _conflict(first, proposal):
            if proposal.round not in self._accused_rounds:
                self._accused_rounds.add(proposal.round)
                self._effects.append(Accuse(first, proposal))
            # Kept all the same when it is the one that others have a quorum for.
            if not self.has_quorum_for(proposal.round, block_hash):
                return
        known.setdefault(block_hash, received)
        self._proposed.add(block_hash)

    def _keep_vote(self, vote: Vote) -> None:
        if not self._still_counts(vote):
            return
        first = self._votes.add(vote, self.round, self._proposed)
        if first is not None:
            self._effects.append(Accuse(first, vote))

    def _on_timeout(self, step: Step) -> None:
        match step:
            case Step.PROPOSE:
                if self.round not in self._proposals:
                    self._late.add(self.validators.proposer(self.height, self.round))
                if self.step is Step.PROPOSE:  # line 57
                    self._prevote(NIL)
            case Step.PREVOTE:
                if self.step is Step.PREVOTE:  # line 61
                    self._precommit(NIL)
            case Step.PRECOMMIT:  # line 65
                self._start_round(self.round + 1)
            case _:
                assert_never(step)

    # --- rules

    def _apply_rules(self) -> None:
        """Fire rules until none applies. A decision comes first; joining a later round comes before acting in this."""
        rules: tuple[Callable[[], bool], ...] = (
            self._line_49,
            self._line_55,
            self._line_22,
            self._line_28,
            self._line_36,
            self._line_44,
            self._line_34,
            self._line_47,
        )
        while not self._decided and any(rule() for rule in rules):
            pass

    def _start_round(self, round_: int) -> None:
        """Line 11."""
        self.round = round_
        self.step = Step.PROPOSE
        self._start_round_flags()
        self._forget_before(round_ - MAX_ROUNDS_BEHIND)
        proposer = self.validators.proposer(self.height, round_)
        if proposer == self._own:  # lines 14 to 19
            self._effects.append(Propose(self.height, round_, self._valid_round, self._valid_value))
        self._effects.append(self._propose_timer(proposer))  # line 21

    def _forget_before(self, round_: int) -> None:
        """Bound a long stall: who still waits for a decision of a forgotten round learns it from its certificate."""
        self._votes.forget_before(round_, keep=self._valid_round)
        for forgotten in [r for r in self._proposals if r < round_]:
            del self._proposals[forgotten]
        self._proposed = {block_hash for known in self._proposals.values() for block_hash in known}

    def _line_22(self) -> bool:
        received = self._first_proposal()
        if self.step is not Step.PROPOSE or received is None or received.proposal.valid_round != NO_ROUND:
            return False
        value = received.proposal.value
        acceptable = received.valid and (self._locked_round == NO_ROUND or self._locks(value))
        self._prevote(value.block_hash if acceptable else NIL)
        return True

    def _line_28(self) -> bool:
        received = self._first_proposal()
        if self.step is not Step.PROPOSE or received is None or received.proposal.valid_round == NO_ROUND:
            return False
        value, valid_round = received.proposal.value, received.proposal.valid_round
        if not self._votes.has_quorum_for(VoteType.PREVOTE, valid_round, value.block_hash):
            return False
        acceptable = received.valid and (self._locked_round <= valid_round or self._locks(value))
        self._prevote(value.block_hash if acceptable else NIL)
        return True

    def _line_34(self) -> bool:
        if self.step is not Step.PREVOTE or self._prevote_timer_started:
            return False
        if not self._votes.has_quorum_of_any(VoteType.PREVOTE, self.round):
            return False
        self._prevote_timer_started = True
        self._start_vote_timer(Step.PREVOTE)
        return True

    def _line_36(self) -> bool:
        if self.step < Step.PREVOTE or self._polka_seen:
            return False
        for block_hash, received in self._proposals.get(self.round, {}).items():
            if received.valid and self._votes.has_quorum_for(VoteType.PREVOTE, self.round, block_hash):
                break
        else:
            return False
        self._polka_seen = True
        if self.step is Step.PREVOTE:  # lines 37 to 41
            self._locked_value = received.proposal.value
            self._locked_round = self.round
            self._precommit(block_hash)
        self._valid_value = received.proposal.value  # line 42
        self._valid_round = self.round  # line 43
        return True

    def _line_44(self) -> bool:
        """Also without a polka for nil, when prevotes leave none to any block: waiting for the others is in vain."""
        if self.step is not Step.PREVOTE or self._votes.may_reach_quorum(VoteType.PREVOTE, self.round):
            return False
        self._precommit(NIL)
        return True

    def _line_47(self) -> bool:
        if self._votes.has_quorum_for(VoteType.PRECOMMIT, self.round, NIL):
            self._start_round(self.round + 1)
            return True
        if self._precommit_timer_started or not self._votes.has_quorum_of_any(VoteType.PRECOMMIT, self.round):
            return False
        self._precommit_timer_started = True
        self._start_vote_timer(Step.PRECOMMIT)
        return True

    def _line_49(self) -> bool:
        for round_, proposals in self._proposals.items():
            for block_hash, received in proposals.items():
                if received.valid and self._votes.has_quorum_for(VoteType.PRECOMMIT, round_, block_hash):
                    self._decided = True
                    precommits = tuple(self._votes.votes(VoteType.PRECOMMIT, round_, block_hash))
                    self._effects.append(Decide(self.height, round_, received.proposal.value, precommits))
                    return True
        return False

    def _line_55(self) -> bool:
        round_ = self._votes.round_to_join(self.round)
        if round_ is None:
            return False
        self._start_round(round_)
        return True

    def _first_proposal(self) -> ProposalReceived | None:
        return next(iter(self._proposals.get(self.round, {}).values()), None)

    def _locks(self, value: Value) -> bool:
        return self._locked_value is not None and self._locked_value.block_hash == value.block_hash

    def _prevote(self, block_hash: bytes) -> None:
        self.step = Step.PREVOTE
        self._cast(VoteType.PREVOTE, block_hash)

    def _precommit(self, block_hash: bytes) -> None:
        self.step = Step.PRECOMMIT
        self._cast(VoteType.PRECOMMIT, block_hash)

    def _cast(self, vote_type: VoteType, block_hash: bytes) -> None:
        if self._own in self.validators:
            self._effects.append(CastVote(vote_type, self.height, self.round, block_hash))

    def _start_vote_timer(self, step: Step) -> None:
        self._effects.append(StartTimer(Timer(step, self.height, self.round), self._timeouts.vote(self.round)))


def _conflict(first: Proposal, second: Proposal) -> bool:
    """Of one round: would a correct proposer have signed one of the two at most?"""
    return (first.value.block_hash, first.valid_round) != (second.value.block_hash, second.valid_round)
