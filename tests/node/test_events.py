"""EventService: what a subscriber may cost the node, and going on where a stream ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from koinon import trail
from koinon.errors import Exhausted
from koinon.v1 import services_pb2
from koinon.v1.audit_pb2 import AuditRecord, RecordFilter
from koinon.v1.identity_pb2 import ROLE_OPERATOR, ROLE_REGULATOR, RegisterPerson
from node import auth
from node.auth import Caller
from node.changes import Changes
from node.read_model import ReadModel
from node.rpc import events
from node.rpc.events import EventService
from node.rpc.trail import Trail
from tests.contracts.consortium import Consortium, person


class Node:
    """The event service over a consortium; every block is shown as a node shows it."""

    def __init__(self, directory: Path) -> None:
        self.consortium = Consortium()
        self.model = ReadModel(directory / "read.sqlite", self.consortium.app)
        self.changes = Changes()
        self.service = EventService(self.model, Trail(self.consortium.app, self.model), self.changes)

    def register(self, *names: str) -> None:
        people = (RegisterPerson(person=person(name, ROLE_REGULATOR)) for name in names)
        self.consortium.do("um/operator", *people)
        self.model.follow()
        self.changes.notify()

    def events(self, wanted: RecordFilter, **request: Any) -> AsyncIterator[services_pb2.SubscribeResponse]:
        auth._caller.set(Caller("um/operator", frozenset({ROLE_OPERATOR})))
        asked = services_pb2.SubscribeRequest(filter=wanted, **request)
        return aiter(self.service.Subscribe(asked, cast("Any", None)))

    async def opened(self, wanted: RecordFilter, **request: Any) -> AsyncIterator[services_pb2.SubscribeResponse]:
        """After the first message, which says that the stream is open."""
        events = self.events(wanted, **request)
        assert not (await anext(events)).HasField("record")
        return events


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.model.close()


async def take(events: AsyncIterator[services_pb2.SubscribeResponse], count: int) -> list[AuditRecord]:
    return [(await anext(events)).record for _ in range(count)]


async def test_a_filter_that_everything_passes_does_not_hold_up_the_node(node: Node) -> None:
    """The whole log is sent, but others get their turns."""
    for batch in range(12):
        node.register(*(f"um/p{batch}-{index}" for index in range(50)))
    events = await node.opened(trail.make(kind="person."))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    await take(events, 600)
    assert turns >= 2
    running.cancel()


async def test_a_stream_goes_on_where_another_ended(node: Node) -> None:
    node.register("um/a", "um/b")
    wanted = trail.make("institution:um", kind="person.registered")
    first = await take(await node.opened(wanted), 3)
    rest = trail.make("institution:um", kind="person.registered", from_index=first[-1].index + 1)
    events = await node.opened(rest)
    more = await take(events, 2)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    node.register("um/c")
    last = (await waiting).record
    subjects = [record.subject for record in (*first, *more, last)]
    everyone = ("analyst", "operator", "regulator", "a", "b", "c")
    assert sorted(subjects) == sorted(f"person:um/{name}" for name in everyone)
    assert subjects[-1] == "person:um/c"


async def test_only_what_is_new_and_where_that_begins(node: Node) -> None:
    events = node.events(trail.ANYTHING, new_only=True)
    begins = (await anext(events)).next_index
    assert begins == node.model.size
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    node.register("um/new")
    new = await waiting
    assert new.record.subject == "person:um/new"
    assert (new.record.index, new.next_index) == (begins, begins + 1)


async def test_a_stream_with_an_end_ends(node: Node) -> None:
    events = await node.opened(trail.make(until_index=3))
    assert [response.record.index async for response in events] == [0, 1, 2]


async def test_one_person_does_not_take_all_subscriptions(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_SUBSCRIPTIONS_PER_PERSON", 2)
    streams = [await node.opened(RecordFilter()) for _ in range(2)]
    with pytest.raises(Exhausted, match="um/operator already has 2 subscriptions"):
        await anext(node.events(RecordFilter()))
    await cast("AsyncGenerator[object, None]", streams[0]).aclose()
    await node.opened(RecordFilter())
