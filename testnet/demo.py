"""``koinon demo``: tells the story of testnet.story, and leaves nothing behind."""

from __future__ import annotations

import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import click

from testnet.network import Testnet
from testnet.stage import Stage
from testnet.story import INSTITUTIONS, Story


@click.command()
def demo() -> None:
    """Four hospitals reproduce a published trial, on this machine, in under a minute.

    Starts four real nodes on loopback in a temporary directory, and leaves nothing behind.
    """
    stage = Stage()
    signal.signal(signal.SIGTERM, _interrupt)
    stage.title(
        "Koinon: four hospitals reproduce a published trial",
        "Elmunzer et al., N Engl J Med 2012;366:1414-22. No row leaves its hospital.",
    )
    with tempfile.TemporaryDirectory(prefix="koinon-demo-") as directory, ExitStack() as cleanup:
        network = Testnet.create(Path(directory) / "net", INSTITUTIONS)
        cleanup.callback(network.stop)
        with ExitStack() as clients:
            Story(stage, network, clients).tell()
    stage.end("Every node is stopped; nothing is left behind.")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that being told to stop cleans up as Ctrl-C does


commands = [demo]
"""What the koinon command gains where the test network is installed."""
