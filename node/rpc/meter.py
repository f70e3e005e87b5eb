"""Counts calls: which method, how it ended, how long it took. Sees no request, no answer, no caller."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc import aio

from node.visits import Handler

Observe = Callable[[str, str, float], None]
"""Method ("NodeService/GetStatus"), name of the gRPC status, seconds."""

_OURS = "/koinon.v1."
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class Meter(aio.ServerInterceptor):
    """Stands before the gate, so that refused calls count too; it makes every method one that takes a stream.

    Calls of unknown methods do not count.
    """

    def __init__(self, observe: Observe) -> None:
        self._observe = observe

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        path = str(handler_call_details.method)
        if handler is None or not path.startswith(_OURS):
            return handler
        method = path.removeprefix(_OURS)
        codec = (handler.request_deserializer, handler.response_serializer)
        if handler.stream_stream is not None:
            serve_stream: Any = handler.stream_stream

            async def metered_stream(requests: Any, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
                with self._metered(method, context):
                    async for response in serve_stream(requests, context):
                        yield response

            return grpc.stream_stream_rpc_method_handler(metered_stream, *codec)

        serve: Any = handler.stream_unary

        async def metered(requests: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            with self._metered(method, context):
                return await serve(requests, context)

        return grpc.stream_unary_rpc_method_handler(metered, *codec)

    @contextmanager
    def _metered(self, method: str, context: aio.ServicerContext[Any, Any]) -> Iterator[None]:
        began = time.perf_counter()
        status = "CANCELLED"  # what ends a call otherwise: the client went away, or the node stops
        try:
            yield
            status = "OK"
        except Exception:
            status = _name(context)
            raise
        finally:
            self._observe(method, status, time.perf_counter() - began)


def _name(context: aio.ServicerContext[Any, Any]) -> str:
    """The status that a call was aborted with; a bug's is UNKNOWN."""
    code: Any = context.code()
    name = code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")
    return "UNKNOWN" if name == "OK" else name
