"""Four institutions' job services in one process, over one real ledger whose blocks are decided by decree.

Everything else is real: staged files, worker processes, TLS between them on loopback. Between institutions stand taps
that record what goes over the wire.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import structlog

from koinon import shares
from koinon.envelope import identify
from koinon.keys import SealingKey
from koinon.v1.access_pb2 import RequestAccess
from koinon.v1.catalog_pb2 import TASK_OPERATION_VARIANCE
from koinon.v1.identity_pb2 import UpdateEndpoints
from koinon.v1.plan_pb2 import Plan
from koinon.v1.services_pb2 import TransactionInfo
from koinon.v1.session_pb2 import SealedOutput
from koinon.v1.task_pb2 import TASK_STATUS_RUNNING, TASK_STATUS_SUBMITTED, Task
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_PENDING, TRANSACTION_STATUS_REJECTED, Envelope
from mpc.cleartext import evaluate, group_codes
from mpc.engines.duckdb_engine import DuckDBEngine
from mpc.plan import Source, compile_plan, task_for
from node.config import JobLimits
from node.datasets import DatasetStore
from node.jobs import JobService
from tests.contracts.consortium import ALL_OPERATIONS, MEMBERS, Consortium, key, publication

OPERATIONS = sorted((*ALL_OPERATIONS, TASK_OPERATION_VARIANCE))
TABLE = "ercp.indo_rct"
SQL = f"SELECT rx, COUNT(*) AS n, SUM(age) AS total, AVG(age) AS mean, VAR_SAMP(age) AS spread FROM {TABLE} GROUP BY rx"
BLOCK_MS = 20


def rows(member: str) -> list[tuple[str, int]]:
    """What an institution holds: a handful of patients."""
    start = MEMBERS.index(member)
    return [(("0_placebo", "1_indomethacin")[i % 2], 31 + start + 7 * i) for i in range(12 + start)]


def content(member: str) -> bytes:
    return "".join(["rx,age\n", *(f"{rx},{age}\n" for rx, age in rows(member))]).encode()


class Tap:
    """A relay to an MPC port. ``streams`` holds, per connection, what went to the port and what came from it.

    While ``open`` is not set, whoever dials is accepted, and not one byte of theirs goes on.
    """

    def __init__(self) -> None:
        self.streams: list[tuple[bytearray, bytearray]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._server: asyncio.Server | None = None
        self._target = 0

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def lead_to(self, port: int) -> None:
        self._target = port

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = bytearray(), bytearray()
        self.streams.append((there, back))
        await self.open.wait()
        try:
            port_reader, port_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, port_writer, there), _copy(port_reader, writer, back))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
    try:
        while chunk := await reader.read(65536):
            seen += chunk
            writer.write(chunk)
    except OSError:
        pass
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class TaskNetwork:
    """Use as an async context manager."""

    def __init__(self, directory: Path, owners: Sequence[str] = MEMBERS) -> None:
        self.consortium = Consortium()
        self.services: dict[str, JobService] = {}
        self.taps = {member: Tap() for member in MEMBERS}
        self.tokens: dict[str, str] = {}
        self.result_key = SealingKey.generate()
        self.directory = directory
        self._owners = tuple(owners)
        self._pending: list[bytes] = []
        self._deciding: asyncio.TimerHandle | None = None
        self._decides = True

    async def __aenter__(self) -> TaskNetwork:
        try:
            await asyncio.gather(*(self.begin(member) for member in MEMBERS))
            for member in MEMBERS:
                address = f"127.0.0.1:{await self.taps[member].start()}"
                moved = UpdateEndpoints(peer_address="127.0.0.1:1", rpc_address="127.0.0.1:2", mpc_address=address)
                self.consortium.do(f"{member}/operator", moved)
            await asyncio.gather(*(self.publish(owner) for owner in self._owners))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._deciding is not None:
            self._deciding.cancel()
        await asyncio.gather(*(service.stop() for service in self.services.values()))
        for tap in self.taps.values():
            tap.stop()

    async def begin(self, member: str) -> None:
        """Start a member's job service, for the first time or again."""
        service = JobService(
            self.consortium.app,
            self.submit,
            DatasetStore(self.directory / member / "datasets"),
            self.directory / member / "outputs",
            lambda: MEMBERS,
            institution=member,
            node_key=key(member),
            chain_id=self.consortium.chain_id,
            limits=JobLimits(memory_mb=256),
            log=structlog.get_logger(),
        )
        self.services[member] = service
        await service.start("127.0.0.1", 0)
        self.taps[member].lead_to(service.port)

    async def halt(self, member: str) -> None:
        """End a member's job service; what it handed in and no block holds is lost with it."""
        await self.services.pop(member).stop()
        own = key(member).public_key
        self._pending = [data for data in self._pending if Envelope.FromString(data).public_key != own]

    async def publish(self, owner: str) -> None:
        staged = await DatasetStore(self.directory / owner / "datasets").stage("csv", _chunks(content(owner)))
        name = f"{owner}.{TABLE}"
        published = publication(name, row_count=10 * (len(rows(owner)) // 10), commitment=staged.commitment)
        published.policy.operations[:] = OPERATIONS
        self.consortium.do(f"{owner}/operator", published)
        request = RequestAccess(dataset=name, operations=OPERATIONS, purposes=["test"], duration_ms=900_000, uses=100)
        self.tokens[name] = self.consortium.app.request(self.consortium.do("um/analyst", request)).token_id

    # --- the ledger

    async def submit(self, envelopes: Sequence[bytes]) -> list[TransactionInfo]:
        """As node.pool.Pool.submit."""
        infos = []
        for data in envelopes:
            refusal = self.consortium.app.check_tx(data)
            if refusal is not None:
                infos.append(TransactionInfo(status=TRANSACTION_STATUS_REJECTED, refusal=refusal))
                continue
            infos.append(TransactionInfo(status=TRANSACTION_STATUS_PENDING, transaction_id=identify(data)))
            self._pending.append(data)
        if self._deciding is None and self._decides:
            self._deciding = asyncio.get_running_loop().call_later(BLOCK_MS / 1000, self.decide)
        return infos

    def decide(self, after_ms: int = BLOCK_MS) -> None:
        """One block of what is pending; every service is told."""
        self._deciding = None
        pending, self._pending = self._pending, []
        self.consortium.decide(*pending, after_ms=after_ms)
        for service in self.services.values():
            service.on_committed()

    @contextmanager
    def undecided(self) -> Iterator[None]:
        """Inside, what is handed in waits: there is no block but by ``decide`` and ``do``."""
        if self._deciding is not None:
            self._deciding.cancel()
        self._deciding, self._decides = None, False
        try:
            yield
        finally:
            self._decides = True
            self.decide()

    def do(self, sender: str, operation: object) -> str:
        """One transaction in a block of its own, which must succeed; the id it created."""
        created = self.consortium.do(sender, operation)
        for service in self.services.values():
            service.on_committed()
        return created

    # --- queries

    def plan(self, sql: str = SQL, owners: Sequence[str] = MEMBERS) -> Plan:
        app = self.consortium.app
        names = [f"{owner}.{TABLE}" for owner in owners]
        sources = [Source(app.dataset(name), app.token(self.tokens[name])) for name in names]
        return compile_plan(sql, sources, MEMBERS, asker="um", min_committee=3, max_committee=7)

    def ask(self, plan: Plan, **changes: bytes) -> str:
        """Submit the task of a plan; its id."""
        task = task_for(plan, "test")
        task.result_key = self.result_key.public_key
        for name, value in changes.items():
            setattr(task, name, value)
        return self.do("um/analyst", task)

    async def until(self, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for a condition, while blocks go by."""
        async with asyncio.timeout(seconds):
            while not holds():
                if not self._pending:
                    self.decide()
                await asyncio.sleep(BLOCK_MS / 1000)

    async def ended(self, task_id: str) -> Task:
        await self.until(lambda: self.task(task_id).status not in (TASK_STATUS_SUBMITTED, TASK_STATUS_RUNNING))
        return self.task(task_id)

    @asynccontextmanager
    async def running(self, plan: Plan) -> AsyncIterator[str]:
        """A task that runs, with a worker of every party, and goes on running: inside, none of them reaches another."""
        for tap in self.taps.values():
            tap.open.clear()
        try:
            task_id = self.ask(plan)
            await self.until(lambda: self.task(task_id).status != TASK_STATUS_SUBMITTED)
            await self.watch(lambda: all(self.is_at_work(name, task_id) for name in plan.committee))
            assert self.task(task_id).status == TASK_STATUS_RUNNING, self.task(task_id).reason
            yield task_id
        finally:
            for tap in self.taps.values():
                tap.open.set()

    def is_at_work(self, member: str, task_id: str) -> bool:
        """Whether a member's worker has this task: until then, another would take the place of one that dies."""
        expected = self.services[member]._port._expected.get(task_id)
        return expected is not None and expected.pass_on is not None

    async def watch(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition that no further block is needed for."""
        async with asyncio.timeout(60):
            while True:
                if holds():
                    return
                await asyncio.sleep(0.002)

    def task(self, task_id: str) -> Task:
        return self.consortium.app.task(task_id)

    def stored(self, member: str, task_id: str) -> Path:
        """Where a member keeps its sealed output of a task."""
        return self.directory / member / "outputs" / f"{task_id}.sealed"

    def outputs(self, task: Task) -> list[SealedOutput]:
        found = (self.services[party.institution].output(task.id) for party in task.parties)
        return [output for output in found if output is not None]

    def open(self, plan: Plan, task: Task) -> list[int]:
        """What the asker sees."""
        node_keys = [[key(party.institution).public_key] for party in task.parties]
        return shares.open_outputs(task, self.outputs(task), self.result_key, node_keys, len(self.expected(plan)))

    def inputs(self, plan: Plan) -> list[list[list[int]]]:
        """What the owners' engines contribute."""
        return [
            DuckDBEngine().aggregate(
                DatasetStore(self.directory / source.institution / "datasets").table_for(
                    self.consortium.app.dataset(source.dataset)
                ),
                plan,
                index,
            )
            for index, source in enumerate(plan.sources)
        ]

    def expected(self, plan: Plan) -> list[int]:
        """What the asker should see."""
        assert len(group_codes(plan)) == 2
        return [value for group in evaluate(plan, self.inputs(plan)) for value in group.opened()]

    def workers(self) -> list[int]:
        """Process ids of all workers: grandchildren of this process."""
        return [pid for nursery in _children(os.getpid()) for pid in _children(nursery)]


def _children(pid: int) -> list[int]:
    try:
        threads = [path / "children" for path in Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for thread in threads for child in thread.read_text().split()]
    except OSError:
        return []


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data
