"""What monitoring can read of a node: every instrument, and the port on which Prometheus fetches them.

Instruments are fed on the loop's thread; they are read on the thread of the port, which holds no lock that consensus
waits for. What would cost consensus time (walking the disk) is measured when it is read. Nothing here names a person,
a dataset, a transaction or a query. Labels take few values: members, rules, kinds of messages, methods.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from koinon.v1.services_pb2 import GetStatusResponse
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_COMMITTED
from node import tls
from node.abci import Finalized
from node.config import Home

disable_created_metrics()  # type: ignore[no-untyped-call]  # when each began: a line for every line that says something

_DISK_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_BLOCK_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 20, 60)
_CALL_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_STEPS = {"idle": 0, "propose": 1, "prevote": 2, "precommit": 3}
_TASK_ENDS = {f"task.{outcome}": outcome for outcome in ("completed", "failed", "cancelled", "expired")}
_EVIDENCE = "evidence.recorded"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of docs/metrics.md."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Metrics:
    """All instruments of one node."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rows: list[Row] = []
        gauge, counter, histogram = self._gauge, self._counter, self._histogram

        self.height = gauge("koinon_height", "Last committed height.")
        self.round = gauge("koinon_round", "Round of the height being decided; 0 while nothing is.")
        self.step = gauge("koinon_step", "0 idle, 1 propose, 2 prevote, 3 precommit.")
        self.syncing = gauge("koinon_syncing", "1 while the node fetches blocks that others have.")
        self.silent = gauge(
            "koinon_silent", "1 while this validator does not vote: its signing state, or its key, is missing."
        )
        self.first_block = gauge("koinon_first_block", "Lowest height whose block is kept whole.")
        self.snapshot = gauge("koinon_snapshot_height", "Height of the newest snapshot that this node offers; 0: none.")
        self.chunks_missing = gauge("koinon_snapshot_chunks_missing", "Of a snapshot that this node is fetching.")
        self.last_block = gauge("koinon_last_block_time_seconds", "Unix time of the last block.")
        self.block_interval = histogram("koinon_block_interval_seconds", "Between blocks committed here.", _BLOCK_S)
        self.committed = counter("koinon_transactions_committed_total", "Transactions in blocks that took effect.")
        self.rejected = counter(
            "koinon_transactions_rejected_total", "Transactions in blocks that a rule refused.", "rule"
        )
        self.refused = counter(
            "koinon_pool_refused_total", "Transactions that this node's pool did not take, or dropped.", "rule"
        )
        self.pool = gauge("koinon_pool_transactions", "Transactions waiting for a block.")
        self.evidence = counter("koinon_evidence_total", "Proofs on the ledger that a validator signed twice.")
        self.tasks = counter(
            "koinon_tasks_total", "Joint computations that ended, all members', by outcome.", "outcome"
        )
        self.workers = gauge("koinon_workers", "Joint computations that this node takes part in now.")

        self.connected = gauge("koinon_peers_connected", "Members whose nodes this one can speak to.")
        self.peer_connected = gauge("koinon_peer_connected", "1 while this node can speak to the member's.", "peer")
        self.peer_lag = gauge("koinon_peer_lag_blocks", "Blocks that the member was behind when last heard.", "peer")
        self.sent = counter("koinon_messages_sent_total", "Messages sent to peers.", "kind")
        self.received = counter("koinon_messages_received_total", "Messages received from peers.", "kind")
        self.dropped = counter(
            "koinon_messages_dropped_total", "Messages lost because a peer's queue was full.", "kind"
        )

        self.wal_sync = histogram("koinon_wal_sync_seconds", "To make the write-ahead log durable.", _DISK_S)
        self.store_write = histogram("koinon_store_write_seconds", "To make a block and its effects durable.", _DISK_S)
        self.disk = gauge("koinon_disk_bytes", "On disk: ledger, wal, index, datasets, outputs.", "part")
        self.disk_free = gauge("koinon_disk_free_bytes", "Free on the disk of the home.")
        self.certificate = gauge("koinon_certificate_days_left", "Until the end that the node's certificate states.")

        self.calls = counter("koinon_rpc_calls_total", "Calls of clients that ended.", "method", "status")
        self.call_time = histogram("koinon_rpc_seconds", "From a client's call to its end.", _CALL_S, "method")

        ProcessCollector(registry=self.registry)  # process_*: processor time, memory, open files
        self._last_commit: float | None = None
        self._seen: dict[tuple[str, str], int] = {}
        self._peers: set[str] = set()

    # --- making

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self.rows.append(Row(name, "gauge", labels, text))
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self.rows.append(Row(name, "counter", labels, text))
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self.rows.append(Row(name, "histogram", labels, text))
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    # --- feeding

    def on_block(self, finalized: Finalized) -> None:
        """A block was committed here."""
        now = time.monotonic()
        if self._last_commit is not None:
            self.block_interval.observe(now - self._last_commit)
        self._last_commit = now
        rejected = [result for result in finalized.results if result.status != TRANSACTION_STATUS_COMMITTED]
        self.committed.inc(len(finalized.results) - len(rejected))
        for result in rejected:
            self.rejected.labels(result.refusal.rule).inc()
        if finalized.kinds.isdisjoint((_EVIDENCE, *_TASK_ENDS)):
            return
        for record in finalized.records:
            if outcome := _TASK_ENDS.get(record.kind):
                self.tasks.labels(outcome).inc()
            elif record.kind == _EVIDENCE:
                self.evidence.inc()

    def on_call(self, method: str, status: str, seconds: float) -> None:
        """A client's call ended."""
        self.calls.labels(method, status).inc()
        self.call_time.labels(method).observe(seconds)

    def sample(
        self,
        status: GetStatusResponse,
        traffic: Mapping[tuple[str, str], int],
        refusals: Mapping[str, int],
        workers: int,
    ) -> None:
        """Once a second: where the node stands, and what its parts have counted since they began.

        ``traffic`` is by ("sent", "received" or "dropped", kind of message), ``refusals`` by rule.
        """
        self.height.set(status.height)
        self.round.set(status.round)
        self.step.set(_STEPS[status.step])
        self.syncing.set(status.syncing)
        self.silent.set(status.silent)
        self.last_block.set(status.block_time_ms / 1000)
        self.pool.set(status.pending_transactions)
        self.workers.set(workers)
        self.connected.set(sum(1 for peer in status.peers if peer.connected))
        for left in self._peers - {peer.institution for peer in status.peers}:
            self.peer_connected.remove(left)
            self.peer_lag.remove(left)
        self._peers = {peer.institution for peer in status.peers}
        for peer in status.peers:
            self.peer_connected.labels(peer.institution).set(peer.connected)
            self.peer_lag.labels(peer.institution).set(max(0, status.height - peer.height))
        directions = {"sent": self.sent, "received": self.received, "dropped": self.dropped}
        for (direction, kind), count in traffic.items():
            self._advance(directions[direction], direction, kind, count)
        for rule, count in refusals.items():
            self._advance(self.refused, "refused", rule, count)

    def sample_ledger(self, first_block: int, snapshot_height: int, chunks: tuple[int, int]) -> None:
        """Once a second: what the ledger holds; ``chunks`` of a snapshot being fetched are here, and in all."""
        self.first_block.set(first_block)
        self.snapshot.set(snapshot_height)
        self.chunks_missing.set(chunks[1] - chunks[0])

    def _advance(self, counter: Counter, name: str, label: str, count: int) -> None:
        counter.labels(label).inc(count - self._seen.get((name, label), 0))
        self._seen[name, label] = count

    def watch_home(self, home: Home) -> None:
        """From now on tell, whenever asked, how much the home holds, and when its certificate ends."""
        parts = {
            "ledger": home.ledger,
            "wal": home.wal,
            "index": home.read_model,
            "datasets": home.datasets,
            "outputs": home.outputs,
        }
        for part, path in parts.items():
            self.disk.labels(part).set_function(partial(_size, path))
        self.disk_free.set_function(lambda: shutil.disk_usage(home.path).free)
        certificate = home.certificate.read_bytes()
        self.certificate.set_function(lambda: tls.days_left(certificate, datetime.now(UTC)))


def _size(path: Path) -> int:
    """Bytes of a file or of all files below a directory; what vanishes meanwhile counts nothing."""
    return sum(_file_sizes(path))


def _file_sizes(path: Path) -> Iterator[int]:
    for file in path.rglob("*") if path.is_dir() else (path,):
        try:
            if file.is_file():
                yield file.stat().st_size
        except OSError:
            continue
