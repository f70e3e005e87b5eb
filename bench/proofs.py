"""What it takes to verify without trust: one receipt, and a whole ledger by replay."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import koinon
from koinon import genesis as genesis_file
from koinon import receipt
from node import replay
from node.store.leveldb import LevelStore
from testnet.network import Testnet


def measure(network: Testnet, runs: int, say: Callable[[str], None]) -> dict[str, float]:
    """Keys ``receipt.verify_ms`` and ``ledger.replay_tx_per_s``; stops the network, whose ledger holds transactions."""
    genesis = genesis_file.load(network.dir / "genesis.json")
    with koinon.connect(network.profile("regulator")) as regulator:
        record = regulator.audit.list(limit=1)[0]
        text = receipt.render(regulator.audit.receipt(record.index))
    say(f"{runs} verifications of a receipt")
    verified = [_milliseconds(lambda: receipt.verify(receipt.parse(text), genesis)) for _ in range(runs)]

    network.stop()
    with (
        closing(LevelStore(network.home(network.institutions[0]).ledger)) as store,
        tempfile.TemporaryDirectory(prefix="koinon-replay-") as directory,
        closing(LevelStore(Path(directory))) as scratch,
    ):
        say("replay of the whole ledger")
        started = time.perf_counter()
        found = replay.replay(genesis, replay.stored(store), scratch)
        replay.compare(store, scratch, found.chain)
        seconds = time.perf_counter() - started
    return {"receipt.verify_ms": median(verified), "ledger.replay_tx_per_s": found.transactions / seconds}


def _milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000
