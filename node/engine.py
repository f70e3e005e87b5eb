"""The engine: performs what the consensus core asks, on whatever ports it is given.

Sans-IO: the same code runs on gRPC, LevelDB and a log file, and in simulation on one seed. Its contract:

- **sign → persist (synced) → send.** What is signed goes to the journal at once, and out of the house only
  after the journal is synced. So a crash at any point leaves no vote that we do not remember.
- **One synced write per block**: the block, its certificate, the application's writes and the chain's new state.
- **Nothing from a peer is believed.** Signatures are verified before the core sees a message; blocks count by
  certificate and are compared with our own state; what is kept for later is bounded per peer.
- Effects are performed in the order given, and nothing is awaited between them.

A height begins when there is something to decide: transactions wait, effects of the last block await their header, the
heartbeat is due, or validators of which one is correct have begun. Until then no timeout runs.

After an error of a port (disk full, log damaged) the engine stops for good: a restart replays the journal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from koinon import keys
from koinon.errors import Corrupt
from koinon.limits import (
    MAX_BLOCK_EVIDENCE,
    MAX_BLOCK_TRANSACTIONS,
    MAX_CLOCK_DRIFT_MS,
    MAX_PENDING_EVIDENCE,
    MAX_ROUNDS_AHEAD,
)
from koinon.v1 import consensus_pb2 as pb
from koinon.v1 import peer_pb2
from koinon.validators import ValidatorSet, verify_commit
from node.abci import Application, DecidedBlock
from node.catch_up import CatchUp, block_request, block_response
from node.consensus.core import Core
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
    TimedOut,
    Timeouts,
    Timer,
    VoteReceived,
)
from node.consensus.messages import NO_ROUND, Proposal, Vote, VoteType
from node.journal import Journal
from node.ledger import blocks, evidence
from node.ledger.blocks import ChainState, InvalidBlock, ParsedBlock
from node.ports import Alarm, Clock, Listener, Log, Pool, Signer, Timers, Transport, Wake
from node.store.blocks import BlockStore
from node.store.kv import KeyValueStore
from node.store.wal import WriteAheadLog

_CHAIN_KEY = b"m/chain"
_EARLY_MESSAGES = 16  # kept per peer until their height begins here; a height takes three from each validator
_IDLE_GOSSIP_TURNS = 4  # while nothing is decided, speak only at every so many gossip intervals
_NEARLY_THERE_BLOCKS = 4  # a peer this little behind is sent the blocks without asking


_Message = pb.Proposal | pb.Vote


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What distinguishes this node, and its pace (milliseconds)."""

    institution: str
    chain_id: str
    genesis_time_ms: int
    heartbeat_ms: int = 5_000  # an empty block at the latest after this long
    proof_delay_ms: int = 200  # an empty block puts the last block's effects into a header after this long
    gossip_ms: int = 500  # how soon a stall is noticed
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Where the engine stands, for people who ask why nothing happens."""

    height: int  # last committed
    deciding: bool  # is height + 1 being decided?
    round: int
    step: int
    waiting_for_prevotes: tuple[str, ...]  # validators not heard in this round
    waiting_for_precommits: tuple[str, ...]
    behind: bool  # peers say they are ahead: blocks are being fetched
    highest_claim: int  # the greatest height any peer claims
    votes_from_height: int | None  # None: the signing state was lost and no safe height is known yet


class Engine:
    """Consensus, block sync and gossip of one node. Call ``start`` once, then feed it; one thread only."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        transport: Transport,
        clock: Clock,
        timers: Timers,
        wal: WriteAheadLog,
        store: KeyValueStore,
        app: Application,
        pool: Pool,
        signer: Signer,
        log: Log,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Open the chain. Raises Corrupt if store, application and journal contradict one another."""
        self._config = config
        self._transport = transport
        self._clock = clock
        self._timers = timers
        self._store = store
        self._app = app
        self._pool = pool
        self._signer = signer
        self._log = log
        self._listeners = tuple(listeners)
        self.blocks = BlockStore(store)
        self.chain = self._open_chain()
        self._journal = Journal(wal, signer.public_key, config.institution, clock.now_ms())
        self._core = Core(config.institution, config.timeouts)
        self._catch_up = CatchUp()
        self._events: deque[Event] = deque()  # to be journaled, then handled
        self._own: deque[Event] = deque()  # what we signed: journaled already, handled before anything else
        self._outbox: list[peer_pb2.DeliverRequest] = []  # signed, to be sent after the next sync
        self._evidence: dict[evidence.Offence, pb.Evidence] = {}
        self._early: dict[str, deque[_Message]] = {}  # by peer: of the next height, or of this one before it starts
        self._inbox: deque[tuple[str, _Message]] = deque()  # early ones whose time has come
        self._busy = False
        self._halted = False
        self._gossip_turn = 0
        self._gossip_position: tuple[int, ...] = ()
        self._answered: set[str] = set()  # peers whose status was answered in this gossip interval
        self._forget_height()

    def _open_chain(self) -> ChainState:
        info = self._app.info()
        data = self._store.get(_CHAIN_KEY)
        if data is None:
            chain = ChainState.genesis(
                self._config.chain_id, self._config.genesis_time_ms, ValidatorSet.of(info.validators), info.hashes
            )
        else:
            chain = ChainState.from_bytes(self._config.chain_id, data)
        if (chain.height, chain.hashes, chain.height) != (info.height, info.hashes, self.blocks.height()):
            raise Corrupt(
                f"the ledger on disk contradicts itself: chain at {chain.height}, application at {info.height}, "
                f"blocks up to {self.blocks.height()}",
                hint="remove the ledger directory and start the node: it fetches the ledger from its peers",
            )
        return chain

    def _forget_height(self) -> None:
        """Nothing is known yet about the height after the chain's."""
        self._started = False
        self._awake: set[str] = set()  # validators that have begun it
        self._verdicts: dict[bytes, bool] = {}  # by block hash
        self._blocks: dict[bytes, ParsedBlock] = {}  # by block hash; the valid ones

    # --- inputs

    def start(self) -> None:
        """Take up where the journal ends."""
        self._enter(self._start)

    def on_message(self, peer: str, message: peer_pb2.DeliverRequest) -> None:
        """A message from an authenticated member's node; its content is not trusted."""
        self._enter(lambda: self._receive(peer, message))

    def on_connected(self, peer: str) -> None:
        """Our messages reach this member's node from now on: tell it where we stand, so that it can help."""
        self._enter(lambda: self._transport.send(peer, self._round_status()))

    def on_timer(self, timer: Timer | Wake) -> None:
        """A timer set through the Timers port is due."""
        self._enter(lambda: self._on_timer(timer))

    def on_transactions(self) -> None:
        """The pool holds transactions."""
        if not self._busy:  # else the end of the height looks at the pool itself
            self._enter(self._start_height_for_transactions)

    def status(self) -> EngineStatus:
        core = self._core
        names = {member.institution for member in self.chain.validators}

        def silent(vote_type: VoteType) -> tuple[str, ...]:
            heard = core.votes.senders(vote_type, core.round)
            return tuple(sorted(names.difference(heard))) if self._started else ()

        return EngineStatus(
            height=self.chain.height,
            deciding=self._started,
            round=core.round if self._started else 0,
            step=core.step if self._started else 0,
            waiting_for_prevotes=silent(VoteType.PREVOTE),
            waiting_for_precommits=silent(VoteType.PRECOMMIT),
            behind=self._catch_up.is_behind(self.chain.height, self.chain.validators),
            highest_claim=self._catch_up.highest_claim(),
            votes_from_height=self._journal.votes_from_height,
        )

    def _enter(self, action: Callable[[], None]) -> None:
        if self._halted:
            return
        self._busy = True
        try:
            action()
            self._drain()
        except BaseException:
            self._halted = True
            raise
        finally:
            self._busy = False

    def _start(self) -> None:
        events = self._journal.replay(self.chain.height + 1)
        self._schedule_starts(proof=True)
        self._timers.schedule(self._config.gossip_ms, Wake(Alarm.GOSSIP, 0))
        if events is not None:
            self._started = True
            effects = self._core.handle(HeightStarted(self.chain.height + 1, self.chain.validators))
            for event in events:
                self._remember_block(event)
                effects += self._core.handle(event)
            # What the log holds of ours was signed before: the journal refuses to sign at or before it.
            for effect in effects:
                self._perform(effect)
        self._transport.broadcast(self._round_status())

    def _remember_block(self, event: Event) -> None:
        if isinstance(event, ProposalReceived) and event.valid:
            value = event.proposal.value
            self._blocks[value.block_hash] = blocks.parse(value.block)

    def _on_timer(self, timer: Timer | Wake) -> None:
        match timer:
            case Timer():
                self._events.append(TimedOut(timer))
            case Wake(Alarm.GOSSIP):
                self._gossip()
            case Wake(Alarm.START, height) if height == self.chain.height + 1:
                self._start_height_for_transactions()
            case Wake(Alarm.PROOF | Alarm.HEARTBEAT, height) if height == self.chain.height + 1:
                self._start_height_if_current()
            case Wake():
                pass  # of a height that is decided

    # --- the loop

    def _drain(self) -> None:
        """Handle events until there are none, then send what was signed."""
        while self._own or self._events or self._inbox:
            if self._own:
                self._handle(self._own.popleft())
            elif self._events:
                event = self._events.popleft()
                if self._is_current(event):
                    self._journal.append(event)
                    self._handle(event)
            else:
                self._receive_message(*self._inbox.popleft())
        self._flush()

    def _is_current(self, event: Event) -> bool:
        """Is this about the height in hand? Blocks from peers may have overtaken it."""
        height = self.chain.height + 1
        match event:
            case HeightStarted():
                return event.height == height
            case ProposalReceived(proposal, _):
                return proposal.height == height and self._core.is_deciding(height)
            case VoteReceived(vote):
                return vote.height == height and self._core.is_deciding(height)
            case TimedOut(timer):
                return timer.height == height and self._core.is_deciding(height)
            case _:
                assert_never(event)

    def _handle(self, event: Event) -> None:
        for effect in self._core.handle(event):
            self._perform(effect)

    def _flush(self) -> None:
        if self._outbox:
            self._journal.sync()
            messages, self._outbox = self._outbox, []
            for message in messages:
                self._transport.broadcast(message)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Propose():
                self._propose(effect)
            case CastVote(vote_type, height, round_, block_hash):
                if self._journal.may_vote(height, round_, vote_type):
                    self._cast_vote(vote_type, height, round_, block_hash)
            case StartTimer(timer, delay_ms):
                self._timers.schedule(delay_ms, timer)
            case Decide(height, round_, value, precommits):
                self._flush()  # others need our precommit now, and wait for nothing that we do next
                commit = pb.Commit(
                    height=height,
                    round=round_,
                    block_hash=value.block_hash,
                    signatures=[
                        pb.CommitSignature(institution=v.institution, time_ms=v.time_ms, signature=v.signature)
                        for v in precommits
                    ],
                )
                self._commit(self._blocks[value.block_hash], commit)
            case Accuse(first, second):
                self._note_evidence(evidence.accuse(first, second))
            case _:
                assert_never(effect)

    # --- signing

    def _propose(self, effect: Propose) -> None:
        if not self._journal.may_propose(effect.height, effect.round):
            return
        value = effect.value or self._build().value
        unsigned = Proposal(effect.height, effect.round, effect.valid_round, value, self._config.institution, b"")
        signature = self._signer.sign(unsigned.signed_bytes(self._config.chain_id))
        proposal = Proposal(effect.height, effect.round, effect.valid_round, value, self._config.institution, signature)
        self._signed(ProposalReceived(proposal, True))
        self._outbox.extend(self._proposal_messages(proposal))

    def _build(self) -> ParsedBlock:
        time_ms = blocks.next_time_ms(self.chain, self._last_commit())
        height = self.chain.height + 1
        candidates = self._pool.reap(blocks.MAX_TRANSACTION_BYTES, MAX_BLOCK_TRANSACTIONS)
        block = blocks.build(
            self.chain,
            self._app.prepare_proposal(height, time_ms, candidates, blocks.MAX_TRANSACTION_BYTES),
            self._fitting_evidence(),
            self._last_commit(),
            self._config.institution,
        )
        self._verdicts[block.value.block_hash] = True
        self._blocks[block.value.block_hash] = block
        return block

    def _last_commit(self) -> pb.Commit | None:
        return self.blocks.commit(self.chain.height) if self.chain.height else None

    def _cast_vote(self, vote_type: VoteType, height: int, round_: int, block_hash: bytes) -> None:
        time_ms = max(self._clock.now_ms(), self.chain.time_ms + 1)
        unsigned = Vote(vote_type, height, round_, block_hash, time_ms, self._config.institution, b"")
        signature = self._signer.sign(unsigned.signed_bytes(self._config.chain_id))
        vote = Vote(vote_type, height, round_, block_hash, time_ms, self._config.institution, signature)
        self._signed(VoteReceived(vote))
        if self._outbox and self._outbox[-1].HasField("votes"):
            self._outbox[-1].votes.votes.append(vote.to_proto())
        else:
            self._outbox.append(_votes_message([vote]))

    def _signed(self, event: Event) -> None:
        self._journal.append(event)
        self._own.append(event)

    def _proposal_messages(self, proposal: Proposal) -> list[peer_pb2.DeliverRequest]:
        """The proposal and, where it refers to a polka, the polka: those who missed it could not accept it."""
        messages = [peer_pb2.DeliverRequest(proposal=proposal.to_proto())]
        if proposal.valid_round != NO_ROUND:
            polka = self._core.votes.votes(VoteType.PREVOTE, proposal.valid_round, proposal.value.block_hash)
            messages.append(_votes_message(polka))
        return messages

    # --- evidence

    def _note_evidence(self, item: pb.Evidence) -> None:
        offence = evidence.offence(item)
        if offence not in self._evidence and len(self._evidence) < MAX_PENDING_EVIDENCE:
            self._evidence[offence] = item
            self._log.warning(
                "equivocation", institution=offence.institution, height=offence.height, round=offence.round
            )

    def _fitting_evidence(self) -> list[pb.Evidence]:
        """What holds in the next block, oldest first; what no longer can hold is dropped."""
        fitting = []
        for offence, item in sorted(self._evidence.items(), key=lambda pair: (pair[0].height, pair[0])):
            if offence.height > self.chain.height:
                continue
            try:
                evidence.verify(self.chain.chain_id, self.chain.validators, self.chain.height + 1, item)
            except evidence.InvalidEvidence:
                del self._evidence[offence]
            else:
                fitting.append(item)
        return fitting[:MAX_BLOCK_EVIDENCE]

    # --- heights

    def _start_height_for_transactions(self) -> None:
        if len(self._pool):
            self._start_height_if_current()

    def _start_height_if_current(self) -> None:
        """Begin the next height for a reason of our own, unless the network is past it."""
        if not self._catch_up.is_behind(self.chain.height, self.chain.validators):
            self._start_height()

    def _start_height(self) -> None:
        if self._started:
            return
        self._started = True
        self._events.append(HeightStarted(self.chain.height + 1, self.chain.validators))
        self._take_up_early()

    def _take_up_early(self) -> None:
        """What peers sent before we were ready for it is received now."""
        for peer, messages in self._early.items():
            self._inbox.extend((peer, message) for message in messages)
        self._early.clear()

    def _receive_message(self, peer: str, message: _Message) -> None:
        if isinstance(message, pb.Vote):
            self._receive_vote(peer, message)
        else:
            self._receive_proposal(peer, message)

    def _commit(self, block: ParsedBlock, commit: pb.Commit) -> None:
        """Execute a block that is proved to be decided; make it durable, then visible, then known."""
        height, header = block.header.height, block.header
        fruitless = len(self._pool) > 0 and not block.transactions
        finalized = self._app.finalize_block(
            DecidedBlock(
                height=height,
                time_ms=header.time_ms,
                block_hash=block.value.block_hash,
                proposer=header.proposer,
                transactions=block.transactions,
                evidence=block.evidence,
            )
        )
        before, chain = self.chain.hashes, self.chain.after(block, finalized)
        writes = [*finalized.writes, *self.blocks.writes(height, block.value.block, commit)]
        self._store.write([*writes, (_CHAIN_KEY, chain.to_bytes())], sync=True)
        self._app.commit()
        self.chain = chain
        self._journal.observe(height, header.time_ms)
        for item in block.evidence:
            self._evidence.pop(evidence.offence(item), None)
        self._forget_height()
        for listener in self._listeners:
            listener.on_committed(height, block, finalized)
        after = finalized.hashes
        changed = (before.state_commitment, before.audit_root) != (after.state_commitment, after.audit_root)
        self._schedule_starts(proof=changed or bool(block.transactions))
        if len(self._pool):
            # Through a timer, so that other inputs get their turn. If nothing in the pool was fit for this
            # block, nothing may be fit for the next one: do not spin.
            self._timers.schedule(self._config.proof_delay_ms if fruitless else 0, Wake(Alarm.START, height + 1))
        self._take_up_early()

    def _schedule_starts(self, *, proof: bool) -> None:
        height = self.chain.height + 1
        self._timers.schedule(self._config.heartbeat_ms, Wake(Alarm.HEARTBEAT, height))
        if proof:
            self._timers.schedule(self._config.proof_delay_ms, Wake(Alarm.PROOF, height))

    # --- messages

    def _receive(self, peer: str, message: peer_pb2.DeliverRequest) -> None:
        match message.WhichOneof("message"):
            case "proposal":
                self._receive_proposal(peer, message.proposal)
            case "votes":
                for vote in message.votes.votes:
                    if not self._receive_vote(peer, vote):
                        break  # one bad signature costs its sender the rest of the batch
            case "round_status":
                self._receive_status(peer, message.round_status)
            case "block_request":
                self._receive_block_request(peer, message.block_request)
            case "block_response":
                self._receive_blocks(peer, message.block_response)
            case "hello":
                self._catch_up.heard(peer, message.hello.height)
            case _:
                pass  # transactions are the pool's; anything else is of a later version

    def _receive_vote(self, peer: str, message: pb.Vote) -> bool:
        """Returns False if the vote is forged."""
        vote = Vote.from_proto(message)
        if vote is None:
            return False
        if not self._is_timely(peer, message) or (self._started and self._core.votes.has(vote)):
            return True
        if vote.time_ms > self._clock.now_ms() + MAX_CLOCK_DRIFT_MS:
            self._log.warning("vote from the future", institution=vote.institution, time_ms=vote.time_ms)
            return True
        member = self.chain.validators.member(vote.institution)
        if member is None or not keys.verify(
            member.public_key, vote.signed_bytes(self._config.chain_id), vote.signature
        ):
            return False
        if self._started:
            self._events.append(VoteReceived(vote))
            return True
        self._keep_early(peer, message)
        self._awake.add(vote.institution)
        if self.chain.validators.power(self._awake) >= self.chain.validators.one_third:
            self._start_height()
        return True

    def _receive_proposal(self, peer: str, message: pb.Proposal) -> None:
        if not self._is_timely(peer, message) or message.round > self._core_round() + MAX_ROUNDS_AHEAD:
            return
        proposer = self.chain.validators.proposer(message.height, message.round)
        member = self.chain.validators.member(proposer)
        if message.institution != proposer or member is None:
            return
        first = self._core.proposal(message.round) if self._started else None
        if first is not None and first.signature == message.signature:
            return
        try:
            block = blocks.parse(message.block)
        except InvalidBlock as error:
            self._log.warning("proposal dropped", proposer=proposer, sender=peer, reason=error.message)
            return
        proposal = Proposal(
            message.height, message.round, message.valid_round, block.value, proposer, message.signature
        )
        if not keys.verify(member.public_key, proposal.signed_bytes(self._config.chain_id), proposal.signature):
            return
        if not self._started:
            self._keep_early(peer, message)
            self._start_height()
            return
        # A second, different proposal is evidence; its block matters only if others have a quorum for it.
        wanted = first is None or self._core.has_quorum_for(proposal.round, block.value.block_hash)
        self._events.append(ProposalReceived(proposal, wanted and self._judge(proposal, block)))

    def _core_round(self) -> int:
        return self._core.round if self._started else 0

    def _is_timely(self, peer: str, message: _Message) -> bool:
        """Is this about the height to be decided? Keeps what is about the next one; notes who is further."""
        ahead = message.height - (self.chain.height + 1)
        if ahead > 0:
            self._catch_up.heard(peer, message.height - 1)
        if ahead == 1:
            self._keep_early(peer, message)
        return ahead == 0

    def _keep_early(self, peer: str, message: _Message) -> None:
        kept = self._early.setdefault(peer, deque())
        proposals = sum(isinstance(other, pb.Proposal) for other in kept)
        if len(kept) < _EARLY_MESSAGES and (isinstance(message, pb.Vote) or proposals < 2):
            kept.append(message)

    def _judge(self, proposal: Proposal, block: ParsedBlock) -> bool:
        """The paper's valid(v): would an honest proposer have made this block, here and now?"""
        if proposal.valid_round == NO_ROUND and block.header.proposer != proposal.institution:
            return False  # a new block is its proposer's own; only a block with a polka is proposed again
        block_hash = block.value.block_hash
        verdict = self._verdicts.get(block_hash)
        if verdict is None:
            verdict = self._verdicts[block_hash] = self._is_valid(block)
            if verdict:
                self._blocks[block_hash] = block
        return verdict

    def _is_valid(self, block: ParsedBlock) -> bool:
        try:
            blocks.verify(self.chain, block)
        except InvalidBlock as error:
            self._log.warning("invalid proposal", proposer=block.header.proposer, reason=error.message)
            return False
        header = block.header
        refusal = self._app.process_proposal(header.height, header.time_ms, block.transactions)
        if refusal is not None:
            self._log.warning("proposal refused", proposer=header.proposer, rule=refusal.rule, reason=refusal.message)
        return refusal is None

    # --- gossip: what was lost on the way is sent again

    def _gossip(self) -> None:
        self._timers.schedule(self._config.gossip_ms, Wake(Alarm.GOSSIP, 0))
        self._answered.clear()
        self._gossip_turn += 1
        core = self._core
        position = (self.chain.height, core.round, core.step) if self._started else (self.chain.height,)
        stalled = self._started and position == self._gossip_position
        self._gossip_position = position
        if stalled or self._gossip_turn % _IDLE_GOSSIP_TURNS == 0:
            self._transport.broadcast(self._round_status())
        peer = self._catch_up.tick(self.chain.height)
        if peer is not None:
            self._transport.send(peer, block_request(self.chain.height))

    def _round_status(self) -> peer_pb2.DeliverRequest:
        status = peer_pb2.RoundStatus(height=self.chain.height + 1)
        if self._started:
            core = self._core
            status.round, status.step = core.round, core.step
            status.has_proposal = core.proposal(core.round) is not None
            status.prevotes.extend(core.votes.senders(VoteType.PREVOTE, core.round))
            status.precommits.extend(core.votes.senders(VoteType.PRECOMMIT, core.round))
        return peer_pb2.DeliverRequest(round_status=status)

    def _receive_status(self, peer: str, status: peer_pb2.RoundStatus) -> None:
        """Send the peer what it lacks and we have; once per gossip interval, since it may be asking too much."""
        height = self.chain.height + 1
        self._catch_up.heard(peer, status.height - 1)
        if peer in self._answered:
            return
        if height - _NEARLY_THERE_BLOCKS <= status.height < height:
            self._answered.add(peer)
            self._answer_with_blocks(peer, status.height, _NEARLY_THERE_BLOCKS)
        elif status.height < height:
            self._answered.add(peer)
            self._transport.send(peer, self._round_status())  # it will ask
        elif status.height == height and self._started and status.round <= self._core.round:
            self._answered.add(peer)
            self._answer_with_messages(peer, status)

    def _answer_with_messages(self, peer: str, status: peer_pb2.RoundStatus) -> None:
        core, round_ = self._core, status.round
        proposal = core.proposal(round_)
        if proposal is not None and not status.has_proposal:
            for message in self._proposal_messages(proposal):
                self._transport.send(peer, message)
        held = {VoteType.PREVOTE: set(status.prevotes), VoteType.PRECOMMIT: set(status.precommits)}
        votes = [
            vote
            for vote_type in VoteType
            for vote in core.votes.votes(vote_type, round_)
            if vote.institution not in held[vote_type]
        ]
        if round_ < core.round:  # so that it joins our round
            votes += [vote for vote_type in VoteType for vote in core.votes.votes(vote_type, core.round)]
        if votes:
            self._transport.send(peer, _votes_message(votes))

    # --- block sync

    def _receive_block_request(self, peer: str, request: peer_pb2.BlockRequest) -> None:
        if 1 <= request.from_height <= self.chain.height:
            self._answer_with_blocks(peer, request.from_height, request.count)

    def _answer_with_blocks(self, peer: str, from_height: int, count: int) -> None:
        response = block_response(self.blocks, from_height, count)
        if response is not None:
            self._transport.send(peer, response)

    def _receive_blocks(self, peer: str, response: peer_pb2.BlockResponse) -> None:
        """Adopt consecutive blocks, each proved by its certificate and equal to what we compute ourselves."""
        useful = False
        for item in response.blocks:
            try:
                block = blocks.parse(item.block)
                if block.header.height <= self.chain.height:
                    continue  # another answer was quicker
                verify_commit(
                    self._config.chain_id,
                    self.chain.validators,
                    item.commit,
                    block.value.block_hash,
                    self.chain.height + 1,
                )
            except Corrupt as error:
                self._log.warning("blocks dropped", sender=peer, reason=error.message)
                self._catch_up.disbelieve(peer)
                break
            blocks.verify(self.chain, block)  # raises: a quorum decided what we cannot follow
            self._commit(block, item.commit)
            useful = True
        if useful and self._catch_up.answered(peer, self.chain.height):
            self._transport.send(peer, block_request(self.chain.height))


def _votes_message(votes: Sequence[Vote]) -> peer_pb2.DeliverRequest:
    return peer_pb2.DeliverRequest(votes=peer_pb2.VoteBatch(votes=[vote.to_proto() for vote in votes]))
