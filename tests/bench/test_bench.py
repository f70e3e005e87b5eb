"""The benchmark measures what it says, on a small scale, and every figure of the report is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench import audit, crash, endurance, execution, joining, ledger, query, run
from testnet.network import Testnet

SMALL = ledger.Load(transactions=400, idle_samples=3, idle_pause_s=0.05, steady_s=0.5)
FIGURES = {
    "ledger.tx_per_s",
    "ledger.idle_p50_ms",
    "ledger.idle_p99_ms",
    "ledger.half_load_p99_ms",
    "ledger.full_load_p99_ms",
    "ledger.tx_p99_ms",
    "ledger.cpu_us_per_tx",
    "ledger.tx_per_s_7",
    "ledger.rss_growth_mb",
    "ledger.proposer_crash_gap_ms",
    "ledger.execution_us_1000",
    "ledger.merging_us_1000",
    *(f"ledger.execution_{part}_us" for part in ("verify", "admit", "execute", "write", "index")),
    "ledger.catch_up_tx_per_s",
    "ledger.snapshot_join_s",
    "audit.page_ms",
    "audit.count_ms",
    "audit.feed_us",
    "audit.bytes_per_record",
    "query.p50_ms",
    "query.wire_bytes",
}


def test_every_figure_is_measured(tmp_path: Path) -> None:
    said: list[str] = []
    with Testnet.create(tmp_path / "net") as network:
        figures = query.measure(network, 1, said.append)
        figures |= asyncio.run(ledger.measure(network, SMALL, said.append))
        figures |= asyncio.run(ledger.measure_seven(network, 400, said.append))
        figures |= asyncio.run(endurance.memory(network, 1.0, 100.0, said.append))
        figures |= asyncio.run(crash.measure(network, 1, said.append))
        figures |= joining.measure(network, said.append)
    figures |= execution.measure((1_000,), said.append)
    figures |= audit.measure(1_400, 2, said.append)
    assert set(figures) == FIGURES
    may_be_none = {"ledger.rss_growth_mb", "ledger.merging_us_1000"}
    assert all(value > 0 for name, value in figures.items() if name not in may_be_none), figures
    assert figures["ledger.idle_p50_ms"] <= figures["ledger.idle_p99_ms"]
    assert len(said) == 13


def test_every_reach_belongs_to_a_figure() -> None:
    assert set(run.AT_LEAST) | set(run.AT_MOST) <= FIGURES | {"testnet.ready_s"}
