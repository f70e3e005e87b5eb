"""``make endure MINUTES=10``: does memory stay flat under load, and what does a transaction cost after a million?"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from bench import execution
from bench.ledger import TICK_S, connected
from testnet.network import Testnet

_SIZES = (10_000, 100_000, 1_000_000)
_KIB = 1024


async def memory(network: Testnet, seconds: float, tx_per_s: float, say: Callable[[str], None]) -> dict[str, float]:
    """Key ``ledger.rss_growth_mb``: by how much the node that grew most grew in the second half of a steady load.

    In the first half caches fill: LevelDB's, SQLite's, and the window of transactions that could be repeated.
    """
    say(f"{seconds:.0f} s of {tx_per_s:.0f} tx/s: does memory grow?")
    async with connected(network) as senders:
        size = max(1, round(tx_per_s * TICK_S))
        half: dict[str, float] = {}
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(round(seconds / TICK_S)):
                sender = senders[number % len(senders)]
                tasks.create_task(sender.commit(sender.sign(size)))
                if number * TICK_S >= seconds / 2 and not half:
                    half = _resident_mb(network)
                await asyncio.sleep(max(0.0, started + (number + 1) * TICK_S - time.perf_counter()))
    end = _resident_mb(network)
    return {"ledger.rss_growth_mb": max(end[institution] - half[institution] for institution in end)}


def _resident_mb(network: Testnet) -> dict[str, float]:
    """Memory of every node's own; not LevelDB's tables, which are mapped into it and come and go as they are merged."""
    return {institution: _own_kib(network.pid(institution)) / _KIB for institution in network.institutions}


def _own_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel does not say how much memory process {pid} has")


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="How long to keep up the load.")
@click.option("--tx-per-s", default=1_000.0, show_default=True, help="The load.")
def main(minutes: float, tx_per_s: float) -> None:
    """Memory under load, then the cost of a transaction as the store grows."""

    def say(text: str) -> None:
        click.echo(f"{text} ...", err=True)

    with (
        tempfile.TemporaryDirectory(prefix="koinon-bench-") as directory,
        Testnet.create(Path(directory) / "net") as network,
    ):
        figures = asyncio.run(memory(network, minutes * 60, tx_per_s, say))
    figures |= execution.measure(_SIZES, say)
    for name, value in figures.items():
        click.echo(f"{name:<36}{value:>12,.1f}")


if __name__ == "__main__":
    main()
