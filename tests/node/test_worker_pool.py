"""Worker processes: one job each, within its bounds, and nothing of it left."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from koinon.errors import Refused, Unavailable
from koinon.keys import SealingKey
from koinon.v1.catalog_pb2 import COLUMN_TYPE_INTEGER
from koinon.v1.plan_pb2 import (
    AGGREGATE_KIND_ROWS,
    OUTPUT_KIND_COUNT,
    LocalAggregate,
    OutputColumn,
    Plan,
    PlanSource,
)
from koinon.v1.session_pb2 import OutputShares
from mpc import certificates
from mpc.engines import TableFile
from mpc.job import Job
from mpc.session import Identity
from node import worker_pool
from node.worker_pool import Worker, WorkerPool
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CERTIFICATE, KEY = certificates.ephemeral()
RESULT_KEY = SealingKey.generate()
PLAN = Plan(
    committee=["um"],
    sources=[
        PlanSource(
            institution="um",
            dataset="um.a.b",
            local_sql="SELECT COUNT(*) AS a0, false AS beyond FROM source",
            counted=True,
        )
    ],
    aggregates=[LocalAggregate(kind=AGGREGATE_KIND_ROWS)],
    outputs=[OutputColumn(kind=OUTPUT_KIND_COUNT, aggregate_indices=[0])],
    min_cohort=1,
    fraction_digits=6,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool()
    await pool.start()
    yield pool
    await pool.stop()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A committee of one, which needs no one else: everything but other parties."""
    file = tmp_path / "content"
    file.write_text("age\n" + "42\n" * 17)
    return Job(
        identity=Identity("ab" * 16, bytes(32), 0, ("um",), (CERTIFICATE,), ("127.0.0.1:1",), KEY),
        plan=PLAN.SerializeToString(),
        result_key=RESULT_KEY.public_key,
        seconds=30,
        memory_mb=256,
        source_index=0,
        table=TableFile(str(file), "csv", ("age",), (("age", COLUMN_TYPE_INTEGER),)),
    )


def absent_peer(job: Job, seconds: float) -> Job:
    """The same, waiting for a second party that never comes."""
    other, _ = certificates.ephemeral()
    identity = dataclasses.replace(
        job.identity, institutions=("um", "iu"), certificates=(CERTIFICATE, other), addresses=("127.0.0.1:1",) * 2
    )
    return dataclasses.replace(job, identity=identity, seconds=seconds)


def agreed() -> None:
    """The node has nothing against sealing."""


async def test_a_job_is_done(pool: WorkerPool, job: Job) -> None:
    outcome = await (await pool.take()).run(job, agreed)
    shares = OutputShares.FromString(RESULT_KEY.open(outcome.sealed))
    assert [int.from_bytes(share, "big") for share in shares.shares] == [1, 1, 17]


async def test_nothing_is_sealed_when_the_node_objects(pool: WorkerPool, job: Job) -> None:
    outcome = await (await pool.take()).run(job, lambda: Refused("revoked", rule="token-revoked"))
    assert (outcome.sealed, outcome.rule, outcome.message) == (b"", "token-revoked", "revoked")


async def test_a_refusal_of_the_local_engine_is_the_outcome(pool: WorkerPool, job: Job, tmp_path: Path) -> None:
    (tmp_path / "content").write_text("age\nforty-two\n")
    plan = Plan.FromString(job.plan)
    plan.sources[0].local_sql = "SELECT SUM(age) AS a0, false AS beyond FROM source"
    with capture_logs() as logs:
        outcome = await (await pool.take()).run(dataclasses.replace(job, plan=plan.SerializeToString()), agreed)
    assert outcome.rule == "expression-failed"
    assert "forty" not in outcome.message + repr(logs)


async def test_a_process_that_the_system_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """As the MPC port's error it ended the node, whose ledger can go on; and it is tried again."""
    pool = WorkerPool()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        for attempt in (pool.start, pool.take):
            with capture_logs() as logs, pytest.raises(Unavailable, match="no worker process could be started"):
                await attempt()
            assert "No such file" in logs[-1]["reason"]
    outcome = await (await pool.take()).run(job, agreed)
    assert outcome.sealed
    await pool.stop()


async def test_a_bug_is_an_outcome_and_its_place_is_logged(pool: WorkerPool, job: Job) -> None:
    with capture_logs() as logs:
        outcome = await (await pool.take()).run(dataclasses.replace(job, plan=b"\xff"), agreed)
        await until(lambda: "worker.py" in repr(logs))
    assert outcome.rule == "internal"
    assert "DecodeError" in outcome.message


async def test_time_is_up(pool: WorkerPool, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_GRACE_S", 60)  # it says so itself, however late
    outcome = await (await pool.take()).run(absent_peer(job, seconds=0.5), agreed)
    assert outcome.rule == "session-timeout"
    assert "iu" in outcome.message


async def test_a_worker_that_hangs_is_killed(pool: WorkerPool, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_GRACE_S", 0.2)
    worker = await pool.take()
    signal.pidfd_send_signal(worker._pidfd, signal.SIGSTOP)
    outcome = await worker.run(dataclasses.replace(job, seconds=0.2), agreed)
    assert outcome.rule == "run-deadline"


async def test_a_worker_that_dies_is_noticed(pool: WorkerPool, job: Job) -> None:
    worker = await pool.take()
    running = asyncio.create_task(worker.run(absent_peer(job, seconds=30), agreed))
    await asyncio.sleep(0)
    signal.pidfd_send_signal(worker._pidfd, signal.SIGKILL)
    outcome = await running
    assert outcome.rule == "worker-crashed"


async def test_a_worker_beyond_its_memory_says_so(pool: WorkerPool, job: Job) -> None:
    """The engine's own bound comes first (tests/mpc); beyond it is the bound of the process."""
    assert job.table is not None
    plan = Plan.FromString(job.plan)
    plan.sources[
        0
    ].local_sql = "SELECT LENGTH(STRING_AGG(REPEAT('x', 1000000), '')) AS a0, false AS beyond FROM range(5000)"
    greedy = dataclasses.replace(job, plan=plan.SerializeToString(), memory_mb=64)
    outcome = await (await pool.take()).run(greedy, agreed)
    assert outcome.rule in ("memory-limit", "worker-limit")


async def test_an_answer_nobody_waited_for_does_not_confuse_the_next(pool: WorkerPool, job: Job) -> None:
    for _ in range(5):
        taking = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        taking.cancel()
        (taken,) = await asyncio.gather(taking, return_exceptions=True)
        if isinstance(taken, Worker):  # it was quicker
            taken.kill()
    first, second = await pool.take(), await pool.take()
    outcomes = await asyncio.gather(first.run(job, agreed), second.run(job, agreed))
    assert all(outcome.sealed for outcome in outcomes)


async def test_a_worker_whose_asker_left_meanwhile_is_killed(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end by itself when its stream ends, unless it stands still."""
    killed = asyncio.Event()
    kill = Worker.kill

    def seen_kill(worker: Worker) -> None:
        kill(worker)
        killed.set()

    monkeypatch.setattr(Worker, "kill", seen_kill)
    assert pool._nursery is not None
    pool._nursery.send_signal(signal.SIGSTOP)
    try:
        asking = asyncio.create_task(pool.take())
        await asyncio.sleep(0)  # it has begun
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    finally:
        pool._nursery.send_signal(signal.SIGCONT)
    async with asyncio.timeout(60):
        await killed.wait()


async def test_stopping_the_pool_ends_its_workers(job: Job) -> None:
    pool = WorkerPool()
    await pool.start()
    worker = await pool.take()
    running = asyncio.create_task(worker.run(absent_peer(job, seconds=30), agreed))
    await pool.stop()
    assert (await running).rule == "worker-crashed"


@pytest.mark.parametrize(("module", "absent"), [("mpc.worker_main", "mpyc.runtime"), ("node.jobs", "mpyc")])
async def test_mpyc_stays_where_it_belongs(module: str, absent: str) -> None:
    """Its arithmetic in the worker; its runtime, which unpickles, nowhere."""
    script = f"import sys, {module}; print({absent!r} in sys.modules)"
    found = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], capture_output=True, check=True)
    assert found.stdout.strip() == b"False"
