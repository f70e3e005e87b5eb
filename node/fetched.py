"""Blocks that were asked for, on their way to the engine: signatures of their transactions are verified on threads.

libsodium, where nearly all of that time goes, releases the interpreter's lock, so that one core verifies what comes
next while another executes. What is verified is not believed more: the engine judges blocks as ever, and the
application only is spared the second verification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from google.protobuf.message import DecodeError

from koinon.envelope import SignedTransaction, verify_many
from koinon.v1.consensus_pb2 import Block
from koinon.v1.peer_pb2 import BlockResponse, DeliverRequest

Verified = list[tuple[bytes, SignedTransaction]]

_IN_FLIGHT = 8  # answers: as many as a node asks for at a time (node.catch_up)


class FetchedBlocks:
    """At most ``_IN_FLIGHT`` at a time: a peer that sends what was asked for again and again fills no memory."""

    def __init__(
        self,
        chain_id: str,
        remember: Callable[[bytes, SignedTransaction], None],
        hand_on: Callable[[str, DeliverRequest], None],
    ) -> None:
        self._chain_id = chain_id
        self._remember = remember
        self._hand_on = hand_on
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, peer: str, message: DeliverRequest) -> None:
        """Take an answer that the engine expects from this peer; beyond the bound it is dropped, and asked for anew."""
        if len(self._tasks) >= _IN_FLIGHT:
            return
        task = asyncio.create_task(self._take(peer, message), name=f"blocks from {peer}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Forget what is under way."""
        for task in self._tasks:
            task.cancel()

    async def _take(self, peer: str, message: DeliverRequest) -> None:
        for envelope, transaction in await asyncio.to_thread(verified, self._chain_id, message.block_response):
            self._remember(envelope, transaction)
        self._hand_on(peer, message)


def verified(chain_id: str, response: BlockResponse) -> Verified:
    """The valid transactions of blocks from anyone; blocks that are not in form have none."""
    envelopes: list[bytes] = []
    for item in response.blocks:
        try:
            envelopes += Block.FromString(item.block).transactions
        except DecodeError:
            continue
    outcomes = zip(envelopes, verify_many(chain_id, envelopes), strict=True)
    return [(data, outcome) for data, outcome in outcomes if isinstance(outcome, SignedTransaction)]
