"""The engine: performs what the consensus core asks, on whatever ports it is given.

Sans-IO: the same code runs on gRPC, LevelDB and a log file, and in simulation on one seed. Its contract:

- **sign → persist (synced) → send.** What is signed goes to the journal at once, and out of the house only
  after the journal is synced. So a crash at any point leaves no vote that we do not remember.
- **One synced write per block**: the block, its certificate, the application's writes and the chain's new state.
  Blocks that come from peers while this node is behind are synced several at once, and announced only then.
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

from koinon.errors import Corrupt
from koinon.limits import MAX_VOTES_PER_MESSAGE
from koinon.v1 import consensus_pb2 as pb
from koinon.v1 import peer_pb2
from koinon.validators import verify_commit
from node import gossip
from node.abci import AppHashes, Application, Finalized
from node.author import Author
from node.catch_up import Answer
from node.chain import CHAIN_KEY, standing
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
)
from node.consensus.messages import VoteType
from node.intake import Forged, Intake, Message
from node.journal import Journal, last_signed
from node.ledger import blocks, evidence
from node.ledger.blocks import InvalidBlock, ParsedBlock
from node.neighbours import Neighbours
from node.ports import Alarm, Clock, Listener, Log, Pool, Signer, Timers, Transport, Wake
from node.store.blocks import BlockStore
from node.store.kv import KeyValueStore
from node.store.wal import WriteAheadLog


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
    proposer: str  # of this round; empty while nothing is being decided
    proposed: bool  # its proposal has come
    waiting_for_prevotes: tuple[str, ...]  # validators not heard in this round
    waiting_for_precommits: tuple[str, ...]
    behind: bool  # peers say they are ahead: blocks are being fetched
    highest_claim: int  # the greatest height that peers of which one must be correct claim
    votes_from_height: int | None  # None: the signing state was lost and no safe height is known yet
    has_key: bool  # that counts for the next height; False for an observer, too


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
        self.heartbeat_ms = config.heartbeat_ms  # set anew when the members change it
        self._transport = transport
        self._clock = clock
        self._timers = timers
        self._store = store
        self._app = app
        self._pool = pool
        self._log = log
        self._listeners = tuple(listeners)
        self.blocks = BlockStore(store)
        self.chain = standing(store, config.chain_id, config.genesis_time_ms, app.info())
        own = self.chain.validators.member(config.institution)
        self._journal = Journal(
            wal,
            own.public_key if own else signer.public_key,
            config.institution,
            clock.now_ms(),
            last_signed(store),
        )
        self._core = Core(config.institution, config.timeouts)
        self._intake = Intake(self.chain, self._core, clock, app, log)
        self._neighbours = Neighbours(self.chain, self._core, transport, self.blocks)
        self._evidence = evidence.PendingEvidence()
        self._author = Author(
            config.institution,
            clock=clock,
            signer=signer,
            journal=self._journal,
            app=app,
            pool=pool,
            store=self.blocks,
            evidence=self._evidence,
        )
        self._events: deque[Event] = deque()  # to be journaled, then handled
        self._own: deque[Event] = deque()  # what we signed: journaled already, handled before anything else
        self._outbox: list[peer_pb2.DeliverRequest] = []  # signed, to be sent after the next sync
        self._inbox: deque[tuple[str, Message]] = deque()  # early ones whose time has come
        self._busy = False
        self._halted = False
        self._resting = False
        self._started = False  # is the height after the chain's being decided?

    def add_signer(self, signer: Signer) -> None:
        """A further validator key of this institution: each signs at the heights at which the ledger names it."""
        self._author.add_signer(signer)

    # --- inputs

    def start(self) -> None:
        """Take up where the journal ends."""
        self._enter(self._start)

    def on_message(self, peer: str, message: peer_pb2.DeliverRequest) -> None:
        """A message from an authenticated member's node; its content is not trusted."""
        self._enter(lambda: self._receive(peer, message))

    def on_connected(self, peer: str) -> None:
        """Our messages reach this member's node from now on: tell it where we stand, so that it can help."""
        self._enter(lambda: self._neighbours.greet(peer))

    def on_disconnected(self, peer: str) -> None:
        """The stream to this member's node broke: nobody waits long for what it will hardly propose."""
        self._enter(lambda: self._lose(peer))

    def _lose(self, peer: str) -> None:
        for effect in self._core.lose(peer):
            self._perform(effect)

    def on_timer(self, timer: Timer | Wake) -> None:
        """A timer set through the Timers port is due."""
        self._enter(lambda: self._on_timer(timer))

    def rest(self) -> None:
        """Begin no further height, and go on helping those who are behind."""
        self._resting = True

    def on_transactions(self) -> None:
        """The pool holds transactions."""
        if not self._busy:  # else the end of the height looks at the pool itself
            self._enter(self._start_height_for_transactions)

    def takes(self, peer: str, response: peer_pb2.BlockResponse) -> bool:
        """Did this node ask this peer for these blocks? Then they count as here, and are to come as a message."""
        return self._neighbours.takes(peer, response)

    def wait_for_snapshot(self, waiting: bool) -> None:
        """While waiting no blocks are asked for; those that come are followed."""
        self._neighbours.wait_for_snapshot(waiting)

    def needs_snapshot(self) -> bool:
        """Is somebody ahead of this node that has no ledger yet, or does nobody keep the blocks that it lacks?

        Without a ledger a lie costs a search in vain, and those whom the genesis names may have left. A ledger would be
        given up with all its blocks: then peers of which one must be correct say so.
        """
        if self.chain.height == 0:
            return self._neighbours.highest_claim() > 0
        return self._neighbours.nobody_keeps_next()

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
            proposer=core.validators.proposer(core.height, core.round) if self._started else "",
            proposed=self._started and core.proposal(core.round) is not None,
            waiting_for_prevotes=silent(VoteType.PREVOTE),
            waiting_for_precommits=silent(VoteType.PRECOMMIT),
            behind=self._neighbours.are_ahead(),
            highest_claim=self._neighbours.credible_claim(),
            votes_from_height=self._journal.votes_from_height,
            has_key=self._author.can_sign(self.chain),
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
        self._schedule_gossip()
        if self._journal.votes_from_height is None:
            self._log.warning("signing state lost", rule="signing-state", until="a height is safe: about a minute")
        if (signed := self._journal.signed[0]) > self.chain.height + 1:  # nobody signs beyond the height in hand
            self._log.warning("ledger lost blocks", signed_height=signed, until="peers have sent them")
        if events is not None:
            self._resume(events)
        self._neighbours.greet()

    def _resume(self, events: Sequence[Event]) -> None:
        """Go on with a height that had started before a crash."""
        self._started = True
        effects = self._core.handle(HeightStarted(self.chain.height + 1, self.chain.validators))
        for event in events:
            if isinstance(event, ProposalReceived) and event.valid:
                self._intake.know(blocks.parse(event.proposal.value.block))
            effects += self._core.handle(event)
        # What the log holds of ours was signed before: the journal refuses to sign at or before it.
        for effect in effects:
            if not self._is_over(effect):
                self._perform(effect)

    def _is_over(self, effect: Effect) -> bool:
        """Is this a signature for a round that the core has left? Whoever votes again may have given another there.

        Of the round in hand the others tell what they saw of it; of those before, they may not.
        """
        return isinstance(effect, Propose | CastVote) and effect.round < self._core.round

    def _on_timer(self, timer: Timer | Wake) -> None:
        match timer:
            case Timer():
                self._events.append(TimedOut(timer))
            case Wake(Alarm.GOSSIP):
                self._schedule_gossip()
                self._journal.look_at_clock(self._clock.now_ms())
                self._neighbours.interval_ended()
            case Wake(Alarm.ADOPT):
                self._adopt_next()
            case Wake(Alarm.START, height) if height == self.chain.height + 1:
                self._start_height_for_transactions()
            case Wake(Alarm.PROOF | Alarm.HEARTBEAT, height) if height == self.chain.height + 1:
                self._start_height_if_current()
            case Wake():
                pass  # of a height that is decided

    # --- the loop

    def _drain(self) -> None:
        """Handle events until there are none, then send what was signed."""
        self._handle_all()
        self._flush()

    def _handle_all(self) -> None:
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

    def _is_current(self, event: Event) -> bool:
        """Is this about the height in hand? Blocks from peers may have overtaken it."""
        height = self.chain.height + 1
        return event.height == height and (isinstance(event, HeightStarted) or self._core.is_deciding(height))

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
            case CastVote():
                self._cast_vote(effect)
            case StartTimer(timer, delay_ms):
                self._timers.schedule(delay_ms, timer)
            case Decide():
                self._flush()  # others need our precommit now, and wait for nothing that we do next
                self._commit(self._intake.block(effect.value.block_hash), effect.to_commit())
            case Accuse(first, second):
                self._accuse(evidence.accuse(first, second))
            case _:
                assert_never(effect)

    def _propose(self, effect: Propose) -> None:
        event = self._author.proposal(self.chain, effect)
        if event is not None:
            if effect.value is None:
                self._intake.know(self._author.new_block(self.chain))
            self._own.append(event)
            self._outbox.extend(gossip.proposal_messages(self._core, event.proposal))

    def _cast_vote(self, effect: CastVote) -> None:
        event = self._author.vote(self.chain, effect)
        if event is not None:
            self._own.append(event)
            if self._outbox and self._outbox[-1].HasField("votes"):
                self._outbox[-1].votes.votes.append(event.vote.to_proto())
            else:
                self._outbox.append(gossip.votes_message([event.vote]))

    def _accuse(self, item: pb.Evidence) -> None:
        if self._evidence.add(item):
            offence = evidence.offence(item)
            self._log.warning(
                "equivocation", institution=offence.institution, height=offence.height, round=offence.round
            )

    # --- heights

    def _start_height_for_transactions(self) -> None:
        if len(self._pool):
            self._start_height_if_current()

    def _start_height_if_current(self) -> None:
        """Begin the next height for a reason of our own, unless the network is past it."""
        if not self._neighbours.are_ahead():
            self._start_height()

    def _start_height(self) -> None:
        if self._started or self._resting:
            return
        events = self._journal.replay(self.chain.height + 1)
        if events is not None:  # it had started before the ledger was lost
            self._resume(events)
        else:
            self._started = True
            self._events.append(HeightStarted(self.chain.height + 1, self.chain.validators))
        self._take_up_early()

    def _take_up_early(self) -> None:
        """What peers sent before we were ready for it is received now."""
        self._inbox.extend(self._intake.take_kept())

    def _receive_message(self, peer: str, message: Message) -> None:
        if isinstance(message, pb.Vote):
            self._receive_vote(peer, message)
        else:
            self._receive_proposal(peer, message)

    def _commit(self, block: ParsedBlock, commit: pb.Commit) -> None:
        """Make a block that is proved to be decided durable, then visible, then known."""
        fruitless = len(self._pool) > 0 and not block.transactions
        before = self.chain.hashes
        finalized = self._execute(block, commit, sync=True)
        self._announce([(block, finalized)], before, fruitless=fruitless)

    def _execute(self, block: ParsedBlock, commit: pb.Commit, *, sync: bool) -> Finalized:
        """Execute the next block. Without ``sync`` it is on disk with the next synced write, and not announced yet."""
        height, header = block.header.height, block.header
        finalized = self._app.finalize_block(block.decided())
        chain = self.chain.after(block, finalized)
        writes = [*finalized.writes, *self.blocks.writes(height, block.value.block, commit)]
        standing = [(CHAIN_KEY, chain.to_bytes()), self._journal.mark()]
        self._store.write([*writes, *standing], sync=sync)
        self._app.commit()
        self.chain = chain
        if own := chain.next_validators.member(self._config.institution):
            self._journal.adopt(own.public_key)
        self._evidence.remove(block.evidence)
        self._started = False
        self._intake.turn_to(chain)
        self._neighbours.turn_to(chain)
        # Not while behind: with a clock that is slow some old block would look like one of this moment.
        current = not self._neighbours.are_ahead()
        if current and self._journal.observe(height, header.time_ms, self._clock.now_ms()):
            self._log.info("signing again", from_height=height + 1)
        return finalized

    def _announce(
        self, committed: Sequence[tuple[ParsedBlock, Finalized]], before: AppHashes, *, fruitless: bool = False
    ) -> None:
        """Blocks up to our last are on disk: tell of each, and arrange for the next height to begin."""
        for block, finalized in committed:
            for listener in self._listeners:
                listener.on_committed(block.header.height, block, finalized)
        after = self.chain.hashes
        changed = before.audit_root != after.audit_root  # what else the state does needs no receipt
        self._schedule_starts(proof=changed or any(block.transactions for block, _ in committed))
        if len(self._pool):
            # Through a timer, so that other inputs get their turn. If nothing in the pool was fit for this
            # block, nothing may be fit for the next one: do not spin.
            delay_ms = self._config.proof_delay_ms if fruitless else 0
            self._timers.schedule(delay_ms, Wake(Alarm.START, self.chain.height + 1))
        self._take_up_early()

    def _schedule_starts(self, *, proof: bool) -> None:
        height = self.chain.height + 1
        self._timers.schedule(self.heartbeat_ms, Wake(Alarm.HEARTBEAT, height))
        if proof:
            self._timers.schedule(self._config.proof_delay_ms, Wake(Alarm.PROOF, height))

    def _schedule_gossip(self) -> None:
        self._timers.schedule(self._config.gossip_ms, Wake(Alarm.GOSSIP, self.chain.height + 1))

    # --- messages

    def _receive(self, peer: str, message: peer_pb2.DeliverRequest) -> None:
        match message.WhichOneof("message"):
            case "proposal":
                self._receive_proposal(peer, message.proposal)
            case "votes":
                for vote in message.votes.votes[:MAX_VOTES_PER_MESSAGE]:
                    if not self._receive_vote(peer, vote):
                        break  # one bad signature costs its sender the rest of the batch
                    self._handle_all()  # whether the next one is wanted depends on this one
            case "round_status":
                self._neighbours.on_status(peer, message.round_status)
            case "block_request":
                self._neighbours.on_block_request(peer, message.block_request)
            case "block_response":
                self._receive_blocks(peer, message.block_response)
            case "hello":
                self._neighbours.heard(peer, message.hello.height)
            case _:
                pass  # transactions are the pool's; anything else is of a later version

    def _receive_vote(self, peer: str, message: pb.Vote) -> bool:
        """Returns False if the vote is forged."""
        if not self._is_timely(peer, message):
            return True
        try:
            received = self._intake.vote(peer, message)
        except Forged:
            return False
        if received is not None:
            if self._started:
                self._events.append(received)
            else:
                self._intake.keep(peer, message)
                if self._intake.others_began(message.institution):
                    self._start_height()
        return True

    def _receive_proposal(self, peer: str, message: pb.Proposal) -> None:
        if not self._is_timely(peer, message):
            return
        try:
            received = self._intake.proposal(message)
        except Forged:
            return
        if received is not None:
            self._start_height()
            self._events.append(received)

    def _is_timely(self, peer: str, message: Message) -> bool:
        """Is this about the height to be decided? Keeps what is about the next one; notes who is further."""
        ahead = message.height - (self.chain.height + 1)
        if ahead > 0:
            self._neighbours.heard(peer, message.height - 1)
        if ahead == 1:
            self._intake.keep(peer, message)
        return ahead == 0

    # --- block sync

    def _receive_blocks(self, peer: str, response: peer_pb2.BlockResponse) -> None:
        if not response.blocks:
            self._neighbours.lacks(peer, response.first_height)
            return
        answer = Answer.of(peer, response)
        if self._neighbours.arrived(answer):
            self._timers.schedule(0, Wake(Alarm.ADOPT, self.chain.height + 1))
        elif answer.from_height <= self.chain.height + 1:
            self._adopt(answer)  # nobody asked, but who is nearly there is sent the blocks

    def _adopt_next(self) -> None:
        """One answer at a time, so that other inputs get their turn."""
        answer = self._neighbours.take()
        if answer is not None:
            self._adopt(answer)
            self._timers.schedule(0, Wake(Alarm.ADOPT, self.chain.height + 1))

    def _adopt(self, answer: Answer) -> None:
        """Follow consecutive blocks, each proved by its certificate and equal to what we compute ourselves.

        All are synced at once, and announced after: a crash on the way loses some, which are fetched again. This node
        signs nothing in between.
        """
        before = self.chain.hashes
        followed: list[tuple[ParsedBlock, Finalized]] = []
        for item in answer.blocks:
            if item.commit.height <= self.chain.height:
                continue  # another answer was quicker
            try:
                block = blocks.parse(item.block)
                verify_commit(
                    self._config.chain_id,
                    self.chain.validators,
                    item.commit,
                    block.value.block_hash,
                    self.chain.height + 1,
                )
            except Corrupt as error:
                self._log.warning("blocks dropped", sender=answer.peer, reason=error.message)
                self._neighbours.lied(answer.peer)
                break
            followed.append((block, self._follow(block, item.commit)))
            if self.chain.next_validators != self.chain.validators:  # whoever keeps their history looks at each change
                self._finish(followed, before)
                before, followed = self.chain.hashes, []
        if followed:
            self._finish(followed, before)

    def _finish(self, followed: Sequence[tuple[ParsedBlock, Finalized]], before: AppHashes) -> None:
        self._store.write((), sync=True)
        self._announce(followed, before)
        self._neighbours.ask()

    def _follow(self, block: ParsedBlock, commit: pb.Commit) -> Finalized:
        """Execute a block that is decided. Raises Corrupt if it does not fit our state, which then is wrong."""
        try:
            blocks.verify(self.chain, block, self._app.validator_key)
        except InvalidBlock as error:
            raise Corrupt(
                f"this node has left the ledger that the others share: {error.message}",
                rule=error.rule,
                hint="keep a copy of the ledger directory for inquiry, remove it and start the node: "
                "it fetches the ledger from its peers",
            ) from error
        return self._execute(block, commit, sync=False)
