"""Several parties of a joint computation in one process, linked by queues; what they send can be looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from mpc.shamir import Shamir

_T = TypeVar("_T")


class LocalNetwork:
    """``frames`` collects all payloads, in the order sent."""

    def __init__(self, parties: int) -> None:
        self.parties = parties
        self.frames: list[bytes] = []
        self._queues: dict[tuple[int, int], asyncio.Queue[bytes]] = {
            (sender, receiver): asyncio.Queue() for sender in range(parties) for receiver in range(parties)
        }

    def channel(self, party: int) -> LocalChannel:
        return LocalChannel(self, party)

    def put(self, sender: int, receiver: int, payload: bytes) -> None:
        self.frames.append(payload)
        self._queues[sender, receiver].put_nowait(payload)

    async def get(self, sender: int, receiver: int) -> bytes:
        return await self._queues[sender, receiver].get()


class LocalChannel:
    """See mpc.channel.Channel."""

    def __init__(self, network: LocalNetwork, party: int) -> None:
        self.party = party
        self.parties = network.parties
        self._network = network

    async def exchange(self, outgoing: Mapping[int, bytes], incoming: Mapping[int, int]) -> dict[int, bytes]:
        for peer, payload in outgoing.items():
            self._network.put(self.party, peer, payload)
        received = {}
        for peer, size in incoming.items():
            received[peer] = await self._network.get(peer, self.party)
            assert len(received[peer]) == size
        return received


def run(parties: int, program: Callable[[Shamir], Awaitable[_T]], network: LocalNetwork | None = None) -> Sequence[_T]:
    """What the program returns at each party, with the largest threshold there is."""

    async def all_parties() -> Sequence[_T]:
        links = network or LocalNetwork(parties)
        arithmetic = [Shamir(links.channel(party), (parties - 1) // 2) for party in range(parties)]
        return await asyncio.gather(*(program(s) for s in arithmetic))

    return asyncio.run(all_parties())
