"""Waiting for a condition, and never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from koinon.errors import KoinonError


def eventually(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until ``holds``; a node that does not answer just now is asked again."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        with suppress(KoinonError):
            if holds():
                return
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Let others run until ``holds``."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)
