"""The session of one task: mutually authenticated links between its workers, and rounds of bounded messages over them.

Between any two workers, the one with the higher party index dials the other institution's MPC port:

1. preamble, in the clear: 8 bytes of magic and the 16 bytes of the task id, by which the node passes the socket on;
2. TLS 1.3 on the same socket. Both sides show the certificate that their institution put on the ledger for this task
   (TaskParty.session_certificate); those certificates, self-signed, are the only roots. The dialler admits the one it
   dialled; the other side takes the dialler's index from the certificate, never from what it says;
3. SessionHello both ways: protocol version, task id, party index and plan hash must be the expected ones;
4. rounds: frames of length (4 bytes), round (4 bytes) and payload. Everybody runs the same program, so the size of
   every message is known before it arrives, and any other is refused unread.

No message is ever unpickled, evaluated or interpreted beyond fixed-size numbers. Whatever a hostile or broken peer
does, the task fails at a named ``session-…`` rule, by the deadline at the latest, and nothing else happens.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from koinon.limits import (
    MAX_SESSION_FRAME_BYTES,
    MAX_SESSION_HELLO_BYTES,
    MAX_TASK_STRANGERS,
    SESSION_SILENCE_S,
)
from koinon.rules import RULES
from koinon.v1.session_pb2 import SessionHello
from mpc import certificates
from mpc.channel import SessionFailed
from mpc.strangers import Strangers

PROTOCOL_VERSION = 1
MAGIC = b"koinmpc1"
TASK_ID_BYTES = 16
PREAMBLE_BYTES = len(MAGIC) + TASK_ID_BYTES
_REDIAL_S = 0.05  # the other node may learn a moment later that the task runs

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Identity:
    """What one worker needs to know and to show. Certificates and addresses are the ledger's, in committee order."""

    task_id: str  # 32 hex digits
    plan_hash: bytes
    party: int
    institutions: tuple[str, ...]
    certificates: tuple[bytes, ...]  # DER
    addresses: tuple[str, ...]  # host:port of MPC ports
    key_pem: bytes  # of this party's certificate; made for this task only

    def preamble(self) -> bytes:
        return MAGIC + bytes.fromhex(self.task_id)


def parse_preamble(data: bytes) -> str | None:
    """The task id named by the first PREAMBLE_BYTES of a connection from anyone; None if it is no preamble."""
    return data[len(MAGIC) :].hex() if len(data) == PREAMBLE_BYTES and data.startswith(MAGIC) else None


class Session:
    """Links to all other parties: a Channel (mpc.channel). Made by ``connect``."""

    def __init__(self, identity: Identity, links: Mapping[int, _Link], deadline: float) -> None:
        self.party = identity.party
        self.parties = len(identity.certificates)
        self._names = identity.institutions
        self._links = dict(links)
        self._deadline = deadline
        self._round = 0

    @property
    def bytes_sent(self) -> int:
        """Payload and framing, before TLS."""
        return sum(link.bytes_sent for link in self._links.values())

    async def exchange(self, outgoing: Mapping[int, bytes], incoming: Mapping[int, int]) -> dict[int, bytes]:
        self._round += 1
        for peer, payload in outgoing.items():
            self._links[peer].send(self._round, payload)
        reads = {peer: self._links[peer].receive(self._round, size) for peer, size in incoming.items()}
        silence = asyncio.get_running_loop().time() + SESSION_SILENCE_S
        return await _all_by(min(self._deadline, silence), reads, self._names)

    def close(self) -> None:
        for link in self._links.values():
            link.close()


async def connect(identity: Identity, accepted: AsyncIterator[socket.socket], deadline: float) -> Session:
    """Meet all other parties; ``accepted`` yields connections whose preamble named this task, from anyone.

    ``deadline`` is the event loop's time by which everything must be over. Raises SessionFailed.
    """
    meeting = _Meeting(identity)
    try:
        return Session(identity, await meeting.gather(accepted, deadline), deadline)
    except BaseException:
        meeting.close()
        raise


class _Meeting:
    """Dials the parties before this one, and awaits those after it."""

    def __init__(self, identity: Identity) -> None:
        own, count = identity.party, len(identity.certificates)
        if len(set(identity.certificates)) != count:
            raise SessionFailed("two parties named the same certificate", rule="session-certificate")
        loop = asyncio.get_running_loop()
        self._identity = identity
        self._arrivals: dict[int, asyncio.Future[_Link]] = {p: loop.create_future() for p in range(own + 1, count)}
        self._links: set[_Link] = set()
        self._greeting: dict[int, _Link] = {}  # by party that dialled us: its newest connection
        self._strangers = Strangers(MAX_TASK_STRANGERS)

    async def gather(self, accepted: AsyncIterator[socket.socket], deadline: float) -> dict[int, _Link]:
        """A link to every other party. Raises SessionFailed."""
        meetings: dict[int, Awaitable[_Link]] = {
            peer: self._dial(peer, self._context(server=False, peers=[peer])) for peer in range(self._identity.party)
        }
        tls = self._context(server=True, peers=list(self._arrivals)) if self._arrivals else None
        door = asyncio.create_task(self._admit(accepted, tls))
        try:
            return await _all_by(deadline, {**meetings, **self._arrivals}, self._identity.institutions)
        finally:
            door.cancel()  # which ends ``accepted``: nobody else is expected

    def close(self) -> None:
        for link in self._links:
            link.close()

    def _context(self, *, server: bool, peers: Sequence[int]) -> ssl.SSLContext:
        identity = self._identity
        try:
            return certificates.context(
                server=server,
                certificate=identity.certificates[identity.party],
                key_pem=identity.key_pem,
                trusted=[identity.certificates[peer] for peer in peers],
            )
        except (ssl.SSLError, ValueError):
            raise SessionFailed("a party's certificate on the ledger is none", rule="session-certificate") from None

    def _link(self, peer: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Link:
        link = _Link(self._identity, peer, reader, writer)
        self._links.add(link)
        return link

    def _drop(self, link: _Link) -> None:
        link.close()
        self._links.discard(link)

    async def _dial(self, peer: int, tls: ssl.SSLContext) -> _Link:
        """Connect to a party of lower index, as often as it takes: its node may not know yet that the task runs."""
        while True:
            try:
                plain = await _reach(self._identity.addresses[peer], self._identity.preamble())
                try:
                    reader, writer = await asyncio.open_connection(
                        sock=plain, ssl=tls, server_hostname="", limit=MAX_SESSION_FRAME_BYTES
                    )
                except BaseException:
                    plain.close()
                    raise
                link = self._link(peer, reader, writer)
                try:
                    if _shown(writer) != self._identity.certificates[peer]:
                        raise ssl.SSLCertVerificationError
                    await link.greet()
                except BaseException:
                    self._drop(link)
                    raise
                return link
            except ssl.SSLCertVerificationError:
                name = self._identity.institutions[peer]
                raise SessionFailed(f"{name} does not show its certificate", rule="session-certificate") from None
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(_REDIAL_S)

    async def _admit(self, accepted: AsyncIterator[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Greet whoever dials in. Strangers are dropped, and change nothing; a party that misbehaves fails the task.

        Without ``tls`` no party is to dial: all are strangers.
        """
        async with asyncio.TaskGroup() as greetings:
            async for plain in accepted:
                if tls is None:
                    plain.close()
                    continue
                leaving = self._strangers.add(plain)
                if leaving is not None:
                    with suppress(OSError):
                        leaving.shutdown(socket.SHUT_RDWR)  # which ends its handshake
                greetings.create_task(self._answer(plain, tls))

    async def _answer(self, plain: socket.socket, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_SESSION_FRAME_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, plain, ssl=tls)
        except OSError:  # no TLS, or a certificate that is nobody's
            plain.close()
            return
        finally:
            self._strangers.discard(plain)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        shown = _shown(writer)
        peer = next((peer for peer in self._arrivals if self._identity.certificates[peer] == shown), None)
        if peer is None:
            writer.close()
            return
        arrival = self._arrivals[peer]
        if arrival.done():
            writer.close()
            return
        link = self._link(peer, reader, writer)
        if peer in self._greeting:  # it gave that one up, else it would not have dialled again
            self._drop(self._greeting[peer])
        self._greeting[peer] = link
        try:
            await link.greet()
        except SessionFailed as failure:
            self._drop(link)
            if not arrival.done():
                arrival.set_exception(failure)
        except (OSError, asyncio.IncompleteReadError):
            self._drop(link)  # it may dial again
        else:
            if arrival.done():
                self._drop(link)
            else:
                arrival.set_result(link)


async def _reach(address: str, preamble: bytes) -> socket.socket:
    """A connection to an MPC port that has been told which task it is for. Raises OSError."""
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, resolved = found[0]
    plain = socket.socket(family, kind, protocol)
    try:
        plain.setblocking(False)
        await loop.sock_connect(plain, resolved)
        await loop.sock_sendall(plain, preamble)
    except BaseException:
        plain.close()
        raise
    return plain


def _shown(writer: asyncio.StreamWriter) -> bytes | None:
    """The certificate the other side showed, and proved to hold the key of."""
    shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return shown


class _Link:
    """One authenticated connection. Frames out, frames of expected size in."""

    def __init__(
        self, identity: Identity, peer: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.bytes_sent = 0
        self._identity = identity
        self._peer = peer
        self._name = identity.institutions[peer]
        self._reader = reader
        self._writer = writer

    async def greet(self) -> None:
        """Exchange hellos and compare. Raises SessionFailed, OSError, asyncio.IncompleteReadError."""
        own = SessionHello(
            protocol_version=PROTOCOL_VERSION,
            task_id=self._identity.task_id,
            party=self._identity.party,
            plan_hash=self._identity.plan_hash,
        ).SerializeToString(deterministic=True)
        self._write(struct.pack(">I", len(own)) + own)
        (size,) = struct.unpack(">I", await self._reader.readexactly(4))
        if size > MAX_SESSION_HELLO_BYTES:
            raise SessionFailed(f"{self._name} began with a message of {size} bytes", rule="session-oversized")
        hello = SessionHello()
        try:
            hello.ParseFromString(await self._reader.readexactly(size))
        except DecodeError:
            raise SessionFailed(f"{self._name} did not begin with a hello", rule="session-malformed") from None
        for rule, said, expected in (
            ("session-version", hello.protocol_version, PROTOCOL_VERSION),
            ("session-task", hello.task_id, self._identity.task_id),
            ("session-party", hello.party, self._peer),
            ("session-plan", hello.plan_hash, self._identity.plan_hash),
        ):
            if said != expected:
                raise SessionFailed(f"{self._name}: {RULES[rule]}", rule=rule)

    def send(self, round_: int, payload: bytes) -> None:
        if len(payload) > MAX_SESSION_FRAME_BYTES:
            raise SessionFailed(f"round {round_} needs a message of {len(payload)} bytes", rule="session-oversized")
        self._write(struct.pack(">II", len(payload), round_) + payload)

    async def receive(self, round_: int, size: int) -> bytes:
        """The payload of the next frame, which must be of this round and size. Raises SessionFailed."""
        try:
            said, of_round = struct.unpack(">II", await self._reader.readexactly(8))
            if said > MAX_SESSION_FRAME_BYTES:
                raise SessionFailed(f"{self._name} announced a message of {said} bytes", rule="session-oversized")
            if (said, of_round) != (size, round_):
                raise SessionFailed(
                    f"{self._name} sent {said} bytes for round {of_round}, expected {size} for round {round_}",
                    rule="session-malformed",
                )
            return await self._reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError):
            raise SessionFailed(f"{self._name} ended the connection", rule="session-peer-lost") from None

    def close(self) -> None:
        self._writer.close()

    def _write(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self._writer.write(data)


async def _all_by(deadline: float, work: Mapping[int, Awaitable[_T]], names: Sequence[str]) -> dict[int, _T]:
    """Await what each peer owes, all at once, until the deadline. The first failure ends it. Raises SessionFailed."""
    tasks = {peer: asyncio.ensure_future(awaitable) for peer, awaitable in work.items()}
    if not tasks:
        return {}
    try:
        timeout = deadline - asyncio.get_running_loop().time()
        _, pending = await asyncio.wait(tasks.values(), timeout=timeout, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks.values():
            if task.done():
                task.result()
        if pending:
            late = ", ".join(names[peer] for peer, task in tasks.items() if task in pending)
            raise SessionFailed(f"nothing came from {late} in time", rule="session-timeout")
        return {peer: task.result() for peer, task in tasks.items()}
    finally:
        for task in tasks.values():
            task.cancel()
