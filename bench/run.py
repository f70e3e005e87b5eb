"""Measure everything: ``make bench`` prints a table and writes ``bench/latest.json``."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import audit, crash, endurance, execution, joining, ledger, proofs, query
from testnet.network import DEFAULT_INSTITUTIONS, Testnet

REPORT = Path(__file__).with_name("latest.json")
AT_LEAST = {"ledger.tx_per_s": 2_500.0, "ledger.tx_per_s_7": 1_250.0, "ledger.catch_up_tx_per_s": 5_000.0}
AT_MOST = {
    "ledger.idle_p50_ms": 80.0,
    "ledger.tx_p99_ms": 1_500.0,
    "ledger.full_load_p99_ms": 1_500.0,
    "ledger.proposer_crash_gap_ms": 2_000.0,
    "query.p50_ms": 2_000.0,
    "testnet.ready_s": 10.0,
    "audit.page_ms": 50.0,
    "audit.count_ms": 500.0,
}
RUNS = 20
AUDIT_RECORDS = 1_000_000
RECEIPTS = 200
KILLS = 4
SIZES = (10_000, 100_000)
MEMORY_S = 60.0
MEMORY_TX_PER_S = 1_000.0
SEVEN = (*DEFAULT_INSTITUTIONS, "va", "vb", "vc")
SEVEN_TRANSACTIONS = 14_000


def main() -> None:
    """Measure, print, write."""
    console = Console(markup=False, highlight=False)
    figures: dict[str, float] = {}

    def say(text: str) -> None:
        console.print(f"{text} ...", style="dim")

    with tempfile.TemporaryDirectory(prefix="koinon-bench-") as directory:
        path = Path(directory)  # every part on a network of its own, so that none meets another's state
        started = time.perf_counter()
        with Testnet.create(path / "query") as network:
            figures["testnet.ready_s"] = time.perf_counter() - started
            figures |= query.measure(network, RUNS, say)
        with Testnet.create(path / "ledger") as network:
            figures |= asyncio.run(ledger.measure(network, ledger.Load(), say))
            figures |= joining.measure(network, say)
            figures |= proofs.measure(network, RECEIPTS, say)
        with Testnet.create(path / "seven", SEVEN) as network:
            figures |= asyncio.run(ledger.measure_seven(network, SEVEN_TRANSACTIONS, say))
        with Testnet.create(path / "long") as network:
            figures |= asyncio.run(endurance.memory(network, MEMORY_S, MEMORY_TX_PER_S, say))
            figures |= asyncio.run(crash.measure(network, KILLS, say))
    figures |= execution.measure(SIZES, say)
    figures |= audit.measure(AUDIT_RECORDS, RUNS, say)

    table = Table(title=f"Koinon, 4 nodes on one machine with {os.cpu_count()} cores", title_justify="left")
    for column in ("figure", "value", "reach"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, value in sorted(figures.items()):
        table.add_row(name, f"{value:,.1f}", _reach(name))
    console.print(table)
    rounded = {name: round(value, 3) for name, value in sorted(figures.items())}
    REPORT.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


def _reach(name: str) -> str:
    if name in AT_LEAST:
        return f"at least {AT_LEAST[name]:,.0f}"
    return f"at most {AT_MOST[name]:,.0f}" if name in AT_MOST else ""


if __name__ == "__main__":
    main()
