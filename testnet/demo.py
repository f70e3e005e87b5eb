"""``koinon demo``: tells the story of testnet.story, and leaves nothing behind."""

from __future__ import annotations

import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import click

from koinon.errors import KoinonError
from testnet.network import Testnet
from testnet.stage import Stage
from testnet.story import INSTITUTIONS, Story


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="A new directory to work in, kept with all logs.  [default: a temporary one]",
)
def demo(directory: Path | None) -> None:
    """Four hospitals reproduce a published trial, on this machine, in under a minute.

    Starts four real nodes on loopback, tells the story in eight steps, and leaves nothing behind.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    stage = Stage()
    stage.title(
        "Koinon: four hospitals reproduce a published trial",
        "Elmunzer et al., N Engl J Med 2012;366:1414-22. No row leaves home.",
    )
    try:
        with ExitStack() as cleanup:
            if directory is None:
                directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="koinon-demo-"))) / "net"
            network = Testnet.create(directory, INSTITUTIONS)
            cleanup.callback(_stop, network)
            with ExitStack() as clients:
                Story(stage, network, clients).tell()
    except KoinonError as error:
        if not directory or not directory.exists():
            error.hint = "koinon demo --dir DIR keeps the logs of all nodes"
        raise
    stage.end("Every node is stopped" + ("; nothing is left behind." if not directory.exists() else "."))


def _stop(network: Testnet) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave nodes behind
    network.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that being told to stop cleans up as Ctrl-C does


commands = [demo]
"""What the koinon command gains where the test network is installed."""
