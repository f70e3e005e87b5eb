"""Whoever connects to a node's client port holds few of its descriptors, and not for long."""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from koinon.limits import MAX_STREAMS
from koinon.names import PersonId
from koinon.profile import Profile
from koinon.rpc import Connection
from koinon.v1.services_pb2 import PlanQueryRequest, PlanQueryResponse
from node.rpc import server
from node.serve import take_descriptors
from tests.contracts.consortium import key
from tests.node.test_auth import Door, Echo, empty_request
from tests.waiting import until

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings (RFC 9113, 3.4)


@asynccontextmanager
async def opened() -> AsyncIterator[Door]:
    """A client port, with what is set in its module until now."""
    door = Door()
    await door.server.start(door.address)
    try:
        yield door
    finally:
        await door.server.stop(0)


@asynccontextmanager
async def greeting(door: Door) -> AsyncIterator[asyncio.StreamReader]:
    """A stranger's connection that is beyond its handshake, and calls nothing. Raises OSError where it is refused."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(door.address.host, door.address.port, ssl=context)
    writer.write(HELLO)
    yield reader
    writer.transport.abort()


async def test_who_says_hello_and_calls_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held open, as many as the node had descriptors ended it: its ledger could open no file."""
    monkeypatch.setattr(server, "IDLE_MS", 100)
    async with opened() as door, greeting(door) as stranger, asyncio.timeout(60):
        with suppress(OSError):
            while await stranger.read(4096):
                pass


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with opened() as door, greeting(door), greeting(door):
        with pytest.raises(OSError):  # noqa: PT011 - a reset, or TLS without an end
            async with greeting(door):
                pass


async def test_one_connection_has_few_calls_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's, sent faster than they can be refused, were so many that gRPC dropped everybody's."""
    monkeypatch.setattr(server, "MAX_STREAMS", 2)
    ends = asyncio.Event()

    async def late_request() -> AsyncIterator[bytes]:
        await ends.wait()
        yield b""

    async with opened() as door, door.channel() as channel:
        ask: Any = channel.stream_unary("/koinon.v1.QueryService/PlanQuery")
        calls = [ask(late_request(), metadata=door.ticket("um/analyst")) for _ in range(2)]
        await until(lambda: door.gate._calls["um/analyst"] == 2)
        waiting = ask(empty_request(), metadata=door.ticket("um/analyst"))
        assert await door.ask(door.ticket("um/operator"), empty_request()) == "um/operator"
        assert not waiting.done()
        ends.set()
        await asyncio.gather(waiting, *calls)


async def test_a_client_s_calls_wait_for_their_turn_before_their_time_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that waited inside gRPC were told that the node did not answer in time, or that the connection broke."""
    ends = asyncio.Event()
    answer = Echo.PlanQuery

    async def late(echo: Echo, request: PlanQueryRequest, context: Any) -> PlanQueryResponse:
        await ends.wait()
        return await answer(echo, request, context)

    monkeypatch.setattr(Echo, "PlanQuery", late)
    async with opened() as door, asyncio.timeout(60):
        person, certificate = PersonId.parse("um/analyst"), door.identity.certificate.decode()
        profile = Profile("um", person, Path(), str(door.address), certificate, Path())
        connection = Connection(profile, key("um/analyst"), door.consortium.chain_id)

        def ask(timeout_s: float) -> asyncio.Task[PlanQueryResponse]:
            return asyncio.create_task(
                connection.call(connection.query.PlanQuery, PlanQueryRequest(), timeout_s=timeout_s)
            )

        calls = [ask(60) for _ in range(MAX_STREAMS)]
        last, *waiting = ask(60), *(ask(0.2) for _ in range(MAX_STREAMS))
        await until(lambda: door.gate._calls["um/analyst"] == MAX_STREAMS)
        await asyncio.wait(waiting, timeout=0.5)
        assert not any(call.done() for call in (*calls, *waiting))
        for call in waiting:
            call.cancel()
        ends.set()
        await asyncio.gather(last, *calls)
        await connection.close()


async def test_a_client_that_was_idle_calls_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_MS", 100)
    async with opened() as door, door.channel() as channel, asyncio.timeout(60):
        ask: Any = channel.stream_unary("/koinon.v1.QueryService/PlanQuery")
        for _ in range(2):
            assert b"um/analyst" in await ask(empty_request(), metadata=door.ticket("um/analyst"))
            while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(state)


def test_a_node_takes_the_descriptors_that_it_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    take_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
