"""The node's port for joint computations: reads a task id, and hands the connection to that task's worker.

Anyone can connect here, so nothing is believed: a connection that does not name a task of this node within
PREAMBLE_TIMEOUT_S is closed, and who it is from only the worker finds out (mpc.session). Not one byte beyond the
preamble is read: TLS starts there. The preamble is no secret, so no number of connections closes the port or a task to
others: where too many wait, the oldest leave (mpc.strangers).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from koinon.limits import MAX_PENDING_CONNECTIONS, MAX_TASK_STRANGERS, PREAMBLE_TIMEOUT_S
from mpc.session import PREAMBLE_BYTES, parse_preamble
from mpc.strangers import Strangers

PassOn = Callable[[socket.socket], None]
"""Takes a connection over by descriptor; the caller closes its own copy."""


@dataclass(slots=True)
class _Expected:
    """Connections of one task: kept until its worker is there, then passed on; it bounds those it does not know."""

    waiting: Strangers = field(default_factory=lambda: Strangers(MAX_TASK_STRANGERS))
    pass_on: PassOn | None = None


class MpcPort:
    """Listens from ``start`` to ``stop``; tasks come and go."""

    def __init__(self) -> None:
        self._expected: dict[str, _Expected] = {}
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._reading: set[asyncio.Task[None]] = set()
        self._nameless = Strangers(MAX_PENDING_CONNECTIONS)  # before their preamble

    @property
    def port(self) -> int:
        """The port number, once started."""
        assert self._listener is not None
        return int(self._listener.getsockname()[1])

    def start(self, host: str, port: int) -> None:
        """Listen, on a running event loop. Raises OSError."""
        bare = host.strip("[]")
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        self._listener = socket.create_server((bare, port), family=family, backlog=MAX_PENDING_CONNECTIONS)
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._listener), name="mpc port")

    async def stop(self) -> None:
        tasks = [*self._reading, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task_id in list(self._expected):
            self.forget(task_id)
        if self._listener is not None:
            self._listener.close()

    def expect(self, task_id: str) -> None:
        """From now on, keep connections that name this task."""
        self._expected.setdefault(task_id, _Expected())

    def attach(self, task_id: str, pass_on: PassOn) -> None:
        """The task's worker is there: it gets those waiting, and all further ones."""
        expected = self._expected.setdefault(task_id, _Expected())
        expected.pass_on = pass_on
        for connection in expected.waiting:
            expected.waiting.discard(connection)
            with connection:
                pass_on(connection)

    def forget(self, task_id: str) -> None:
        """The task is over: its connections are closed."""
        expected = self._expected.pop(task_id, None)
        for connection in expected.waiting if expected else ():
            connection.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:  # it was reset before we got to it, or descriptors have run out
                await asyncio.sleep(0.01)
                continue
            leaving = self._nameless.add(connection)
            if leaving is not None:
                with suppress(OSError):
                    leaving.shutdown(socket.SHUT_RDWR)  # whoever reads from it closes it
            task = asyncio.create_task(self._receive(connection))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
            await asyncio.sleep(0)  # those accepted are read from before more are: a flood is no reason to starve them

    async def _receive(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(PREAMBLE_TIMEOUT_S):
                task_id = parse_preamble(await _read_exactly(connection, PREAMBLE_BYTES))
        except (OSError, EOFError):  # TimeoutError among them
            connection.close()
            return
        except BaseException:
            connection.close()
            raise
        finally:
            self._nameless.discard(connection)
        expected = self._expected.get(task_id) if task_id is not None else None
        if expected is None:
            connection.close()
        elif expected.pass_on is None:
            leaving = expected.waiting.add(connection)
            if leaving is not None:
                leaving.close()
        else:
            with connection:
                expected.pass_on(connection)


async def _read_exactly(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        chunk = await loop.sock_recv(connection, size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data
