"""Reads off the event loop: one at a time, whoever hangs up."""

from __future__ import annotations

import asyncio
import threading

import pytest

from koinon.errors import NotFound
from node.rpc.aside import Aside


async def test_a_read_answers_or_fails_as_it_would_here() -> None:
    aside = Aside()
    assert await aside.read(lambda: 7) == 7

    def fail() -> None:
        raise NotFound("there is none")

    with pytest.raises(NotFound):
        await aside.read(fail)


async def test_who_hangs_up_keeps_its_turn_until_the_thread_is_free() -> None:
    """Else calls that are cancelled as fast as they are made take every thread that there is."""
    aside, begun, go_on = Aside(), threading.Semaphore(0), threading.Event()
    ended: list[str] = []

    def read() -> None:
        begun.release()
        go_on.wait()
        ended.append("first")

    first = asyncio.create_task(aside.read(read))
    await asyncio.to_thread(begun.acquire)
    second = asyncio.create_task(aside.read(lambda: ended.append("second")))
    first.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert ended == ["first", "second"]
