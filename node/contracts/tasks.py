"""Joint computations: submitted -> accepted by every party -> running -> completed | failed | cancelled | expired.

Consensus checks what can be checked from the ledger: tokens, dataset versions, the committee. Whether the
plan's hash is right each party decides for itself, by compiling the plan, before it accepts.

Once a task runs, its uses are spent however it ends: whether a computation fails may depend on what is in the rows, so
a failure that cost nothing could be asked for again and again, a bit at a time.

That a result was received is for its asker to say: it signs the digests of the sealed outputs that it opened, once, and
nothing of what was in them. Whether it says so changes nothing else; nobody can be made to.
"""

from __future__ import annotations

from itertools import pairwise

from koinon.canonical import HASH_BYTES
from koinon.errors import InvalidInput, Refused
from koinon.limits import (
    MAX_CERTIFICATE_BYTES,
    MAX_COMMITTEE,
    MAX_DUE_PER_BLOCK,
    MAX_OPEN_TASKS_PER_ASKER,
    MAX_OPEN_TASKS_PER_INSTITUTION,
    MAX_SOURCES,
    MAX_SQL,
    MAX_TEXT,
)
from koinon.names import DatasetName, check_id, check_institution
from koinon.v1.identity_pb2 import MEMBER_STATUS_ACTIVE
from koinon.v1.task_pb2 import (
    TASK_STATUS_RUNNING,
    TASK_STATUS_SUBMITTED,
    AcceptTask,
    CancelTask,
    CompleteTask,
    FailTask,
    ReceiveResult,
    SubmitTask,
    Task,
    TaskParty,
    TaskSource,
)
from node.contracts import settlement, shapes, tables, tokens
from node.contracts.context import Context
from node.contracts.policy import check_columns, check_none_excluded, check_operations, published_dataset
from node.contracts.transitions import TASK

_RESULT_KEY_BYTES = 32


def submit(context: Context, operation: SubmitTask) -> str:
    """Check the tokens and the committee, reserve one use of every token, and open the task."""
    _check_form(operation)
    context.authorise()
    state, asker = context.state, context.sender.id
    if tables.ASKER_TASKS.count_under(state, asker, at_most=MAX_OPEN_TASKS_PER_ASKER) >= MAX_OPEN_TASKS_PER_ASKER:
        raise Refused(
            f"{asker} has {MAX_OPEN_TASKS_PER_ASKER} open tasks",
            rule="too-many",
            hint="wait for one to end, or cancel one",
        )
    home, most = context.sender.institution, MAX_OPEN_TASKS_PER_INSTITUTION
    if tables.ASKER_TASKS.count_under(state, beginning=f"{home}/", at_most=most) >= most:
        raise Refused(
            f"people of {home} have {most} open tasks", rule="too-many", hint="wait for some to end, or cancel some"
        )
    owners = {_check_source(context, source, operation.purpose) for source in operation.sources}
    _check_cohort(context, operation)
    _check_committee(context, operation, owners)
    task = Task(
        id=context.new_id(),
        submitted=operation,
        asker=asker,
        parties=[TaskParty(institution=name, owner=name in owners) for name in operation.committee],
        submitted_at_ms=context.time_ms,
        deadline_ms=context.time_ms + context.parameters.accept_window_ms,
        run_window_ms=context.parameters.run_window_ms,
    )
    context.move(TASK, task.id, task, "task.submitted", related=_related(task), detail=operation.plan_hash.hex())
    for source in operation.sources:
        tokens.reserve(context, tables.TOKENS.get(state, source.token_id), task.id)
    settlement.open_for(context, task)
    tables.TASKS.put(state, task.id, task)
    tables.ASKER_TASKS.add(state, asker, task.id)
    tables.TASK_DEADLINES.add(state, task.deadline_ms, task.id.encode())
    return task.id


def accept(context: Context, operation: AcceptTask) -> str:
    """A party agrees to the plan; when it is the last, the task runs."""
    if not 1 <= len(operation.session_certificate) <= MAX_CERTIFICATE_BYTES:
        raise InvalidInput(
            f"session_certificate has {len(operation.session_certificate)} bytes",
            hint=f"1 to {MAX_CERTIFICATE_BYTES} are allowed",
        )
    task, party = _party_to(context, operation.task_id)
    check_none_excluded(context.state, task.asker.partition("/")[0], *task.submitted.committee)
    if operation.plan_hash != task.submitted.plan_hash:
        raise Refused(
            f"task {task.id} was submitted for another plan than {party.institution} compiled",
            rule="plan-mismatch",
            hint="compare the versions of the nodes, and fail the task",
        )
    if any(other.session_certificate == operation.session_certificate for other in task.parties):
        raise Refused(
            f"the session certificate is another party's, or {party.institution}'s own of before",
            rule="already-exists",
            hint="make a certificate for this task only, and accept once",
        )
    if party.accepted:
        raise Refused(f"{party.institution} accepted task {task.id} before", rule="wrong-state", hint="nothing to do")
    party.accepted = True
    party.session_certificate = operation.session_certificate
    context.move(TASK, task.id, task, "task.accepted", related=_related(task))
    if all(other.accepted for other in task.parties):
        tables.TASK_DEADLINES.remove(context.state, task.deadline_ms, task.id.encode())
        task.deadline_ms = context.time_ms + task.run_window_ms
        tables.TASK_DEADLINES.add(context.state, task.deadline_ms, task.id.encode())
        context.move(TASK, task.id, task, "task.running", related=_related(task))
    tables.TASKS.put(context.state, task.id, task)
    return ""


def complete(context: Context, operation: CompleteTask) -> str:
    """A party reports the digest of its sealed output; when it is the last, the task is complete."""
    shapes.exactly("output_digest", operation.output_digest, HASH_BYTES)
    task, party = _party_to(context, operation.task_id)
    check_none_excluded(context.state, task.asker.partition("/")[0], *task.submitted.committee)
    if party.output_digest:
        raise Refused(
            f"{party.institution} reported on task {task.id} before", rule="wrong-state", hint="nothing to do"
        )
    context.move(TASK, task.id, task, "task.reported", related=_related(task), detail=operation.output_digest.hex())
    party.output_digest = operation.output_digest
    if all(other.output_digest for other in task.parties):
        end(context, task, "task.completed")
    else:
        tables.TASKS.put(context.state, task.id, task)
    return ""


def fail(context: Context, operation: FailTask) -> str:
    """A party refuses or gives up: the task ends for all, with that party's rule and reason."""
    shapes.rule(operation.rule)
    shapes.text("reason", operation.reason, MAX_TEXT)
    task, _ = _party_to(context, operation.task_id)
    end(context, task, "task.failed", rule=operation.rule, reason=operation.reason)
    return ""


def cancel(context: Context, operation: CancelTask) -> str:
    """The asker, or an operator of its institution, no longer wants the task."""
    shapes.text("reason", operation.reason, MAX_TEXT, required=False)
    task = tables.TASKS.get(context.state, check_id(operation.task_id))
    context.authorise(person=task.asker, institution=task.asker.partition("/")[0])
    end(context, task, "task.cancelled", rule="task-cancelled", reason=operation.reason)
    return ""


def receive(context: Context, operation: ReceiveResult) -> str:
    """The asker opened the result: it names what its parties reported, of as many as it takes to notice a wrong one."""
    digests = operation.output_digests
    shapes.between("the number of output digests", len(digests), 1, MAX_COMMITTEE)
    for digest in digests:
        shapes.exactly("an output digest", digest, HASH_BYTES)
    task = tables.TASKS.get(context.state, check_id(operation.task_id))
    context.authorise(person=task.asker)
    if task.received_at_ms:
        raise Refused(f"the result of task {task.id} was received before", rule="already-exists", hint="nothing to do")
    detail = ", ".join(digest.hex() for digest in digests)
    context.move(TASK, task.id, task, "task.received", related=_related(task), detail=detail)
    reported = iter(party.output_digest for party in task.parties)
    needed = min(task.submitted.threshold + 2, len(task.parties))
    if len(digests) < needed or any(digest not in reported for digest in digests):
        raise Refused(
            f"{len(digests)} output digests are not those that the parties of task {task.id} reported, in their order",
            rule="inconsistent-output",
            hint=f"name {needed} or more outputs of the task, as opened",
        )
    task.received_at_ms = context.time_ms
    tables.TASKS.put(context.state, task.id, task)
    return ""


def end(context: Context, task: Task, kind: str, *, rule: str = "", reason: str = "") -> None:
    """End an open task by ``kind``; uses of its tokens are spent if it ran, and given back otherwise.

    Raises Refused with rule ``wrong-state``.
    """
    state = context.state
    settle = tokens.spend if task.status == TASK_STATUS_RUNNING else tokens.give_back
    context.move(TASK, task.id, task, kind, related=_related(task), detail=": ".join(filter(None, (rule, reason))))
    task.ended_at_ms, task.ended_by = context.time_ms, context.sender.id
    task.rule, task.reason = rule, reason
    tables.TASKS.put(state, task.id, task)
    tables.TASK_DEADLINES.remove(state, task.deadline_ms, task.id.encode())
    tables.ASKER_TASKS.remove(state, task.asker, task.id)
    for source in task.submitted.sources:
        settle(context, source.token_id, task.id)
    settlement.conclude(context, task)


def fail_using_token(context: Context, token_id: str, rule: str, reason: str) -> None:
    """Fail every open task that holds a use of this token, which has just ended."""
    for task_id in list(tables.TOKEN_TASKS.under(context.state, token_id)):
        end(context, tables.TASKS.get(context.state, task_id), "task.failed", rule=rule, reason=reason)


def fail_of_asker(context: Context, person_id: str, rule: str, reason: str) -> None:
    """Fail every open task of a person, whose key has just been revoked."""
    for task_id in list(tables.ASKER_TASKS.under(context.state, person_id)):
        end(context, tables.TASKS.get(context.state, task_id), "task.failed", rule=rule, reason=reason)


def expire_due(context: Context) -> None:
    """End the tasks whose deadline block time has reached."""
    for task_id in tables.TASK_DEADLINES.pop_due(context.state, context.time_ms, at_most=MAX_DUE_PER_BLOCK):
        task = tables.TASKS.get(context.state, task_id.decode())
        if task.status == TASK_STATUS_SUBMITTED:
            rule, verb = "accept-deadline", "accept"
            late = [party.institution for party in task.parties if not party.accepted]
        else:
            rule, verb = "run-deadline", "report"
            late = [party.institution for party in task.parties if not party.output_digest]
        end(context, task, "task.expired", rule=rule, reason=f"{', '.join(late)} did not {verb} in time")


def _party_to(context: Context, task_id: str) -> tuple[Task, TaskParty]:
    """The task, and the sender's part in it. Raises InvalidName, NotFound or PermissionRefused."""
    task = tables.TASKS.get(context.state, check_id(task_id))
    context.authorise(parties=task.submitted.committee)
    return task, next(party for party in task.parties if party.institution == context.sender.institution)


def _check_form(operation: SubmitTask) -> None:
    shapes.text("sql", operation.sql, MAX_SQL)
    shapes.text("purpose", operation.purpose, MAX_TEXT)
    shapes.exactly("plan_hash", operation.plan_hash, HASH_BYTES)
    shapes.exactly("result_key", operation.result_key, _RESULT_KEY_BYTES)
    if not 1 <= len(operation.sources) <= MAX_SOURCES:
        raise InvalidInput(f"{len(operation.sources)} sources", hint=f"a task has 1 to {MAX_SOURCES}")
    for source in operation.sources:
        DatasetName.parse(source.dataset)
        check_id(source.token_id)
        shapes.columns(source.columns)
        shapes.operations(source.operations)
    shapes.ascending("sources", [source.dataset for source in operation.sources])
    for institution in operation.committee:
        check_institution(institution)


def _check_source(context: Context, source: TaskSource, purpose: str) -> str:
    """May the sender use this dataset so, for this, now? Returns its publisher."""
    token = tables.TOKENS.get(context.state, source.token_id)
    tokens.check_covers(token, context.sender.id, source, purpose)
    tokens.check_status(token, context.time_ms)
    dataset = published_dataset(context.state, source.dataset)
    if source.version != dataset.version:
        raise Refused(
            f"dataset {source.dataset} is at version {dataset.version}, the task names {source.version}",
            rule="dataset-version",
            hint="plan the query again",
        )
    check_columns(dataset, source.columns)
    check_operations(dataset, source.operations)
    return dataset.publisher


def _check_cohort(context: Context, operation: SubmitTask) -> None:
    """Of what the sources ask for the largest counts (mpc.disclosure): is it what the members decided on since?

    Raises Refused with rule ``policy``.
    """
    state, least = context.state, context.parameters.min_cohort_floor
    asked = [
        max(
            tables.DATASETS.get(state, source.dataset).published.policy.min_cohort,
            tables.TOKENS.get(state, source.token_id).min_cohort,
        )
        for source in operation.sources
    ]
    if max(asked) < least:
        raise Refused(
            f"the task would show groups of {max(asked)} rows, and the members decided on {least} since its tokens "
            "were granted",
            rule="policy",
            hint="ask for access again: a new token keeps to it",
        )


def _check_committee(context: Context, operation: SubmitTask, owners: set[str]) -> None:
    """Size, order, members, owners, threshold. Raises Refused with rule ``committee``."""
    committee, least, most = operation.committee, context.parameters.min_committee, context.parameters.max_committee
    members = [tables.INSTITUTIONS.find(context.state, name) for name in committee]
    if not least <= len(committee) <= most:
        problem = f"{len(committee)} parties: the consortium wants {least} to {most}"
    elif any(a >= b for a, b in pairwise(committee)):
        problem = "the parties are not in ascending order, or one is there twice"
    elif any(member is None or member.status != MEMBER_STATUS_ACTIVE for member in members):
        problem = "a party is no active member"
    elif not owners.issubset(committee):
        problem = f"{min(owners.difference(committee))} brings data but is not a party"
    elif operation.threshold != (len(committee) - 1) // 2:
        problem = f"threshold {operation.threshold}: with {len(committee)} parties it is {(len(committee) - 1) // 2}"
    else:
        return
    raise Refused(f"the committee cannot compute: {problem}", rule="committee", hint="plan the query again")


def _related(task: Task) -> list[str]:
    sources = task.submitted.sources
    return [
        f"person:{task.asker}",
        *(f"dataset:{source.dataset}" for source in sources),
        *(f"token:{source.token_id}" for source in sources),
    ]
