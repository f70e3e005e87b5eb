"""Streams between nodes: who is let in, what arrives, what happens when a peer goes and returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from dataclasses import replace
from typing import Self

import grpc
import pytest
import structlog
from grpc import aio

from koinon.errors import NotFound, Unavailable
from koinon.limits import MAX_PEER_BLOCKS, MAX_PEER_MESSAGE_BYTES, MAX_SYNC_BLOCKS, MAX_VALIDATORS
from koinon.names import tls_name
from koinon.v1 import peer_pb2, peer_pb2_grpc
from koinon.v1.consensus_pb2 import Vote
from koinon.v1.peer_pb2 import DeliverRequest
from koinon.v1.session_pb2 import SealedOutput
from node import peer_link, peers, tls
from node.config import Address
from node.peer_link import Member
from node.peers import Peers
from testnet.network import free_ports
from tests.waiting import until

GENESIS = b"g" * 32


class Inbox:
    """A receiver that keeps what it hears."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, DeliverRequest]] = []
        self.greeted: list[str] = []
        self.lost: list[str] = []

    def height(self) -> int:
        return 7

    def connected(self, institution: str) -> None:
        self.greeted.append(institution)

    def disconnected(self, institution: str) -> None:
        self.lost.append(institution)

    def received(self, institution: str, message: DeliverRequest) -> None:
        if message.WhichOneof("message") != "hello":
            self.messages.append((institution, message))

    def sealed_output(self, task_id: str) -> SealedOutput | None:
        return SealedOutput(task_id=task_id, party=2, sealed=b"sealed") if task_id == "held" else None


class Node:
    def __init__(self, institution: str, genesis: bytes = GENESIS) -> None:
        self.identity = tls.create_identity(institution)
        self.address = Address("127.0.0.1", *free_ports(1))
        self.member = Member(institution, str(self.address), tls.pem_to_der(self.identity.certificate))
        self.inbox = Inbox()
        self.peers = Peers(institution, self.identity, genesis, self.inbox, structlog.get_logger())

    def linked(self, institution: str) -> bool:
        return any(state.institution == institution and state.connected for state in self.peers.status())


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Node, Node]]:
    um, iu = Node("um"), Node("iu")
    members = [um.member, iu.member]
    await um.peers.start(um.address, members)
    await iu.peers.start(iu.address, members)
    await until(lambda: um.linked("iu") and iu.linked("um"))
    yield um, iu
    await um.peers.stop()
    await iu.peers.stop()


def votes(*heights: int) -> DeliverRequest:
    return DeliverRequest(votes=peer_pb2.VoteBatch(votes=[Vote(height=height) for height in heights]))


async def test_messages_arrive_in_order_and_votes_travel_together(pair: tuple[Node, Node]) -> None:
    um, iu = pair
    for height in range(10):
        um.peers.broadcast(votes(height))
    iu.peers.send("um", votes(9))
    await until(lambda: sum(len(message.votes.votes) for _, message in iu.inbox.messages) == 10)
    assert [vote.height for _, message in iu.inbox.messages for vote in message.votes.votes] == list(range(10))
    assert len(iu.inbox.messages) < 10
    await until(lambda: um.inbox.messages == [("iu", votes(9))])
    assert um.peers.status()[0].height == 8  # who votes at 9 has decided 8


async def test_few_blocks_wait_for_a_peer_that_does_not_read_them(pair: tuple[Node, Node]) -> None:
    um, iu = pair
    for height in range(10 * MAX_PEER_BLOCKS):  # within one turn of the loop: nothing is sent meanwhile
        answer = peer_pb2.BlockResponse(blocks=[peer_pb2.CommittedBlock(block=b"block %d" % height)])
        um.peers.send("iu", DeliverRequest(block_response=answer))
    um.peers.send("iu", votes(1))
    await until(lambda: len(iu.inbox.messages) > MAX_PEER_BLOCKS)
    first, *blocks = [message for _, message in iu.inbox.messages]
    assert first == votes(1)
    assert [int(message.block_response.blocks[0].block[6:]) for message in blocks] == list(
        range(9 * MAX_PEER_BLOCKS, 10 * MAX_PEER_BLOCKS)
    )


async def test_a_peer_that_returns_is_found_again(pair: tuple[Node, Node]) -> None:
    um, iu = pair
    await iu.peers.stop()
    await until(lambda: not um.linked("iu"))
    assert um.inbox.lost == ["iu"]
    um.peers.broadcast(votes(1))  # forgotten: the engine repeats what is needed
    again = Peers("iu", iu.identity, GENESIS, iu.inbox, structlog.get_logger())
    await again.start(iu.address, [um.member, iu.member])
    await until(lambda: um.linked("iu"))
    um.peers.broadcast(votes(2))
    await until(lambda: iu.inbox.messages != [])
    assert iu.inbox.messages[0] == ("um", votes(2))
    await again.stop()


async def test_a_node_that_stops_as_soon_as_it_started_leaves_no_port_open() -> None:
    um = Node("um")
    await um.peers.start(um.address, [um.member])
    await um.peers.stop()
    again = Node("um")
    again.address = um.address
    await again.peers.start(um.address, [um.member])
    await again.peers.stop()


class Line:
    """A network between a dialler and a node, which may be cut: then nothing comes through, and nothing is closed."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._copying: list[asyncio.Task[None]] = []
        self.is_cut = False
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._dialled, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._copying:
            task.cancel()
        await asyncio.gather(*self._copying, return_exceptions=True)

    async def _dialled(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        self._copying += [
            asyncio.create_task(self._copy(reader, far_writer)),
            asyncio.create_task(self._copy(far_reader, writer)),
        ]

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while data := await reader.read(65_536):
                if not self.is_cut:
                    writer.write(data)


async def test_a_line_that_is_cut_is_noticed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as fast as in earnest: within 1.5 s; by gRPC's own setting it takes a minute."""
    hasty = tuple((name, value // 10 if name.endswith("_ms") else value) for name, value in peer_link.KEEPALIVE)
    monkeypatch.setattr(peer_link, "KEEPALIVE", hasty)
    monkeypatch.setattr(peers, "KEEPALIVE", hasty)
    um, iu = Node("um"), Node("iu")
    async with Line(iu.address) as line:
        await iu.peers.start(iu.address, [um.member, iu.member])
        await um.peers.start(um.address, [um.member, replace(iu.member, address=line.address)])
        await until(lambda: um.linked("iu"))
        line.is_cut = True
        await until(lambda: not um.linked("iu"), seconds=30)
        line.is_cut = False
        await until(lambda: um.linked("iu"))
        await um.peers.stop()
        await iu.peers.stop()


async def test_outputs_are_fetched_from_whoever_holds_them(pair: tuple[Node, Node]) -> None:
    um, _ = pair
    assert (await um.peers.fetch_output("iu", "held")).sealed == b"sealed"
    with pytest.raises(NotFound, match="iu holds no output of task absent"):
        await um.peers.fetch_output("iu", "absent")
    with pytest.raises(Unavailable, match="case is not connected"):
        await um.peers.fetch_output("case", "held")


def channel_as(identity: tls.Identity, target: Node) -> aio.Channel:
    return aio.secure_channel(
        target.member.address,
        grpc.ssl_channel_credentials(target.identity.certificate, identity.key, identity.certificate),
        options=(("grpc.ssl_target_name_override", tls_name(target.member.institution)),),
    )


async def call_as(
    identity: tls.Identity, target: Node, messages: list[DeliverRequest]
) -> tuple[grpc.StatusCode | None, str]:
    """Deliver these messages with this certificate; returns how the call ended."""
    async with channel_as(identity, target) as channel:
        try:
            response = await peer_pb2_grpc.PeerServiceStub(channel).Deliver(iter(messages), timeout=60)
        except aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return None, response.reason


def hello(institution: str = "iu", genesis: bytes = GENESIS, version: int = 1) -> DeliverRequest:
    return DeliverRequest(hello=peer_pb2.Hello(institution=institution, genesis_hash=genesis, protocol_version=version))


async def test_a_stranger_does_not_get_past_the_handshake(pair: tuple[Node, Node]) -> None:
    um, _ = pair
    code, _ = await call_as(tls.create_identity("iu"), um, [hello(), votes(5)])
    assert code is grpc.StatusCode.UNAVAILABLE
    assert um.inbox.messages == []


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (hello("um"), "this certificate belongs to iu, not to 'um'"),
        (hello(genesis=b"x" * 32), "our genesis files differ: compare genesis.json"),
        (hello(version=9), "protocol 9 is not spoken here, but 1: upgrade the older node"),
        (votes(3), "the first message is no hello"),
    ],
)
async def test_a_member_is_heard_only_after_a_fitting_hello(
    pair: tuple[Node, Node], first: DeliverRequest, reason: str
) -> None:
    um, iu = pair
    assert await call_as(iu.identity, um, [first, votes(5)]) == (None, reason)
    assert um.inbox.messages == []


async def test_an_oversized_message_ends_the_stream_and_is_not_heard(pair: tuple[Node, Node]) -> None:
    um, iu = pair
    big = DeliverRequest(transactions=peer_pb2.TransactionBatch(envelopes=[bytes(MAX_PEER_MESSAGE_BYTES)]))
    code, _ = await call_as(iu.identity, um, [hello(), big])
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert um.inbox.messages == []


@pytest.mark.parametrize(
    "message",
    [
        DeliverRequest(transactions=peer_pb2.TransactionBatch(envelopes=[b""] * 10_000)),
        DeliverRequest(
            block_response=peer_pb2.BlockResponse(blocks=[peer_pb2.CommittedBlock()] * (MAX_SYNC_BLOCKS + 1))
        ),
        DeliverRequest(round_status=peer_pb2.RoundStatus(prevotes=["x"] * (MAX_VALIDATORS + 1))),
        DeliverRequest(round_status=peer_pb2.RoundStatus(precommits=["x"] * (MAX_VALIDATORS + 1))),
    ],
    ids=["transactions", "blocks", "prevotes", "precommits"],
)
async def test_a_message_of_too_many_parts_ends_the_stream_and_is_not_heard(
    pair: tuple[Node, Node], message: DeliverRequest
) -> None:
    """A message has room for a million empty ones: nobody else would be heard while they are gone through."""
    um, iu = pair
    assert await call_as(iu.identity, um, [hello(), message, votes(5)]) == (None, "a message had too many parts")
    assert um.inbox.messages == []


async def test_two_nodes_with_one_certificate_notice_each_other(pair: tuple[Node, Node]) -> None:
    um, iu = pair
    copy = Node("iu")
    copy.peers = Peers("iu", iu.identity, GENESIS, copy.inbox, structlog.get_logger())
    assert not iu.peers.displaced()
    await copy.peers.start(copy.address, [um.member, iu.member])

    def both() -> bool:
        for node in (iu, copy):
            node.peers.broadcast(votes(1))
        return iu.peers.displaced() and copy.peers.displaced()

    await until(both)
    assert not um.peers.displaced()
    await copy.peers.stop()


@pytest.mark.parametrize("greets", [True, False], ids=["with a hello", "without"])
async def test_a_member_has_one_stream_however_many_it_opens(
    pair: tuple[Node, Node], greets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PEER_HELLO_MS", 600_000)  # else a silent one ends by itself
    um, iu = pair
    async with channel_as(iu.identity, um) as channel:
        calls = [peer_pb2_grpc.PeerServiceStub(channel).Deliver() for _ in range(20)]
        for call in calls if greets else ():
            with suppress(asyncio.InvalidStateError, aio.AioRpcError):  # a newer one came first
                await call.write(hello())
        await until(lambda: sum(call.done() for call in calls) >= len(calls) - 1)
        ended = [call for call in calls if call.done() and await call.code() is grpc.StatusCode.OK]
        assert {(await call).reason for call in ended} == {peer_link.TAKEN_OVER}


async def test_who_joins_the_ledger_is_let_in_and_the_others_come_back(pair: tuple[Node, Node]) -> None:
    um, iu = pair
    case = Node("case")
    members = [um.member, iu.member, case.member]
    await case.peers.start(case.address, members)
    await until(lambda: case.peers.status() != [])
    assert not case.linked("um")
    um.inbox.greeted.clear()
    iu.inbox.greeted.clear()
    um.peers.update(members)
    iu.peers.update(members)
    await until(lambda: case.linked("um") and case.linked("iu") and um.linked("case") and iu.linked("case"))
    await until(lambda: "iu" in um.inbox.greeted and "um" in iu.inbox.greeted)  # their ports were closed for a moment
    case.peers.broadcast(votes(4))
    await until(lambda: ("case", votes(4)) in um.inbox.messages and ("case", votes(4)) in iu.inbox.messages)
    await case.peers.stop()


async def test_who_moves_is_told_at_the_old_address_until_the_new_one_answers(pair: tuple[Node, Node]) -> None:
    um, iu = pair
    moved = Member("iu", f"127.0.0.1:{free_ports(1)[0]}", iu.member.certificate)
    um.peers.update([um.member, moved])
    um.peers.broadcast(votes(7))
    await until(lambda: iu.inbox.messages == [("um", votes(7))])
    await iu.peers.stop()
    again = Peers("iu", iu.identity, GENESIS, iu.inbox, structlog.get_logger())
    await again.start(Address("127.0.0.1", int(moved.address.split(":")[1])), [um.member, moved])
    await until(lambda: um.linked("iu"))
    um.peers.send("iu", votes(8))
    await until(lambda: iu.inbox.messages == [("um", votes(7)), ("um", votes(8))])
    await again.stop()


async def test_who_leaves_the_ledger_is_dropped_at_once(pair: tuple[Node, Node]) -> None:
    um, iu = pair
    um.peers.update([um.member])
    assert um.peers.status() == []
    code, _ = await call_as(iu.identity, um, [hello(), votes(5)])
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)
    assert um.inbox.messages == []
