"""A joint query as the asker sees it: the plan, the wait, the opening, and every way it can fail.

The plan is the real compiler's; parties are played by the test, which shares the numbers itself.
"""

from __future__ import annotations

import asyncio
import io
import random
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

import koinon
from koinon import canonical, keys, shares
from koinon.aio import Progress, tasks
from koinon.client import Client
from koinon.errors import Corrupt, DeadlineExceeded, KoinonError, Refused, StatusUnknown, TaskFailed
from koinon.keys import SigningKey
from koinon.v1 import services_pb2 as services
from koinon.v1.access_pb2 import Token, TokenStatus
from koinon.v1.catalog_pb2 import (
    AccessPolicy,
    Column,
    ColumnType,
    Dataset,
    DatasetStatus,
    PublishDataset,
    TaskOperation,
)
from koinon.v1.identity_pb2 import KeyPurpose, KeyRecord
from koinon.v1.plan_pb2 import Plan
from koinon.v1.session_pb2 import SealedOutput
from koinon.v1.task_pb2 import ReceiveResult, SubmitTask, Task, TaskParty, TaskStatus
from koinon.v1.transaction_pb2 import Refusal, TransactionBody, TransactionStatus
from mpc.plan import Source, compile_plan, plan_hash, task_for
from tests.koinon.fake_node import Decide, FakeNode, committed, rejected

SQL = "SELECT rx, COUNT(*) AS n, AVG(age) AS mean, SUM(age) AS years FROM ercp.indo_rct GROUP BY rx"
COMMITTEE = ("case", "iu", "um")
SCALE = 10**6
TASK_ID = f"{1:032x}"  # what the fake node creates
PURPOSE = "to learn"
OPENED = [1, 1, 295, 1, 45_270_001, 1, 13_355 * SCALE, 1, 1, 307, 0, 0, 1, -4 * SCALE]


def source(institution: str) -> Source:
    operations = TaskOperation.values()[1:]
    published = PublishDataset(
        name=f"{institution}.ercp.indo_rct",
        columns=[
            Column(name="rx", type=ColumnType.COLUMN_TYPE_TEXT, codelist=["", "1_indo"]),
            Column(name="age", type=ColumnType.COLUMN_TYPE_INTEGER),
        ],
        row_count=100,
        row_count_step=10,
        policy=AccessPolicy(operations=operations, min_cohort=10),
        commitment=b"c" * 32,
    )
    status = DatasetStatus.DATASET_STATUS_PUBLISHED
    dataset = Dataset(published=published, version=1, status=status, publisher=institution)
    columns, active = ["age", "rx"], TokenStatus.TOKEN_STATUS_ACTIVE
    return Source(
        dataset, Token(id="a" * 32, dataset=published.name, columns=columns, operations=operations, status=active)
    )


class Consortium:
    """Three parties that share ``opened`` and behave, until a test makes one misbehave."""

    def __init__(self, node: FakeNode, opened: Sequence[int] = OPENED) -> None:
        self.node = node
        self.opened = list(opened)
        self.plan: Plan = compile_plan(SQL, [source("iu"), source("um")], COMMITTEE, asker="um")
        self.node_keys = {name: SigningKey.generate() for name in COMMITTEE}
        self.statuses = [
            TaskStatus.TASK_STATUS_SUBMITTED,
            TaskStatus.TASK_STATUS_RUNNING,
            TaskStatus.TASK_STATUS_COMPLETED,
        ]
        self.known_keys = {name: key.public_key for name, key in self.node_keys.items()}  # to the ledger
        self.key_ended: dict[str, str] = {}  # since the task was computed
        self.ending: dict[str, Any] = {}
        self.sealed: list[SealedOutput] = []
        node.answers |= {
            "QueryService/PlanQuery": services.PlanQueryResponse(
                plan=self.plan, plan_hash=plan_hash(self.plan), task=task_for(self.plan, PURPOSE)
            ),
            "TaskService/GetTask": lambda request: services.GetTaskResponse(task=self.task()),
            "TaskService/FetchOutputs": lambda request: services.FetchOutputsResponse(outputs=self.outputs()),
            "MemberService/ListKeys": lambda request: services.ListKeysResponse(keys=self.key_records(request.owner)),
        }

    def key_records(self, institution: str) -> list[KeyRecord]:
        node = KeyPurpose.KEY_PURPOSE_NODE
        return [
            KeyRecord(key=bytes(32), owner=institution, purpose=KeyPurpose.KEY_PURPOSE_VALIDATOR),
            KeyRecord(
                key=self.known_keys[institution],
                owner=institution,
                purpose=node,
                end=self.key_ended.get(institution, ""),
            ),
            KeyRecord(key=SigningKey.generate().public_key, owner=institution, purpose=node),
        ]

    @property
    def submitted(self) -> SubmitTask:
        return next(
            body.operations[0].submit_task for body in self.node.received if body.operations[0].HasField("submit_task")
        )

    def task(self) -> Task:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        ended = status == TaskStatus.TASK_STATUS_COMPLETED
        if ended and not self.sealed:
            self.sealed = self.seal()
        parties = [
            TaskParty(
                institution=name,
                accepted=True,
                output_digest=canonical.output_digest(TASK_ID, index, self.sealed[index].sealed) if ended else b"",
            )
            for index, name in enumerate(COMMITTEE)
        ]
        return Task(id=TASK_ID, submitted=self.submitted, status=status, parties=parties, **self.ending)

    def seal(self) -> list[SealedOutput]:
        submitted, randomness = self.submitted, random.Random(7)
        slopes = [randomness.randrange(shares.MODULUS) for _ in self.opened]
        sealed = []
        for index, name in enumerate(COMMITTEE):
            points = [
                (value + slope * (index + 1)) % shares.MODULUS for value, slope in zip(self.opened, slopes, strict=True)
            ]
            packed = shares.pack(TASK_ID, submitted.plan_hash, index, submitted.threshold, points)
            box = keys.seal(submitted.result_key, packed)
            signature = self.node_keys[name].sign(canonical.output_digest(TASK_ID, index, box))
            sealed.append(SealedOutput(task_id=TASK_ID, party=index, sealed=box, signature=signature))
        return sealed

    def outputs(self) -> list[SealedOutput]:
        return self.sealed


@pytest.fixture
def consortium(node: FakeNode) -> Consortium:
    return Consortium(node)


def test_a_query_opens_what_the_parties_shared(consortium: Consortium, client: Client) -> None:
    heard: list[Progress] = []
    result = client.query(SQL, on_progress=heard.append)
    assert result.columns == ("rx", "n", "mean", "years")
    assert list(result) == [
        {"rx": "1_indo", "n": 295, "mean": Decimal("45.270001"), "years": 13_355},
        {"rx": None, "n": 307, "mean": None, "years": -4},
    ]
    assert (result.task_id, result.suppressed_groups) == (TASK_ID, 0)
    assert result.plan == consortium.plan
    assert any("n, mean, years" in revealed.what and revealed.who == ("asker",) for revealed in result.revealed)
    assert [progress.stage for progress in heard] == ["planning", "submitting", "accepting", "computing", "opening"]
    assert (heard[2].done, heard[2].total) == (3, 3)


def test_the_result_key_is_made_for_each_task_and_never_the_person_s(
    consortium: Consortium, client: Client, node: FakeNode
) -> None:
    client.query(SQL)
    first = consortium.submitted.result_key
    node.received.clear()
    consortium.sealed, consortium.statuses = [], [TaskStatus.TASK_STATUS_COMPLETED]
    client.query(SQL)
    assert len({first, consortium.submitted.result_key, node.person_key.public_key}) == 3


def confirmed(node: FakeNode) -> list[ReceiveResult]:
    operations = [body.operations[0] for body in node.received]
    return [operation.receive_result for operation in operations if operation.HasField("receive_result")]


@pytest.mark.parametrize("suppressed", [False, True])
def test_the_ledger_is_told_by_digests_what_was_opened(
    consortium: Consortium, client: Client, node: FakeNode, suppressed: bool
) -> None:
    if suppressed:
        consortium.opened = [0] * 14
    with pytest.raises(Refused) if suppressed else nullcontext():
        client.query(SQL)
    assert not client.tasks.unconfirmed()
    digests = [canonical.output_digest(TASK_ID, index, output.sealed) for index, output in enumerate(consortium.sealed)]
    assert confirmed(node) == [ReceiveResult(task_id=TASK_ID, output_digests=digests)]


def test_a_result_is_there_whether_or_not_the_ledger_can_be_told(
    consortium: Consortium, client: Client, node: FakeNode
) -> None:
    def decide(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        if not body.operations[0].HasField("receive_result"):
            return committed(transaction_id, body)
        refusal = Refusal(rule="member-suspended", message="um is suspended", hint="wait")
        rejected = TransactionStatus.TRANSACTION_STATUS_REJECTED
        return services.TransactionInfo(transaction_id=transaction_id, status=rejected, refusal=refusal)

    node.decide = decide
    assert len(client.query(SQL)) == 2
    [missing] = client.tasks.unconfirmed()
    assert (missing.task_id, missing.error.rule) == (TASK_ID, "member-suspended")
    assert not client.tasks.unconfirmed(), "each is named once"


def test_a_result_does_not_wait_for_the_ledger_and_closing_does(
    consortium: Consortium, client: Client, node: FakeNode
) -> None:
    shown, told = threading.Event(), threading.Event()

    def decide(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        if body.operations[0].HasField("receive_result"):
            assert shown.wait(30)
            told.set()
        return committed(transaction_id, body)

    node.decide = decide
    client.query(SQL)
    assert not told.is_set()
    shown.set()
    client.close()
    assert told.is_set()


def test_plan_shows_without_submitting(consortium: Consortium, client: Client, node: FakeNode) -> None:
    offer = client.plan(SQL)
    assert offer.plan_hash == plan_hash(consortium.plan)
    assert not node.received


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda answer: setattr(answer, "plan_hash", b"x" * 32), "its digest"),
        (lambda answer: setattr(answer.plan, "min_cohort", 1), "its digest"),
        (lambda answer: setattr(answer.task, "plan_hash", b"x" * 32), "the plan hash of the task"),
        (lambda answer: answer.task.committee.pop(), "the committee"),
        (lambda answer: setattr(answer.task, "threshold", 2), "the threshold"),
        (lambda answer: answer.task.sources.pop(), "the sources"),
        (lambda answer: setattr(answer.task.sources[0], "token_id", "b" * 32), "the sources"),
        (lambda answer: setattr(answer.task, "sql", "SELECT 1"), "the query"),
        (lambda answer: setattr(answer.task, "purpose", "to sell"), "the purpose"),
    ],
)
def test_a_plan_that_contradicts_itself_is_never_signed(
    consortium: Consortium, client: Client, node: FakeNode, change: Any, says: str
) -> None:
    change(node.answers["QueryService/PlanQuery"])
    with pytest.raises(Corrupt, match=says) as caught:
        client.query(SQL, purpose=PURPOSE)
    assert caught.value.rule == "wrong-answer"
    assert not node.received


@pytest.mark.parametrize(
    "asked",
    [
        SQL,
        "select rx, count(*) as n, avg(age) as mean, sum(age) as years from ercp.indo_rct group by rx",
        'SELECT/* a, b */ rx, COUNT(*) n, -- c, d\n AVG(age) AS "mean", SUM((age)) FROM ercp.indo_rct GROUP BY rx;',
        "SELECT rx, COUNT(*) AS n, AVG(age) AS mean, SUM(COALESCE(age, 0)) AS years\nFROM ercp.indo_rct GROUP BY 1",
        "SELECT rx, COUNT(CASE WHEN rx = 'a,b(' THEN 1 END), AVG(EXTRACT(year FROM d)), SUM(CAST(a AS DOUBLE)) FROM t",
    ],
)
def test_a_plan_has_the_columns_that_were_asked_for(consortium: Consortium, client: Client, asked: str) -> None:
    assert client.plan(asked).sql == consortium.plan.sql


@pytest.mark.parametrize(
    "asked",
    [
        "SELECT rx, COUNT(*) AS n, AVG(age) AS mean FROM ercp.indo_rct GROUP BY rx",
        SQL.replace("AS mean", "AS median"),
        SQL.replace("SELECT rx, COUNT(*) AS n", "SELECT COUNT(*) AS n, rx"),
        SQL.replace(" FROM", ", COUNT(age) AS ages FROM"),
        "",
    ],
)
def test_a_plan_for_another_query_is_never_signed(
    consortium: Consortium, client: Client, node: FakeNode, asked: str
) -> None:
    with pytest.raises(Corrupt, match="the columns asked for"):
        client.query(asked)
    assert not node.received


def test_the_query_as_computed_is_shown(consortium: Consortium, client: Client) -> None:
    """Whether a plan's query is the asker's own, only the asker can tell."""
    result = client.query(SQL)
    assert result.sql == result.to_dict()["sql"] == consortium.plan.sql
    shown = io.StringIO()
    Console(width=1_000, file=shown).print(result, result.planned)
    assert shown.getvalue().count(consortium.plan.sql) == 2


def test_suppressed_groups_are_counted(consortium: Consortium, client: Client) -> None:
    consortium.opened[:7] = [0] * 7
    result = client.query(SQL)
    assert (len(result), result.suppressed_groups) == (1, 1)
    assert "1 group suppressed" in result.note()


def test_all_groups_suppressed_is_a_refusal_by_the_minimum_cohort(consortium: Consortium, client: Client) -> None:
    consortium.opened = [0] * 14
    with pytest.raises(Refused, match="fewer than 10 rows") as caught:
        client.query(SQL)
    assert caught.value.rule == "minimum-cohort"


@pytest.mark.parametrize("opened", [[2, *OPENED[1:]], [0, *OPENED[1:]], [*OPENED[:6], 1, *OPENED[7:]]])
def test_opened_numbers_that_do_not_fit_the_plan_are_not_shown(
    consortium: Consortium, client: Client, opened: list[int]
) -> None:
    consortium.opened = opened
    with pytest.raises(Corrupt, match="does not fit the plan"):
        client.query(SQL)


def test_an_output_that_is_not_the_one_on_the_ledger_is_not_believed(consortium: Consortium, client: Client) -> None:
    consortium.outputs = lambda: consortium.seal()  # type: ignore[method-assign]
    with pytest.raises(Corrupt, match="not the one it reported"):
        client.query(SQL)
    assert not client.tasks.unconfirmed()
    assert not confirmed(consortium.node), "nothing was received"


def test_an_output_with_another_s_signature_is_not_believed(consortium: Consortium, client: Client) -> None:
    consortium.node_keys["iu"] = SigningKey.generate()
    with pytest.raises(Corrupt, match="output of iu is not signed by its node"):
        client.query(SQL)


def test_an_output_outlives_the_key_it_was_signed_with_unless_that_was_revoked(
    consortium: Consortium, client: Client, node: FakeNode
) -> None:
    consortium.key_ended["iu"] = "rotated"
    assert client.query(SQL).rows
    node.received.clear()
    consortium.sealed, consortium.statuses = [], [TaskStatus.TASK_STATUS_COMPLETED]
    consortium.key_ended["iu"] = "stolen"
    with pytest.raises(Corrupt, match="output of iu is not signed by its node"):
        client.query(SQL)


def test_a_wrong_share_is_noticed(consortium: Consortium, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = shares.pack

    def lie(task_id: str, plan: bytes, party: int, threshold: int, points: Sequence[int]) -> bytes:
        return pack(task_id, plan, party, threshold, [points[0] + (party == 1), *points[1:]])

    monkeypatch.setattr(shares, "pack", lie)
    with pytest.raises(Corrupt, match="contradict one another"):
        client.query(SQL)


def test_a_party_out_of_reach_is_waited_for(consortium: Consortium, client: Client) -> None:
    answers = [2, 3]
    consortium.outputs = lambda: consortium.sealed[: answers.pop(0)]  # type: ignore[method-assign]
    assert len(client.query(SQL)) == 2


@pytest.mark.parametrize(
    ("status", "ending", "says"),
    [
        ("FAILED", {"rule": "plan-mismatch", "reason": "another plan", "ended_by": "iu"}, "failed by iu: another plan"),
        ("EXPIRED", {"rule": "accept-deadline"}, "expired: accept-deadline"),
        ("CANCELLED", {"rule": "task-cancelled", "ended_by": "um/operator"}, "was cancelled by um/operator"),
    ],
)
def test_a_task_that_ends_without_result_says_why(
    consortium: Consortium, client: Client, status: str, ending: dict[str, str], says: str
) -> None:
    consortium.statuses = [TaskStatus.TASK_STATUS_SUBMITTED, TaskStatus.Value(f"TASK_STATUS_{status}")]
    consortium.ending = ending
    with pytest.raises(TaskFailed, match=says) as caught:
        client.query(SQL)
    assert (caught.value.rule, caught.value.task_id) == (ending["rule"], TASK_ID)


def test_another_task_than_the_one_signed_is_not_believed(consortium: Consortium, client: Client) -> None:
    honest = consortium.task

    def other() -> Task:
        task = honest()
        task.submitted.result_key = b"k" * 32
        return task

    consortium.task = other  # type: ignore[method-assign]
    with pytest.raises(Corrupt, match="not the one that was signed"):
        client.query(SQL)


def cancelled(node: FakeNode) -> bool:
    return any(body.operations[0].HasField("cancel_task") for body in node.received)


def test_a_query_that_takes_too_long_cancels_its_task(consortium: Consortium, client: Client, node: FakeNode) -> None:
    consortium.statuses = [TaskStatus.TASK_STATUS_RUNNING]
    with pytest.raises(DeadlineExceeded, match="still running"):
        client.query(SQL, timeout_s=0.2)
    assert cancelled(node)


async def test_an_abandoned_query_cancels_its_task(consortium: Consortium, node: FakeNode) -> None:
    consortium.statuses = [TaskStatus.TASK_STATUS_RUNNING]
    following = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard(progress: Progress) -> None:
        if progress.stage == "computing":
            loop.call_soon_threadsafe(following.set)

    async with await koinon.aio.connect(node.profile) as twin:
        query = asyncio.create_task(twin.query(SQL, on_progress=heard))
        await following.wait()
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
    assert cancelled(node)


def pending(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
    return services.TransactionInfo(transaction_id=transaction_id, status=TransactionStatus.TRANSACTION_STATUS_PENDING)


class Undecided:
    """Submissions wait for a decision; what becomes of cancellations is the test's."""

    def __init__(self, node: FakeNode, cancellation: Decide) -> None:
        self.task_id = ""
        self.waiting = threading.Event()
        self._cancellation = cancellation
        node.decide = self._decide
        node.answers["TransactionService/GetTransactions"] = self._poll

    def _decide(self, transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        if body.operations[0].HasField("cancel_task"):
            return self._cancellation(transaction_id, body)
        self.task_id = canonical.created_id(transaction_id, 0)
        return pending(transaction_id, body)

    def _poll(self, request: services.GetTransactionsRequest) -> services.GetTransactionsResponse:
        self.waiting.set()
        threading.Event().wait(0.05)  # a long poll
        infos = [pending(transaction_id, TransactionBody()) for transaction_id in request.transaction_ids]
        return services.GetTransactionsResponse(transactions=infos)


NOT_THERE = rejected("not-found", "there is no task")
OVER = rejected("wrong-state", "the task is over")


@pytest.mark.parametrize(
    ("cancellation", "error", "says"),
    [
        (committed, None, ""),
        (OVER, None, ""),
        (NOT_THERE, StatusUnknown, "was sent, and not yet decided when waiting for it ended"),
        (pending, DeadlineExceeded, "may still run: its cancellation was sent, and is not yet decided"),
        (rejected("pool-full", "no room"), DeadlineExceeded, "may still run: its cancellation failed: no room"),
    ],
)
async def test_a_query_abandoned_before_it_is_decided_cancels_the_task_that_it_may_become(
    consortium: Consortium,
    node: FakeNode,
    monkeypatch: pytest.MonkeyPatch,
    cancellation: Decide,
    error: type[KoinonError] | None,
    says: str,
) -> None:
    if cancellation is pending:
        monkeypatch.setattr(tasks, "_CANCEL_S", 0.3)
    undecided = Undecided(node, cancellation)
    async with await koinon.aio.connect(node.profile) as twin:
        query = asyncio.create_task(twin.query(SQL))
        await asyncio.to_thread(undecided.waiting.wait, 60)
        query.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await query
    assert node.received[1].operations[0].cancel_task.task_id == undecided.task_id
    cause = caught.value.__cause__
    if error is None:
        assert cause is None
    else:
        assert type(cause) is error
        assert says in str(cause)


@pytest.mark.parametrize(
    ("cancellation", "says"),
    [(committed, "was cancelled"), (NOT_THERE, "was sent, but not decided"), (pending, "may still run")],
)
def test_a_query_that_is_not_decided_in_time_cancels_the_task_that_it_may_become(
    consortium: Consortium,
    client: Client,
    node: FakeNode,
    monkeypatch: pytest.MonkeyPatch,
    cancellation: Decide,
    says: str,
) -> None:
    if cancellation is pending:
        monkeypatch.setattr(tasks, "_CANCEL_S", 0.3)
    undecided = Undecided(node, cancellation)
    with pytest.raises(DeadlineExceeded, match=says) as caught:
        client.query(SQL, timeout_s=0.2)
    assert node.received[1].operations[0].cancel_task.task_id == undecided.task_id
    if cancellation is pending:
        assert f"koinon task cancel {undecided.task_id} ends it" in caught.value.hint


def test_a_query_longer_than_any_may_be_is_not_sent(client: Client) -> None:
    with pytest.raises(KoinonError, match="characters"):
        client.plan("SELECT " + "x" * 20_000)
