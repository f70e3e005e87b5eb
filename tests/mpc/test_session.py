"""Meeting and exchanging over real TLS; and every way in which a peer may be hostile, broken or absent."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pickle
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from koinon.limits import MAX_SESSION_FRAME_BYTES, MAX_TASK_STRANGERS
from koinon.v1.session_pb2 import SessionHello
from mpc import certificates, session
from mpc.channel import SessionFailed
from mpc.session import Identity, Session, connect
from node.mpc_port import MpcPort

TASK = "0123456789abcdef" * 2
PLAN_HASH = bytes(range(32))
CERTIFICATES = [certificates.ephemeral() for _ in range(4)]


class Table:
    """Parties of one task, each behind an MPC port of its own, in one process."""

    def __init__(self, parties: int) -> None:
        self.ports = [MpcPort() for _ in range(parties)]
        for port in self.ports:
            port.start("127.0.0.1", 0)
            port.expect(TASK)
        self.identities = [
            Identity(
                task_id=TASK,
                plan_hash=PLAN_HASH,
                party=party,
                institutions=("um", "iu", "uk", "case")[:parties],
                certificates=tuple(certificate for certificate, _ in CERTIFICATES[:parties]),
                addresses=tuple(f"127.0.0.1:{port.port}" for port in self.ports),
                key_pem=CERTIFICATES[party][1],
            )
            for party in range(parties)
        ]

    def connect(self, party: int, seconds: float = 60) -> Awaitable[Session]:
        deadline = asyncio.get_running_loop().time() + seconds
        return connect(self.identities[party], self.accepted(party), deadline)

    async def accepted(self, party: int) -> AsyncIterator[socket.socket]:
        """What a worker gets of its node."""
        arrived: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.ports[party].attach(TASK, lambda connection: arrived.put_nowait(connection.dup()))
        while True:
            connection = await arrived.get()
            connection.setblocking(False)
            yield connection


@contextlib.asynccontextmanager
async def table(parties: int) -> AsyncIterator[Table]:
    made = Table(parties)
    try:
        yield made
    finally:
        await asyncio.gather(*(port.stop() for port in made.ports))


@contextlib.asynccontextmanager
async def sessions(parties: int) -> AsyncIterator[list[Session]]:
    async with table(parties) as seats:
        met = list(await asyncio.gather(*(seats.connect(party) for party in range(parties))))
        try:
            yield met
        finally:
            for one in met:
                one.close()


async def refusal(failing: Awaitable[object]) -> SessionFailed:
    with pytest.raises(SessionFailed) as caught:
        await failing
    return caught.value


@pytest.mark.parametrize("parties", [2, 3, 4])
async def test_everyone_meets_and_rounds_pass(parties: int) -> None:
    async with sessions(parties) as met:
        for _ in range(3):
            received = await asyncio.gather(
                *(
                    one.exchange(
                        {peer: bytes([one.party]) * 100 for peer in range(parties) if peer != one.party},
                        {peer: 100 for peer in range(parties) if peer != one.party},
                    )
                    for one in met
                )
            )
            for party, messages in enumerate(received):
                assert messages == {peer: bytes([peer]) * 100 for peer in range(parties) if peer != party}


async def test_large_messages_in_both_directions_do_not_block_each_other() -> None:
    async with sessions(2) as (first, second):
        load = bytes(MAX_SESSION_FRAME_BYTES)
        received = await asyncio.gather(
            first.exchange({1: load}, {1: len(load)}), second.exchange({0: load}, {0: len(load)})
        )
        assert list(received) == [{1: load}, {0: load}]


async def test_oversized_messages_are_not_sent_either() -> None:
    async with sessions(2) as (first, _):
        failure = await refusal(first.exchange({1: bytes(MAX_SESSION_FRAME_BYTES + 1)}, {}))
        assert failure.rule == "session-oversized"


# --- hostile peers: party 1 of two, who dials party 0 and then does as it likes


Hostile = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def dial(seats: Table, shown: int = 1) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As mpc.session would, up to the end of the handshake; ``shown`` is whose certificate is shown."""
    tls = certificates.context(
        server=False, certificate=CERTIFICATES[shown][0], key_pem=CERTIFICATES[shown][1], trusted=[CERTIFICATES[0][0]]
    )
    plain = socket.create_connection(("127.0.0.1", seats.ports[0].port))
    plain.sendall(seats.identities[0].preamble())
    plain.setblocking(False)
    return await asyncio.open_connection(sock=plain, ssl=tls, server_hostname="")


def hello(**changes: object) -> bytes:
    said = SessionHello(protocol_version=session.PROTOCOL_VERSION, task_id=TASK, party=1, plan_hash=PLAN_HASH)
    said.MergeFrom(SessionHello(**changes))  # type: ignore[arg-type]
    raw = said.SerializeToString()
    return struct.pack(">I", len(raw)) + raw


class Exploit:
    """A pickle that would create a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("sent", "rule"),
    [
        (hello(protocol_version=2), "session-version"),
        (hello(task_id="f" * 32), "session-task"),
        (hello(party=2), "session-party"),
        (hello(plan_hash=bytes(32)), "session-plan"),
        (struct.pack(">I", 2**31) + b"x", "session-oversized"),
        (struct.pack(">I", 4) + b"\xff\xff\xff\xff", "session-malformed"),
        (struct.pack(">I", 0), "session-version"),
    ],
    ids=["version", "task", "party", "plan", "oversized", "garbage", "empty"],
)
async def test_a_hello_that_is_not_the_expected_one(sent: bytes, rule: str) -> None:
    async with table(2) as seats:
        meeting = asyncio.ensure_future(seats.connect(0))
        _, writer = await dial(seats)
        writer.write(sent)
        failure = await refusal(meeting)
        writer.close()
        assert failure.rule == rule
        assert "iu" in failure.message


async def test_a_pickle_instead_of_a_hello_runs_nothing(tmp_path: Path) -> None:
    payload = pickle.dumps(Exploit(tmp_path / "exploited"))
    async with table(2) as seats:
        meeting = asyncio.ensure_future(seats.connect(0))
        _, writer = await dial(seats)
        writer.write(struct.pack(">I", len(payload)) + payload)
        assert (await refusal(meeting)).rule in ("session-malformed", "session-version")
        writer.close()
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("pad", [False, True], ids=["as it is", "padded to the expected size"])
async def test_a_pickle_instead_of_shares_runs_nothing(tmp_path: Path, pad: bool) -> None:
    payload = pickle.dumps(Exploit(tmp_path / "exploited"))
    async with table(2) as seats:
        meeting = asyncio.ensure_future(seats.connect(0))
        _, writer = await dial(seats)
        writer.write(hello())
        met = await meeting
        if pad:
            payload = payload.ljust(480, b".")
            writer.write(struct.pack(">II", len(payload), 1) + payload)
            assert await met.exchange({}, {1: 480}) == {1: payload}  # bytes; mpc.shamir takes them for ten numbers
        else:
            writer.write(struct.pack(">II", len(payload), 1) + payload)
            assert (await refusal(met.exchange({}, {1: 480}))).rule == "session-malformed"
        met.close()
        writer.close()
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize(
    ("sent", "rule"),
    [
        (struct.pack(">II", MAX_SESSION_FRAME_BYTES + 1, 1), "session-oversized"),
        (struct.pack(">II", 479, 1) + bytes(479), "session-malformed"),
        (struct.pack(">II", 480, 2) + bytes(480), "session-malformed"),
        (b"", "session-peer-lost"),
        (struct.pack(">II", 480, 1) + bytes(100), "session-peer-lost"),
    ],
    ids=["oversized", "wrong size", "wrong round", "hangs up", "hangs up half way"],
)
async def test_a_frame_that_is_not_the_expected_one(sent: bytes, rule: str) -> None:
    async with table(2) as seats:
        meeting = asyncio.ensure_future(seats.connect(0))
        _, writer = await dial(seats)
        writer.write(hello())
        met = await meeting
        writer.write(sent)
        writer.close()
        failure = await refusal(met.exchange({1: bytes(480)}, {1: 480}))
        assert failure.rule == rule
        assert "iu" in failure.message
        met.close()


async def test_silence_fails_by_the_deadline() -> None:
    async with table(2) as seats:
        meeting = asyncio.ensure_future(seats.connect(0))
        _, writer = await dial(seats)
        writer.write(hello())
        met = await meeting
        met._deadline = asyncio.get_running_loop().time() + 0.1  # they have met, however long it took
        failure = await refusal(met.exchange({1: bytes(48)}, {1: 48}))
        assert failure.rule == "session-timeout"
        assert "iu" in failure.message
        met.close()
        writer.close()


async def test_absence_fails_by_the_deadline() -> None:
    async with table(3) as seats:
        meetings = await asyncio.gather(seats.connect(0, 0.5), seats.connect(1, 0.5), return_exceptions=True)
        for failure in meetings:
            assert isinstance(failure, SessionFailed)
            assert failure.rule == "session-timeout"
            assert "uk" in failure.message


async def test_strangers_change_nothing() -> None:
    """Neither garbage, nor plain text, nor a certificate that is nobody's keeps the parties from meeting."""
    async with table(2) as seats:
        preamble = seats.identities[0].preamble()
        strangers = []
        for sent in (
            preamble,
            preamble + b"GET / HTTP/1.1\r\n\r\n",
            preamble + pickle.dumps({"a": 1}),
            b"",
            bytes(4096),
        ):
            plain = socket.create_connection(("127.0.0.1", seats.ports[0].port))
            plain.sendall(sent)
            strangers.append(plain)
        meeting = asyncio.ensure_future(seats.connect(0))
        with contextlib.suppress(ssl.SSLError, OSError):
            reader, writer = await dial(seats, shown=3)
            strangers_last_word = await reader.read(1)
            writer.close()
            assert strangers_last_word == b""
        met = await asyncio.gather(meeting, seats.connect(1))
        for one in met:
            one.close()
        for plain in strangers:
            plain.close()


async def test_strangers_who_know_the_task_keep_no_party_out() -> None:
    """More of them than a worker bears at a time, all silent, before and after the parties begin."""
    async with table(2) as seats:
        strangers = []
        meeting = asyncio.ensure_future(seats.connect(0))
        for _ in range(2 * MAX_TASK_STRANGERS):
            reader, writer = await asyncio.open_connection("127.0.0.1", seats.ports[0].port)
            writer.write(seats.identities[0].preamble())
            strangers.append((reader, writer))
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionResetError):
                assert await strangers[0][0].read() == b""  # the oldest had to leave
        for one in await asyncio.gather(meeting, seats.connect(1)):
            one.close()
        for _, writer in strangers:
            writer.close()


async def test_of_a_party_s_connections_the_newest_counts() -> None:
    """It may have given the others up; and it cannot fill our memory with them."""
    async with table(2) as seats:
        meeting = asyncio.ensure_future(seats.connect(0))
        given_up = [await dial(seats) for _ in range(3)]
        for reader, _ in given_up[:-1]:
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionResetError):
                    await reader.read()
        given_up[-1][1].write(hello())
        (await meeting).close()
        for _, writer in given_up:
            writer.close()


async def test_a_party_cannot_take_anothers_place() -> None:
    """Party 2 has a certificate, but the one of party 1 it has not; whoever it says it is, it is party 2."""
    async with table(3) as seats:
        meeting = asyncio.ensure_future(seats.connect(0))
        _, writer = await dial(seats, shown=2)
        writer.write(hello(party=1))
        failure = await refusal(meeting)
        assert failure.rule == "session-party"
        assert "uk" in failure.message
        writer.close()


async def test_the_dialled_side_must_show_its_own_certificate() -> None:
    async with table(2) as seats:
        impostor = dataclasses.replace(
            seats.identities[0],
            certificates=(CERTIFICATES[3][0], CERTIFICATES[1][0]),
            key_pem=CERTIFICATES[3][1],
        )
        loop = asyncio.get_running_loop()
        pretending = asyncio.ensure_future(connect(impostor, seats.accepted(0), loop.time() + 60))
        failure = await refusal(seats.connect(1))
        assert failure.rule == "session-certificate"
        assert "um" in failure.message
        pretending.cancel()
        await asyncio.gather(pretending, return_exceptions=True)


@pytest.mark.parametrize("bad", [b"", b"\x30\x03\x02\x01\x01", CERTIFICATES[0][0][:-1]], ids=["empty", "other", "cut"])
async def test_a_certificate_on_the_ledger_that_is_none(bad: bytes) -> None:
    async with table(2) as seats:
        seats.identities[0] = dataclasses.replace(seats.identities[0], certificates=(CERTIFICATES[0][0], bad))
        assert (await refusal(seats.connect(0))).rule == "session-certificate"


async def test_two_parties_with_one_certificate() -> None:
    async with table(2) as seats:
        twice = (CERTIFICATES[0][0], CERTIFICATES[0][0])
        seats.identities[0] = dataclasses.replace(seats.identities[0], certificates=twice)
        assert (await refusal(seats.connect(0))).rule == "session-certificate"
