"""What this validator says in its own name: blocks built, proposals and votes signed, as far as the journal allows."""

from __future__ import annotations

from dataclasses import replace

from koinon.limits import MAX_BLOCK_TRANSACTIONS
from koinon.v1 import consensus_pb2 as pb
from node.abci import Application
from node.consensus.events import CastVote, ProposalReceived, Propose, VoteReceived
from node.consensus.messages import Proposal, Vote
from node.journal import Journal
from node.ledger import blocks
from node.ledger.blocks import ChainState, ParsedBlock
from node.ledger.evidence import PendingEvidence
from node.ports import Clock, Pool, Signer
from node.store.blocks import BlockStore


class Author:
    """Signs and puts in the journal. What comes back may be sent once the journal is synced, not before."""

    def __init__(
        self,
        institution: str,
        *,
        clock: Clock,
        signer: Signer,
        journal: Journal,
        app: Application,
        pool: Pool,
        store: BlockStore,
        evidence: PendingEvidence,
    ) -> None:
        self._institution = institution
        self._clock = clock
        self._signers = {signer.public_key: signer}
        self._journal = journal
        self._app = app
        self._pool = pool
        self._store = store
        self._evidence = evidence
        self._built: ParsedBlock | None = None  # the last block of our own

    def add_signer(self, signer: Signer) -> None:
        """Another validator key of this institution, for the heights at which the ledger names it."""
        self._signers[signer.public_key] = signer

    def can_sign(self, chain: ChainState) -> bool:
        """Is the key that counts for the next height here?"""
        return self._signer(chain) is not None

    def _signer(self, chain: ChainState) -> Signer | None:
        member = chain.validators.member(self._institution)
        return self._signers.get(member.public_key) if member else None

    def proposal(self, chain: ChainState, effect: Propose) -> ProposalReceived | None:
        """Our proposal; None if it could contradict what was signed before, or the key for this height is not here."""
        signer = self._signer(chain)
        if signer is None or not self._journal.may_propose(effect.height, effect.round):
            return None
        value = effect.value or self.new_block(chain).value
        unsigned = Proposal(effect.height, effect.round, effect.valid_round, value, self._institution, b"")
        signature = signer.sign(unsigned.signed_bytes(chain.chain_id))
        event = ProposalReceived(replace(unsigned, signature=signature), True)
        self._journal.append(event)
        return event

    def vote(self, chain: ChainState, effect: CastVote) -> VoteReceived | None:
        """Our vote; None if it could contradict what was signed before, or the key for this height is not here."""
        signer = self._signer(chain)
        if signer is None or not self._journal.may_vote(effect.height, effect.round, effect.type):
            return None
        time_ms = max(self._clock.now_ms(), chain.time_ms + 1)
        unsigned = Vote(effect.type, effect.height, effect.round, effect.block_hash, time_ms, self._institution, b"")
        event = VoteReceived(replace(unsigned, signature=signer.sign(unsigned.signed_bytes(chain.chain_id))))
        self._journal.append(event)
        return event

    def new_block(self, chain: ChainState) -> ParsedBlock:
        """Our block after ``chain``: the same in every round, so that a long stall does not fill log and memory."""
        height = chain.height + 1
        if self._built is None or self._built.header.height != height:
            last_commit = self._last_commit(chain)
            candidates = self._pool.reap(blocks.MAX_TRANSACTION_BYTES, MAX_BLOCK_TRANSACTIONS)
            time_ms = blocks.next_time_ms(chain, last_commit)
            self._built = blocks.build(
                chain,
                self._app.prepare_proposal(height, time_ms, candidates, blocks.MAX_TRANSACTION_BYTES),
                self._evidence.fitting(chain.chain_id, chain.validators, height, self._app.validator_key),
                last_commit,
                self._institution,
            )
        return self._built

    def _last_commit(self, chain: ChainState) -> pb.Commit | None:
        return self._store.commit(chain.height) if chain.height else None
