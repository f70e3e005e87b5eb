"""The MPC port: connections of known tasks reach their worker whole; all others are closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from koinon import limits
from mpc.session import MAGIC
from node import mpc_port
from node.mpc_port import MpcPort
from tests.waiting import until

TASK = "0123456789abcdef" * 2
PREAMBLE = MAGIC + bytes.fromhex(TASK)


@pytest.fixture
async def port() -> AsyncIterator[MpcPort]:
    port = MpcPort()
    port.start("127.0.0.1", 0)
    yield port
    await port.stop()


class Worker:
    """Keeps what is passed on."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[socket.socket] = asyncio.Queue()

    def pass_on(self, connection: socket.socket) -> None:
        self.connections.put_nowait(connection.dup())


async def dial(port: MpcPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port.port)


async def assert_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(60):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


async def test_what_follows_the_preamble_reaches_the_worker_untouched(port: MpcPort) -> None:
    worker = Worker()
    port.expect(TASK)
    _, early = await dial(port)
    early.write(PREAMBLE + b"early")
    _, slow = await dial(port)
    for byte in PREAMBLE:
        slow.write(bytes([byte]))
        await asyncio.sleep(0)
    slow.write(b"slow!")
    await early.drain()
    port.attach(TASK, worker.pass_on)
    loop = asyncio.get_running_loop()
    arrived = set()
    for _ in range(2):
        async with asyncio.timeout(60):
            connection = await worker.connections.get()
            with connection:
                connection.setblocking(False)
                arrived.add(await loop.sock_recv(connection, 100))
    assert arrived == {b"early", b"slow!"}
    early.close()
    slow.close()


@pytest.mark.parametrize(
    "sent",
    [
        MAGIC + bytes(16),
        b"koinmpc2" + bytes.fromhex(TASK),
        b"GET / HTTP/1.1\r\nHost: um.example\r\n\r\n",
        bytes(10_000),
    ],
    ids=["unknown task", "other version", "web browser", "zeros"],
)
async def test_anything_else_is_closed(port: MpcPort, sent: bytes) -> None:
    port.expect(TASK)
    reader, writer = await dial(port)
    writer.write(sent)
    await assert_closed(reader, writer)


async def test_silence_is_closed(port: MpcPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpc_port, "PREAMBLE_TIMEOUT_S", 0.1)
    port.expect(TASK)
    for sent in (b"", PREAMBLE[:-1]):
        reader, writer = await dial(port)
        writer.write(sent)
        await assert_closed(reader, writer)


async def test_a_task_that_is_over_keeps_no_connections(port: MpcPort) -> None:
    port.expect(TASK)
    reader, writer = await dial(port)
    writer.write(PREAMBLE)
    await until(lambda: len(port._expected[TASK].waiting) == 1)
    port.forget(TASK)
    await assert_closed(reader, writer)
    again = await dial(port)
    again[1].write(PREAMBLE)
    await assert_closed(*again)


async def test_silent_connections_keep_nobody_out(port: MpcPort, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hold the port open and say nothing: the oldest leaves, and a member's node gets through at once."""
    monkeypatch.setattr(mpc_port, "PREAMBLE_TIMEOUT_S", 600)
    worker = Worker()
    port.attach(TASK, worker.pass_on)
    silent = [await dial(port) for _ in range(limits.MAX_PENDING_CONNECTIONS)]
    await until(lambda: len(port._reading) == limits.MAX_PENDING_CONNECTIONS)
    _, member = await dial(port)
    member.write(PREAMBLE)
    async with asyncio.timeout(60):
        (await worker.connections.get()).close()
    await assert_closed(*silent[0])
    await until(lambda: len(port._reading) == limits.MAX_PENDING_CONNECTIONS - 1)
    for _, writer in [*silent[1:], (None, member)]:
        writer.close()


async def test_a_task_is_not_used_up_by_those_who_know_its_id(port: MpcPort) -> None:
    worker = Worker()
    port.attach(TASK, worker.pass_on)
    for _ in range(2 * limits.MAX_TASK_STRANGERS):
        _, writer = await dial(port)
        writer.write(PREAMBLE)
        async with asyncio.timeout(60):
            (await worker.connections.get()).close()
        writer.close()


async def test_of_those_waiting_for_a_worker_the_oldest_leave(port: MpcPort) -> None:
    port.expect(TASK)
    strangers = []
    for number in range(limits.MAX_TASK_STRANGERS):
        strangers.append(await dial(port))
        strangers[-1][1].write(PREAMBLE)
        await until(lambda number=number: len(port._expected[TASK].waiting) == number + 1)  # type: ignore[misc]
    _, member = await dial(port)
    member.write(PREAMBLE + b"member")
    await assert_closed(*strangers[0])
    worker = Worker()
    port.attach(TASK, worker.pass_on)
    received = []
    while not worker.connections.empty():
        with worker.connections.get_nowait() as connection, suppress(BlockingIOError):
            received.append(connection.recv(100, socket.MSG_DONTWAIT))
    assert received == [b"member"]
    for _, writer in [*strangers[1:], (None, member)]:
        writer.close()
