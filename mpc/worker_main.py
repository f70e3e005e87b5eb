"""The nursery: a process that has everything imported and knows nothing, and forks one worker per task.

Importing the local engine and the arithmetic takes a second; forking takes milliseconds, and still gives every task a
process of its own whose memory goes when it ends. Started by node.worker_pool as ``python -I -m mpc.worker_main SOCKET
NODE`` with an inherited sequenced-packet socket and the node's process id. To every request, a number with two
descriptors (a worker's control stream and its passage for sockets, see mpc.job), it answers with the number and the
worker's process id. It never sees a job, has no threads, and dies with its node.

A worker gets no secrets but its job's, a bounded address space and CPU time, dies with the nursery, and cannot be read
by other processes of the same user.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import sys
import traceback
from asyncio import Future
from collections.abc import AsyncIterator

from koinon.limits import MAX_JOB_BYTES, WORKER_BASE_MB
from mpc import worker
from mpc.job import COMPUTED, MAX_REQUEST_BYTES, READY, SEAL, Job, Outcome, read_frame, write_frame

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def main() -> None:
    """Entry point; see the module's docstring."""
    node = int(sys.argv[2])
    _belong_to(node)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which then ends us
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that ended leave nothing behind
    requests = socket.socket(fileno=int(sys.argv[1]))
    requests.send(READY)
    nursery = os.getpid()
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 2)
        if not request:
            return
        pid = os.fork()
        if pid == 0:
            requests.close()
            _work(nursery, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(b"%s %d" % (request, pid))


def _belong_to(parent: int) -> None:
    """End when the parent ends, and keep others from reading our memory."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:  # it ended before we asked to be told
        os._exit(0)


def _work(nursery: int, control: int, sockets: int) -> None:
    """The life of a worker. Never returns."""
    try:
        os.setsid()
        _belong_to(nursery)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        asyncio.run(_serve(socket.socket(fileno=control), socket.socket(fileno=sockets)))
    except EOFError:  # the node lost interest, or is gone
        pass
    except BaseException as error:  # noqa: BLE001 - the process ends here, whatever it was
        _report(error)
    finally:
        sys.stderr.flush()
        os._exit(0)


async def _serve(control: socket.socket, sockets: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=control)
    job = Job.from_json(await read_frame(reader, MAX_JOB_BYTES))
    memory = (WORKER_BASE_MB + job.memory_mb) * 1024**2
    seconds = 2 * (int(job.seconds) + 1)  # of two threads
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    async def may_seal() -> None:
        write_frame(writer, COMPUTED)
        await read_frame(reader, len(SEAL))

    try:
        outcome = await worker.run(job, _connections(sockets), may_seal)
    except Exception as error:  # noqa: BLE001 - a bug must end the task, with a reason
        _report(error)
        outcome = Outcome(rule="internal", message=f"the worker met an unexpected {type(error).__name__}")
    write_frame(writer, outcome.to_json())
    await writer.drain()


async def _connections(sockets: socket.socket) -> AsyncIterator[socket.socket]:
    """Connections as the node passes them on. Once the parties have met the passage is closed: nobody else is due."""
    loop = asyncio.get_running_loop()
    sockets.setblocking(False)
    with sockets:
        while True:
            readable: Future[None] = loop.create_future()
            loop.add_reader(sockets, _finish, readable)
            try:
                await readable
            finally:
                loop.remove_reader(sockets)
            _, descriptors, _, _ = socket.recv_fds(sockets, 1, 1)
            if not descriptors:
                return  # the node is gone; so shall we be
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(False)
            yield connection


def _finish(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _report(error: BaseException) -> None:
    """Where it happened, for the node's log; not what it says, which might hold a value."""
    sys.stderr.writelines([f"{type(error).__name__} at:\n", *traceback.format_tb(error.__traceback__)])


if __name__ == "__main__":
    main()
