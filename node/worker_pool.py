"""Worker processes: one per task, at hand within milliseconds, and gone when the task is.

A nursery (mpc.worker_main) is started with the node and forks workers on request; should it end, the next request
starts another. What workers and nursery print goes to the node's log, bounded.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog

from koinon.errors import KoinonError, Unavailable
from koinon.limits import MAX_OUTCOME_BYTES, WORKER_START_S
from mpc.job import COMPUTED, MAX_REQUEST_BYTES, READY, SEAL, Job, Outcome, read_frame, write_frame

_GRACE_S = 2.0  # after a job's time is up, for the worker to say so itself
_log = structlog.get_logger(__name__)


class Worker:
    """A process for one job."""

    def __init__(self, pidfd: int, control: socket.socket, sockets: socket.socket) -> None:
        self._pidfd = pidfd
        self._control = control
        self._sockets = sockets

    async def run(self, job: Job, check: Callable[[], KoinonError | None]) -> Outcome:
        """Do the job. ``check`` is asked just before the output is sealed, and says what speaks against it, or None.

        Never takes longer than the job may, and never raises but when cancelled; the process is gone afterwards.
        """
        try:
            async with asyncio.timeout(job.seconds + _GRACE_S):
                return await self._converse(job, check)
        except TimeoutError:
            return Outcome(rule="run-deadline", message="the worker was not done in time")
        except (OSError, EOFError, ValueError, TypeError, KeyError):
            return Outcome(rule="worker-crashed", message="the worker process ended without a result")
        finally:
            self.kill()

    async def _converse(self, job: Job, check: Callable[[], KoinonError | None]) -> Outcome:
        reader, writer = await asyncio.open_connection(sock=self._control)
        try:
            write_frame(writer, job.to_json())
            frame = await read_frame(reader, MAX_OUTCOME_BYTES)
            if frame == COMPUTED:
                objection = check()
                if objection is not None:
                    return Outcome(rule=objection.rule, message=objection.message)
                write_frame(writer, SEAL)
                frame = await read_frame(reader, MAX_OUTCOME_BYTES)
            return Outcome.from_json(frame)
        finally:
            writer.close()

    def pass_on(self, connection: socket.socket) -> None:
        """Give the worker a connection that named its task. A worker that is gone, drowning or served gets none.

        Silently: strangers decide how often this happens, and shall not fill the log.
        """
        with suppress(OSError):
            socket.send_fds(self._sockets, [b"\0"], [connection.fileno()])

    def kill(self) -> None:
        """End the process, at once; harmless if it has ended."""
        if self._pidfd < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        self._pidfd = -1
        self._control.close()
        self._sockets.close()


class WorkerPool:
    """Where workers come from."""

    def __init__(self) -> None:
        self._nursery: asyncio.subprocess.Process | None = None
        self._requests: socket.socket | None = None
        self._printing: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._taking: set[asyncio.Task[Worker]] = set()
        self._asked = 0

    async def start(self) -> None:
        """Start the nursery and wait until it is ready. Raises Unavailable."""
        async with self._one_at_a_time:
            await self._start()

    async def take(self) -> Worker:
        """A fresh worker. Raises Unavailable.

        If the caller is cancelled, the worker it asked for is killed as soon as its process is known: it might not be
        able to notice by itself that nobody wants it.
        """
        taking = asyncio.create_task(self._take())
        self._taking.add(taking)
        taking.add_done_callback(self._taking.discard)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(_dismiss)
            raise

    async def _take(self) -> Worker:
        async with self._one_at_a_time:
            if self._nursery is None or self._nursery.returncode is not None:
                await self._start()
            try:
                return await self._fork()
            except OSError:  # the nursery is gone: once more, with another
                await self._start()
                try:
                    return await self._fork()
                except OSError as error:
                    raise _not_started() from error

    async def stop(self) -> None:
        """End the nursery; its workers end with it."""
        for taking in self._taking:
            taking.cancel()
        await self._end_nursery()

    async def _end_nursery(self) -> None:
        if self._requests is not None:
            self._requests.close()
        if self._nursery is not None and self._nursery.returncode is None:
            self._nursery.kill()
            await self._nursery.wait()
        if self._printing is not None:
            await self._printing

    async def _start(self) -> None:
        await self._end_nursery()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            self._requests = ours
            with theirs:
                self._nursery = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-m", "mpc.worker_main", str(theirs.fileno()), str(os.getpid())),
                    pass_fds=[theirs.fileno()],
                    env={"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            self._printing = asyncio.create_task(_print(self._nursery))
            async with asyncio.timeout(WORKER_START_S):
                if await asyncio.get_running_loop().sock_recv(ours, len(READY)) != READY:
                    raise ConnectionError(f"it ended with exit code {await self._nursery.wait()}")
        except (OSError, TimeoutError) as error:
            _log.warning("no nursery", reason=str(error))
            raise _not_started() from error

    async def _fork(self) -> Worker:
        """Raises OSError."""
        assert self._requests is not None
        control, their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        sockets, their_sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        sockets.setblocking(False)
        try:
            self._asked += 1
            request = b"%d" % self._asked
            with their_control, their_sockets:
                socket.send_fds(self._requests, [request], [their_control.fileno(), their_sockets.fileno()])
            async with asyncio.timeout(WORKER_START_S):
                while True:
                    answer = await asyncio.get_running_loop().sock_recv(self._requests, MAX_REQUEST_BYTES)
                    if not answer:
                        raise ConnectionError("the nursery ended")
                    named, pid = answer.split()
                    if named == request:  # else an answer that nobody waited for any more
                        return Worker(os.pidfd_open(int(pid)), control, sockets)
        except BaseException:
            control.close()
            sockets.close()
            raise


def _dismiss(taking: asyncio.Task[Worker]) -> None:
    """Kill a worker that nobody waits for any more."""
    if not taking.cancelled() and taking.exception() is None:
        taking.result().kill()


async def _print(process: asyncio.subprocess.Process) -> None:
    """What workers print goes to the log, line by line; they print where something went wrong, never values."""
    assert process.stdout is not None
    while chunk := await process.stdout.read(4096):
        _log.warning("worker printed", text=chunk.decode("utf-8", "replace"))


def _not_started() -> Unavailable:
    return Unavailable(
        "no worker process could be started",
        rule="worker-crashed",
        hint="see the node's log; the machine may be out of memory or processes",
    )
