"""An institution's part in joint computations, from the submission it sees on the ledger to its report.

For every open task whose committee includes this institution, one coroutine does in order what the ledger allows:

1. compile the plan anew from the ledger, compare its hash, check the content of the own dataset;
2. accept, with a certificate made for this task;
3. once every party accepted: run a worker (mpc.worker), which meets the others' workers and computes;
4. look at the ledger once more before the output is sealed; keep the sealed output; report its digest.

Whatever goes wrong on the way ends the task on the ledger with a rule and a reason, as far as this institution has a
say; what ends the task ends the coroutine, and its worker process. Nothing outlives the task's deadline, which the
ledger enforces by block time and the worker by its own clock. Keys of accepted tasks are in memory only: a node that
restarts fails the tasks it was in the middle of, unless the output was sealed already.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from koinon import canonical, envelope
from koinon.errors import KoinonError, NotFound, Refused
from koinon.keys import SigningKey
from koinon.limits import MAX_TEXT, NONCE_BYTES
from koinon.names import PersonId
from koinon.v1.access_pb2 import TOKEN_STATUS_EXPIRED, TOKEN_STATUS_REVOKED, Token
from koinon.v1.catalog_pb2 import DATASET_STATUS_PUBLISHED, Dataset
from koinon.v1.identity_pb2 import MEMBER_STATUS_ACTIVE, Institution, Parameters
from koinon.v1.plan_pb2 import Plan
from koinon.v1.services_pb2 import TransactionInfo
from koinon.v1.session_pb2 import SealedOutput
from koinon.v1.task_pb2 import (
    TASK_STATUS_COMPLETED,
    TASK_STATUS_RUNNING,
    TASK_STATUS_SUBMITTED,
    AcceptTask,
    CompleteTask,
    FailTask,
    Task,
    TaskParty,
)
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_REJECTED, Operation
from mpc import certificates
from mpc.engines import TableFile
from mpc.job import Job
from mpc.plan import Source, compile_plan, task_for
from mpc.session import Identity
from node.changes import Changes
from node.config import JobLimits
from node.mpc_port import MpcPort
from node.outputs import OutputStore
from node.worker_pool import WorkerPool

_EXPIRY_MS = 30_000  # of the node's own transactions: signed anew while the task is open
_REPORT_MS = 3_000  # kept of the run window for reporting
_RETRY_S = 0.5
_PASSING = ("pool-full", "revoked-key")  # the ledger names a new node key some moments before the node has read it


class Ledger(Protocol):
    """What is asked of the last committed state; node.application.Application answers."""

    @property
    def time_ms(self) -> int: ...
    def parameters(self) -> Parameters: ...
    def institution(self, institution_id: str) -> Institution: ...
    def institutions(self) -> list[Institution]: ...
    def dataset(self, name: str, version: int = 0) -> Dataset: ...
    def token(self, token_id: str) -> Token: ...
    def task(self, task_id: str) -> Task: ...
    def open_tasks(self) -> list[Task]: ...
    def transaction(self, transaction_id: bytes) -> TransactionInfo | None: ...


class Tables(Protocol):
    """Where the institution's own content is; node.datasets.DatasetStore."""

    def table_for(self, dataset: Dataset) -> TableFile:
        """Raises Refused, Corrupt, Exhausted or Unavailable."""
        ...


Submit = Callable[[Sequence[bytes]], Awaitable[list[TransactionInfo]]]
"""Takes envelopes to the pool; node.pool.Pool.submit."""


class JobService:
    """Runs from ``start`` to ``stop``; told of every block by ``on_committed``."""

    def __init__(
        self,
        ledger: Ledger,
        submit: Submit,
        tables: Tables,
        outputs: Path,
        reachable: Callable[[], Collection[str]],
        *,
        institution: str,
        node_key: SigningKey,
        chain_id: str,
        limits: JobLimits,
        log: FilteringBoundLogger,
    ) -> None:
        """``outputs`` is a directory of its own; ``reachable`` are the members whose nodes are connected to this one.

        Raises OSError when the directory cannot be made.
        """
        self._ledger = ledger
        self._submit = submit
        self._tables = tables
        self._outputs = OutputStore(outputs)
        self._reachable = reachable
        self._institution = institution
        self.node_key = node_key  # set anew when it is rotated
        self._chain_id = chain_id
        self._limits = limits
        self._log = log
        self._pool = WorkerPool()
        self._port = MpcPort()
        self._changes = Changes()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._done: set[str] = set()  # open tasks for which nothing is left to do here

    @property
    def port(self) -> int:
        """The port number workers of others dial, once started."""
        return self._port.port

    async def start(self, host: str, port: int) -> None:
        """Listen, prepare workers, and take up what the ledger holds. Raises OSError or Unavailable."""
        self._port.start(host, port)
        await self._pool.start()
        self.on_committed()

    async def stop(self) -> None:
        """End everything; open tasks are failed by the next start, or by their deadlines."""
        self._stopping = True
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)
        await self._port.stop()
        await self._pool.stop()

    @property
    def running(self) -> int:
        """Tasks being served."""
        return len(self._jobs)

    def output(self, task_id: str) -> SealedOutput | None:
        """This party's sealed output of a completed task, of use to its asker only; else None. Any text is accepted.

        Not a moment earlier: what an asker opens is a task that the ledger calls completed.
        """
        try:
            completed = self._ledger.task(task_id).status == TASK_STATUS_COMPLETED
        except NotFound:
            return None
        return self._outputs.load(task_id) if completed else None

    def on_committed(self) -> None:
        """Look at the ledger: begin what is new, end what is over."""
        if self._stopping:
            return
        mine = [task for task in self._ledger.open_tasks() if self._institution in task.submitted.committee]
        self._done &= {task.id for task in mine}
        for task_id in self._jobs.keys() - {task.id for task in mine}:
            self._jobs[task_id].cancel()
        waiting = [task for task in mine if task.id not in self._done and not self._part(task).output_digest]
        for task in in_turn(waiting, self._jobs.keys(), self._limits.concurrent):
            self._jobs[task.id] = asyncio.create_task(self._serve(task), name=f"task {task.id}")
        self._changes.notify()

    # --- one task

    async def _serve(self, task: Task) -> None:
        log = self._log.bind(task=task.id)
        try:
            output = self._outputs.load(task.id) or await self._compute(task, log)
            digest = canonical.output_digest(task.id, output.party, output.sealed)
            report = Operation(complete_task=CompleteTask(task_id=task.id, output_digest=digest))
            await self._settle(task.id, report, lambda part: bool(part.output_digest))
            log.info("task reported")
        except KoinonError as error:
            await self._fail(task.id, error.rule, error.message, log)
        except OSError as error:
            await self._fail(task.id, "disk-error", f"the output could not be kept: {error.strerror}", log)
        except Exception as error:  # a bug must end the task, and not the node
            log.exception("job failed")
            await self._fail(task.id, "internal", f"a bug at {self._institution}: {type(error).__name__}", log)
        finally:
            self._port.forget(task.id)
            self._done.add(task.id)
            del self._jobs[task.id]

    async def _fail(self, task_id: str, rule: str, reason: str, log: FilteringBoundLogger) -> None:
        log.warning("task failed", rule=rule, reason=reason)
        failure = Operation(fail_task=FailTask(task_id=task_id, rule=rule, reason=reason[:MAX_TEXT]))
        try:
            await self._settle(task_id, failure, lambda _: False)  # it ends the task, and so this coroutine
        except KoinonError as refusal:
            log.error("failure not accepted", rule=refusal.rule, reason=refusal.message)

    async def _compute(self, task: Task, log: FilteringBoundLogger) -> SealedOutput:
        """From acceptance to a stored output. Raises KoinonError or OSError."""
        if self._part(task).accepted:
            raise self._restarted()
        plan = await self._recompile(task)
        index, table = await self._own_table(plan)
        certificate, key_pem = certificates.ephemeral()
        self._port.expect(task.id)
        await self._accept(task, certificate)
        log.info("task accepted")
        while self._ledger.task(task.id).status != TASK_STATUS_RUNNING:
            await self._changes.next()

        running = self._ledger.task(task.id)
        party = list(task.submitted.committee).index(self._institution)
        job = Job(
            identity=Identity(
                task_id=task.id,
                plan_hash=task.submitted.plan_hash,
                party=party,
                institutions=tuple(task.submitted.committee),
                certificates=tuple(part.session_certificate for part in running.parties),
                addresses=tuple(
                    self._ledger.institution(name).descriptor.mpc_address for name in task.submitted.committee
                ),
                key_pem=key_pem,
            ),
            plan=plan.SerializeToString(deterministic=True),
            result_key=task.submitted.result_key,
            seconds=max(1.0, (running.deadline_ms - self._ledger.time_ms - _REPORT_MS) / 1000),
            memory_mb=self._limits.memory_mb,
            source_index=index,
            table=table,
        )
        worker = await self._pool.take()
        self._port.attach(task.id, worker.pass_on)
        outcome = await worker.run(job, lambda: self._objection(running))
        if not outcome.sealed:
            raise Refused(f"at {self._institution}: {outcome.message}", rule=outcome.rule)
        log.info(
            "task computed",
            local_ms=outcome.local_ms,
            meeting_ms=outcome.meeting_ms,
            secure_ms=outcome.secure_ms,
            rounds=outcome.rounds,
            bytes_sent=outcome.bytes_sent,
        )
        digest = canonical.output_digest(task.id, party, outcome.sealed)
        output = SealedOutput(task_id=task.id, party=party, sealed=outcome.sealed, signature=self.node_key.sign(digest))
        await asyncio.to_thread(self._outputs.save, output)
        return output

    async def _accept(self, task: Task, certificate: bytes) -> None:
        """Raises Refused: by ``node-restarted`` where an acceptance of before a restart was decided meanwhile."""
        accept = AcceptTask(task_id=task.id, plan_hash=task.submitted.plan_hash, session_certificate=certificate)
        refusal: Refused | None = None
        try:
            await self._settle(task.id, Operation(accept_task=accept), lambda part: part.accepted)
        except Refused as error:
            refusal = error
        part = self._part(self._ledger.task(task.id))
        if part.accepted and part.session_certificate != certificate:
            raise self._restarted()
        if refusal is not None:
            raise refusal

    def _restarted(self) -> Refused:
        return Refused(f"the node of {self._institution} restarted and lost its part", rule="node-restarted")

    async def _recompile(self, task: Task) -> Plan:
        """The plan as this party compiles it, whose task must be the one submitted. Raises KoinonError.

        Consensus checked the submitted sources, and nothing but this comparison ties them to the SQL. Nor may the asker
        choose who computes: an owner accepts that a member was passed over only if it cannot reach that member itself.
        """
        sources = []
        for used in task.submitted.sources:
            dataset = self._ledger.dataset(used.dataset)
            if dataset.version != used.version:
                raise Refused(
                    f"{used.dataset} was published again as version {dataset.version}", rule="dataset-version"
                )
            sources.append(Source(dataset, self._ledger.token(used.token_id)))
        parameters = self._ledger.parameters()
        committee = list(task.submitted.committee)
        able = {*committee, *(self._reachable() if self._part(task).owner else ())}
        members = [
            item.descriptor.id
            for item in self._ledger.institutions()
            if item.status == MEMBER_STATUS_ACTIVE and item.descriptor.id in able
        ]
        plan = await asyncio.to_thread(  # hostile SQL may take a while: consensus must not wait for it
            compile_plan,
            task.submitted.sql,
            sources,
            members,
            asker=PersonId.parse(task.asker).institution,
            purpose=task.submitted.purpose,
            min_committee=parameters.min_committee,
            max_committee=parameters.max_committee,
        )
        if list(plan.committee) != committee:
            raise Refused(
                f"{self._institution} can reach {', '.join(plan.committee)}, who come before {', '.join(committee)}",
                rule="committee",
            )
        expected = task_for(plan, task.submitted.purpose)
        expected.result_key, expected.max_price = task.submitted.result_key, task.submitted.max_price
        if expected != task.submitted:
            raise Refused(f"{self._institution} compiles the query to another plan", rule="plan-mismatch")
        return plan

    async def _own_table(self, plan: Plan) -> tuple[int | None, TableFile | None]:
        """Which of the plan's sources is ours, and its checked content. Raises KoinonError."""
        for index, source in enumerate(plan.sources):
            if source.institution == self._institution:
                dataset = self._ledger.dataset(source.dataset, source.version)
                return index, await asyncio.to_thread(self._tables.table_for, dataset)
        return None, None

    def _objection(self, running: Task) -> KoinonError | None:
        """Asked when the computation is done, and nothing of it has left: may the output still be sealed?"""
        try:
            if self._ledger.task(running.id).status != TASK_STATUS_RUNNING:
                return Refused("the task is over", rule="wrong-state")
            for used in running.submitted.sources:
                token, dataset = self._ledger.token(used.token_id), self._ledger.dataset(used.dataset)
                if token.status == TOKEN_STATUS_REVOKED:
                    return Refused(f"token {token.id} for {used.dataset} was revoked", rule="token-revoked")
                if token.status == TOKEN_STATUS_EXPIRED or token.expires_at_ms <= self._ledger.time_ms:
                    return Refused(f"token {token.id} for {used.dataset} has expired", rule="token-expired")
                if dataset.status != DATASET_STATUS_PUBLISHED:
                    return Refused(f"{used.dataset} was withdrawn", rule="dataset-withdrawn")
        except KoinonError as error:
            return error
        return None

    # --- the ledger

    def _part(self, task: Task) -> TaskParty:
        return task.parties[list(task.submitted.committee).index(self._institution)]

    async def _settle(self, task_id: str, operation: Operation, done: Callable[[TaskParty], bool]) -> None:
        """Submit, again and again until it is on the ledger. Raises KoinonError when the ledger refuses it."""
        while not self._is_over(task_id) and not done(self._part(self._ledger.task(task_id))):
            expires_at_ms = self._ledger.time_ms + _EXPIRY_MS
            data = envelope.sign(
                self._chain_id, [operation], self.node_key, expires_at_ms, secrets.token_bytes(NONCE_BYTES)
            )
            (info,) = await self._submit([data])
            while info.status != TRANSACTION_STATUS_REJECTED and self._ledger.time_ms < expires_at_ms:
                decided = self._ledger.transaction(info.transaction_id)
                if decided is None:
                    await self._changes.next()
                elif decided.status == TRANSACTION_STATUS_REJECTED:
                    info = decided
                else:
                    return
            if info.refusal.rule in _PASSING:
                await asyncio.sleep(_RETRY_S)
            elif info.status == TRANSACTION_STATUS_REJECTED and not self._is_over(task_id):
                raise Refused(info.refusal.message, rule=info.refusal.rule, hint=info.refusal.hint)

    def _is_over(self, task_id: str) -> bool:
        return self._ledger.task(task_id).status not in (TASK_STATUS_SUBMITTED, TASK_STATUS_RUNNING)


def in_turn(waiting: Sequence[Task], running: Collection[str], concurrent: int) -> list[Task]:
    """Whose turn it is, when ``concurrent`` tasks may run at once and ``running`` do.

    In the ledger's order, the same at all members, so that their turns come together. The people of one institution
    have at most half of the places that others leave, and one of them not all of these: however many tasks somebody
    submits, in several names or together with another institution, some places are left. Further ones wait, and are
    refused by nobody but the ledger's ``accept-deadline``. ``waiting`` may hold running tasks, which count for
    their asker.
    """
    askers = Counter(task.asker for task in waiting if task.id in running)
    homes = Counter(_home(task) for task in waiting if task.id in running)
    chosen: list[Task] = []
    for task in sorted(waiting, key=lambda task: (task.submitted_at_ms, task.id)):
        free = concurrent - len(running) - len(chosen)
        if free <= 0:
            break
        share = max(1, (free + homes[_home(task)]) // 2)
        if task.id not in running and homes[_home(task)] < share and askers[task.asker] < max(1, share - 1):
            askers[task.asker] += 1
            homes[_home(task)] += 1
            chosen.append(task)
    return chosen


def _home(task: Task) -> str:
    return PersonId.parse(task.asker).institution
