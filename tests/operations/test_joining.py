"""A member whose disk is gone joins again by a snapshot, on real processes: it fetches no block from before it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import koinon
from bench.ledger import Sender
from koinon.cli import main
from testnet.network import Testnet
from tests.waiting import eventually

TRANSACTIONS = 2_000
SNAPSHOT_BLOCKS = 5


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Testnet]:
    network = Testnet.create(tmp_path / "net")
    for institution in network.institutions:
        config = network.home(institution).config
        config.write_text(config.read_text().replace("snapshot_blocks = 1000", f"snapshot_blocks = {SNAPSHOT_BLOCKS}"))
    with network:
        yield network


def log_of(network: Testnet, institution: str) -> list[dict[str, object]]:
    text = (network.home(institution).log / "node.log").read_text()
    return [json.loads(line) for line in text.splitlines()]


async def write(network: Testnet) -> None:
    senders = [Sender(network, institution) for institution in network.institutions]
    try:
        batches = [(sender, sender.sign(100)) for _ in range(TRANSACTIONS // 400) for sender in senders]
        for sender, batch in batches:  # in turn, so that there are many blocks
            await sender.commit(batch)
    finally:
        for sender in senders:
            await sender.connection.close()


def test_a_wiped_node_joins_by_snapshot_and_replays_nothing_before_it(network: Testnet) -> None:
    asyncio.run(write(network))
    network.stop("case")
    home = network.home("case")
    before = len(log_of(network, "case"))
    shutil.rmtree(home.path / "data")
    network.start("case")
    network.wait_ready()

    def heights(event: str) -> list[int]:
        return [int(str(entry["height"])) for entry in log_of(network, "case")[before:] if entry["event"] == event]

    eventually(lambda: bool(heights("block")), "a block beside the snapshot")  # a heartbeat at the latest
    with koinon.connect(network.profile("case-operator")) as client:
        assert client.audit.receipt(10).index == 10
    (restored,) = heights("snapshot restored")
    assert restored % SNAPSHOT_BLOCKS == 0
    assert min(heights("block")) > restored
    assert not home.chunks.exists()
    assert not home.ledger_restored.exists()

    network.stop("case")  # what it holds now is verified offline, as far as it goes
    result = CliRunner().invoke(main, ["ledger", "verify", str(home.path), "--json"])
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["by"], facts["first_block"]) == ("signatures", restored + 1)
    assert CliRunner().invoke(main, ["doctor", "--home", str(home.path)]).exit_code == 0
