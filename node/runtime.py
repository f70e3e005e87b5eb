"""One node: its parts opened, wired to one another, run on one event loop, and stopped in order.

The engine does the deciding; what stands here is the real world for its ports. Everything that touches
the ledger happens on the loop's thread, so nothing here takes a lock.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

# gRPC's C core writes its own lines to stderr; what matters of them reaches us as errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Its fork handlers abort a child of a process with calls under way; ours exec at once, and need none.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from structlog.typing import FilteringBoundLogger

from koinon import genesis as genesis_file
from koinon.envelope import SignedTransaction
from koinon.errors import KoinonError, Unavailable
from koinon.limits import MAX_GOSSIP_BYTES, MAX_POOL_TRANSACTIONS
from koinon.v1.identity_pb2 import MEMBER_STATUS_REMOVED, Genesis
from koinon.v1.peer_pb2 import DeliverRequest, TransactionBatch
from koinon.v1.services_pb2 import TransactionInfo
from koinon.v1.session_pb2 import SealedOutput
from koinon.v1.transaction_pb2 import Refusal
from node import taking_part, tls
from node.abci import Finalized
from node.application import Application
from node.auth import Gate
from node.changes import Changes
from node.config import NodeConfig
from node.consensus.events import Step, Timer
from node.credentials import Credentials
from node.datasets import DatasetStore
from node.engine import Engine, EngineConfig
from node.fetched import FetchedBlocks
from node.ledger.blocks import ParsedBlock
from node.metering import TimedStore, TimedWal
from node.metrics import Metrics
from node.metrics_port import MetricsPort
from node.own_keys import OwnKeys
from node.peer_link import Member
from node.peers import Peers
from node.pool import Pool
from node.ports import Wake
from node.progress import Progress
from node.pruning import Upkeep
from node.read_model import ReadModel
from node.receipts import Receipts
from node.report import Report, monotonic_ms
from node.rpc import offered
from node.rpc.meter import Meter
from node.rpc.server import RpcServer
from node.snapshot_exchange import MESSAGES
from node.snapshots import INTERVAL_S, Snapshots
from node.store.leveldb import LevelStore
from node.store.validator_history import ValidatorHistory
from node.store.wal import FileWal
from node.upgrades import UpgradeGuard

if TYPE_CHECKING:
    from node.jobs import JobService

_SAMPLE_S = 1.0
_SENDERS = 10_000  # whose institution is remembered
_LINGER_S = 5.0  # before an upgrade that this node does not know: all have the last block by then
_GRACE_S = 1.0  # for calls under way when the node is told to stop
_BEGIN_VOTING_S = 10.0  # between two attempts
_MEMBER_KINDS = (
    *("institution.joined", "institution.moved", "institution.removed", "institution.left"),
    *("key.rotated", "key.revoked"),
)
"""Audit records after which the ledger's addresses and certificates of members are read again."""


class Node:
    """All parts of one node. ``run`` it once."""

    def __init__(
        self, config: NodeConfig, genesis: Genesis, credentials: Credentials, log: FilteringBoundLogger
    ) -> None:
        """Opens everything on disk; nothing listens yet. Raises as ``node.serve.serve`` does."""
        self._config = config
        self._log = log
        self._jobs: JobService | None = None  # once started
        self._metrics_port: MetricsPort | None = None  # once listening, where it is wanted
        self._failure: KoinonError | None = None
        self._stopping = asyncio.Event()
        self._key_change: asyncio.Task[None] | None = None
        self._voting: asyncio.Task[list[TransactionInfo]] | None = None
        self._changes = Changes()
        self._chain_id = genesis_file.chain_id(genesis)
        self._progress = Progress(monotonic_ms())
        self._metrics = Metrics()
        self._metrics.watch_home(config.home)
        self._restored = False  # is another ledger to be put in place of this one?
        self._again = False  # or is it to begin again with another certificate?
        self._closed = False  # what is closed is not to be driven by timers that are left
        self._threads = ThreadPoolExecutor(thread_name_prefix="aside")  # what asyncio.to_thread takes
        self._level = LevelStore(config.home.ledger)
        self._store = TimedStore(self._level, self._metrics.store_write.observe)
        self._wal = TimedWal(FileWal(config.home.wal), self._synced)
        self._application = Application(self._store, genesis)
        self._keys = OwnKeys(config, credentials, self._application, log)
        credentials = self._keys.credentials
        self._validators = ValidatorHistory(self._store, genesis_file.validators(genesis))
        self._upgrades = UpgradeGuard(self._application, log, self._stop_before)
        self._read_model = ReadModel(config.home.read_model, self._application)
        self._datasets = DatasetStore(config.home.datasets, inspection_memory_mb=config.jobs.memory_mb)
        self._pool = Pool(
            self._application.verified,
            self._check,
            lru_cache(_SENDERS)(lambda key: self._application.sender(key).institution),  # keys change, not their owners
            self._announce,
            self._on_entered,
        )
        self._peers = Peers(config.institution, credentials.identity, genesis_file.genesis_hash(genesis), self, log)
        self._engine = Engine(
            EngineConfig(
                config.institution,
                self._chain_id,
                genesis.time_ms,
                heartbeat_ms=self._application.parameters().heartbeat_ms,
            ),
            transport=self._peers,
            clock=self,
            timers=self,
            wal=self._wal,
            store=self._store,
            app=self._application,
            pool=self._pool,
            signer=credentials.validator,
            log=log,
            listeners=(self, self._validators, self._upgrades),
        )
        self._validators.adopt(self._engine.chain)
        for signer in self._keys.waiting(self._engine.chain):
            self._engine.add_signer(signer)
        self._report = Report(
            config,
            self._chain_id,
            self._application,
            self._engine,
            self._pool,
            self._peers,
            self._progress,
        )
        self._receipts = Receipts(self._application, self._engine.blocks, self._validators, genesis)
        self._snapshots = Snapshots(
            config.home,
            genesis,
            config.ledger.snapshot_blocks,
            store=self._store,
            application=self._application,
            engine=self._engine,
            receipts=self._receipts,
            transport=self._peers,
            reachable=lambda: len(self._reachable()),
            log=log,
        )
        self._upkeep = Upkeep(
            self._engine.blocks,
            self._store,
            self._level,
            config.ledger.keep_blocks,
            lambda: self._application.parameters().block_retention_ms,
            log,
        )
        self._fetched = FetchedBlocks(
            self._application.verified,
            lambda peer, message: self._drive(lambda: self._engine.on_message(peer, message)),
            self._background,
        )
        self._rpc = RpcServer(
            credentials.identity,
            Gate(self._chain_id, tls.pem_to_der(credentials.identity.certificate), self._application, log),
            Meter(self._metrics.on_call),
            offered.services(
                config.institution,
                application=self._application,
                read_model=self._read_model,
                report=self._report,
                pool=self._pool,
                peers=self._peers,
                datasets=self._datasets,
                receipts=self._receipts,
                changes=self._changes,
                sealed_output=self.sealed_output,
            ),
        )
        left = tls.days_left(credentials.identity.certificate, datetime.now(UTC))
        if left < 30:
            log.warning("certificate ends", days_left=left)

    async def _take_up_keys(self) -> None:
        """The ledger names other keys of ours: use them, all but the certificate at once."""
        if not await self._keys.take_up():
            return
        self._engine.add_signer(self._keys.credentials.validator)
        if self._jobs is not None:
            self._jobs.node_key = self._keys.credentials.node
        if self._keys.needs_restart and not self._stopping.is_set():  # all are to see the new certificate
            self._again = True
            self._stopping.set()

    async def _take_part(self) -> None:
        """While the members approved power that this node does not have yet: say that it has caught up."""
        while True:
            ready = self._begin_voting()
            await asyncio.sleep(_BEGIN_VOTING_S if ready else _SAMPLE_S)

    def _begin_voting(self) -> bool:
        member, status = self._keys.member(), self._engine.status()
        if member is None or not taking_part.is_ready(member, status, self._keys.credentials.validator.public_key):
            return False
        application = self._application
        data = taking_part.begin(self._chain_id, self._keys.credentials.node, status.height, application.time_ms)
        self._voting = asyncio.create_task(self._pool.submit([data]), name="submit")
        self._log.info("caught up", height=status.height, power=member.approved_power)
        return True

    # --- life cycle

    async def run(self) -> bool:
        """Listen, decide, serve, until ``stop``; returns whether to start again, on another ledger or certificate.

        Raises what ended the node, if not a wish.
        """
        log, loop = self._log.bind(chain=self._chain_id), asyncio.get_running_loop()
        loop.set_default_executor(self._threads)
        try:
            self._upgrades.start()
            await self._listen()
            log.info("node started", height=self._engine.chain.height, rpc=str(self._config.rpc))
            self._drive(self._engine.start)
            await self._rpc.set_serving(True)
            starting = asyncio.create_task(self._start_jobs(), name="start jobs")
            sampling = self._background(self._sample(), "sample metrics")
            beginning = self._background(self._take_part(), "take part")
            syncing = self._background(self._keep_up(), "snapshots and pruning")
            await self._stopping.wait()
            sampling.cancel()
            beginning.cancel()
            self._fetched.close()
            await asyncio.wait([syncing, *([self._key_change] if self._key_change is not None else [])])
            await self._snapshots.stop()
            await self._upkeep.stop()
            await self._rpc.stop(_GRACE_S)
            await self._peers.stop()
            await starting
            if self._jobs is not None:
                await self._jobs.stop()
        finally:
            self._closed = True
            self._threads.shutdown(cancel_futures=True)  # LevelDB closed under a reader ends the process
            loop.set_default_executor(ThreadPoolExecutor())  # for whoever goes on with this loop
            if self._metrics_port is not None:
                self._metrics_port.stop()
            self._pool.close()
            self._wal.close()
            self._store.close()
            self._read_model.close()
        if self._failure is not None:
            raise self._failure
        log.info("node stopped", height=self._engine.chain.height)
        return self._restored or self._again

    def stop(self) -> None:
        """End ``run`` in order, for good."""
        self._restored = self._again = False
        self._stopping.set()

    async def _sample(self) -> None:
        """Tell monitoring once a second where we stand."""
        while True:
            workers = self._jobs.running if self._jobs is not None else 0
            self._metrics.sample(self._report.status(), self._peers.traffic, self._pool.refusals, workers)
            snapshots = self._snapshots
            self._metrics.sample_ledger(self._engine.blocks.first(), snapshots.newest(), snapshots.progress)
            await asyncio.sleep(_SAMPLE_S)

    async def _keep_up(self) -> None:
        """Take part in snapshots, and prune, until the node stops; a thread that writes in the home ends before."""
        while not self._stopping.is_set():
            if self._snapshots.interval_ended() and await self._snapshots.restore():
                self._restored = not self._stopping.is_set()  # else it is found at the next start
                self._stopping.set()
                return
            await self._upkeep.step(self._snapshots.newest())
            await asyncio.sleep(INTERVAL_S)

    async def _listen(self) -> None:
        try:
            if self._config.metrics is not None:
                self._metrics_port = MetricsPort(self._config.metrics, self._metrics.registry)
            await self._peers.start(self._config.peer, self._members())
            await self._rpc.start(self._config.rpc)
        except (RuntimeError, OSError) as error:  # RuntimeError is gRPC's word for a port that was free a moment ago
            raise Unavailable(str(error), rule="port-in-use", hint="see [listen] in config.toml") from None

    async def _start_jobs(self) -> None:
        """Take part in joint computations. Their modules (SQL, workers) take a second to load: after the node is up."""
        await asyncio.to_thread(import_module, "node.jobs")
        from node.jobs import JobService

        if self._stopping.is_set():
            return
        try:
            jobs = JobService(
                self._application,
                self._pool.submit,
                self._datasets,
                self._config.home.outputs,
                self._reachable,
                institution=self._config.institution,
                node_key=self._keys.credentials.node,
                chain_id=self._chain_id,
                limits=self._config.jobs,
                log=self._log,
            )
            self._jobs = jobs
            await jobs.start(self._config.mpc.host, self._config.mpc.port)
            self._log.info("jobs started", mpc=str(self._config.mpc))
        except OSError as error:
            self._fail(Unavailable(f"{self._config.mpc}: {error.strerror}", hint="see [listen] in config.toml"))
        except KoinonError as error:  # no worker could be started: the ledger goes on; each task tries again
            self._log.error("jobs cannot run", rule=error.rule, reason=error.message)

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that nobody awaits: an error in it ends the node, like one of the engine."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(lambda ended: None if ended.cancelled() else self._drive(ended.result))
        return task

    def _drive(self, action: Callable[[], None]) -> None:
        """Let the engine act; if a port failed it (disk full, ledger damaged), the node ends."""
        if self._closed:
            return
        try:
            action()
        except KoinonError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a bug must stop this node, and not others' trust in it
            self._log.exception("node failed")
            hint = "this is a bug, and the log shows where; or damage: koinon ledger verify HOME tells"
            self._fail(KoinonError(f"the node failed: {error}", hint=hint))

    def _fail(self, error: KoinonError) -> None:
        if self._failure is None:
            self._failure = error
            self._log.error("node cannot go on", rule=error.rule, reason=error.message)
        self._stopping.set()

    def _stop_before(self, error: Unavailable) -> None:
        """Decide nothing more; end a little later, so that members who lack the last block get it."""
        self._engine.rest()
        asyncio.get_running_loop().call_later(_LINGER_S, self._fail, error)

    # --- the engine's ports: Clock, Timers, Listener

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def schedule(self, delay_ms: int, timer: Timer | Wake) -> None:
        if isinstance(timer, Timer) and timer.step is Step.PROPOSE:  # what every round begins with
            self._progress.round_began(timer.height, monotonic_ms())
        asyncio.get_running_loop().call_later(delay_ms / 1000, self._drive, lambda: self._engine.on_timer(timer))

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        decided = (result.transaction_id for result in finalized.results)
        self._pool.committed(block.transactions, decided, block.header.time_ms)
        since_ms = monotonic_ms() - self._progress.committed_at_ms
        self._progress.committed(monotonic_ms())
        self._metrics.on_block(finalized)
        if "parameter.changed" in finalized.kinds:
            self._engine.heartbeat_ms = self._application.parameters().heartbeat_ms
        if not finalized.kinds.isdisjoint(_MEMBER_KINDS):
            changed = {record.subject for record in finalized.records if record.kind in _MEMBER_KINDS}
            self._peers.update(self._members())
            if f"institution:{self._config.institution}" in changed:
                if signer := self._keys.named_next():
                    self._engine.add_signer(signer)
                self._key_change = self._background(self._take_up_keys(), "take up keys")
        self._snapshots.on_committed(height)
        asyncio.get_running_loop().call_soon(self._drive, self._publish)
        commit = self._engine.blocks.commit(height)
        self._log.info(
            "block",
            height=height,
            round=commit.round if commit is not None else None,
            transactions=len(block.transactions),
            since_previous_ms=since_ms,
            proposer=block.header.proposer,
        )

    def _publish(self) -> None:
        """Show people what was committed: after consensus went on, since this is not its business."""
        self._read_model.follow()
        self._changes.notify()
        if self._jobs is not None:
            self._jobs.on_committed()

    # --- the peers' receiver

    def height(self) -> int:
        return self._engine.chain.height

    def connected(self, institution: str) -> None:
        waiting = self._pool.reap(MAX_GOSSIP_BYTES, MAX_POOL_TRANSACTIONS)  # told before, while nobody heard us
        if waiting:
            self._peers.send(institution, DeliverRequest(transactions=TransactionBatch(envelopes=waiting)))
        self._snapshots.on_hello(institution)  # what a search asked before, nobody heard either
        self._drive(lambda: self._engine.on_connected(institution))

    def disconnected(self, institution: str) -> None:
        self._drive(lambda: self._engine.on_disconnected(institution))

    def received(self, institution: str, message: DeliverRequest) -> None:
        kind = message.WhichOneof("message")
        if kind == "transactions":
            self._pool.receive(message.transactions.envelopes[:])
            return
        if kind in MESSAGES:
            self._drive(lambda: self._snapshots.received(institution, message))
            return
        if kind == "hello":
            self._snapshots.on_hello(institution)
        if kind == "block_response" and self._engine.takes(institution, message.block_response):
            self._fetched.put(institution, message)
            return
        if kind == "votes" and message.votes.votes and message.votes.votes[0].institution == institution:
            time_ms = message.votes.votes[0].time_ms
            if time_ms > self._engine.chain.time_ms + 1:  # else it is the block's time, and says nothing of the clock
                self._progress.heard_vote(institution, time_ms - self.now_ms())
        self._drive(lambda: self._engine.on_message(institution, message))

    def sealed_output(self, task_id: str) -> SealedOutput | None:
        return self._jobs.output(task_id) if self._jobs is not None else None

    # --- the write-ahead log's

    def _synced(self, took_s: float) -> None:
        self._progress.synced(int(took_s * 1000), monotonic_ms())
        self._metrics.wal_sync.observe(took_s)

    # --- the pool's

    def _check(self, transaction: SignedTransaction) -> Refusal | None:
        return self._application.check_verified(transaction, self.now_ms())

    def _announce(self, envelopes: list[bytes]) -> None:
        self._peers.broadcast(DeliverRequest(transactions=TransactionBatch(envelopes=envelopes)))

    def _on_entered(self) -> None:
        self._drive(self._engine.on_transactions)

    # --- what others ask

    def _members(self) -> list[Member]:
        return [
            Member(
                item.descriptor.id,
                item.descriptor.peer_address,
                item.descriptor.tls_certificate,
                item.former_tls_certificate,
            )
            for item in self._application.institutions()
            if item.status != MEMBER_STATUS_REMOVED
        ]

    def _reachable(self) -> list[str]:
        return [peer.institution for peer in self._peers.status() if peer.connected]
