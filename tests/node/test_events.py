"""EventService: what a subscriber may cost the node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from koinon.v1 import services_pb2
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.identity_pb2 import ROLE_REGULATOR, RegisterPerson
from node import auth
from node.auth import Caller
from node.changes import Changes
from node.rpc.audit import EventService, Trail
from tests.contracts.consortium import Consortium, person


async def test_a_filter_that_nothing_passes_does_not_hold_up_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole log is looked through, but others get their turns."""
    consortium = Consortium()
    for batch in range(12):
        names = [f"um/p{batch}-{index}" for index in range(50)]
        consortium.do("um/operator", *(RegisterPerson(person=person(name, ROLE_REGULATOR)) for name in names))
    size = consortium.app.audit_log.size
    assert size > 600
    seen = 0
    records_from = Trail.records_from

    def counted(trail: Trail, index: int) -> Iterator[AuditRecord]:
        nonlocal seen
        for record in records_from(trail, index):
            seen += 1
            yield record

    monkeypatch.setattr(Trail, "records_from", counted)
    auth._caller.set(Caller("um/analyst", frozenset()))
    service = EventService(consortium.app, Changes())
    request = services_pb2.SubscribeRequest(kind="no such kind")
    events = aiter(service.Subscribe(request, cast("Any", None)))
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    assert 0 < seen < size
    while seen < size:
        await asyncio.sleep(0)
    reading.cancel()
