"""Who calls: every call but health and reflection carries a ticket, and is answered with typed errors.

1. the ticket is verified (koinon.ticket): signed for this chain and this node's certificate, not expired;
2. its key must be a registered person's, not revoked, of an active member;
3. one person has a bounded number of calls under way, so that nobody takes all there are; calls without a ticket
   are bounded apart (node.visits);
4. what the service raises becomes a gRPC status, with rule and hint in the trailing metadata.

Reading is for every registered person of every member: catalog, requests, tokens and tasks are the
members' common knowledge, being on the ledger each of them holds. Four things are narrower, and are
decided where they are served: files go to operators of the node's own institution (node.rpc.catalog),
the audit trail is whole for regulators and operators only (node.rpc.audit), and so are people's accounts
(node.rpc.points); what would change if a member left is for its operators (node.rpc.members).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, cast

import grpc
from grpc import aio
from structlog.typing import FilteringBoundLogger

from koinon import ticket
from koinon.errors import Exhausted, InvalidInput, KoinonError, PermissionRefused, Unauthenticated
from koinon.limits import MAX_CALLS, MAX_CALLS_PER_PERSON, MAX_ERROR_TEXT, MAX_TICKETS_REMEMBERED, REQUEST_S
from koinon.rpc import HINT_KEY, RULE_KEY
from koinon.v1.identity_pb2 import Role
from koinon.v1.services_pb2 import Ticket
from node.contracts.context import Sender
from node.visits import Handler, Visits

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")
_caller: ContextVar[Caller] = ContextVar("caller")


@dataclass(frozen=True, slots=True)
class Caller:
    """The registered person (or node, whose id is its institution's) on whose ticket a call came."""

    person: str
    roles: frozenset[Role.ValueType]

    @property
    def institution(self) -> str:
        return self.person.partition("/")[0]

    def is_any(self, *roles: Role.ValueType) -> bool:
        return not self.roles.isdisjoint(roles)


def caller() -> Caller:
    """Who made the call being served."""
    return _caller.get()


def require(*roles: Role.ValueType, institution: str = "", what: str) -> Caller:
    """The caller, if it has one of the roles (and is of the institution). Raises PermissionRefused."""
    who = caller()
    if not who.is_any(*roles) or (institution and who.institution != institution):
        needed = " or ".join(Role.Name(role).removeprefix("ROLE_").lower() for role in roles)
        raise PermissionRefused(
            f"{who.person} may not {what}",
            hint=f"ask a person with the role {needed}" + (f" at {institution}" if institution else ""),
        )
    return who


class Registry(Protocol):
    """Where keys are looked up: on the ledger."""

    def sender(self, public_key: bytes) -> Sender:
        """Who this key belongs to now. Raises Unauthenticated."""
        ...


class Gate(aio.ServerInterceptor):
    """Stands in front of every method of the client port."""

    def __init__(self, chain_id: str, certificate: bytes, registry: Registry, log: FilteringBoundLogger) -> None:
        """``certificate`` is this node's, in DER."""
        self._chain_id = chain_id
        self._certificate = certificate
        self._registry = registry
        self._log = log
        self._visits = Visits()
        self._calls: Counter[str] = Counter()  # under way, by person
        self._verified: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()  # ticket -> key, expiry (ms)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None:
            return None
        if method.startswith(_OPEN):
            return self._visits.bounded(handler)
        name = method.rpartition("/")[2]
        try:
            who = self.authenticate(handler_call_details.invocation_metadata or ())
        except Unauthenticated as error:
            return self._turn_away(name, error)
        return self._guard(handler, name, who)

    def authenticate(self, metadata: grpc.aio.Metadata | tuple[tuple[str, str | bytes], ...]) -> Caller:
        """Whose ticket came with a call. Raises Unauthenticated."""
        tickets = [value for key, value in metadata if key == ticket.METADATA_KEY]
        if len(tickets) != 1 or not isinstance(tickets[0], bytes):
            raise Unauthenticated(
                "the call carries no ticket", rule="bad-ticket", hint="use a Koinon client with a profile"
            )
        sender = self._registry.sender(self._key_of(tickets[0]))
        if any(value != sender.id for key, value in metadata if key == ticket.PERSON_KEY):
            raise Unauthenticated(
                f"the key is that of {sender.id}, and the profile names another person",
                rule="wrong-key",
                hint="correct person or key_file in the profile: they belong together",
            )
        return Caller(sender.id, frozenset(sender.roles))

    def _key_of(self, data: bytes) -> bytes:
        now_ms = time.time_ns() // 1_000_000
        if (known := self._verified.get(data)) and known[1] > now_ms:
            return known[0]
        key = ticket.verify(self._chain_id, self._certificate, data, now_ms)
        self._verified[data] = (key, Ticket.FromString(data).expires_at_ms)
        while len(self._verified) > MAX_TICKETS_REMEMBERED:
            self._verified.popitem(last=False)
        return key

    def _turn_away(self, method: str, error: KoinonError) -> Handler:
        """Answers a call without reading its request: a stranger's megabytes stay outside."""

        async def refuse(requests: AsyncIterator[bytes], context: aio.ServicerContext[Any, Any]) -> None:
            await self._refuse(context, method, error)

        return grpc.stream_unary_rpc_method_handler(cast("Any", refuse))

    def _guard(self, handler: Handler, method: str, who: Caller) -> Handler:
        """The method for this caller. It takes requests as a stream, since of some none may ever come."""
        codec = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_stream is not None:
            serve_stream: Any = handler.unary_stream  # typed for grpc's threads, served by grpc.aio

            async def guarded_stream(
                requests: AsyncIterator[Any], context: aio.ServicerContext[Any, Any]
            ) -> AsyncIterator[Any]:
                try:
                    with self._one_more(who):
                        async for response in serve_stream(await _request(requests), context):
                            yield response
                except KoinonError as error:
                    await self._refuse(context, method, error)

            return grpc.stream_stream_rpc_method_handler(guarded_stream, *codec)

        uploads = handler.stream_unary is not None
        serve: Any = handler.stream_unary if uploads else handler.unary_unary

        async def guarded(requests: AsyncIterator[Any], context: aio.ServicerContext[Any, Any]) -> Any:
            try:
                with self._one_more(who):
                    return await serve(requests if uploads else await _request(requests), context)
            except KoinonError as error:
                await self._refuse(context, method, error)

        return grpc.stream_unary_rpc_method_handler(guarded, *codec)

    @contextmanager
    def _one_more(self, who: Caller) -> Iterator[None]:
        """A call of this caller, who is known within it. Raises Exhausted where it has too many."""
        if self._calls[who.person] >= MAX_CALLS_PER_PERSON:
            raise Exhausted(
                f"{who.person} has {MAX_CALLS_PER_PERSON} calls under way at this node",
                hint="wait for some of them: one call can wait for many transactions",
            )
        if self._calls.total() >= MAX_CALLS:
            raise Exhausted(f"this node serves {MAX_CALLS} calls at a time", hint="try again in a moment")
        self._calls[who.person] += 1
        try:
            _caller.set(who)
            yield
        finally:
            self._calls[who.person] -= 1
            if not self._calls[who.person]:
                del self._calls[who.person]

    async def _refuse(self, context: aio.ServicerContext[Any, Any], method: str, error: KoinonError) -> None:
        self._log.info("call refused", method=method, rule=error.rule)
        await context.abort(
            grpc.StatusCode[error.status],
            error.message[:MAX_ERROR_TEXT],
            ((RULE_KEY, error.rule.encode()), (HINT_KEY, error.hint[:MAX_ERROR_TEXT].encode())),
        )


async def _request(requests: AsyncIterator[Any]) -> Any:
    """The one request of a call. Raises InvalidInput where it does not come."""
    try:
        async with asyncio.timeout(REQUEST_S):
            return await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        raise InvalidInput("the call has no request", hint="use a Koinon client") from None
