"""A stream to one member's node, and how its messages wait.

What goes to several members is serialised once. Sending never waits: a link has a queue for votes and the like, one for
blocks and one for gossip, all bounded. A full queue drops its oldest message, because the engine repeats what a peer
turns out to lack.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from grpc import aio
from structlog.typing import FilteringBoundLogger

from koinon.limits import (
    MAX_PEER_BLOCKS,
    MAX_PEER_MESSAGE_BYTES,
    MAX_PEER_QUEUE,
    PEER_RETRY_MAX_MS,
    PEER_RETRY_MIN_MS,
)
from koinon.names import tls_name
from koinon.v1.peer_pb2 import DeliverRequest, DeliverResponse
from node import tls

DELIVER = "/koinon.v1.PeerService/Deliver"

KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # else a minute, whatever the line above says
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)
"""A peer whose machine vanished is noticed within 15 s."""

TAKEN_OVER = "a newer stream took over"
"""Why a member's stream ends when another comes in its name. One is that of a node that dials anew."""

_DISPLACED_TIMES, _DISPLACED_S = 3, 60  # so often in so long: somebody else dials in our name

Traffic: TypeAlias = "Counter[tuple[str, str]]"
"""How many messages were ("sent", "received" or "dropped", of a kind: the field of DeliverRequest)."""


@dataclass(frozen=True, slots=True)
class Member:
    """An institution's node as the ledger describes it."""

    institution: str
    address: str  # host:port
    certificate: bytes  # DER
    former: bytes = b""  # DER; accepted beside it while its node may not have changed to the new one

    @property
    def roots(self) -> bytes:
        """Whom TLS lets in as this member, PEM. Raises InvalidFile."""
        return b"".join(tls.root(der, self.institution) for der in (self.certificate, self.former) if der)


class Outgoing:
    """A message to one member or to many: whichever stream sends it first serialises it for all."""

    __slots__ = ("_data", "kind", "message")

    def __init__(self, message: DeliverRequest) -> None:
        self.message = message
        self.kind: str = message.WhichOneof("message") or "unknown"
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        if self._data is None:
            self._data = self.message.SerializeToString()
        return self._data


class PeerLink:
    """Our stream to one member: dialled again, with growing pauses, for as long as it is a member."""

    def __init__(
        self,
        member: Member,
        identity: tls.Identity,
        hello: Callable[[], DeliverRequest],
        on_connected: Callable[[str], None],
        on_disconnected: Callable[[str], None],
        traffic: Traffic,
        log: FilteringBoundLogger,
    ) -> None:
        self.member = member
        self.connected = False
        self.channel = aio.secure_channel(
            member.address,
            grpc.ssl_channel_credentials(member.roots, identity.key, identity.certificate),
            options=(
                ("grpc.ssl_target_name_override", tls_name(member.institution)),
                ("grpc.max_receive_message_length", MAX_PEER_MESSAGE_BYTES),
                ("grpc.initial_reconnect_backoff_ms", PEER_RETRY_MIN_MS),
                ("grpc.min_reconnect_backoff_ms", PEER_RETRY_MIN_MS),
                ("grpc.max_reconnect_backoff_ms", PEER_RETRY_MAX_MS),
                *KEEPALIVE,
            ),
        )
        self._deliver: aio.StreamUnaryMultiCallable[Outgoing, DeliverResponse] = self.channel.stream_unary(
            DELIVER, request_serializer=lambda message: message.data, response_deserializer=DeliverResponse.FromString
        )
        self._hello = hello
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._traffic = traffic
        self._log = log
        self._urgent: deque[Outgoing] = deque(maxlen=MAX_PEER_QUEUE)
        self._blocks: deque[Outgoing] = deque(maxlen=MAX_PEER_BLOCKS)
        self._gossip: deque[Outgoing] = deque(maxlen=MAX_PEER_QUEUE)
        self._wake = asyncio.Event()
        self._taken_over: deque[float] = deque(maxlen=_DISPLACED_TIMES)  # when, by the monotonic clock
        self._task = asyncio.create_task(self._run(), name=f"link to {member.institution}")

    def put(self, message: Outgoing) -> None:
        """Queue; forgotten while there is no connection, since the engine resends what is needed then."""
        if self.connected:
            queue = self._queue_of(message)
            if len(queue) == queue.maxlen:
                self._traffic["dropped", queue[0].kind] += 1
            queue.append(message)
            self._wake.set()

    def _queue_of(self, message: Outgoing) -> deque[Outgoing]:
        match message.kind:
            case "transactions":
                return self._gossip
            case "proposal" | "block_response" | "snapshot_offer" | "chunk_response":
                return self._blocks
            case _:
                return self._urgent

    @property
    def displaced(self) -> bool:
        """Does the peer keep ending our stream for a newer one in our name?"""
        often = len(self._taken_over) == _DISPLACED_TIMES
        return often and time.monotonic() - self._taken_over[0] < _DISPLACED_S

    def close(self) -> None:
        """Start to close; ``closed`` waits for the end."""
        self.connected = False
        self._task.cancel()

    async def closed(self) -> None:
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        pause_ms = PEER_RETRY_MIN_MS
        reported = ""
        try:
            while True:
                try:
                    reason = await self._hold()
                except aio.AioRpcError as error:
                    reason = error.details() or error.code().name
                if reason == TAKEN_OVER:
                    self._taken_over.append(time.monotonic())
                if self.connected:
                    self.connected = False
                    self._on_disconnected(self.member.institution)
                    pause_ms, reported = PEER_RETRY_MIN_MS, ""
                if reason != reported:  # a peer that stays down is reported once
                    self._log.warning("peer unreachable", address=self.member.address, reason=reason)
                    reported = reason
                await asyncio.sleep(pause_ms * random.uniform(0.5, 1.0) / 1000)  # noqa: S311 - jitter is no secret
                pause_ms = min(2 * pause_ms, PEER_RETRY_MAX_MS)
        finally:
            await self.channel.close()

    async def _hold(self) -> str:
        """Hold one stream until it ends; returns the peer's reason. Raises AioRpcError."""
        for queue in (self._urgent, self._blocks, self._gossip):
            queue.clear()
        call = self._deliver()
        call.add_done_callback(lambda _: self._wake.set())
        try:
            await call.write(Outgoing(self._hello()))
            await call.initial_metadata()
            if not call.done():
                self.connected = True
                self._log.info("peer connected", address=self.member.address)
                self._on_connected(self.member.institution)
            while not call.done():
                if message := self._next():
                    await call.write(message)
                    self._traffic["sent", message.kind] += 1
                else:
                    self._wake.clear()
                    await self._wake.wait()
            response = await call
        except asyncio.InvalidStateError:  # what writing to a finished call raises
            response = await call
        finally:
            call.cancel()
        return response.reason or "the peer ended the stream"

    def _next(self) -> Outgoing | None:
        """Votes before blocks before gossip; votes that queued up travel as one message."""
        if not self._urgent:
            queue = self._blocks or self._gossip
            return queue.popleft() if queue else None
        first = self._urgent.popleft()
        if first.kind != "votes" or not self._urgent or self._urgent[0].kind != "votes":
            return first
        together = DeliverRequest(votes=first.message.votes)  # a copy: the queued one is shared with other links
        while self._urgent and self._urgent[0].kind == "votes":
            together.votes.MergeFrom(self._urgent.popleft().message.votes)
        return Outgoing(together)
