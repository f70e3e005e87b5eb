"""The gate of the client port: who is let in, and what a stranger may cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from koinon import ticket
from koinon.errors import Unauthenticated
from koinon.limits import MAX_VISITS
from koinon.names import PersonId, tls_name
from koinon.profile import Profile
from koinon.rpc import RULE_KEY, Connection
from koinon.v1 import services_pb2, services_pb2_grpc
from node import auth, tls, visits
from node.auth import Gate, caller
from node.config import Address
from node.rpc import server
from node.rpc.meter import Meter
from node.rpc.server import RpcServer
from testnet.network import free_ports
from tests.contracts.consortium import Consortium, key
from tests.waiting import until

Metadata = tuple[tuple[str, bytes], ...]
MINUTE_MS = 60_000


class Echo(services_pb2_grpc.QueryServiceServicer):
    """Says who asked."""

    async def PlanQuery(  # noqa: N802 - the name in services.proto
        self, request: services_pb2.PlanQueryRequest, context: aio.ServicerContext[Any, Any]
    ) -> services_pb2.PlanQueryResponse:
        return services_pb2.PlanQueryResponse(plan_hash=caller().person.encode())


class Door:
    """A client port, and tickets for it."""

    def __init__(self) -> None:
        self.identity = tls.create_identity("um")
        self.consortium = Consortium()
        certificate = tls.pem_to_der(self.identity.certificate)
        self.gate = Gate(self.consortium.chain_id, certificate, self.consortium.app, structlog.get_logger())
        self.server = RpcServer(self.identity, self.gate, Meter(self._note), {"QueryService": Echo()})
        self.address = Address("127.0.0.1", *free_ports(1))
        self.calls: list[tuple[str, str]] = []

    def _note(self, method: str, status: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((method, status))

    def ticket(self, person: str, certificate: bytes = b"") -> Metadata:
        shown = certificate or tls.pem_to_der(self.identity.certificate)
        expires_at_ms = time.time_ns() // 1_000_000 + MINUTE_MS
        return ((ticket.METADATA_KEY, ticket.make(self.consortium.chain_id, shown, key(person), expires_at_ms)),)

    def channel(self) -> aio.Channel:
        return aio.secure_channel(
            str(self.address),
            grpc.ssl_channel_credentials(self.identity.certificate),
            options=(("grpc.ssl_target_name_override", tls_name("um")),),
        )

    async def ask(self, metadata: Metadata, requests: AsyncIterator[bytes]) -> str:
        """Who the node says is asking. Raises AioRpcError."""
        async with self.channel() as channel:
            call: Any = channel.stream_unary("/koinon.v1.QueryService/PlanQuery")
            answer = await call(requests, metadata=metadata, timeout=60)
        return services_pb2.PlanQueryResponse.FromString(answer).plan_hash.decode()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.server.start(made.address)
    yield made
    await made.server.stop(0)


async def empty_request() -> AsyncIterator[bytes]:
    yield b""


async def request_that_never_comes() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def test_a_ticket_lets_its_holder_in(door: Door) -> None:
    assert await door.ask(door.ticket("um/analyst"), empty_request()) == "um/analyst"
    await until(lambda: door.calls == [("QueryService/PlanQuery", "OK")])


async def test_a_profile_that_names_another_person_than_its_key_s_is_refused(door: Door) -> None:
    """It would act as somebody else than its holder believes."""
    certificate = door.identity.certificate.decode()
    for person, answered in (("um/analyst", True), ("um/operator", False)):
        profile = Profile("um", PersonId.parse(person), Path(), str(door.address), certificate, Path())
        connection = Connection(profile, key("um/analyst"), door.consortium.chain_id)
        call = connection.call(connection.query.PlanQuery, services_pb2.PlanQueryRequest())
        if answered:
            assert (await call).plan_hash == b"um/analyst"
        else:
            with pytest.raises(Unauthenticated, match="that of um/analyst") as refused:
                await call
            assert (refused.value.rule, bool(refused.value.hint)) == ("wrong-key", True)
        await connection.close()


async def test_strangers_are_turned_away_before_their_request_is_read(door: Door) -> None:
    """A thousand strangers with eight megabytes each would fill the node's memory."""
    elsewhere = tls.pem_to_der(tls.create_identity("iu").certificate)
    refusals: tuple[tuple[Metadata, bytes], ...] = (
        ((), b"bad-ticket"),
        (((ticket.METADATA_KEY, b"nonsense"),), b"bad-ticket"),
        (door.ticket("um/analyst", elsewhere), b"bad-ticket"),  # of another node
        (door.ticket("nobody"), b"unknown-key"),
    )
    for metadata, rule in refusals:
        with pytest.raises(aio.AioRpcError) as refused:
            await door.ask(metadata, request_that_never_comes())
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert dict(refused.value.trailing_metadata())[RULE_KEY] == rule
    await until(lambda: door.calls == [("QueryService/PlanQuery", "UNAUTHENTICATED")] * len(refusals))


async def test_strangers_who_watch_keep_nobody_out(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand streams of health or reflection were all the calls that a node serves."""
    monkeypatch.setattr(visits, "VISIT_S", 600)
    async with door.channel() as channel, door.channel() as prober:
        health = health_pb2_grpc.HealthStub(channel)
        streams = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(MAX_VISITS)]
        for stream in streams:
            assert (await stream.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        check: Any = channel.stream_unary("/grpc.health.v1.Health/Check")
        halves = [check(request_that_never_comes()) for _ in streams]
        for stream in streams:  # gave way to those who came after them
            assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        answer = await health_pb2_grpc.HealthStub(prober).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await door.ask(door.ticket("um/analyst"), empty_request()) == "um/analyst"
        for half in halves:
            half.cancel()


async def test_a_stranger_who_stays_is_sent_away(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "VISIT_S", 0.1)
    async with door.channel() as channel:
        stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        with suppress(aio.AioRpcError):  # it is sent away before it is answered
            await stream.read()
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stranger_s_time_may_be_over_in_the_middle_of_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine; the call ends all the same."""
    door = Door()

    async def watch(_: object, request: object, context: visits.Context) -> None:
        door.gate._visits._open[0].reschedule(asyncio.get_running_loop().time())
        await context.write(health_pb2.HealthCheckResponse())

    monkeypatch.setattr(health.aio.HealthServicer, "Watch", watch)
    await door.server.start(door.address)
    async with door.channel() as channel, asyncio.timeout(60):
        stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await stream.read()
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await door.server.stop(0)


async def test_strangers_who_read_nothing_keep_nobody_out(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do not take stays with gRPC; a place among the calls it has no longer."""
    monkeypatch.setattr(auth, "MAX_CALLS", 1)
    monkeypatch.setattr(visits, "VISIT_S", 1)
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="koinon.v1.QueryService")
    async with door.channel() as channel:
        streams = [reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo() for _ in range(2)]
        for stream in streams:
            with suppress(asyncio.InvalidStateError, aio.AioRpcError):  # its time is over
                for _ in range(200):  # for eight megabytes of answers
                    await stream.write(asked)
        assert await door.ask(door.ticket("um/analyst"), empty_request()) == "um/analyst"
        await until(lambda: not door.gate._visits._open)
        assert await door.ask(door.ticket("um/analyst"), empty_request()) == "um/analyst"


async def test_all_together_have_a_bounded_number_of_calls(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MAX_CALLS", 1)
    monkeypatch.setattr(auth, "REQUEST_S", 600)
    held = asyncio.create_task(door.ask(door.ticket("um/analyst"), request_that_never_comes()))
    await until(lambda: door.gate._calls["um/analyst"] == 1)
    with pytest.raises(aio.AioRpcError) as refused:
        await door.ask(door.ticket("um/operator"), empty_request())
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    held.cancel()


async def test_one_person_does_not_take_all_calls(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MAX_CALLS_PER_PERSON", 2)
    monkeypatch.setattr(auth, "REQUEST_S", 600)
    held = [asyncio.create_task(door.ask(door.ticket("um/analyst"), request_that_never_comes())) for _ in range(2)]
    gate = door.gate
    await until(lambda: gate._calls["um/analyst"] == 2)
    with pytest.raises(aio.AioRpcError) as refused:
        await door.ask(door.ticket("um/analyst"), empty_request())
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await door.ask(door.ticket("um/operator"), empty_request()) == "um/operator"
    for call in held:
        call.cancel()
    await until(lambda: not gate._calls)
    assert await door.ask(door.ticket("um/analyst"), empty_request()) == "um/analyst"


async def test_a_request_that_never_comes_ends_its_call(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REQUEST_S", 0.1)
    with pytest.raises(aio.AioRpcError) as refused:
        await door.ask(door.ticket("um/analyst"), request_that_never_comes())
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await until(lambda: not door.gate._calls)


async def test_who_connects_and_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_MS", 100)
    door = Door()
    await door.server.start(door.address)
    reader, writer = await asyncio.open_connection(door.address.host, door.address.port)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
    await door.server.stop(0)
