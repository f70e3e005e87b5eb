"""The production node, less what is asyncio, gRPC and LevelDB, on simulated ports. It may crash at every operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from koinon import genesis as genesis_file
from koinon.envelope import InvalidTransaction
from koinon.errors import Corrupt, Exhausted, KoinonError
from koinon.keys import SigningKey
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.peer_pb2 import DeliverRequest, Hello, TransactionBatch
from node.abci import Finalized
from node.application import Application
from node.consensus.events import Timeouts, Timer
from node.engine import Engine, EngineConfig
from node.journal import Journal
from node.ledger.blocks import ParsedBlock
from node.ports import Wake
from node.recovery_commands import validator_standing
from node.snapshot_exchange import MESSAGES as SNAPSHOT_MESSAGES
from node.store.memory import MemoryStore
from node.store.validator_history import ValidatorHistory
from testnet.simulation.checkers import Checkers, Violation
from testnet.simulation.consortium import VALIDATOR_KEYS, validator_key
from testnet.simulation.disk import Disk
from testnet.simulation.searching import SimIndex
from testnet.simulation.snapshots import SimSnapshots
from testnet.simulation.world import World

if TYPE_CHECKING:
    from testnet.simulation.attackers import Attacker

TIMEOUTS = Timeouts(propose_ms=500, propose_late_ms=150, vote_ms=150, growth_ms=150, cap_ms=3_000)
_PROOF_MS, _GOSSIP_MS = 100, 200


class Crash(BaseException):
    """The node's process ends here. Not an Exception: no production code may catch it."""


class SimNode:
    """One process with one disk. The twins of a faulty validator are two nodes with one institution and key."""

    def __init__(
        self,
        network: Network,
        name: str,
        institution: str,
        key: SigningKey,
        genesis: Genesis,
        checkers: Checkers,
        attacker: Attacker | None = None,
    ) -> None:
        self.world: World = network.world
        self.name = name
        self.institution = institution
        self.key = key
        self.attacker = attacker
        self.crashes = 0
        self.restorations = 0  # ledgers made from snapshots
        self.repairs = 0  # what an operator removed, as an error's hint said
        self.clock_skew_ms = 0
        self.busy_until_ms = 0  # paused, or waiting for its disk
        self.committed: list[bytes] = []  # block hashes announced by this node, by height
        self.restored_height = 0  # of the snapshot that its ledger began with
        self.invited = True  # does the ledger let it in? Until then it is not started
        self.snapshots: SimSnapshots | None = None
        self.engine: Engine | None = None
        self.index: SimIndex | None = None  # for searches
        self.keep_blocks = 0  # older ones are pruned; 0: none
        self.disk = Disk(self.world.random(f"disk of {name}"), self.operation, partial(checkers.on_logged, self))
        self.config = EngineConfig(
            institution=institution,
            chain_id=genesis_file.chain_id(genesis),
            genesis_time_ms=genesis.time_ms,
            heartbeat_ms=genesis.parameters.heartbeat_ms,
            proof_delay_ms=_PROOF_MS,
            gossip_ms=_GOSSIP_MS,
            timeouts=TIMEOUTS,
        )
        self.network = network
        self.pool: dict[bytes, tuple[bytes, int]] = {}  # by transaction id: envelope and expiry
        self.lives = 0
        self.genesis = genesis
        self.checkers = checkers
        self._operations_left: int | None = None  # before the next crash
        Journal.create(self.disk.wal, key.public_key)

    @property
    def correct(self) -> bool:
        return self.attacker is None

    # --- life

    @property
    def up(self) -> bool:
        return self.engine is not None

    def start(self) -> None:
        """A new process on the old disk."""
        self.world.note("start", self.name)
        self._operations_left = None
        self.busy_until_ms = 0
        self.pool.clear()
        self.lives += 1
        self.disk.open()

        def make() -> None:
            store = self.disk.store
            self.app = Application(store, self.genesis)
            self.validators = ValidatorHistory(store, genesis_file.validators(self.genesis))
            engine = Engine(
                self.config,
                transport=self,
                clock=self,
                timers=_Timers(self),
                wal=self.disk.wal,
                store=store,
                app=self.app,
                pool=self,
                signer=self.key,
                log=_Log(self),
                listeners=[self, self.validators],
            )
            self.validators.adopt(engine.chain)
            for number in range(1, VALIDATOR_KEYS):
                engine.add_signer(validator_key(self.institution, number))
            self.engine = engine
            if self.attacker is not None:
                self.attacker.arm(self)
            self.checkers.on_start(self)
            if self.index is not None:
                self.index.open(self.app)
            if self.network.snapshots:
                self.snapshots = SimSnapshots(self, engine, self.genesis, _Log(self))
            engine.start()

        self.enter(make)
        for peer in self.network.nodes.values():
            if peer is not self and peer.up and self.up:
                self.connect(peer)
                peer.connect(self)

    def connect(self, peer: SimNode) -> None:
        """A stream to this peer is open."""
        engine = self.engine
        if engine is None:
            return
        hello = Hello(institution=self.institution, height=engine.chain.height)
        batch = TransactionBatch(envelopes=self.reap(0, 1_000))

        def greet() -> None:
            self.send(peer.institution, DeliverRequest(hello=hello))
            if batch.envelopes:
                self.send(peer.institution, DeliverRequest(transactions=batch))
            engine.on_connected(peer.institution)

        self.enter(greet)

    def disconnect(self, institution: str) -> None:
        """The stream to a peer broke, and this node heard of it."""
        if (engine := self.engine) is not None:
            self.enter(lambda: engine.on_disconnected(institution))

    def crash_after(self, operations: int) -> None:
        """End the process at the operation with this number from now on."""
        if self.up:
            self._operations_left = operations

    def operation(self) -> None:
        """Before every operation on disk or network."""
        if self._operations_left is not None:
            self._operations_left -= 1
            if self._operations_left < 0:
                raise Crash

    def pause(self, duration_ms: int) -> None:
        """SIGSTOP: nothing happens in this process, and everything waits for it."""
        self.busy_until_ms = max(self.busy_until_ms, self.world.now_ms + duration_ms)

    def enter(self, action: Callable[[], object]) -> None:
        """Run something of this process, when it has time; if it crashes, what was not synced may be lost."""
        if self.busy_until_ms > self.world.now_ms:
            life = self.lives
            self.world.schedule(
                self.busy_until_ms - self.world.now_ms, lambda: self.enter(action) if self.lives == life else None
            )
            return
        self.disk.spent_ms = 0
        try:
            action()
        except Crash:
            self.world.note("crash", self.name)
            self.crashes += 1
            self._end()
            self.disk.crash()
            if self.index is not None:
                self.index.crash()
        except KoinonError as error:
            self._give_up(error)
        if self.disk.spent_ms:
            self.pause(self.disk.spent_ms)

    def _give_up(self, error: KoinonError) -> None:
        """The engine met an error of its disk, and ends; its operator does what the error's hint says."""
        self.world.note("gives up", self.name, error.message)
        self._end()
        if isinstance(error, Exhausted) and self.disk.full:
            return  # until there is space again
        if not isinstance(error, Corrupt) or not error.hint or not self.correct:
            raise Violation(f"{self.name} ends without cause: {error.message}") from error
        if "write-ahead log" in error.message and self.disk.wal_is_damaged:
            self.disk.lose_wal()
        elif self.disk.damaged:
            self.lose_store()
        else:
            raise Violation(f"{self.name} finds damage where there is none: {error.message}") from error
        self.repairs += 1

    def _end(self) -> None:
        if self.engine is not None:
            self.network.reset(self)
        self.engine = self.snapshots = None
        self.lives += 1
        self._operations_left = None

    def stop(self) -> None:
        """End the process at a moment when it does nothing; what it wrote is written."""
        if self.up:
            self.world.note("stop", self.name)
            self._end()

    def lose_signing_state(self) -> None:
        """While it is down: the write-ahead log is gone."""
        self.disk.lose_wal()

    def vote_again(self) -> None:
        """While it is down: its operator says that it may sign after its last block, though no block showed that."""
        store = self.disk.store
        height, key, signed = validator_standing(store, self.genesis, self.institution, lambda: self.key.public_key)
        journal = Journal(self.disk.wal, key, self.institution, self.now_ms(), signed)
        journal.vote_again(height + 1)
        self.checkers.conduct.on_voting_again(self.institution, height, self.network.nodes.values())

    def lose_disk(self) -> None:
        """While it is down: everything is gone but the key."""
        self.disk.lose_wal()
        self.lose_store()

    def lose_store(self) -> None:
        """While it is down: the ledger is gone, the write-ahead log is there."""
        self.disk.lose_store()
        self.committed, self.restored_height = [], 0

    def adopt_restored(self, store: MemoryStore, height: int) -> None:
        """The ledger is replaced by one made from a snapshot of this height, and the process starts again."""
        self.stop()
        self.disk.files = (self.disk.files[0], store)
        self.disk.damaged.clear()
        if self.correct:
            self.checkers.on_restored(self, height)
        else:
            self.committed = [b""] * height
        self.restored_height = height
        self.restorations += 1
        self.start()

    def keeps(self, height: int) -> bool:
        """Is the block at this height on its disk, whole?"""
        return self.disk.files[1].get(b"b/" + height.to_bytes(8, "big")) is not None

    def knows(self, height: int) -> bool:
        """Has a correct node announced the block at this height?"""
        return height in self.checkers.chain.decided

    # --- ports: clock, transport, pool, listener

    def now_ms(self) -> int:
        return self.world.now_ms + self.clock_skew_ms

    def send(self, institution: str, message: DeliverRequest) -> None:
        self._send([institution], message)

    def broadcast(self, message: DeliverRequest) -> None:
        self._send([other for other in self.network.institutions if other != self.institution], message)

    def _send(self, institutions: Sequence[str], message: DeliverRequest) -> None:
        if self.attacker is not None:
            for institution in institutions:
                self.operation()
                for delay_ms, changed in self.attacker.outgoing(self, institution, message):
                    self.post(institution, changed, delay_ms)
            return
        self.checkers.on_send(self, message)
        data = message.SerializeToString()
        for institution in institutions:
            self.operation()
            self.network.send(self, institution, data, self.disk.spent_ms)

    def post(self, institution: str, message: DeliverRequest, delay_ms: int = 0) -> None:
        """Send as it is: what attackers do."""
        self.checkers.on_send(self, message)
        self.network.send(self, institution, message.SerializeToString(), self.disk.spent_ms + delay_ms)

    def __len__(self) -> int:
        return len(self.pool)

    def reap(self, max_bytes: int, max_count: int) -> Sequence[bytes]:
        return [envelope for envelope, _ in list(self.pool.values())[:max_count]]

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        for result in finalized.results:
            self.pool.pop(result.transaction_id, None)
        for expired in [name for name, (_, expiry) in self.pool.items() if expiry <= block.header.time_ms]:
            del self.pool[expired]
        if self.attacker is None:
            self.checkers.on_committed(self, height, finalized)
        else:
            self.committed.append(block.value.block_hash)
        if self.snapshots is not None:
            self.snapshots.on_committed(height)
        if self.index is not None:  # after consensus went on
            life, follow = self.lives, self.index.follow
            self.world.schedule(0, lambda: self.enter(follow) if self.lives == life else None)

    # --- inputs

    def deliver(self, sender: str, data: bytes) -> None:
        """Bytes from the network, by an authenticated peer."""
        if self.engine is None:
            return
        try:
            message = DeliverRequest.FromString(data)
        except DecodeError:
            return  # gRPC ends the stream; the peer connects again
        engine = self.engine
        if message.HasField("transactions"):
            self.enter(lambda: self._admit(message.transactions.envelopes))
            return

        snapshots = self.snapshots
        if snapshots is not None and message.WhichOneof("message") in SNAPSHOT_MESSAGES:
            self.enter(partial(snapshots.exchange.received, sender, message))
            return

        def receive() -> None:
            if snapshots is not None and message.HasField("hello"):
                snapshots.exchange.on_hello(sender)
            engine.on_message(sender, message)
            self.checkers.on_delivery(self, message)

        self.enter(receive)

    def submit(self, envelope: bytes) -> None:
        """A client's transaction."""

        def take() -> None:
            if self._admit([envelope]):
                self.broadcast(DeliverRequest(transactions=TransactionBatch(envelopes=[envelope])))

        if self.up:
            self.enter(take)

    def _admit(self, envelopes: Iterable[bytes]) -> bool:
        """Into the pool, as node.pool does it: verified, and the application's opinion heard."""
        admitted = False
        for envelope in envelopes:
            try:
                transaction = self.app.verified.verify(envelope)
            except InvalidTransaction:
                continue
            if self.app.check_verified(transaction, self.now_ms()) is None:
                self.pool[transaction.id] = envelope, transaction.body.expires_at_ms
                admitted = True
        if self.engine is not None:
            self.engine.on_transactions()
        return admitted


class Network:
    """Who is reached under which name. Messages travel as bytes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[str, SimNode] = {}
        self.institutions: list[str] = []
        self.snapshots = False  # do nodes cut and fetch them?
        self.overheard: list[bytes] = []  # what a faulty member could replay or deform

    def add(self, node: SimNode) -> None:
        self.nodes[node.name] = node
        if node.institution not in self.institutions:
            self.institutions.append(node.institution)

    def send(self, sender: SimNode, institution: str, data: bytes, after_ms: int = 0) -> None:
        if len(self.overheard) < 500:
            self.overheard.append(data)
        for node in self.nodes.values():
            if node.institution == institution and node is not sender:
                self._carry(sender, node, data, after_ms)

    def _carry(self, sender: SimNode, node: SimNode, data: bytes, after_ms: int) -> None:
        self.world.carry(sender.name, node.name, data, lambda: node.deliver(sender.institution, data), after_ms)

    def reset(self, ended: SimNode) -> None:
        """Its peers hear that its streams ended, unless that is lost on the way."""
        for node in self.nodes.values():
            if node is not ended:
                self.world.carry(ended.name, node.name, b"", partial(node.disconnect, ended.institution))

    def reconnect(self) -> None:
        """What was severed and is no more is dialled anew."""
        for node in self.nodes.values():
            for peer in self.nodes.values():
                if node is not peer and node.up and peer.up:
                    node.connect(peer)


class _Timers:
    """Timers of one process: they end with it."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._life = node.lives

    def schedule(self, delay_ms: int, timer: Timer | Wake) -> None:
        self._node.world.schedule(delay_ms, lambda: self._fire(timer))

    def _fire(self, timer: Timer | Wake) -> None:
        engine = self._node.engine
        if engine is not None and self._node.lives == self._life:
            self._node.enter(lambda: engine.on_timer(timer))


class _Log:
    """What a node says to people goes on record."""

    def __init__(self, node: SimNode) -> None:
        self._node = node

    def info(self, event: str, **fields: object) -> None:
        self._node.world.note(self._node.name, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._node.world.note(self._node.name, event, fields)
