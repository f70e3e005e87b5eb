"""EventService: new records as they come. The log itself is the queue: a slow reader costs no memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio

from koinon import trail
from koinon.errors import Exhausted
from koinon.limits import MAX_SUBSCRIPTIONS, MAX_SUBSCRIPTIONS_PER_PERSON
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.audit_pb2 import RecordFilter
from node.auth import caller
from node.changes import Changes
from node.read_model import ReadModel
from node.rpc.trail import Trail

Context = aio.ServicerContext[Any, Any]

_TURN = 256  # records sent or passed over before the loop, and consensus with it, gets its turn


class EventService(services_pb2_grpc.EventServiceServicer):
    """Follows the audit trail. A regulator's stream is recorded once, when it opens."""

    def __init__(self, read_model: ReadModel, visible: Trail, changes: Changes) -> None:
        self._read_model = read_model
        self._trail = visible
        self._changes = changes
        self._open: Counter[str] = Counter()  # by person

    async def Subscribe(
        self, request: services_pb2.SubscribeRequest, context: Context
    ) -> AsyncIterator[services_pb2.SubscribeResponse]:
        who = caller()
        if self._open[who.person] >= MAX_SUBSCRIPTIONS_PER_PERSON:
            raise Exhausted(
                f"{who.person} already has {MAX_SUBSCRIPTIONS_PER_PERSON} subscriptions at this node", hint="close some"
            )
        if self._open.total() >= MAX_SUBSCRIPTIONS:
            raise Exhausted(
                f"this node already serves {MAX_SUBSCRIPTIONS} subscriptions", hint="close some, or ask another node"
            )
        trail.check(request.filter)
        self._trail.admit(who, request.filter, request.reading_id)
        rest = RecordFilter()
        rest.CopyFrom(request.filter)
        if request.new_only:
            rest.from_index = max(rest.from_index, self._read_model.size)
        self._open[who.person] += 1
        try:
            yield services_pb2.SubscribeResponse(next_index=rest.from_index)
            while True:
                size = self._read_model.size
                records, following = self._read_model.records(rest, limit=_TURN)
                for record in records:
                    if self._trail.may_see(who, record):
                        yield services_pb2.SubscribeResponse(record=record, next_index=record.index + 1)
                rest.from_index = following or max(rest.from_index, size)
                if rest.until_index and rest.from_index >= rest.until_index:
                    return
                if following or self._read_model.size != size:
                    await asyncio.sleep(0)
                else:
                    await self._changes.next()
        finally:
            self._open -= Counter([who.person])  # which drops who has none left
