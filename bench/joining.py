"""What a member pays that was away, or lost its disk: all blocks from its peers, or a snapshot.

One node of a network that holds transactions is stopped, its ledger removed, and started again. What it does is read
from its own log: from ``node started`` to the block at which the others stood.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime

import koinon
from testnet.network import Testnet

_PATIENCE_S = 300


def measure(network: Testnet, say: Callable[[str], None]) -> dict[str, float]:
    """Keys ``ledger.catch_up_tx_per_s`` and ``ledger.snapshot_join_s``, of the ledger that the network holds."""
    _, joiner, *others = network.institutions
    say(f"{joiner} fetches all blocks")
    _cut_every(network, 0)
    seconds, transactions = _rejoin(network, joiner)
    say(f"{joiner} joins by a snapshot")
    _cut_every(network, 1)
    for other in others:  # one is offered once the block after it is there
        _wait(lambda other=other: sum(entry["event"] == "snapshot cut" for entry in _log(network, other)) > 1)  # type: ignore[misc]
    joined, _ = _rejoin(network, joiner)
    if not any(entry["event"] == "snapshot restored" for entry in _log(network, joiner)):
        raise RuntimeError(f"{joiner} did not join by a snapshot")
    return {"ledger.catch_up_tx_per_s": transactions / seconds, "ledger.snapshot_join_s": joined}


def _rejoin(network: Testnet, joiner: str) -> tuple[float, int]:
    """Seconds from the start to the others' height, and how many transactions it executed."""
    network.stop(joiner)
    home = network.home(joiner)
    shutil.rmtree(home.ledger)
    home.read_model.unlink()
    other = next(name for name in network.institutions if name != joiner)
    with koinon.connect(network.profile(f"{other}-operator")) as client:
        goal = client.status().height
    begun = sum(1 for _ in _log(network, joiner))
    network.start(joiner)

    def entries() -> list[dict[str, object]]:
        return list(_log(network, joiner))[begun:]

    def blocks() -> list[dict[str, object]]:
        return [entry for entry in entries() if entry["event"] == "block"]

    def beyond() -> list[dict[str, object]]:
        return [entry for entry in blocks() if int(str(entry["height"])) >= goal]

    _wait(lambda: bool(beyond()))
    start = next(entry for entry in entries() if entry["event"] == "node started")
    seconds = (_time(beyond()[0]) - _time(start)).total_seconds()
    return seconds, sum(int(str(entry["transactions"])) for entry in blocks() if int(str(entry["height"])) <= goal)


def _cut_every(network: Testnet, blocks: int) -> None:
    """Start all nodes again, with this distance between snapshots."""
    network.stop()
    for institution in network.institutions:
        home = network.home(institution)
        text = home.config.read_text(encoding="utf-8")
        home.config.write_text(re.sub(r"snapshot_blocks = \d+", f"snapshot_blocks = {blocks}", text), encoding="utf-8")
        shutil.rmtree(home.snapshots, ignore_errors=True)
    network.start()
    network.wait_ready()


def _log(network: Testnet, institution: str) -> Iterator[dict[str, object]]:
    for line in (network.home(institution).log / "node.log").read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):  # of a line that is being written
            yield json.loads(line)


def _time(entry: dict[str, object]) -> datetime:
    return datetime.fromisoformat(str(entry["timestamp"]))


def _wait(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > give_up:
            raise RuntimeError(f"nothing came of it within {_PATIENCE_S} s")
        time.sleep(0.2)
