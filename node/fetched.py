"""Blocks that were asked for, on their way to the engine: signatures of their transactions are verified on a thread.

libsodium, where nearly all of that time goes, releases the interpreter's lock, so that one core verifies what comes
next while another executes. One thread, because it is quicker than execution, and because what is executed next comes
first then. What is verified is not believed more: the engine judges blocks as ever, and the application only is spared
the second verification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.message import DecodeError

from koinon.envelope import SignedTransaction, verify_many
from koinon.v1.consensus_pb2 import Block
from koinon.v1.peer_pb2 import BlockResponse, DeliverRequest

Verified = list[tuple[bytes, SignedTransaction]]


class FetchedBlocks:
    """An answer is taken once: a peer that sends what was asked for again and again fills no memory."""

    def __init__(
        self,
        chain_id: str,
        remember: Callable[[bytes, SignedTransaction], None],
        hand_on: Callable[[str, DeliverRequest], None],
    ) -> None:
        self._chain_id = chain_id
        self._remember = remember
        self._hand_on = hand_on
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}  # by peer and first height
        self._thread = ThreadPoolExecutor(1, "verify fetched")

    def put(self, peer: str, message: DeliverRequest) -> None:
        """Take an answer, not empty, that the engine asked this peer for."""
        key = (peer, int(message.block_response.blocks[0].commit.height))
        if key in self._tasks:
            return
        task = asyncio.create_task(self._take(peer, message), name=f"blocks from {peer}")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key))

    def close(self) -> None:
        """Forget what is under way."""
        for task in self._tasks.values():
            task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _take(self, peer: str, message: DeliverRequest) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, verified, self._chain_id, message.block_response)
        for envelope, transaction in found:
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
