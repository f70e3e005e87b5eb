"""Blocks that were asked for, on their way to the engine: signatures of their transactions are verified on a thread.

libsodium, where nearly all of that time goes, releases the interpreter's lock, so that one core verifies what comes
next while another executes. One answer at a time, the lowest first, because that is what is executed next; one thread
is quicker than execution. What is verified is not believed more: the engine judges blocks as ever, and the application
only is spared the second verification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from google.protobuf.message import DecodeError

from koinon.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from koinon.v1.consensus_pb2 import Block
from koinon.v1.peer_pb2 import BlockResponse, DeliverRequest
from node.verified import VerifiedTransactions

_LEAST_BYTES = PUBLIC_KEY_BYTES + SIGNATURE_BYTES  # of any envelope


class FetchedBlocks:
    """Takes an answer once: a peer that sends what was asked for again and again fills no memory."""

    def __init__(
        self,
        verified: VerifiedTransactions,
        hand_on: Callable[[str, DeliverRequest], None],
        background: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        """``background`` starts a task with this name, and sees to errors in it."""
        self._verified = verified
        self._hand_on = hand_on
        self._background = background
        self._waiting: dict[tuple[int, str], DeliverRequest] = {}  # by first height and peer
        self._work: asyncio.Task[None] | None = None

    def put(self, peer: str, message: DeliverRequest) -> None:
        """Take an answer, not empty, that the engine asked this peer for."""
        self._waiting.setdefault((int(message.block_response.blocks[0].commit.height), peer), message)
        if self._work is None:
            self._work = self._background(self._verify_waiting(), "verify fetched")

    def close(self) -> None:
        """Forget what is under way."""
        if self._work is not None:
            self._work.cancel()

    async def _verify_waiting(self) -> None:
        try:
            while self._waiting:
                key = min(self._waiting)
                message = self._waiting[key]
                await asyncio.to_thread(self._verified.verify_many, transactions_of(message.block_response))
                del self._waiting[key]
                self._hand_on(key[1], message)
        finally:
            self._work = None


def transactions_of(response: BlockResponse) -> list[bytes]:
    """The envelopes in blocks from anyone; blocks that are not in form have none.

    What is too short for one is left out: a message holds a million of these, and each would cost a refusal.
    """
    envelopes: list[bytes] = []
    for item in response.blocks:
        try:
            transactions = Block.FromString(item.block).transactions
        except DecodeError:
            continue
        envelopes += (data for data in transactions if len(data) > _LEAST_BYTES)
    return envelopes
