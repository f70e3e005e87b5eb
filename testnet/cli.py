"""`koinon testnet`: many nodes on this machine, brought up, looked at, and taken down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from koinon.cli import output
from koinon.cli.app import invocation
from koinon.errors import InvalidInput
from koinon.limits import MAX_POINTS, MAX_VALIDATORS
from testnet.network import DEFAULT_INSTITUTIONS, Testnet
from testnet.probe import NodeState

_DIRECTORY = click.option(
    "--dir", "directory", required=True, type=click.Path(path_type=Path), help="Where the network lives."
)
_PATIENCE_S = 10.0  # nodes are ready within a few seconds: who waits longer is told


@click.group()
def testnet() -> None:
    """Rehearse with many nodes on this machine."""


@testnet.command()
@_DIRECTORY
@click.option("--nodes", type=click.IntRange(1, MAX_VALIDATORS), help="How many institutions.  [default: 4]")
@click.option("--institutions", metavar="A,B,…", help="Their ids, e.g. um,iu,uk,case.")
@click.option(
    "--points",
    type=click.IntRange(0, MAX_POINTS // MAX_VALIDATORS),
    help="Of each institution from the start, in a new network.",
)
@click.option("--detach", is_flag=True, help="Leave the nodes running, and return when they are ready.")
def up(directory: Path, nodes: int | None, institutions: str | None, points: int | None, detach: bool) -> None:
    """Start a network in DIR, or the one that is there already.

    Client profiles are written to DIR/profiles: <institution>-operator, analyst and regulator.
    """
    if nodes is not None and institutions is not None:
        raise InvalidInput("--nodes and --institutions contradict each other", hint="give one of them")
    if (directory / "genesis.json").exists():
        network = Testnet.open(directory)
        _refuse_other(network, nodes, institutions)
    else:
        names = institutions.split(",") if institutions else _names(nodes or 4)
        network = Testnet.create(directory, names, points=points or 0)
    try:
        network.start()
        states = _watched(network)
    except BaseException:
        network.stop()
        raise
    _show(network, states)
    profiles = network.dir / "profiles"
    output.say(f"hint: export KOINON_PROFILE={profiles}/analyst.toml, then: koinon catalog search")
    if detach:
        output.say(f"hint: koinon testnet down --dir {directory} stops it")
        return
    output.say("hint: Ctrl-C stops it")
    try:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        network.stop()
    output.say("stopped; koinon testnet up with the same --dir continues")


@testnet.command()
@_DIRECTORY
def status(directory: Path) -> None:
    """How each node of the network in DIR does."""
    network = Testnet.open(directory)
    _show(network, network.status())


@testnet.command()
@_DIRECTORY
def down(directory: Path) -> None:
    """Stop every node of the network in DIR; its ledger stays."""
    network = Testnet.open(directory)
    running = [institution for institution in network.institutions if network.pid(institution)]
    network.stop()
    if invocation().json:
        output.show_json({"stopped": running})
    else:
        output.say(f"stopped: {', '.join(running)}" if running else "nothing was running")


commands = [testnet]
"""What the koinon command gains where the test network is installed."""


def _names(count: int) -> tuple[str, ...]:
    return (*DEFAULT_INSTITUTIONS, *(f"member-{number}" for number in range(5, MAX_VALIDATORS + 1)))[:count]


def _refuse_other(network: Testnet, nodes: int | None, institutions: str | None) -> None:
    """The network that is there must be the one asked for. Raises InvalidInput."""
    wanted = set(institutions.split(",")) if institutions else None
    if (nodes is not None and nodes != len(network.institutions)) or (
        wanted is not None and wanted != set(network.institutions)
    ):
        raise InvalidInput(
            f"{network.dir} holds another network: {','.join(network.institutions)}",
            rule="already-exists",
            hint="leave out --nodes and --institutions to continue it, or choose another --dir",
        )


def _watched(network: Testnet) -> list[NodeState]:
    """Wait until the nodes are ready, with a bar for whoever watches, and one line for scripts if that takes long."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.err(), transient=True) as progress:
        bar = progress.add_task("starting nodes", total=len(network.institutions))

        def show(states: Sequence[NodeState]) -> None:
            waiting = next((f"{state.institution} {state.problem}" for state in states if not state.ready), "ready")
            progress.update(bar, completed=sum(state.ready for state in states), description=waiting)

        reminder = threading.Timer(_PATIENCE_S, lambda: output.say(f"still waiting: {progress.tasks[bar].description}"))
        reminder.start()
        try:
            return network.wait_ready(on_change=show)
        finally:
            reminder.cancel()


def _show(network: Testnet, states: Sequence[NodeState]) -> None:
    if invocation().json:
        profiles = sorted(str(path) for path in (network.dir / "profiles").glob("*.toml"))
        nodes = [
            {
                "institution": state.institution,
                "pid": state.pid,
                "ready": state.ready,
                "height": state.height,
                "peers": state.peers,
                "problem": state.problem,
            }
            for state in states
        ]
        output.show_json({"directory": str(network.dir), "nodes": nodes, "profiles": profiles})
        return
    rows = [
        (
            state.institution,
            state.problem or "ready",
            str(state.height) if state.pid else "",
            str(state.peers) if state.pid else "",
            str(state.pid or ""),
        )
        for state in states
    ]
    output.show(output.table(("Institution", "State", "Height", "Peers", "Process"), rows, right=("Height", "Peers")))
