"""Telling the ledger that results were received, behind the back of whoever waits for them.

What is signed are the digests of the sealed outputs that were opened, as their parties reported them; nothing about the
result. A result is never held up by this, nor lost with it: what the ledger could not be told is kept for the caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from koinon.aio.session import Session
from koinon.errors import KoinonError
from koinon.v1.task_pb2 import ReceiveResult, Task
from koinon.v1.transaction_pb2 import Operation

_CONFIRM_S = 10.0
_KEPT = 1_000  # of what the ledger could not be told, the newest: who never asks fills no memory


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A result that was opened, and of which the ledger does not know so."""

    task_id: str
    error: KoinonError


class Confirmations:
    """Of the results that one client opened."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._under_way: set[asyncio.Task[None]] = set()
        self._failed: deque[Unconfirmed] = deque(maxlen=_KEPT)

    def begin(self, task: Task, opened: Collection[int]) -> None:
        """Begin to tell the ledger that a task's outputs of these parties were opened."""
        digests = [task.parties[party].output_digest for party in sorted(opened)]
        received = Operation(receive_result=ReceiveResult(task_id=task.id, output_digests=digests))
        sending = asyncio.create_task(self._send(task.id, received), name=f"confirm {task.id}")
        self._under_way.add(sending)
        sending.add_done_callback(self._under_way.discard)

    async def settled(self) -> list[Unconfirmed]:
        """Wait, for a few seconds at most, until the ledger was told of all; what it could not be told since the last
        call.
        """
        if self._under_way:
            await asyncio.wait(self._under_way)
        failed = list(self._failed)
        self._failed.clear()
        return failed

    async def _send(self, task_id: str, received: Operation) -> None:
        try:
            await self._session.submit(received, timeout_s=_CONFIRM_S)
        except KoinonError as error:
            self._failed.append(Unconfirmed(task_id, error))
