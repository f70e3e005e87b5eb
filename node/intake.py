"""What peers say about the height to be decided, checked and bounded before the consensus core sees it.

Every vote and proposal that passes is about the height in hand, by a validator of that height, with its valid
signature. What comes too early is kept for later, a bounded number per peer, unchecked until its time.
"""

from __future__ import annotations

from collections import deque

from koinon import keys
from koinon.limits import MAX_CLOCK_DRIFT_MS, MAX_EARLY_MESSAGES, MAX_ROUNDS_AHEAD
from koinon.v1 import consensus_pb2 as pb
from node.abci import Application
from node.consensus.core import Core
from node.consensus.events import ProposalReceived, VoteReceived
from node.consensus.messages import NO_ROUND, Proposal, Vote
from node.ledger import blocks
from node.ledger.blocks import ChainState, InvalidBlock, ParsedBlock
from node.ports import Clock, Log

Message = pb.Proposal | pb.Vote


class Forged(Exception):
    """A message that its alleged author did not make: the rest of what came with it is not worth reading."""


class Intake:
    """One node's gate. ``turn_to`` opens it for the next height, ``core`` says what is known there already."""

    def __init__(self, chain: ChainState, core: Core, clock: Clock, app: Application, log: Log) -> None:
        self._core = core
        self._clock = clock
        self._app = app
        self._log = log
        self._early: dict[str, deque[Message]] = {}  # by peer: of the next height, or of this one before it starts
        self.turn_to(chain)

    def turn_to(self, chain: ChainState) -> None:
        """From now on the height after ``chain`` is in hand; nothing is known about it yet."""
        self._chain = chain
        self._height = chain.height + 1
        self._begun: set[str] = set()  # validators that have begun it
        self._verdicts: dict[bytes, bool] = {}  # by block hash
        self._blocks: dict[bytes, ParsedBlock] = {}  # by block hash; the valid ones

    def know(self, block: ParsedBlock) -> None:
        """A block that is valid: our own, or one judged before a restart."""
        self._verdicts[block.value.block_hash] = True
        self._blocks[block.value.block_hash] = block

    def block(self, block_hash: bytes) -> ParsedBlock:
        """A valid block that was proposed at this height."""
        return self._blocks[block_hash]

    # --- messages before their time

    def keep(self, peer: str, message: Message) -> None:
        """Keep a message until its height has started here, if its sender's share is not used up."""
        if self._has_room(peer, message):
            self._early.setdefault(peer, deque()).append(message)

    def _has_room(self, peer: str, message: Message) -> bool:
        kept = self._early.get(peer, ())
        proposals = sum(isinstance(other, pb.Proposal) for other in kept)
        return len(kept) < MAX_EARLY_MESSAGES and (isinstance(message, pb.Vote) or proposals < 2)

    def take_kept(self) -> list[tuple[str, Message]]:
        """Everything kept, with its sender; it is to be received now."""
        kept = [(peer, message) for peer, messages in self._early.items() for message in messages]
        self._early.clear()
        return kept

    def others_began(self, institution: str) -> bool:
        """Note that this validator has begun the height; have validators begun it of which one is correct?"""
        self._begun.add(institution)
        return self._chain.validators.power(self._begun) >= self._chain.validators.one_third

    # --- checks

    def vote(self, peer: str, message: pb.Vote) -> VoteReceived | None:
        """A vote for the height in hand; None if it is of no use, or not acceptable yet. Raises Forged."""
        vote = Vote.from_proto(message)
        if vote is None:
            raise Forged
        if self._core.is_deciding(self._height):
            if not self._core.wants_vote(vote):
                return None
        elif vote.institution in self._begun and not self._has_room(peer, message):
            return None  # neither counted nor kept: a signature is not verified for nothing
        # Not before the last block (Author.vote), whatever the clocks that made it were set to: they may be right now.
        if vote.time_ms > max(self._clock.now_ms(), self._chain.time_ms) + MAX_CLOCK_DRIFT_MS:
            self._log.warning("vote from the future", institution=vote.institution, time_ms=vote.time_ms)
            return None
        member = self._chain.validators.member(vote.institution)
        signed = vote.signed_bytes(self._chain.chain_id)
        if member is None or not keys.verify(member.public_key, signed, vote.signature):
            raise Forged
        return VoteReceived(vote)

    def proposal(self, message: pb.Proposal) -> ProposalReceived | None:
        """A proposal for the height in hand, judged; None if it is of no use, or not acceptable yet. Raises Forged."""
        deciding = self._core.is_deciding(self._height)
        if message.round > (self._core.round if deciding else 0) + MAX_ROUNDS_AHEAD:
            return None
        first = self._core.proposal(message.round) if deciding else None
        if first is not None and first.signature == message.signature:
            return None
        proposer = self._chain.validators.proposer(message.height, message.round)
        member = self._chain.validators.member(proposer)
        if message.institution != proposer or member is None:
            raise Forged
        try:
            block = blocks.parse(message.block)
        except InvalidBlock as error:
            self._log.warning("proposal dropped", proposer=proposer, reason=error.message)
            raise Forged from error  # the signature covers the hash alone, so anyone may have deformed the rest
        proposal = Proposal(
            message.height, message.round, message.valid_round, block.value, proposer, message.signature
        )
        if not keys.verify(member.public_key, proposal.signed_bytes(self._chain.chain_id), proposal.signature):
            raise Forged
        if deciding and not self._core.wants_proposal(proposal):
            return None
        # A second, different proposal is evidence; its block matters only if others have a quorum for it.
        matters = first is None or self._core.has_quorum_for(proposal.round, block.value.block_hash)
        return ProposalReceived(proposal, matters and self._judge(proposal, block))

    def _judge(self, proposal: Proposal, block: ParsedBlock) -> bool:
        """The paper's valid(v): would an honest proposer have made this block, here and now?"""
        if proposal.valid_round == NO_ROUND and block.header.proposer != proposal.institution:
            return False  # a new block is its proposer's own; only a block with a polka is proposed again
        verdict = self._verdicts.get(block.value.block_hash)
        if verdict is None:
            verdict = self._verdicts[block.value.block_hash] = self._is_valid(block)
            if verdict:
                self.know(block)
        return verdict

    def _is_valid(self, block: ParsedBlock) -> bool:
        header = block.header
        try:
            blocks.verify(self._chain, block, self._app.validator_key)
        except InvalidBlock as error:
            self._log.warning("invalid proposal", proposer=header.proposer, reason=error.message)
            return False
        refusal = self._app.process_proposal(header.height, header.time_ms, block.transactions)
        if refusal is not None:
            self._log.warning("proposal refused", proposer=header.proposer, rule=refusal.rule, reason=refusal.message)
        return refusal is None
