"""One task at one party: local aggregates, the session, the secure program, and the sealed output.

This is all that a worker process does with its job. It holds one key, that of its ephemeral certificate; it reads one
file, the one its node names; it speaks to other workers through its session only. Before it seals anything it asks its
node, which looks at its own ledger again: a token that was revoked meanwhile still counts.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from koinon import keys, shares
from koinon.errors import KoinonError
from koinon.v1.plan_pb2 import Plan
from mpc import session
from mpc.engines.duckdb_engine import DuckDBEngine
from mpc.job import Job, Outcome
from mpc.programs import joint_query
from mpc.shamir import Shamir


async def run(job: Job, accepted: AsyncIterator[socket.socket], may_seal: Callable[[], Awaitable[None]]) -> Outcome:
    """Do the job. Refusals, of whatever kind, become the outcome's rule.

    ``accepted`` yields connections that named this task; ``may_seal`` returns when the node agrees.
    """
    try:
        return await _run(job, accepted, may_seal)
    except KoinonError as error:
        return Outcome(rule=error.rule, message=error.message)
    except MemoryError:
        return Outcome(rule="worker-limit", message="the worker ran out of memory")


async def _run(job: Job, accepted: AsyncIterator[socket.socket], may_seal: Callable[[], Awaitable[None]]) -> Outcome:
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadline = began + job.seconds
    plan = Plan.FromString(job.plan)
    committee = list(plan.committee)
    owners = sorted({committee.index(source.institution) for source in plan.sources})
    meeting = asyncio.create_task(session.connect(job.identity, accepted, deadline))
    try:
        own = await asyncio.to_thread(_aggregate, job, plan)
        aggregated = loop.time()
        channel = await meeting
    finally:
        meeting.cancel()
    met = loop.time()
    try:
        arithmetic = Shamir(channel, plan.threshold)
        output = await joint_query(arithmetic, plan, owners, own)
        computed = loop.time()
        await may_seal()
    finally:
        channel.close()
    identity = job.identity
    packed = shares.pack(identity.task_id, identity.plan_hash, identity.party, plan.threshold, output)
    return Outcome(
        sealed=keys.seal(job.result_key, packed),
        local_ms=_ms(aggregated - began),
        meeting_ms=_ms(met - aggregated),
        secure_ms=_ms(computed - met),
        rounds=arithmetic.rounds,
        bytes_sent=channel.bytes_sent,
    )


def _aggregate(job: Job, plan: Plan) -> list[list[int]] | None:
    if job.table is None or job.source_index is None:
        return None
    return DuckDBEngine(memory_mb=job.memory_mb).aggregate(job.table, plan, job.source_index)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
