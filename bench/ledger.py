"""Throughput and latency of the ledger: signed transactions until they are final.

Each transaction publishes a small dataset: an envelope of about 300 bytes, one signature, a catalog entry, an
audit record. All envelopes are signed before the clock starts, and handed in by a process that is no node, each
institution's operator at its own node, in batches; so the load generator is not what is measured.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from koinon import envelope, genesis, key_files, profile
from koinon.envelope import identify
from koinon.keys import SigningKey
from koinon.limits import NONCE_BYTES
from koinon.rpc import Connection
from koinon.v1.catalog_pb2 import AccessMode, AccessPolicy, Column, ColumnType, PublishDataset, TaskOperation
from koinon.v1.services_pb2 import GetTransactionsRequest, SubmitRequest
from koinon.v1.transaction_pb2 import Operation, TransactionStatus
from testnet.network import Testnet

BATCH = 100
TICK_S = 0.1  # between two batches of a steady load
_LANES = 5  # batches under way per node: what three blocks hold, so that none waits for load, and no more
_EXPIRY_MS = 9 * 60 * 1000
_WAIT_MS = 30_000


@dataclass(frozen=True, slots=True)
class Load:
    """How much to measure; the defaults are what ``make bench`` reports."""

    transactions: int = 24_000  # for throughput, in all
    idle_samples: int = 100
    idle_pause_s: float = 0.4  # longer than the empty block that follows a change
    steady_s: float = 20.0  # at full load, and at half of what was reached
    full_tx_per_s: float = 2_500.0  # offered; or nearly what was reached, if that is less


class Sender:
    """An institution's operator with envelopes to hand in."""

    def __init__(self, network: Testnet, institution: str) -> None:
        chosen = profile.load(network.profile(f"{institution}-operator"))
        self._institution = institution
        self._key: SigningKey = key_files.load_signing_key(chosen.key_file)
        self._chain_id = genesis.chain_id(genesis.load(chosen.genesis))
        self._number = 0
        self.connection = Connection(chosen, self._key, self._chain_id)

    def sign(self, count: int) -> list[bytes]:
        expires_at_ms = time.time_ns() // 1_000_000 + _EXPIRY_MS
        signed = []
        for _ in range(count):
            self._number += 1
            operation = Operation(publish_dataset=small_dataset(f"{self._institution}.bench.t{self._number}"))
            nonce = os.urandom(NONCE_BYTES)
            signed.append(envelope.sign(self._chain_id, [operation], self._key, expires_at_ms, nonce))
        return signed

    async def commit(self, envelopes: Sequence[bytes]) -> None:
        """Hand in and wait until all are final. Raises RuntimeError if one did not commit."""
        connection = self.connection
        await connection.call(connection.transactions.Submit, SubmitRequest(envelopes=envelopes), timeout_s=60)
        waiting = [identify(item) for item in envelopes]
        while waiting:
            request = GetTransactionsRequest(transaction_ids=waiting, wait_ms=_WAIT_MS)
            answer = await connection.call(connection.transactions.GetTransactions, request, timeout_s=60)
            for info in answer.transactions:
                if info.status not in (
                    TransactionStatus.TRANSACTION_STATUS_COMMITTED,
                    TransactionStatus.TRANSACTION_STATUS_PENDING,
                ):
                    raise RuntimeError(f"a transaction did not commit: {info.refusal.rule} {info.refusal.message}")
            waiting = [
                info.transaction_id
                for info in answer.transactions
                if info.status == TransactionStatus.TRANSACTION_STATUS_PENDING
            ]


def small_dataset(name: str) -> PublishDataset:
    """What each transaction publishes."""
    return PublishDataset(
        name=name,
        title="A small table",
        columns=[Column(name="age", type=ColumnType.COLUMN_TYPE_INTEGER, unit="a")],
        row_count=100,
        row_count_step=10,
        policy=AccessPolicy(
            mode=AccessMode.ACCESS_MODE_AUTO,
            operations=[TaskOperation.TASK_OPERATION_COUNT],
            min_cohort=10,
            max_uses=10,
            max_duration_ms=86_400_000,
        ),
        commitment=os.urandom(32),
    )


@asynccontextmanager
async def connected(network: Testnet) -> AsyncIterator[list[Sender]]:
    """A sender at every node."""
    senders = [Sender(network, institution) for institution in network.institutions]
    try:
        yield senders
    finally:
        for sender in senders:
            await sender.connection.close()


async def measure(network: Testnet, load: Load, say: Callable[[str], None]) -> dict[str, float]:
    """Keys ``ledger.*`` of the report."""
    async with connected(network) as senders:
        say(f"latency of {load.idle_samples} single transactions on an idle ledger")
        idle = await _idle(senders[0], load)
        say(f"throughput of {load.transactions} transactions over {len(senders)} nodes")
        before_s = _processor_s(network)
        tx_per_s, latencies = await _throughput(senders, load.transactions)
        used_s = _processor_s(network) - before_s
        full_tx_per_s = min(load.full_tx_per_s, 0.95 * tx_per_s)
        say(f"latency at {full_tx_per_s:.0f} tx/s")
        full = await _steady_load(senders, full_tx_per_s, load.steady_s)
        say(f"latency at half of {tx_per_s:.0f} tx/s")
        half = await _steady_load(senders, tx_per_s / 2, load.steady_s)
    return {
        "ledger.tx_per_s": tx_per_s,
        "ledger.tx_p99_ms": _percentile(latencies, 99),
        "ledger.cpu_us_per_tx": used_s / load.transactions * 1e6,
        "ledger.full_load_p99_ms": _percentile(full, 99),
        "ledger.idle_p50_ms": _percentile(idle, 50),
        "ledger.idle_p99_ms": _percentile(idle, 99),
        "ledger.half_load_p99_ms": _percentile(half, 99),
    }


async def measure_seven(network: Testnet, transactions: int, say: Callable[[str], None]) -> dict[str, float]:
    """Key ``ledger.tx_per_s_7``, of a network of seven."""
    say(f"throughput of {transactions} transactions over {len(network.institutions)} nodes")
    async with connected(network) as senders:
        tx_per_s, _ = await _throughput(senders, transactions)
    return {"ledger.tx_per_s_7": tx_per_s}


def _processor_s(network: Testnet) -> float:
    """Processor time of all nodes' processes so far: on a busy machine it says more than the clock."""
    ticks = 0
    for institution in network.institutions:
        fields = Path(f"/proc/{network.pid(institution)}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime: proc(5) counts from the process id, as field 1
    return ticks / os.sysconf("SC_CLK_TCK")


async def _timed(sender: Sender, envelopes: Sequence[bytes]) -> float:
    """Milliseconds until all are final, as their sender sees it."""
    started = time.perf_counter()
    await sender.commit(envelopes)
    return (time.perf_counter() - started) * 1000


async def _idle(sender: Sender, load: Load) -> list[float]:
    samples = []
    for signed in sender.sign(load.idle_samples):
        samples.append(await _timed(sender, [signed]))
        await asyncio.sleep(load.idle_pause_s)
    return samples


async def _throughput(senders: Sequence[Sender], transactions: int) -> tuple[float, list[float]]:
    """Committed transactions per second, from the first submission to the last commit; and every batch's latency."""
    latencies: list[float] = []

    async def lane(sender: Sender, batches: Iterable[Sequence[bytes]]) -> None:
        latencies.extend([await _timed(sender, batch) for batch in batches])

    lanes = []
    count = 0
    for sender in senders:
        signed = sender.sign(transactions // len(senders))
        count += len(signed)
        batches = iter([signed[start : start + BATCH] for start in range(0, len(signed), BATCH)])
        lanes += [(sender, batches)] * _LANES  # lanes of a sender draw from the same batches
    started = time.perf_counter()
    await asyncio.gather(*(lane(sender, batches) for sender, batches in lanes))
    return count / (time.perf_counter() - started), latencies


async def _steady_load(senders: Sequence[Sender], tx_per_s: float, seconds: float) -> list[float]:
    """Latencies of every transaction of a steady stream: one small batch every tick, at the nodes in turn."""
    size = max(1, round(tx_per_s * TICK_S))
    ticks = round(seconds / TICK_S)
    batches = [senders[number % len(senders)].sign(size) for number in range(ticks)]
    started = time.perf_counter()
    pending = []
    for number, batch in enumerate(batches):
        await asyncio.sleep(max(0.0, started + number * TICK_S - time.perf_counter()))
        pending.append(asyncio.create_task(_timed(senders[number % len(senders)], batch)))
    return [latency for latency in await asyncio.gather(*pending) for _ in range(size)]


def _percentile(samples: Sequence[float], percent: int) -> float:
    return quantiles(samples, n=100, method="inclusive")[percent - 1]
