"""How long clients hear of no commit after the node whose turn it is to propose was killed (SIGKILL)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from statistics import median

from bench.ledger import Sender
from koinon.v1.services_pb2 import GetStatusRequest
from koinon.validators import ValidatorSet
from testnet.network import Testnet

_CALM_S = 1.0  # of commits before
_WATCH_S = 5.0  # from the kill on: the dead node's turn comes again, and must cost less
_SOON = 2  # heights between the one last heard of and the victim's turn


async def measure(network: Testnet, kills: int, say: Callable[[str], None]) -> dict[str, float]:
    """Key ``ledger.proposer_crash_gap_ms``: the median over the kills of the longest silence after each."""
    say(f"{kills} times kill -9 of the proposer, while clients write")
    victims = [network.institutions[number % len(network.institutions)] for number in range(kills)]
    return {"ledger.proposer_crash_gap_ms": median([await _gap(network, victim) for victim in victims]) * 1000}


async def _gap(network: Testnet, victim: str) -> float:
    """Kill one node when its turn is near, watch, start it again; the longest time in seconds without a commit."""
    commits: list[float] = []
    async with AsyncExitStack() as stack:
        senders = [Sender(network, institution) for institution in network.institutions if institution != victim]
        for sender in senders:
            stack.push_async_callback(sender.connection.close)
        writers = [asyncio.create_task(_write(sender, commits)) for sender in senders]
        await asyncio.sleep(_CALM_S)
        await _turn(senders[0], victim)
        network.kill(victim)
        killed = time.monotonic()
        await asyncio.sleep(_WATCH_S)
        for writer in writers:
            writer.cancel()
        ended = await asyncio.gather(*writers, return_exceptions=True)
    if failed := [error for error in ended if not isinstance(error, asyncio.CancelledError)]:
        raise RuntimeError(f"a client could not go on writing: {failed[0]}")
    network.start(victim)
    await asyncio.to_thread(network.wait_ready)
    times = [killed, *(at for at in commits if at > killed), killed + _WATCH_S]
    return max(later - earlier for earlier, later in pairwise(times))


async def _write(sender: Sender, commits: list[float]) -> None:
    """One transaction after another, noting when each was final."""
    while True:
        await sender.commit(sender.sign(1))
        commits.append(time.monotonic())


async def _turn(sender: Sender, institution: str) -> None:
    """Wait until an institution is about to propose."""
    while True:
        status = await sender.connection.call(sender.connection.node.GetStatus, GetStatusRequest())
        if ValidatorSet.of(status.validators).proposer(status.height + _SOON, 0) == institution:
            return
