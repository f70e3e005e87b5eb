"""Fetching blocks, on simulated time: fast for whoever lacks them, and no lever for whoever asks for nothing's sake."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from koinon.limits import MAX_PEER_MESSAGE_BYTES, MAX_SYNC_BLOCKS
from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from node.engine import EngineConfig
from testnet.simulation.nodes import SimNode
from testnet.simulation.run import consortium
from testnet.simulation.world import Weather, World

GOSSIP_MS = EngineConfig("", "", 0).gossip_ms  # as in production
TRANSACTIONS = 20  # per block: far fewer than under load


def running(heights: int, transactions: int = TRANSACTIONS) -> tuple[World, list[SimNode]]:
    """v0, who decides alone and has decided this much, and two others, stopped."""
    world = World(0)
    world.weather = Weather(min_delay_ms=10, mean_delay_ms=0)
    network, _, clients = consortium(world, (8, 1, 1))
    nodes = list(network.nodes.values())
    for node in nodes:
        node.config = replace(node.config, gossip_ms=GOSSIP_MS)
    nodes[0].start()
    for height in range(heights):
        for _ in range(transactions):
            clients.submit(nodes[0], clients.registration("v0"))
        assert world.run(1_000, until=lambda height=height: len(nodes[0].committed) > height)  # type: ignore[misc]
    return world, nodes


def test_a_node_that_was_away_catches_up_at_more_than_five_thousand_transactions_a_second() -> None:
    heights = 200
    world, nodes = running(heights)
    nodes[1].start()
    start_ms = world.now_ms
    assert world.run(60_000, until=lambda: len(nodes[1].committed) >= heights)
    assert heights * TRANSACTIONS * 1_000 / (world.now_ms - start_ms) >= 5_000


def test_a_peer_that_asks_for_blocks_without_end_is_answered_now_and_then() -> None:
    """A request of ten bytes costs the reading of two megabytes. Others are answered as before."""
    world, nodes = running(2 * MAX_SYNC_BLOCKS, 1)
    sent: Counter[str] = Counter()
    engine = nodes[0].engine
    assert engine is not None

    def count(institution: str, message: DeliverRequest) -> None:
        if message.HasField("block_response"):
            assert message.ByteSize() <= MAX_PEER_MESSAGE_BYTES
            assert 0 < len(message.block_response.blocks) <= MAX_SYNC_BLOCKS
            sent[institution] += 1

    nodes[0].send = count  # type: ignore[method-assign]
    request = DeliverRequest(block_request=peer_pb2.BlockRequest(from_height=1, count=2**32 - 1))
    for _ in range(1_000):
        engine.on_message("v2", request)
    engine.on_message("v1", request)
    assert sent == {"v2": 4, "v1": 1}
    world.run(GOSSIP_MS)
    for _ in range(1_000):
        engine.on_message("v2", request)
    assert sent == {"v2": 8, "v1": 1}
