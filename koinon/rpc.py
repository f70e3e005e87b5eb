"""One authenticated connection to a node, and its errors as Koinon's own.

The node is recognised by its pinned certificate alone. Every call carries a ticket signed a moment ago
with the caller's key; the key itself never leaves this process. Whatever the node or the network
answers, callers of ``Connection`` see members of koinon.errors and nothing else.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

# gRPC's C core would write lines of its own to stderr; failures arrive as typed errors anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from koinon import ticket
from koinon.errors import (
    BY_STATUS,
    DeadlineExceeded,
    InvalidFile,
    InvalidInput,
    KoinonError,
    Unauthenticated,
    Unavailable,
)
from koinon.keys import SigningKey
from koinon.limits import MAX_RPC_MESSAGE_BYTES, MAX_STREAMS, RPC_KEEPALIVE_ANSWER_MS, RPC_KEEPALIVE_MS
from koinon.names import tls_name
from koinon.profile import Profile
from koinon.v1 import services_pb2_grpc as services

RULE_KEY = "koinon-rule-bin"
HINT_KEY = "koinon-hint-bin"
GO_AHEAD_KEY = "koinon-go-ahead"
"""In a node's initial metadata: it took the header of an upload, and waits for the chunks."""
NEVER_SENT = "node-down"
"""Rule of an Unavailable that says no connection was made: the request cannot have had any effect."""

CALL_S = 20.0
"""How long a call waits for its answer, unless told otherwise."""

_CERTIFICATE = "it is HOME/tls/certificate.pem of your node, as koinon init made it"
_START = "start it with koinon node run (or koinon testnet up), or correct rpc_address in the profile"
_TICKET_MS = 300_000  # half of what a node takes: its clock and ours may be five minutes apart, either way
_HUNG_UP = "connection idle"  # gRPC's words, alone or among others, where a node ends one that nobody used
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 1.0

Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)
Request = TypeVar("Request")
Response = TypeVar("Response")


class Unary(Protocol[Request_contra, Response_co]):
    """A generated stub method with one request and one response."""

    def __call__(
        self, request: Request_contra, *, timeout: float | None = None, metadata: grpc.aio.Metadata | None = None
    ) -> Awaitable[Response_co]: ...


class Connection:
    """Stubs of every service of one node. Made inside a running event loop; close it there."""

    def __init__(self, profile: Profile, key: SigningKey, chain_id: str) -> None:
        """Opens no socket yet.

        Raises InvalidFile when the profile's certificate is no certificate; InvalidInput as ``unforked``.
        """
        unforked()
        self._closed = False
        self.address = profile.rpc_address
        self._institution = profile.institution
        self._person = str(profile.person)
        self._key = key
        self._chain_id = chain_id
        # One for each call under way. More than a node takes on one connection would wait inside gRPC, where their time
        # runs and their tickets age; and while the connection begins, gRPC sends them to be refused.
        self.turns = asyncio.Semaphore(MAX_STREAMS)
        try:
            self._certificate = ssl.PEM_cert_to_DER_cert(_first_certificate(profile.node_certificate))
        except ValueError as error:
            raise InvalidFile("the profile's node_certificate is no PEM certificate", hint=_CERTIFICATE) from error
        self._channel = grpc.aio.secure_channel(
            profile.rpc_address,
            grpc.ssl_channel_credentials(root_certificates=profile.node_certificate.encode("ascii")),
            options=[
                ("grpc.ssl_target_name_override", tls_name(profile.institution)),
                ("grpc.max_receive_message_length", MAX_RPC_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_RPC_MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", RPC_KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", RPC_KEEPALIVE_ANSWER_MS),
                ("grpc.http2.ping_timeout_ms", RPC_KEEPALIVE_ANSWER_MS),  # else a minute
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1_000),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self.node = services.NodeServiceStub(self._channel)
        self.transactions = services.TransactionServiceStub(self._channel)
        self.members = services.MemberServiceStub(self._channel)
        self.catalog = services.CatalogServiceStub(self._channel)
        self.datasets = services.DatasetServiceStub(self._channel)
        self.access = services.AccessServiceStub(self._channel)
        self.governance = services.GovernanceServiceStub(self._channel)
        self.demand = services.DemandServiceStub(self._channel)
        self.disputes = services.DisputeServiceStub(self._channel)
        self.query = services.QueryServiceStub(self._channel)
        self.tasks = services.TaskServiceStub(self._channel)
        self.points = services.PointsServiceStub(self._channel)
        self.audit = services.AuditServiceStub(self._channel)
        self.events = services.EventServiceStub(self._channel)

    async def close(self) -> None:
        """Ends every call under way."""
        self._closed = True
        await self._channel.close()

    def metadata(self) -> grpc.aio.Metadata:
        """A fresh ticket, for calls made without ``call``. Raises InvalidInput where no call can be made any more."""
        unforked()
        if self._closed:
            raise InvalidInput("the client is closed", hint="call before it is closed, or connect again")
        expires_at_ms = time.time_ns() // 1_000_000 + _TICKET_MS
        proof = ticket.make(self._chain_id, self._certificate, self._key, expires_at_ms)
        return grpc.aio.Metadata((ticket.METADATA_KEY, proof), (ticket.PERSON_KEY, self._person))

    async def call(
        self,
        method: Unary[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_S,
        patience_s: float = 0.0,
    ) -> Response:
        """Call ``method`` when it is its turn; while the node is out of reach, try again for ``patience_s``.

        ``timeout_s`` begins with its turn. Raises KoinonError.
        """
        give_up = time.monotonic() + patience_s
        pause = _RETRY_FIRST_S
        once_more = True
        while True:
            try:
                async with self.turns:
                    return await method(request, timeout=timeout_s, metadata=self.metadata())
            except asyncio.CancelledError:
                self._check_not_closed_meanwhile()
                raise
            except grpc.aio.AioRpcError as error:
                if once_more and _hung_up(error):
                    once_more = False
                    continue
                failure = self.error(error)
                if not isinstance(failure, Unavailable) or time.monotonic() + pause > give_up:
                    raise failure from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RETRY_MAX_S)

    async def stream(self, start: Callable[[], AsyncIterable[Response]]) -> AsyncIterator[Response]:
        """The messages of a server's stream. Raises KoinonError."""
        once_more = True  # until the first message: none comes twice
        while True:
            try:
                async with self.turns:
                    async for message in start():
                        once_more = False
                        yield message
                return
            except asyncio.CancelledError:
                self._check_not_closed_meanwhile()
                raise
            except grpc.aio.AioRpcError as error:
                if once_more and _hung_up(error):
                    once_more = False
                    continue
                raise self.error(error) from None

    def _check_not_closed_meanwhile(self) -> None:
        """A call that ``close`` ends is cancelled by gRPC. Raises InvalidInput, where nobody else cancelled it."""
        task = asyncio.current_task()
        if self._closed and not (task and task.cancelling()):
            raise InvalidInput(
                "the client was closed during the call, which may still have its effect",
                hint="close it when its calls have ended",
            ) from None

    def error(self, error: grpc.aio.AioRpcError) -> KoinonError:
        """The typed error that a failed call stands for."""
        trailers = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, bytes)}
        rule = trailers.get(RULE_KEY, b"").decode("utf-8", "replace")
        hint = trailers.get(HINT_KEY, b"").decode("utf-8", "replace")
        details = error.details() or ""
        code = error.code()
        if not rule and code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # the latter: it is stopping
            return self._unreachable(details)
        if not rule and code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(
                f"the node at {self.address} did not answer in time",
                hint="koinon status shows what it is doing; where that has no answer either, see its log",
            )
        if not rule and code is grpc.StatusCode.UNIMPLEMENTED:
            return Unavailable(
                f"the node at {self.address} does not know this call: {details}",
                hint="client and node are of different versions; compare koinon --version with koinon status",
            )
        return typed_error(BY_STATUS.get(code.name, KoinonError), details or code.name, rule, hint)

    def _unreachable(self, details: str) -> KoinonError:
        if "CERTIFICATE_VERIFY_FAILED" in details or "Verification Check failed" in details:
            return Unauthenticated(
                f"whoever answers at {self.address} does not hold the certificate pinned for {self._institution}",
                rule="wrong-certificate",
                hint="check rpc_address, institution and node_certificate in the profile",
            )
        if "security handshaker" in details:
            return InvalidFile("the profile's node_certificate is no certificate that TLS takes", hint=_CERTIFICATE)
        if not details.startswith(("failed to connect to all addresses", "errors resolving", "DNS resolution")):
            return Unavailable(f"the connection to the node at {self.address} broke", hint=_START)
        if "Endpoint closing" in details:  # by ourselves, when the time for TLS was up
            return Unavailable(
                f"whoever listens at {self.address} says nothing",
                rule=NEVER_SENT,
                hint="a node that hangs does so, or one whose machine does: its log tells; else correct rpc_address in "
                "the profile",
            )
        if "Handshake read failed" in details or "Connection reset" in details:
            return Unavailable(
                f"whoever listens at {self.address} hangs up before it says who it is",
                rule=NEVER_SENT,
                hint="a node does so while it has all the connections that it takes: try again, and tell its operator; "
                "else correct rpc_address in the profile",
            )
        return Unavailable(f"no node answers at {self.address}", rule=NEVER_SENT, hint=_START)


@functools.cache
def _first_process() -> int:
    """The id of the process that first used gRPC here; a fork of it remembers."""
    return os.getpid()


def unforked() -> None:
    """Raises InvalidInput in a process that was forked after its parent had called: gRPC would wait there for ever."""
    if os.getpid() != _first_process():
        raise InvalidInput(
            "this process was forked from one that had used Koinon's client, and cannot use it",
            hint='start it by multiprocessing.get_context("spawn"), or before the first client is made',
        )


def _hung_up(error: grpc.aio.AioRpcError) -> bool:
    """Whether the node ended an idle connection in this very moment: the request did not get there."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and _HUNG_UP in (error.details() or "")


def typed_error(base: type[KoinonError], message: str, rule: str, hint: str) -> KoinonError:
    """The most special error of ``base``'s kind that the rule speaks of."""
    return _special(base, rule)(message, rule=rule, hint=hint)


def _special(base: type[KoinonError], rule: str) -> type[KoinonError]:
    if base.default_rule == rule:
        return base
    for child in base.__subclasses__():
        found = _special(child, rule)
        if found.default_rule == rule:
            return found
    return base


def _first_certificate(pem: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start, stop = pem.find(begin), pem.find(end)
    if start < 0 or stop < start:
        raise ValueError("no certificate")
    return pem[start : stop + len(end)] + "\n"
