"""Tasks: what may be submitted, how parties move it, and every way it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from koinon.v1.access_pb2 import TOKEN_STATUS_EXPIRED, TOKEN_STATUS_REVOKED, TOKEN_STATUS_USED_UP, RevokeToken
from koinon.v1.catalog_pb2 import TASK_OPERATION_COUNT, TASK_OPERATION_VARIANCE
from koinon.v1.identity_pb2 import ROLE_ANALYST, RegisterPerson
from koinon.v1.task_pb2 import (
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_EXPIRED,
    TASK_STATUS_FAILED,
    TASK_STATUS_RUNNING,
    TASK_STATUS_SUBMITTED,
    AcceptTask,
    CancelTask,
    CompleteTask,
    FailTask,
    SubmitTask,
    TaskSource,
)
from node.contracts import tasks as task_contracts
from tests.contracts.consortium import (
    BLOCK_MS,
    PLAN_HASH,
    Consortium,
    accept,
    access_request,
    complete,
    output_digest,
    person,
    publication,
    receive,
)

UM, IU = "um.ercp.indo_rct", "iu.ercp.indo_rct"
COMMITTEE = ("case", "iu", "um")
ASKER = "um/analyst"
USES_LEFT = {"submitted": [2, 2], "running": [1, 1]}
"""Of two: a task that ran has spent its uses, however it ended."""


class Joint(Consortium):
    """Two datasets, a token for each, and a task over both."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.publish(UM, IU)
        self.tokens = {UM: self.token(UM), IU: self.token(IU)}

    def submit(self) -> str:
        return self.do(ASKER, self.submission(self.tokens))

    def running(self) -> str:
        task = self.submit()
        self.accept_all(task)
        return task

    def uses_left(self) -> list[int]:
        return [self.app.token(token).uses_left for token in self.tokens.values()]

    def kinds(self, since: int) -> list[str]:
        return [record.kind for record in self.records(since)]


@pytest.fixture
def joint() -> Joint:
    return Joint()


def test_the_whole_path(joint: Joint) -> None:
    start = joint.app.audit_log.size
    task_id = joint.submit()
    task = joint.app.task(task_id)
    assert task.status == TASK_STATUS_SUBMITTED
    assert [(party.institution, party.owner) for party in task.parties] == [("case", False), ("iu", True), ("um", True)]
    assert task.deadline_ms == joint.time_ms + joint.genesis.parameters.accept_window_ms
    assert joint.uses_left() == [1, 1]
    joint.accept_all(task_id)
    task = joint.app.task(task_id)
    assert task.status == TASK_STATUS_RUNNING
    assert task.deadline_ms == joint.time_ms + joint.genesis.parameters.run_window_ms
    assert [task.id for task in joint.app.open_tasks()] == [task_id]
    joint.complete_all(task_id)
    task = joint.app.task(task_id)
    assert (task.status, task.ended_at_ms, task.rule) == (TASK_STATUS_COMPLETED, joint.time_ms, "")
    assert all(party.output_digest for party in task.parties)
    assert joint.uses_left() == [1, 1]
    assert joint.app.open_tasks() == []
    assert joint.kinds(start) == [
        "task.submitted",
        *["token.used"] * 2,
        *["task.accepted"] * 3,
        "task.running",
        *["task.reported"] * 3,
        "task.completed",
    ]


def test_records_of_a_task_name_its_datasets_and_tokens(joint: Joint) -> None:
    start = joint.app.audit_log.size
    joint.complete_all(joint.running())
    for record in joint.records(start):
        if record.kind.startswith("task."):
            assert {f"dataset:{UM}", f"dataset:{IU}", f"person:{ASKER}"} <= set(record.related)
            assert {f"token:{token}" for token in joint.tokens.values()} <= set(record.related)


def test_the_asker_says_once_that_it_received_the_result(joint: Joint) -> None:
    task_id = joint.running()
    assert joint.refused(ASKER, receive(task_id, *COMMITTEE)) == "wrong-state"
    joint.complete_all(task_id)
    before = joint.app.task(task_id)
    joint.do(ASKER, receive(task_id, *COMMITTEE))
    task = joint.app.task(task_id)
    assert (task.status, task.received_at_ms) == (TASK_STATUS_COMPLETED, joint.time_ms)
    task.ClearField("received_at_ms")
    assert task == before, "nothing else changes"
    record = joint.records()[-1]
    assert (record.kind, record.actor, record.subject) == ("task.received", ASKER, f"task:{task_id}")
    assert record.detail == ", ".join(output_digest(task_id, party).hex() for party in COMMITTEE)
    assert set(record.related) >= {f"dataset:{UM}", *(f"token:{token}" for token in joint.tokens.values())}
    assert joint.refused(ASKER, receive(task_id, *COMMITTEE)) == "already-exists"


@pytest.mark.parametrize(
    ("parties", "rule"),
    [
        ((), "invalid-input"),
        (COMMITTEE[:2], "inconsistent-output"),  # a wrong share would not be noticed
        (("iu", "case", "um"), "inconsistent-output"),
        (("case", "case", "um"), "inconsistent-output"),
        (("case", "iu", "uk"), "inconsistent-output"),
        ((*COMMITTEE, "uk"), "inconsistent-output"),
        (("case",) * 16, "invalid-input"),
    ],
)
def test_what_was_received_is_what_was_reported(joint: Joint, parties: tuple[str, ...], rule: str) -> None:
    task_id = joint.running()
    joint.complete_all(task_id)
    assert joint.refused(ASKER, receive(task_id, *parties)) == rule
    assert not joint.app.task(task_id).received_at_ms


def test_an_output_that_never_came_is_not_missed(joint: Joint) -> None:
    everybody = ("case", "iu", "uk", "um")
    task_id = joint.do(ASKER, joint.submission(joint.tokens, committee=everybody))
    joint.accept_all(task_id)
    joint.complete_all(task_id)
    joint.do(ASKER, receive(task_id, "case", "uk", "um"))
    assert joint.app.task(task_id).received_at_ms


@pytest.mark.parametrize("stage", ["submitted", "running"])
@pytest.mark.parametrize("party", COMMITTEE)
def test_one_party_may_end_it_for_all(joint: Joint, stage: str, party: str) -> None:
    task_id = joint.submit() if stage == "submitted" else joint.running()
    joint.do(party, FailTask(task_id=task_id, rule="minimum-cohort", reason="only 3 rows"))
    task = joint.app.task(task_id)
    assert (task.status, task.rule, task.reason, task.ended_by) == (
        TASK_STATUS_FAILED,
        "minimum-cohort",
        "only 3 rows",
        party,
    )
    assert joint.uses_left() == USES_LEFT[stage]


@pytest.mark.parametrize("sender", [ASKER, "um/operator"])
@pytest.mark.parametrize("stage", ["submitted", "running"])
def test_asker_and_its_operator_may_cancel(joint: Joint, stage: str, sender: str) -> None:
    task_id = joint.submit() if stage == "submitted" else joint.running()
    joint.do(sender, CancelTask(task_id=task_id))
    task = joint.app.task(task_id)
    assert (task.status, task.rule, task.ended_by) == (TASK_STATUS_CANCELLED, "task-cancelled", sender)
    assert joint.uses_left() == USES_LEFT[stage]


def test_who_did_not_accept_in_time_is_named(joint: Joint) -> None:
    task_id = joint.submit()
    joint.do("iu", accept(task_id, "iu"))
    joint.wait(joint.app.task(task_id).deadline_ms - joint.time_ms - 1)
    assert joint.app.task(task_id).status == TASK_STATUS_SUBMITTED
    joint.wait(1)
    task = joint.app.task(task_id)
    assert (task.status, task.rule, task.ended_by) == (TASK_STATUS_EXPIRED, "accept-deadline", "ledger")
    assert task.reason == "case, um did not accept in time"
    assert joint.uses_left() == [2, 2]


def test_who_did_not_report_in_time_is_named(joint: Joint) -> None:
    for token in joint.tokens.values():
        joint.do(ASKER, RevokeToken(token_id=token, reason="too short"))
    joint.tokens = {name: joint.token(name, duration_ms=1_000_000) for name in (UM, IU)}
    task_id = joint.running()
    joint.do("um", complete(task_id, "um"))
    joint.wait(joint.genesis.parameters.run_window_ms)
    task = joint.app.task(task_id)
    assert (task.status, task.rule, task.reason) == (
        TASK_STATUS_EXPIRED,
        "run-deadline",
        "case, iu did not report in time",
    )
    assert joint.uses_left() == [1, 1]


@pytest.mark.parametrize("stage", ["submitted", "running"])
def test_a_revoked_token_ends_the_task(joint: Joint, stage: str) -> None:
    task_id = joint.submit() if stage == "submitted" else joint.running()
    joint.do("iu/operator", RevokeToken(token_id=joint.tokens[IU], reason="audit"))
    task = joint.app.task(task_id)
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "token-revoked")
    assert joint.tokens[IU] in task.reason
    assert joint.uses_left() == USES_LEFT[stage]


@pytest.mark.parametrize("stage", ["submitted", "running"])
def test_tokens_that_expire_together_all_expire(joint: Joint, stage: str) -> None:
    """The first one's end fails the task, which may not use up the second: the block could not be executed."""
    tokens = {name: joint.token(name, uses=1) for name in (UM, IU)}
    task_id = joint.do(ASKER, joint.submission(tokens))
    if stage == "running":
        joint.accept_all(task_id)
    joint.wait(200_000)
    assert [joint.app.token(token).status for token in tokens.values()] == [TOKEN_STATUS_EXPIRED] * 2
    assert joint.app.task(task_id).rule == "token-expired"


def test_a_failure_is_no_free_answer(joint: Joint) -> None:
    """Whether a computation fails may depend on one row: asked twice, the token with two uses is used up."""
    start = joint.app.audit_log.size
    for _ in range(2):
        joint.do("iu", FailTask(task_id=joint.running(), rule="expression-failed", reason="a value"))
    assert joint.refused(ASKER, joint.submission(joint.tokens)) == "token-used-up"
    assert [joint.app.token(token).status for token in joint.tokens.values()] == [TOKEN_STATUS_USED_UP] * 2
    kinds = joint.kinds(start)
    assert kinds[-3:] == ["task.failed", "token.used_up", "token.used_up"]
    assert "token.returned" not in kinds


def test_the_last_use_of_a_revoked_token(joint: Joint) -> None:
    """It stays revoked: what has ended does not end again as used up."""
    joint.complete_all(joint.running())
    task_id = joint.running()
    joint.do("iu/operator", RevokeToken(token_id=joint.tokens[IU], reason="audit"))
    assert joint.app.task(task_id).rule == "token-revoked"
    assert joint.app.token(joint.tokens[IU]).status == TOKEN_STATUS_REVOKED
    assert joint.app.token(joint.tokens[UM]).status == TOKEN_STATUS_USED_UP


ENDS: dict[str, Callable[[Joint], str]] = {
    "completed": lambda joint: finish(joint, joint.running(), joint.complete_all),
    "failed": lambda joint: finish(joint, joint.submit(), lambda t: joint.do("um", fail(t))),
    "cancelled": lambda joint: finish(joint, joint.submit(), lambda t: joint.do(ASKER, CancelTask(task_id=t))),
    "expired": lambda joint: finish(joint, joint.submit(), lambda _: joint.wait(15_000)),
}


def finish(joint: Joint, task: str, action: Callable[[str], object]) -> str:
    action(task)
    return task


def fail(task: str) -> FailTask:
    return FailTask(task_id=task, rule="deadline", reason="gave up")


@pytest.mark.parametrize("end", ENDS)
def test_what_has_ended_stays_ended(joint: Joint, end: str) -> None:
    task_id = ENDS[end](joint)
    before = joint.app.task(task_id)
    late = CompleteTask(task_id=task_id, output_digest=bytes(32))
    fresh = AcceptTask(task_id=task_id, plan_hash=PLAN_HASH, session_certificate=b"fresh")
    for sender, message in (("um", fresh), ("um", late), ("um", fail(task_id)), (ASKER, CancelTask(task_id=task_id))):
        assert joint.refused(sender, message) == "wrong-state"
    assert joint.app.task(task_id) == before


def test_nothing_is_reported_before_all_accepted(joint: Joint) -> None:
    task_id = joint.submit()
    joint.do("um", accept(task_id, "um"))
    assert joint.refused("um", complete(task_id, "um")) == "wrong-state"


def test_each_party_accepts_and_reports_once(joint: Joint) -> None:
    task_id = joint.submit()
    joint.do("um", accept(task_id, "um"))
    again = AcceptTask(task_id=task_id, plan_hash=PLAN_HASH, session_certificate=b"another")
    assert joint.refused("um", again) == "wrong-state"
    assert joint.refused("iu", accept(task_id, "um")) == "already-exists"  # another party's certificate
    for party in ("case", "iu"):
        joint.do(party, accept(task_id, party))
    joint.do("um", complete(task_id, "um"))
    assert joint.refused("um", CompleteTask(task_id=task_id, output_digest=bytes(32))) == "wrong-state"
    assert joint.app.task(task_id).status == TASK_STATUS_RUNNING


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (AcceptTask(plan_hash=bytes(32), session_certificate=b"c"), "plan-mismatch"),
        (AcceptTask(plan_hash=PLAN_HASH), "invalid-input"),
        (AcceptTask(plan_hash=PLAN_HASH, session_certificate=bytes(1025)), "invalid-input"),
        (CompleteTask(output_digest=b"short"), "invalid-input"),
        (FailTask(rule="Not a rule", reason="x"), "invalid-input"),
        (FailTask(rule="", reason="x"), "invalid-input"),
        (FailTask(rule="r" * 65, reason="x"), "invalid-input"),
        (FailTask(rule="deadline", reason=""), "invalid-input"),
        (FailTask(rule="deadline", reason="x" * 2001), "invalid-input"),
        (FailTask(rule="deadline", reason="\x1b[31m"), "invalid-input"),
    ],
)
def test_a_malformed_message_of_a_party(joint: Joint, message: AcceptTask | CompleteTask | FailTask, rule: str) -> None:
    message.task_id = joint.submit()
    assert joint.refused("um", message) == rule


def change_source(**changes: object) -> Callable[[SubmitTask], None]:
    def change(task: SubmitTask) -> None:
        for name, value in changes.items():
            if isinstance(value, list):
                task.sources[0].ClearField(name)  # type: ignore[arg-type]
                getattr(task.sources[0], name).extend(value)
            else:
                setattr(task.sources[0], name, value)

    return change


def change_committee(*members: str, threshold: int | None = None) -> Callable[[SubmitTask], None]:
    def change(task: SubmitTask) -> None:
        task.ClearField("committee")
        task.committee.extend(members)
        task.threshold = (len(members) - 1) // 2 if threshold is None else threshold

    return change


BAD_TASKS: dict[str, tuple[Callable[[SubmitTask], object], str]] = {
    "no query": (lambda t: setattr(t, "sql", ""), "invalid-input"),
    "a long query": (lambda t: setattr(t, "sql", "x" * 10_001), "invalid-input"),
    "no plan": (lambda t: setattr(t, "plan_hash", b""), "invalid-input"),
    "no result key": (lambda t: setattr(t, "result_key", b""), "invalid-input"),
    "no purpose": (lambda t: t.ClearField("purpose"), "invalid-input"),
    "a long purpose": (lambda t: setattr(t, "purpose", "x" * 2_001), "invalid-input"),
    "another purpose": (lambda t: setattr(t, "purpose", "To learn"), "token-purpose"),
    "no sources": (lambda t: t.ClearField("sources"), "invalid-input"),
    "a source twice": (lambda t: t.sources.append(t.sources[0]), "invalid-input"),
    "sources out of order": (lambda t: t.sources.insert(0, t.sources.pop()), "invalid-input"),
    "too many sources": (lambda t: t.sources.extend(TaskSource() for _ in range(63)), "invalid-input"),
    "no dataset": (change_source(dataset=""), "invalid-name"),
    "unknown dataset": (change_source(dataset="iu.a.none"), "token-dataset"),
    "older version": (change_source(version=0), "dataset-version"),
    "later version": (change_source(version=2), "dataset-version"),
    "no token": (change_source(token_id=""), "invalid-name"),
    "unknown token": (change_source(token_id="0" * 32), "not-found"),
    "unknown column": (change_source(columns=["weight"]), "token-columns"),
    "columns out of order": (change_source(columns=["rx", "age"]), "invalid-input"),
    "operation not granted": (change_source(operations=[TASK_OPERATION_VARIANCE]), "token-operations"),
    "no operation": (change_source(operations=[]), "invalid-input"),
    "committee too small": (change_committee("iu", "um"), "committee"),
    "committee out of order": (change_committee("um", "iu", "case"), "committee"),
    "a party twice": (change_committee("iu", "iu", "um"), "committee"),
    "a stranger": (change_committee("iu", "nobody", "um"), "committee"),
    "a malformed party": (change_committee("iu", "UM", "um"), "invalid-name"),
    "an owner missing": (change_committee("case", "uk", "um"), "committee"),
    "no threshold": (change_committee("case", "iu", "um", threshold=0), "committee"),
    "a threshold of the majority": (change_committee("case", "iu", "um", threshold=2), "committee"),
}


@pytest.mark.parametrize("case", BAD_TASKS)
def test_a_bad_task_is_refused_and_reserves_nothing(joint: Joint, case: str) -> None:
    change, rule = BAD_TASKS[case]
    task = joint.submission(joint.tokens)
    change(task)
    assert joint.refused(ASKER, task) == rule
    assert joint.uses_left() == [2, 2]
    assert joint.app.open_tasks() == []


def test_a_task_is_for_one_purpose_that_all_its_tokens_have(joint: Joint) -> None:
    wanted = access_request(UM)
    wanted.purposes[:] = ["to learn", "to teach"]
    tokens = joint.tokens | {UM: joint.app.request(joint.do(ASKER, wanted)).token_id}
    task = joint.submission(tokens)
    assert joint.app.task(joint.do(ASKER, task)).submitted.purpose == "to learn"
    task.purpose = "to teach"  # only one of the two was granted for that
    refusal = joint.send(ASKER, task).refusal
    assert (refusal.rule, tokens[IU] in refusal.message) == ("token-purpose", True)
    assert "to learn" in refusal.hint


def test_a_token_for_another_dataset_does_not_fit(joint: Joint) -> None:
    crossed = {UM: joint.tokens[IU], IU: joint.tokens[UM]}
    assert joint.refused(ASKER, joint.submission(crossed)) == "token-dataset"


def test_a_new_version_asks_for_a_new_plan(joint: Joint) -> None:
    planned = joint.submission(joint.tokens)
    under_way = joint.submit()
    joint.do("iu/operator", publication(IU))
    assert joint.refused(ASKER, planned) == "dataset-version"
    joint.submit()
    assert joint.app.task(under_way).status == TASK_STATUS_SUBMITTED  # it names the version it uses


def test_a_new_version_may_forbid_what_a_token_allows(joint: Joint) -> None:
    stricter = publication(IU)
    stricter.policy.ClearField("operations")
    stricter.policy.operations.append(TASK_OPERATION_VARIANCE)
    joint.do("iu/operator", stricter)
    assert joint.refused(ASKER, joint.submission(joint.tokens)) == "policy"


def test_open_tasks_of_an_institution_are_bounded(joint: Joint, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator registers as many people as it likes."""
    monkeypatch.setattr(task_contracts, "MAX_OPEN_TASKS_PER_INSTITUTION", 2)
    home = ASKER.partition("/")[0]
    joint.do(f"{home}/operator", RegisterPerson(person=person(f"{home}/second", ROLE_ANALYST)))
    joint.submit()
    first = joint.submit()
    mine = {name: joint.token(name, f"{home}/second") for name in joint.tokens}
    assert joint.refused(f"{home}/second", joint.submission(mine)) == "too-many"
    joint.do(ASKER, CancelTask(task_id=first))
    joint.do(f"{home}/second", joint.submission(mine))


def test_open_tasks_per_asker_are_bounded(joint: Joint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_contracts, "MAX_OPEN_TASKS_PER_ASKER", 2)
    first = joint.submit()
    joint.submit()
    assert joint.refused(ASKER, joint.submission(joint.tokens)) == "too-many"
    joint.do(ASKER, CancelTask(task_id=first))
    joint.submit()


def test_columns_may_be_none_when_only_rows_are_counted(joint: Joint) -> None:
    task = joint.submission(joint.tokens)
    for source in task.sources:
        source.ClearField("columns")
        assert list(source.operations) == [TASK_OPERATION_COUNT]
    joint.do(ASKER, task)


def test_cost_of_a_block_is_per_expired_task(joint: Joint) -> None:
    """Tasks that are not due are not touched: their records stay as they are."""
    joint.do("um/operator", RegisterPerson(person=person("um/other", ROLE_ANALYST)))
    early = joint.submit()
    joint.wait(BLOCK_MS)
    token = joint.token(UM, "um/other")
    late = joint.do("um/other", joint.submission({UM: token}))
    joint.wait(joint.app.task(early).deadline_ms - joint.time_ms)
    assert joint.app.task(early).status == TASK_STATUS_EXPIRED
    assert joint.app.task(late).status == TASK_STATUS_SUBMITTED
