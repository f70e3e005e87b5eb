"""The production engine on simulated ports. A node may crash at every operation on its disk or network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from google.protobuf.message import DecodeError

from koinon.keys import SigningKey
from koinon.v1.consensus_pb2 import Validator
from koinon.v1.peer_pb2 import DeliverRequest, TransactionBatch
from node.abci import Finalized, Write
from node.consensus.events import Timeouts, Timer
from node.engine import Engine, EngineConfig
from node.journal import Journal
from node.ledger.blocks import ParsedBlock
from node.ports import Wake
from node.store.memory import MemoryStore
from node.store.wal import MemoryWal
from testnet.simulation.application import ChainApplication
from testnet.simulation.checkers import Checkers
from testnet.simulation.world import World

TIMEOUTS = Timeouts(propose_ms=500, propose_late_ms=150, vote_ms=150, growth_ms=150, cap_ms=3_000)


class Crash(BaseException):
    """The node's process ends here. Not an Exception: no production code may catch it."""


class SimNode:
    """One process with one disk. The twins of a faulty validator are two nodes with one institution and key."""

    def __init__(
        self,
        world: World,
        name: str,
        institution: str,
        key: SigningKey,
        validators: tuple[Validator, ...],
        config: EngineConfig,
        checkers: Checkers,
        network: Network,
        *,
        correct: bool,
        application: type[ChainApplication],
    ) -> None:
        self.world = world
        self.name = name
        self.institution = institution
        self.correct = correct
        self.crashes = 0
        self._application = application
        self.clock_skew_ms = 0
        self.committed: list[bytes] = []  # block hashes announced by this node, by height
        self.engine: Engine | None = None
        self._key = key
        self._validators = validators
        self._config = config
        self._checkers = checkers
        self._network = network
        self._store = MemoryStore()
        self._wal = MemoryWal()
        Journal.create(self._wal, key.public_key)
        self._pool: dict[bytes, None] = {}
        self._operations_left: int | None = None  # before the next crash

    # --- life

    @property
    def up(self) -> bool:
        return self.engine is not None

    def start(self) -> None:
        """A new process on the old disk."""
        self.world.note("start", self.name)
        self._operations_left = None
        self._pool.clear()
        self._store.reopen()

        def make() -> None:
            app = self._application(self._store, self._validators)
            self.engine = Engine(
                self._config,
                transport=self,
                clock=self,
                timers=_Timers(self),
                wal=_CrashingWal(self),
                store=_CrashingStore(self),
                app=app,
                pool=self,
                signer=self._key,
                log=_Silence(),
                listeners=[self],
            )
            self._checkers.on_start(self)
            self.engine.start()

        self.enter(make)
        for peer in self._network.nodes.values():
            if peer is not self and peer.up:
                self.connect(peer)
                peer.connect(self)

    def connect(self, peer: SimNode) -> None:
        """A stream to this peer is open."""
        engine = self.engine
        if engine is not None:
            self.enter(lambda: engine.on_connected(peer.institution))

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

    def enter(self, action: Callable[[], object]) -> None:
        """Run something of this process; if it crashes, what was not synced may be lost."""
        try:
            action()
        except Crash:
            self._die()

    def _die(self) -> None:
        rng = self.world.rng
        self.world.note("crash", self.name)
        self.engine = None
        self.crashes += 1
        self._operations_left = None
        self._wal.crash(survivors=rng.choice((0, 0, 1, 2, 100)))
        self._store.crash(survivors=rng.choice((0, 1)))

    def stop(self) -> None:
        """End the process at a moment when it does nothing."""
        if self.up:
            self._die()

    def lose_signing_state(self) -> None:
        """While it is down: the log is gone, the ledger is still there."""
        self._wal = MemoryWal()

    def lose_disk(self) -> None:
        """While it is down: everything is gone but the key."""
        self._wal, self._store = MemoryWal(), MemoryStore()
        self.committed = []

    # --- ports: clock, transport, pool, listener

    def now_ms(self) -> int:
        return self.world.now_ms + self.clock_skew_ms

    def send(self, institution: str, message: DeliverRequest) -> None:
        self.operation()
        self._checkers.on_send(self, message)
        self._network.send(self, institution, message.SerializeToString())

    def broadcast(self, message: DeliverRequest) -> None:
        self._checkers.on_send(self, message)
        data = message.SerializeToString()
        for institution in self._network.institutions:
            if institution != self.institution:
                self.operation()
                self._network.send(self, institution, data)

    def __len__(self) -> int:
        return len(self._pool)

    def reap(self, max_bytes: int, max_count: int) -> Sequence[bytes]:
        return list(self._pool)[:max_count]

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        for envelope in block.transactions:
            self._pool.pop(envelope, None)
        self.committed.append(block.value.block_hash)
        self._checkers.on_committed(self, height, block, finalized)

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
            self.enter(lambda: self._admit(list(message.transactions.envelopes)))
        else:
            self.enter(lambda: engine.on_message(sender, message))

    def submit(self, envelope: bytes) -> None:
        """A client's transaction."""
        if self.up:
            self.enter(lambda: self.broadcast(DeliverRequest(transactions=TransactionBatch(envelopes=[envelope]))))
            self.enter(lambda: self._admit([envelope]))

    def _admit(self, envelopes: Iterable[bytes]) -> None:
        if self.engine is not None:
            app = self._application(self._store, self._validators)
            self._pool.update(dict.fromkeys(e for e in envelopes if app.check_tx(e) is None))
            self.engine.on_transactions()


class Network:
    """Who is reached under which name. Messages travel as bytes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[str, SimNode] = {}
        self.institutions: list[str] = []
        self.overheard: list[bytes] = []  # what a faulty member could replay or deform

    def add(self, node: SimNode) -> None:
        self.nodes[node.name] = node
        if node.institution not in self.institutions:
            self.institutions.append(node.institution)

    def send(self, sender: SimNode, institution: str, data: bytes) -> None:
        if len(self.overheard) < 500:
            self.overheard.append(data)
        for node in self.nodes.values():
            if node.institution == institution:
                self._carry(sender.name, sender.institution, node, data)

    def _carry(self, name: str, institution: str, node: SimNode, data: bytes) -> None:
        self.world.carry(name, node.name, lambda: node.deliver(institution, data))


class _Timers:
    """Timers of one process: they end with it."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._life = node.crashes

    def schedule(self, delay_ms: int, timer: Timer | Wake) -> None:
        self._node.world.schedule(delay_ms, lambda: self._fire(timer))

    def _fire(self, timer: Timer | Wake) -> None:
        engine = self._node.engine
        if engine is not None and self._node.crashes == self._life:
            self._node.enter(lambda: engine.on_timer(timer))


class _CrashingWal:
    """The node's log; the process may end before and after every call."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._wal = node._wal

    def append(self, record: bytes) -> None:
        self._node.operation()
        self._wal.append(record)

    def sync(self) -> None:
        self._node.operation()
        self._wal.sync()
        self._node.operation()

    def records(self) -> list[bytes]:
        return self._wal.records()

    def reset(self, records: Iterable[bytes] = ()) -> None:
        self._node.operation()
        self._wal.reset(records)
        self._node.operation()

    def close(self) -> None:
        self._wal.close()


class _CrashingStore:
    """The node's store; the process may end before and after every write."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._store = node._store

    def get(self, key: bytes) -> bytes | None:
        return self._store.get(key)

    def scan(self, prefix: bytes, *, start: bytes = b"", reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._store.scan(prefix, start=start, reverse=reverse)

    def write(self, writes: Iterable[Write], *, sync: bool) -> None:
        self._node.operation()
        self._store.write(writes, sync=sync)
        self._node.operation()

    def close(self) -> None:
        self._store.close()


class _Silence:
    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...
