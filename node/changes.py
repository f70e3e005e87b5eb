"""Waiting for the ledger to move on, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


class Changes:
    """Wakes whoever waits for something that a block, or a refusal by the pool, may have made true."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Something changed: every waiter looks again."""
        happened, self._next = self._next, asyncio.Event()
        happened.set()

    async def until(self, holds: Callable[[], bool], wait_ms: int) -> bool:
        """Wait until ``holds()``, at most so long; returns whether it does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_ms / 1000):
                while not holds():
                    await self._next.wait()
        return holds()

    async def next(self) -> None:
        """Wait for the next change."""
        await self._next.wait()
