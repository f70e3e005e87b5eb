"""Streams between the nodes of the members.

Every node dials every other and holds one ``Deliver`` stream (node.peer_link); what it hears comes on the streams the
others dialled. Both ends show the certificate that the ledger pins to their institution, and those certificates are the
only roots of the handshake, so that a stranger does not get past TLS. Which member speaks is read from the
certificate's fingerprint, never from what the peer claims.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from grpc import aio
from structlog.typing import FilteringBoundLogger

from koinon.errors import InvalidFile, NotFound, Unavailable
from koinon.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from koinon.limits import (
    HANDSHAKE_MS,
    MAX_CONNECTIONS,
    MAX_GOSSIP_BYTES,
    MAX_PEER_MESSAGE_BYTES,
    MAX_STREAMS,
    MAX_SYNC_BLOCKS,
    MAX_VALIDATORS,
    PEER_HELLO_MS,
    PEER_RETRY_MAX_MS,
    PROTOCOL_VERSION,
)
from koinon.v1 import peer_pb2, peer_pb2_grpc
from koinon.v1.peer_pb2 import DeliverRequest, DeliverResponse
from koinon.v1.session_pb2 import SealedOutput
from node import tls
from node.config import Address
from node.peer_link import KEEPALIVE, TAKEN_OVER, Member, Outgoing, PeerLink, Traffic


@dataclass(frozen=True, slots=True)
class PeerState:
    """What this node knows of another without asking."""

    institution: str
    connected: bool  # our stream to it is open
    height: int  # last heard
    last_seen_ms: int  # Unix time; 0: never


class Receiver(Protocol):
    """What the node does with what its peers say."""

    def height(self) -> int:
        """Last committed height, for our Hello."""
        ...

    def connected(self, institution: str) -> None:
        """Our stream to this member is open: it can be told things now."""
        ...

    def disconnected(self, institution: str) -> None:
        """The stream broke that was open to this member."""
        ...

    def received(self, institution: str, message: DeliverRequest) -> None:
        """A message from an authenticated member; its content is not yet checked."""
        ...

    def sealed_output(self, task_id: str) -> SealedOutput | None:
        """What this node holds for the asker of a completed task."""
        ...


class Peers:
    """All links of one node. Everything happens on one event loop."""

    def __init__(
        self,
        institution: str,
        identity: tls.Identity,
        genesis_hash: bytes,
        receiver: Receiver,
        log: FilteringBoundLogger,
    ) -> None:
        self._institution = institution
        self._identity = identity
        self._genesis_hash = genesis_hash
        self._receiver = receiver
        self._log = log
        self._links: dict[str, PeerLink] = {}
        self._leaving: dict[str, PeerLink] = {}  # to addresses that members moved from, until the new ones answer
        self._by_fingerprint: dict[bytes, str] = {}
        self._roots: bytes = b""
        self._heard: dict[str, tuple[int, int]] = {}
        self.traffic: Traffic = Counter()  # since the start: for people
        self._roots_changed = asyncio.Event()
        self._server: aio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None

    # --- life cycle

    async def start(self, listen: Address, members: list[Member]) -> None:
        """Listen, and dial every member. Raises RuntimeError when the port cannot be bound."""
        self.update(members)
        self._server = await self._serve(listen)
        self._reopening = asyncio.create_task(self._reopen(listen), name="reopen the peer port")

    async def stop(self) -> None:
        """Close every stream and the port."""
        links = [*self._links.values(), *self._leaving.values()]
        self._links.clear()
        self._leaving.clear()
        for link in links:
            link.close()
        await asyncio.gather(*(link.closed() for link in links))
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.wait([self._reopening])
        if self._server is not None:
            await self._server.stop(grace=0.2)

    async def _reopen(self, listen: Address) -> None:
        """Serve anew whenever the members' certificates changed.

        gRPC could exchange the roots of a running server (dynamic_ssl_server_credentials), but frees the old ones
        while another thread may be in a handshake with them: a node whose peers reconnected together died of that.
        So the port is closed for a moment instead; the others' links dial again.
        """
        while True:
            await self._roots_changed.wait()
            if self._server is not None:
                await self._server.stop(grace=None)
            try:
                self._server = await self._serve(listen)
            except RuntimeError as error:  # the port is not free again yet, or somebody else took it
                self._log.error("peer port lost", address=str(listen), reason=str(error))
                self._roots_changed.set()
                await asyncio.sleep(PEER_RETRY_MAX_MS / 1000)

    async def _serve(self, listen: Address) -> aio.Server:
        """A running server that lets today's members in. Raises RuntimeError when the port cannot be bound."""
        self._roots_changed.clear()
        server = aio.server(
            options=(
                ("grpc.max_receive_message_length", MAX_PEER_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),  # two nodes on one port must fail, not share it
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.max_connection_idle_ms", PEER_HELLO_MS),  # a connection without a stream
                ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                *KEEPALIVE,
            )
        )
        peer_pb2_grpc.add_PeerServiceServicer_to_server(_Service(self, self._receiver, self._log), server)
        credentials = grpc.ssl_server_credentials(
            [(self._identity.key, self._identity.certificate)], self._roots, require_client_auth=True
        )
        server.add_secure_port(str(listen), credentials)
        try:
            await server.start()
        except asyncio.CancelledError:
            await server.stop(grace=None)
            raise
        return server

    def update(self, members: list[Member]) -> None:
        """Follow the ledger: dial who joined or moved, drop who left, listen to whom it names now.

        A member that moves learns of it from us, at its old address: that link lives until the new one does.
        """
        members = [member for member in members if self._is_sound(member)]
        roots = b"".join(member.roots for member in members)
        if roots != self._roots:
            self._roots = roots
            self._roots_changed.set()
        self._by_fingerprint = {
            tls.fingerprint(der): member.institution
            for member in members
            for der in (member.certificate, member.former)
            if der
        }
        wanted = {member.institution: member for member in members if member.institution != self._institution}
        for institution, link in list(self._links.items()):
            if wanted.get(institution) != link.member:
                del self._links[institution]
                if institution in wanted and link.connected:
                    self._leave(institution)
                    self._leaving[institution] = link
                else:
                    link.close()
        for institution in self._leaving.keys() - wanted.keys():
            self._leave(institution)
        for institution, member in wanted.items():
            if institution not in self._links:
                self._links[institution] = PeerLink(
                    member,
                    self._identity,
                    self._hello,
                    self._connected,
                    self._receiver.disconnected,
                    self.traffic,
                    self._log.bind(peer=institution),
                )

    def _is_sound(self, member: Member) -> bool:
        """The ledger checks the outermost form of a certificate only: who has none is not let in."""
        try:
            return bool(member.roots)
        except InvalidFile as error:
            self._log.warning("member has no certificate", peer=member.institution, reason=error.message)
            return False

    def _connected(self, institution: str) -> None:
        self._leave(institution)
        self._receiver.connected(institution)

    def _leave(self, institution: str) -> None:
        if link := self._leaving.pop(institution, None):
            link.close()

    # --- speaking

    def send(self, institution: str, message: DeliverRequest) -> None:
        """Queue for one member; unknown and unconnected ones are forgotten about."""
        self._put(institution, Outgoing(message))

    def broadcast(self, message: DeliverRequest) -> None:
        """Queue for every member."""
        outgoing = Outgoing(message)
        for institution in self._links:
            self._put(institution, outgoing)

    def _put(self, institution: str, outgoing: Outgoing) -> None:
        link = self._leaving.get(institution) or self._links.get(institution)
        if link is not None:
            link.put(outgoing)

    async def fetch_output(self, institution: str, task_id: str) -> SealedOutput:
        """Ask a member for the sealed output it holds.

        Raises:
            NotFound: the member holds none.
            Unavailable: the member cannot be reached.
        """
        link = self._links.get(institution)
        if link is None or not link.connected:
            raise Unavailable(
                f"{institution} is not connected", hint="its result share can be fetched when its node is back"
            )
        stub = peer_pb2_grpc.PeerServiceStub(link.channel)
        try:
            answer = await stub.FetchOutput(peer_pb2.FetchOutputRequest(task_id=task_id), timeout=5)
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotFound(f"{institution} holds no output of task {task_id}") from None
            raise Unavailable(f"{institution} did not answer: {error.details()}", hint="try again") from None
        return answer.output

    def status(self) -> list[PeerState]:
        """One entry per member but ourselves, ascending."""
        return [
            PeerState(institution, link.connected, *self._heard.get(institution, (0, 0)))
            for institution, link in sorted(self._links.items())
        ]

    def displaced(self) -> bool:
        """Does another process speak with this node's certificate, as far as members' nodes let us know?"""
        return any(link.displaced for link in self._links.values())

    # --- hearing

    def member_of(self, certificate: bytes) -> str | None:
        """Which member holds the certificate (PEM) shown in the handshake."""
        return self._by_fingerprint.get(tls.fingerprint(tls.pem_to_der(certificate)))

    def refusal_of(self, institution: str, hello: peer_pb2.Hello) -> str:
        """Why a peer that introduces itself so is not listened to; empty when it is."""
        if hello.institution != institution:
            return f"this certificate belongs to {institution}, not to {hello.institution[:64]!r}"
        if hello.genesis_hash != self._genesis_hash:
            return "our genesis files differ: compare genesis.json"
        if hello.protocol_version != PROTOCOL_VERSION:
            return (
                f"protocol {hello.protocol_version} is not spoken here, but {PROTOCOL_VERSION}: upgrade the older node"
            )
        return ""

    def hear(self, institution: str, message: DeliverRequest) -> None:
        """Note who spoke, and hand on what was said."""
        height = self._heard.get(institution, (0, 0))[0]
        kind = message.WhichOneof("message")
        self.traffic["received", kind or "unknown"] += 1
        match kind:
            case "hello":
                height = message.hello.height
            case "round_status":
                height = max(height, message.round_status.height - 1)
            case "votes":
                height = max([height, *(vote.height - 1 for vote in message.votes.votes[:1])])
        self._heard[institution] = (height, time.time_ns() // 1_000_000)
        self._receiver.received(institution, message)

    def _hello(self) -> DeliverRequest:
        return DeliverRequest(
            hello=peer_pb2.Hello(
                institution=self._institution,
                genesis_hash=self._genesis_hash,
                protocol_version=PROTOCOL_VERSION,
                height=self._receiver.height(),
            )
        )


class _Service(peer_pb2_grpc.PeerServiceServicer):
    """The listening half."""

    def __init__(self, peers: Peers, receiver: Receiver, log: FilteringBoundLogger) -> None:
        self._peers = peers
        self._receiver = receiver
        self._log = log
        # The newest of each member, before its hello and after it: each ends the one before.
        self._opening: dict[str, asyncio.Task[Any]] = {}
        self._streams: dict[str, asyncio.Task[Any]] = {}

    async def Deliver(
        self,
        request_iterator: AsyncIterator[DeliverRequest],
        context: aio.ServicerContext[DeliverRequest, DeliverResponse],
    ) -> DeliverResponse:
        institution = await self._caller(context)
        stream = asyncio.current_task()
        assert stream is not None
        try:
            return await self._listen(institution, stream, request_iterator, context)
        except asyncio.CancelledError:
            if stream in (self._opening.get(institution), self._streams.get(institution)):
                raise  # not by us
            stream.uncancel()
            return DeliverResponse(reason=TAKEN_OVER)
        finally:
            for streams in (self._opening, self._streams):
                if streams.get(institution) is stream:
                    del streams[institution]

    async def _listen(
        self,
        institution: str,
        stream: asyncio.Task[Any],
        request_iterator: AsyncIterator[DeliverRequest],
        context: aio.ServicerContext[DeliverRequest, DeliverResponse],
    ) -> DeliverResponse:
        _replace(self._opening, institution, stream)
        try:
            async with asyncio.timeout(PEER_HELLO_MS / 1000):
                first = await anext(request_iterator)
        except (TimeoutError, StopAsyncIteration):
            return DeliverResponse(reason="no hello came")
        if first.WhichOneof("message") != "hello":
            return DeliverResponse(reason="the first message is no hello")
        if reason := self._peers.refusal_of(institution, first.hello):
            self._log.warning("peer refused", peer=institution, reason=reason)
            return DeliverResponse(reason=reason)

        del self._opening[institution]  # what gRPC sends is not to be interrupted
        await context.send_initial_metadata(())  # tells the dialler that its hello was accepted
        _replace(self._streams, institution, stream)
        self._peers.hear(institution, first)
        async for message in request_iterator:
            if _has_too_many_parts(message):
                self._log.warning("peer cut off", peer=institution, message=message.WhichOneof("message"))
                return DeliverResponse(reason="a message had too many parts")
            self._peers.hear(institution, message)
        return DeliverResponse()

    async def FetchOutput(
        self,
        request: peer_pb2.FetchOutputRequest,
        context: aio.ServicerContext[peer_pb2.FetchOutputRequest, peer_pb2.FetchOutputResponse],
    ) -> peer_pb2.FetchOutputResponse:
        await self._caller(context)
        output = self._receiver.sealed_output(request.task_id)
        if output is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this node holds no output of that task")
        return peer_pb2.FetchOutputResponse(output=output)

    async def _caller(self, context: aio.ServicerContext[Any, Any]) -> str:
        shown = list(context.auth_context().get("x509_pem_cert", ()))
        institution = self._peers.member_of(shown[0]) if len(shown) == 1 else None
        if institution is None:
            # Its certificate was a root of the handshake, so it was a member until just now.
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this certificate belongs to no member")
        return institution


_MAX_ENVELOPES = MAX_GOSSIP_BYTES // (PUBLIC_KEY_BYTES + SIGNATURE_BYTES)  # no envelope is as small


def _has_too_many_parts(message: DeliverRequest) -> bool:
    """Are there more than any member's node sends? A message has room for a million empty ones.

    Going through them takes half a second, in which nobody else is heard: from one member that is enough to stop all.
    Of too many votes the engine reads the first.
    """
    status = message.round_status
    return (
        len(message.transactions.envelopes) > _MAX_ENVELOPES
        or len(message.block_response.blocks) > MAX_SYNC_BLOCKS
        or max(len(status.prevotes), len(status.precommits)) > MAX_VALIDATORS
    )


def _replace(streams: dict[str, asyncio.Task[Any]], institution: str, stream: asyncio.Task[Any]) -> None:
    """A member has one: however many it opens, they take no more memory."""
    before = streams.get(institution)
    streams[institution] = stream
    if before is not None:
        before.cancel()
