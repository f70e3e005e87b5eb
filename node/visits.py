"""Calls that need no ticket, of health and reflection: few at a time, each for a moment.

Anyone can make them. Refusing newcomers would let whoever came first keep monitoring out by doing nothing; so the
oldest makes room, as for connections (mpc.strangers), and a question that is answered at once is always answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
from grpc import aio

from koinon.limits import MAX_VISITS, VISIT_S

Context = aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Visits:
    """Those under way, in order of arrival."""

    def __init__(self) -> None:
        self._open: deque[asyncio.Timeout] = deque()

    def bounded(self, handler: Handler) -> Handler:
        """The method, ended when its time is over. Takes requests as a stream: none may ever come."""

        async def visit(requests: AsyncIterator[Any], context: Context) -> None:
            begun = asyncio.create_task(context.send_initial_metadata(()))
            try:
                async with asyncio.timeout(VISIT_S) as ends:
                    self._enter(ends)
                    try:
                        await asyncio.shield(begun)
                        await _serve(handler, requests, context)
                    finally:
                        if ends in self._open:
                            self._open.remove(ends)
            except TimeoutError:
                await begun  # gRPC does not end a call whose beginning was interrupted
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "without a ticket calls are short: call again")

        return grpc.stream_stream_rpc_method_handler(visit, handler.request_deserializer, handler.response_serializer)

    def _enter(self, ends: asyncio.Timeout) -> None:
        self._open.append(ends)
        if len(self._open) > MAX_VISITS:
            oldest = self._open.popleft()
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())


async def _serve(handler: Handler, requests: AsyncIterator[Any], context: Context) -> None:
    follow: Any = handler.stream_stream  # these are typed for grpc's threads, and served by grpc.aio
    watch: Any = handler.unary_stream
    answer: Any = handler.unary_unary
    if follow is not None:
        async for response in follow(requests, context):
            await context.write(response)
    elif request := await anext(requests, None):
        if watch is not None:
            await watch(request, context)  # writes by itself
        else:
            await context.write(await answer(request, context))
