"""The command: see the package."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from testnet.faults import lan as lans
from testnet.faults.lan import Lan
from testnet.faults.plan import plan
from testnet.faults.run import Report, Run
from testnet.network import DEFAULT_INSTITUTIONS, Place, Testnet


@click.command()
@click.option("--nodes", type=click.IntRange(4, 16), default=4, show_default=True, help="How many processes.")
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True, help="How often kill -9.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the faults.")
@click.option("--lan", is_flag=True, help="Networks and disks of their own: Linux, needs unshare and /dev/net/tun.")
def main(nodes: int, kills: int, seed: int, lan: bool) -> None:
    """Break real nodes, and see that the ledger holds."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    if lan:
        lans.enter()
    command = f"python -m testnet.faults --nodes {nodes} --kills {kills} --seed {seed}{' --lan' if lan else ''}"
    institutions = [*DEFAULT_INSTITUTIONS, *(f"h{number}" for number in range(5, nodes + 1))]
    directory = Path(tempfile.mkdtemp(prefix="koinon-faults-"))
    try:
        report = _run(directory / "net", institutions, kills, seed, lan=lan)
    except Exception as error:  # noqa: BLE001 - any error is a finding; a TaskGroup wraps what it saw
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        click.echo(f"violated: {type(error).__name__}: {error}", err=True)
        click.echo(f"homes and logs: {directory}/net/nodes", err=True)
        click.echo(f"replay: {command}", err=True)
        sys.exit(1)
    except BaseException:
        shutil.rmtree(directory)
        raise
    shutil.rmtree(directory, ignore_errors=lan)  # disks of their own go with the namespace
    click.echo("\n".join(report.lines()))
    click.echo(f"seed {seed}: {command}")


def _run(directory: Path, institutions: list[str], kills: int, seed: int, *, lan: bool) -> Report:
    """Make the network, where each node runs alone if so wanted, and run the plan. Raises what was violated."""
    with ExitStack() as stack:
        places, switch = {}, None
        if lan:
            switch = stack.enter_context(Lan(institutions))
            places = {name: Place(switch.host(name), tuple(switch.command(name))) for name in institutions}
        network = Testnet.create(directory, institutions, places)
        if lan:
            for name in institutions:
                lans.own_disk(network.home(name).ledger.parent)
        for name in institutions:  # snapshots are there for whoever is wiped, soon enough for short runs
            config = network.home(name).config
            text = config.read_text(encoding="utf-8")
            config.write_text(re.sub(r"snapshot_blocks = \d+", "snapshot_blocks = 100", text), encoding="utf-8")
        stack.enter_context(network)
        return asyncio.run(Run(network, switch).run(plan(seed, kills, institutions, lan=lan)))


if __name__ == "__main__":
    main()
