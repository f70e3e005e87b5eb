"""What a node tells Prometheus: complete, documented, true, and read through a port that bears strangers."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

import koinon
from koinon.errors import KoinonError, Refused
from koinon.keys import SigningKey
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.services_pb2 import GetStatusResponse, PeerStatus
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_COMMITTED, TRANSACTION_STATUS_REJECTED, Refusal
from koinon.v1.transaction_pb2 import TransactionResult as Result
from node.abci import Finalized
from node.config import Address
from node.metrics import Metrics
from node.metrics_port import MetricsPort
from testnet.network import Testnet, free_ports
from tests.ledger.chain import HASHES

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def fetch(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


# --- the table


def test_every_instrument_is_in_the_table() -> None:
    metrics = Metrics()
    suffix = {"counter": "_total"}
    shown = {
        family.name + suffix.get(family.type, "")
        for family in metrics.registry.collect()
        if not family.name.startswith("process_")
    }
    assert shown == {row.name for row in metrics.rows}


def test_nothing_else_is_told() -> None:
    metrics = Metrics()
    metrics.wal_sync.observe(0.001)
    suffixes = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    told = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    known = {row.name.removesuffix("_total") + suffix for row in metrics.rows for suffix in suffixes[row.kind]}
    assert {name for name in told if name.startswith("koinon_")} <= known


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yml"])
def test_what_is_deployed_asks_only_for_what_there_is(file: str) -> None:
    text = (DEPLOY / file).read_text("utf-8")
    expressions = (
        [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
        if file.endswith(".json")
        else [line.partition("expr:")[2] for line in text.splitlines() if "expr:" in line]
    )
    asked = {name for text in expressions for name in re.findall(r"\b(?:koinon|process)_\w+", text)}
    known = {"process_resident_memory_bytes"}
    for row in Metrics().rows:
        known |= {row.name, f"{row.name}_bucket"} if row.kind == "histogram" else {row.name}
    assert asked
    assert asked - known == set()
    if file == "grafana.json":
        assert {row.name for row in Metrics().rows} - {name.removesuffix("_bucket") for name in asked} == {
            "koinon_peer_connected"  # the alerts' and the total's part of the picture
        }


# --- what is counted


def block(results: tuple[Result, ...], *kinds: str) -> Finalized:
    return Finalized(1, results, HASHES, (), (), tuple(AuditRecord(kind=kind) for kind in kinds))


def test_blocks_are_counted_by_what_became_of_their_transactions() -> None:
    metrics = Metrics()
    good = Result(status=TRANSACTION_STATUS_COMMITTED)
    bad = Result(status=TRANSACTION_STATUS_REJECTED, refusal=Refusal(rule="permission"))
    metrics.on_block(block((good, bad, good), "task.failed", "task.accepted"))
    metrics.on_block(block((), "evidence.recorded"))
    assert value(metrics, "koinon_transactions_committed_total") == 2
    assert value(metrics, "koinon_transactions_rejected_total", rule="permission") == 1
    assert value(metrics, "koinon_tasks_total", outcome="failed") == 1
    assert value(metrics, "koinon_evidence_total") == 1
    assert value(metrics, "koinon_block_interval_seconds_count") == 1


def test_samples_add_what_is_new_and_forget_who_left() -> None:
    metrics = Metrics()
    both = [PeerStatus(institution="iu", connected=True, height=7), PeerStatus(institution="uk", height=2)]
    metrics.sample(GetStatusResponse(height=9, step="prevote", peers=both), {("sent", "votes"): 5}, {"policy": 1}, 2)
    assert value(metrics, "koinon_peers_connected") == 1
    assert value(metrics, "koinon_peer_lag_blocks", peer="uk") == 7
    assert value(metrics, "koinon_step") == 2
    assert value(metrics, "koinon_silent") == 0
    later = GetStatusResponse(height=9, step="idle", silent=True, peers=both[:1])
    metrics.sample(later, {("sent", "votes"): 8}, {"policy": 1}, 0)
    assert value(metrics, "koinon_silent") == 1
    assert value(metrics, "koinon_messages_sent_total", kind="votes") == 8
    assert value(metrics, "koinon_pool_refused_total", rule="policy") == 1
    assert value(metrics, "koinon_peer_lag_blocks", peer="uk") is None
    assert value(metrics, "koinon_peer_connected", peer="iu") == 1


# --- the port


@pytest.fixture
def port() -> Iterator[int]:
    registry = CollectorRegistry()
    Gauge("answer", "To everything.", registry=registry).set(42)
    (number,) = free_ports(1)
    serving = MetricsPort(Address("127.0.0.1", number), registry)
    yield number
    serving.stop()


def test_the_port_serves_one_page(port: int) -> None:
    assert fetch(port)["answer", ()] == 42
    for method, path, code in (("GET", "/", 404), ("POST", "/metrics", 501)):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, data=None)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        refused.value.close()
        assert refused.value.code == code


def test_who_sends_nothing_or_noise_does_not_keep_others_out(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as noise:
        noise.sendall(b"\xff" * 100_000)
        assert fetch(port)["answer", ()] == 42


def test_a_port_in_use_is_an_error(port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsPort(Address("127.0.0.1", port), CollectorRegistry())


# --- a real node


async def test_a_node_tells_what_it_did(tmp_path: Path) -> None:
    network = Testnet.create(tmp_path, ("um",))
    (number,) = free_ports(1)
    config = network.home("um").config
    config.write_text(config.read_text().replace('metrics = ""', f'metrics = "{number}"'))
    async with network, await koinon.aio.connect(network.profile("um-operator")) as client:
        await client.members.register("um/ada", SigningKey.generate().public_key, ["analyst"])
        with pytest.raises(Refused) as refused:  # the last operator cannot go
            await client.members.revoke("um/operator", "I am tired")
        with pytest.raises(KoinonError):
            await client.tasks.show("0" * 32)
        seen: Samples = {}

        def refusals() -> float:
            names = ("koinon_transactions_rejected_total", "koinon_pool_refused_total")
            return sum(seen.get((name, (("rule", refused.value.rule),)), 0) for name in names)

        async with asyncio.timeout(60):
            while seen.get(("koinon_height", ()), 0) < 2 or not refusals():  # some figures are sampled, once a second
                seen = await asyncio.to_thread(fetch, number)
        assert refusals() == 1
        assert seen["koinon_transactions_committed_total", ()] >= 1
        assert seen["koinon_wal_sync_seconds_count", ()] >= 1
        assert seen["koinon_store_write_seconds_count", ()] >= 2
        assert seen["koinon_disk_bytes", (("part", "ledger"),)] > 0
        assert seen["koinon_certificate_days_left", ()] > 36_500
        assert seen["koinon_rpc_calls_total", (("method", "TransactionService/Submit"), ("status", "OK"))] >= 1
        assert seen["koinon_rpc_calls_total", (("method", "TaskService/GetTask"), ("status", "NOT_FOUND"))] == 1
        assert seen["process_open_fds", ()] > 0
        log = [json.loads(line) for line in (network.home("um").log / "node.log").read_text().splitlines()]
    blocks = [line for line in log if line["event"] == "block"]
    assert [line["height"] for line in blocks] == list(range(1, len(blocks) + 1))
    assert blocks[0].keys() >= {"round", "transactions", "since_previous_ms", "proposer", "timestamp", "level", "node"}
    assert {line["transactions"] for line in blocks} >= {0, 1}
