"""Reads that take long, off the event loop: consensus, which has it, waits for none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """One read at a time on a thread; the others wait for their turn."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def read(self, read: Callable[[], T]) -> T:
        """What ``read`` returns or raises. Whoever hangs up keeps its turn until the thread, which goes on, is free."""
        async with self._turn:
            reading = asyncio.create_task(asyncio.to_thread(read))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                await asyncio.wait([reading])
                reading.exception()  # nobody is left to hear of it
                raise
