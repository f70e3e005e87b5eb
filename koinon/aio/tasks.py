"""Joint computations: plan, run, follow, cancel.

A query's result meets only here: the parties seal their output shares to a key made for this one task,
which is forgotten with the call. A query that is abandoned therefore cancels its task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from koinon import planned, result, shares
from koinon.aio.confirming import Confirmations, Unconfirmed
from koinon.aio.session import DEFAULT_LIMIT, Session
from koinon.canonical import created_id
from koinon.errors import (
    Corrupt,
    DeadlineExceeded,
    InvalidInput,
    KoinonError,
    NotFound,
    Refused,
    StatusUnknown,
    TaskFailed,
)
from koinon.keys import SealingKey
from koinon.limits import MAX_SQL
from koinon.planned import PlannedQuery
from koinon.result import Result
from koinon.rpc import CALL_S
from koinon.v1.identity_pb2 import KeyPurpose
from koinon.v1.services_pb2 import (
    FetchOutputsRequest,
    GetTaskRequest,
    ListKeysRequest,
    ListTasksRequest,
    PlanQueryRequest,
)
from koinon.v1.session_pb2 import SealedOutput
from koinon.v1.task_pb2 import CancelTask, SubmitTask, Task, TaskStatus
from koinon.v1.transaction_pb2 import Operation
from koinon.words import number, word

_LEDGER = "ledger"  # ended a task whose deadline passed
_UNDER_WAY = (TaskStatus.TASK_STATUS_SUBMITTED, TaskStatus.TASK_STATUS_RUNNING)
_POLL_MS = 1_000
_POLL_SLACK_S = 10.0
_PATIENCE_S = 20.0  # a restart of one's own node
_FETCH_AGAIN_S = 0.5
_CANCEL_S = 5.0
_CANCEL_SLACK_S = 1.0
QUERY_S = 300.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a query is: the stage in a word or two, parties done and in all (0 if they do not matter)."""

    stage: str
    done: int = 0
    total: int = 0
    task_id: str = ""


OnProgress = Callable[[Progress], None]


class Tasks:
    """``client.tasks``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._confirmations = Confirmations(session)

    async def show(self, task_id: str) -> Task:
        """One task, by its id or a unique beginning of it. Raises NotFound, InvalidInput."""
        return await self._get(GetTaskRequest(id=task_id))

    async def list(
        self, *, asker: str = "", institution: str = "", status: str = "", limit: int = DEFAULT_LIMIT
    ) -> list[Task]:
        """Tasks, newest first: of an asker, with an institution as party, in a state; empty means any."""
        connection = self._session.connection
        wanted = number(TaskStatus, status, "status of a task")
        request = ListTasksRequest(asker=asker, institution=institution, status=wanted)
        return await self._session.pages(connection.tasks.ListTasks, request, lambda page: page.tasks, limit)

    async def cancel(self, task_id: str, reason: str = "") -> Task:
        """End a task of one's own; if it does not run yet, the uses it reserved are given back.

        Raises NotFound, Refused.
        """
        task = await self.show(task_id)
        await self._session.submit(Operation(cancel_task=CancelTask(task_id=task.id, reason=reason)))
        return await self.show(task.id)

    async def wait(self, task_id: str, *, timeout_s: float = QUERY_S, on_progress: OnProgress | None = None) -> Task:
        """Follow a task until it ends, however it ends. Raises NotFound, DeadlineExceeded."""
        give_up = time.monotonic() + timeout_s
        task = await self.show(task_id)
        while task.status in _UNDER_WAY:
            _report(on_progress, task)
            left = give_up - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(
                    f"task {task.id} is still {word(TaskStatus, task.status)} after {timeout_s:.0f} s",
                    hint=f"koinon task show {task.id} tells which party is missing",
                )
            wait_ms = min(_POLL_MS, int(left * 1000) + 1)
            task = await self._get(GetTaskRequest(id=task.id, wait_ms=wait_ms, unless=task.status))
        return task

    async def plan(self, sql: str, *, purpose: str = "") -> PlannedQuery:
        """Compile a query without running it: what it would do, and who would learn what.

        ``purpose`` is one that access was granted for, word for word; it may be left out where the tokens for all
        datasets have exactly one in common. Raises UnsupportedQuery, NotFound, Refused (no token, cohort too small),
        Corrupt.
        """
        return await self._plan(sql, purpose, CALL_S)

    async def _plan(self, sql: str, purpose: str, timeout_s: float) -> PlannedQuery:
        if len(sql) > MAX_SQL:
            raise InvalidInput(
                f"the query has {len(sql)} characters; at most {MAX_SQL} are allowed", hint="ask for less at once"
            )
        connection = self._session.connection
        request = PlanQueryRequest(sql=sql, purpose=purpose)
        response = await connection.call(connection.query.PlanQuery, request, timeout_s=timeout_s)
        return planned.check(response, sql, purpose)

    async def query(
        self,
        sql: str,
        *,
        purpose: str = "",
        max_price: int = 0,
        on_progress: OnProgress | None = None,
        timeout_s: float = QUERY_S,
    ) -> Result:
        """Run a query jointly and open its result here, after checking it against the ledger.

        ``purpose`` is as in ``plan``. That the result was received is told to the ledger without waiting for it
        (``unconfirmed``). What costs more than ``max_price`` points is refused, by the ledger too (rule max-price). If
        the call is cancelled or times out, so is the task, even if the ledger has yet to decide on it, and its points
        come back. Where that is not seen to happen, DeadlineExceeded names the task; of a CancelledError it is the
        cause. Raises as ``plan``; TaskFailed, DeadlineExceeded, Corrupt; Refused with rule minimum-cohort when every
        group was suppressed.
        """
        started = time.monotonic()
        _say(on_progress, Progress("planning"))
        offer = await self._plan(sql, purpose, min(timeout_s, CALL_S))
        if offer.price > max_price:
            raise Refused(
                f"the query costs {offer.price} points, and at most {max_price} may be paid",
                rule="max-price",
                hint=f"koinon query --dry-run says for what; agree to it with --max-price {offer.price}, or max_price=",
            )
        key = SealingKey.generate()
        submitted = SubmitTask()
        submitted.CopyFrom(offer.task)
        submitted.result_key = key.public_key
        submitted.max_price = max_price
        _say(on_progress, Progress("submitting"))
        task_id = ""
        try:
            info = await self._session.submit(Operation(submit_task=submitted), timeout_s=timeout_s)
            task_id = info.created[0]
            task = await self.wait(task_id, timeout_s=timeout_s - (time.monotonic() - started), on_progress=on_progress)
        except (asyncio.CancelledError, KoinonError) as stopped:
            if task_id := task_id or _may_become(stopped):
                _say(on_progress, Progress("cancelling", task_id=task_id))
                await self._abandon(task_id, stopped)
            raise
        _check_ended(task, submitted)
        _say(on_progress, Progress("opening", task_id=task_id))
        outputs = await self._fetch(task)
        party_keys = await asyncio.gather(*(self._node_keys(party.institution) for party in task.parties))
        opened = shares.open_outputs(task, outputs, key, party_keys, result.opened_count(offer.plan))
        try:
            found = result.build(offer, task_id, opened, time.monotonic() - started)
        except Refused:  # every group was suppressed: that is a result, too
            self._confirmations.begin(task, {output.party for output in outputs})
            raise
        self._confirmations.begin(task, {output.party for output in outputs})
        return found

    async def unconfirmed(self) -> Sequence[Unconfirmed]:
        """Wait until the ledger was told of every result that was opened here; what it could not be told, and why.

        Takes a few seconds at most, and names each only once.
        """
        return await self._confirmations.settled()

    async def _node_keys(self, institution: str) -> Sequence[bytes]:
        """What its node signed with at any time, but for keys that were revoked."""
        connection = self._session.connection
        listed = await connection.call(
            connection.members.ListKeys, ListKeysRequest(owner=institution), patience_s=_PATIENCE_S
        )
        return [
            record.key
            for record in listed.keys
            if record.purpose == KeyPurpose.KEY_PURPOSE_NODE and record.end in ("", "rotated")
        ]

    async def _fetch(self, task: Task) -> Sequence[SealedOutput]:
        """The sealed outputs; a party that cannot be reached just now is waited for."""
        connection = self._session.connection
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            fetched = await connection.call(
                connection.tasks.FetchOutputs, FetchOutputsRequest(task_id=task.id), patience_s=_PATIENCE_S
            )
            if len(fetched.outputs) >= len(task.parties) or time.monotonic() > give_up:
                return fetched.outputs
            await asyncio.sleep(_FETCH_AGAIN_S)

    async def _get(self, request: GetTaskRequest) -> Task:
        connection = self._session.connection
        timeout_s = request.wait_ms / 1000 + _POLL_SLACK_S
        patience_s = _PATIENCE_S if request.wait_ms else 0.0
        response = await connection.call(connection.tasks.GetTask, request, timeout_s=timeout_s, patience_s=patience_s)
        return response.task

    async def _abandon(self, task_id: str, stopped: BaseException) -> None:
        """Cancel a task whose result nobody will open; raises, for ``stopped``, what is to be said about that."""
        cancel = Operation(cancel_task=CancelTask(task_id=task_id, reason="the asker stopped waiting"))
        left: KoinonError | None = None
        try:
            async with asyncio.timeout(_CANCEL_S + _CANCEL_SLACK_S):  # else a node that hangs is waited for longer
                await self._session.submit(cancel, timeout_s=_CANCEL_S)
        except NotFound:  # the submission did not get that far: what ``stopped`` says of it holds
            return
        except (KoinonError, TimeoutError) as error:
            if not isinstance(error, KoinonError) or error.rule != "wrong-state":  # which says that it is over
                left = _left(task_id, error)
        if isinstance(stopped, asyncio.CancelledError):
            raise stopped from left
        if left is not None:
            raise left from stopped
        if isinstance(stopped, StatusUnknown):
            raise DeadlineExceeded(
                f"the ledger did not take the query in time; when it did, its task {task_id} was cancelled",
                hint="koinon why-stalled tells whether the ledger goes on; then ask again",
            ) from stopped


def _may_become(stopped: BaseException) -> str:
    """The id of the task that a submission makes which is not decided yet; empty if there is none."""
    unknown = stopped.__cause__ if isinstance(stopped, asyncio.CancelledError) else stopped
    return created_id(unknown.transaction_id, 0) if isinstance(unknown, StatusUnknown) else ""


def _left(task_id: str, error: Exception) -> DeadlineExceeded:
    undecided = isinstance(error, StatusUnknown | TimeoutError)
    why = "was sent, and is not yet decided" if undecided else f"failed: {error}"
    return DeadlineExceeded(
        f"task {task_id} may still run: its cancellation {why}",
        hint=f"once the ledger goes on, koinon task show {task_id} tells what became of it, and "
        f"koinon task cancel {task_id} ends it",
    )


def _check_ended(task: Task, submitted: SubmitTask) -> None:
    if task.submitted != submitted:
        raise Corrupt(
            f"task {task.id} on the ledger is not the one that was signed",
            rule="wrong-answer",
            hint="the node is faulty, or of another version; nothing was opened",
        )
    if task.status != TaskStatus.TASK_STATUS_COMPLETED:
        state = word(TaskStatus, task.status)
        by = f" by {task.ended_by}" if task.ended_by not in ("", _LEDGER) else ""
        raise TaskFailed(
            f"task {task.id} {'was ' if state == 'cancelled' else ''}{state}{by}: {task.reason or task.rule}",
            rule=task.rule,
            hint=f"koinon task show {task.id} has the details; {_uses(task)}",
            task_id=task.id,
        )


def _uses(task: Task) -> str:
    """What became of the uses and points of a task that failed: it ran once every party had accepted."""
    ran = all(party.accepted for party in task.parties)
    held = task.terms.points + task.terms.fee
    back = f"; {held} points are refunded" if held else ""
    uses = "it had begun to compute, so its uses are spent" if ran else "the uses it had reserved are given back"
    return uses + back


def _report(on_progress: OnProgress | None, task: Task) -> None:
    total = len(task.parties)
    if task.status == TaskStatus.TASK_STATUS_SUBMITTED:
        _say(on_progress, Progress("accepting", sum(party.accepted for party in task.parties), total, task.id))
    else:
        _say(on_progress, Progress("computing", sum(bool(p.output_digest) for p in task.parties), total, task.id))


def _say(on_progress: OnProgress | None, progress: Progress) -> None:
    if on_progress is not None:
        on_progress(progress)
