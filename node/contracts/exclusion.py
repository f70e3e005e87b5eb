"""What is ended for an institution that left or was excluded: a slice per block, so that no block grows without limit.

From the exclusion on nothing of it is of use, long before the last slice: its keys sign for nothing
(``context.sender_of``), its data cannot be asked for or computed with (``policy.published_dataset``), no task with it
is accepted or completed, and no token granted to its people (``policy.check_none_excluded``). It does not come back
before all has ended (``membership``). So nothing new comes behind a slice that is done. Tasks go first, because they
hold uses of tokens.

One block looks at ``limits.MAX_DUE_PER_BLOCK`` items, of all exclusions together, and mostly that is all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, takewhile

from koinon.limits import MAX_DUE_PER_BLOCK
from koinon.v1.catalog_pb2 import DATASET_STATUS_PUBLISHED, Dataset
from koinon.v1.identity_pb2 import Exclusion
from node.contracts import access, applications, demand, governance, identity, tables, tasks, tokens
from node.contracts.context import Context
from node.contracts.transitions import DATASET

Stage = Callable[[Context, Exclusion, int], int]
"""Looks at so many items at most, and says at how many; fewer: nothing is left for it. ``after`` says how far it is."""


def end_block(context: Context) -> None:
    """Go on with what is to be ended. Raises nothing that a block could cause."""
    state, left = context.state, MAX_DUE_PER_BLOCK
    while left and (exclusion := next(tables.EXCLUSIONS.scan(state), None)) is not None:
        context.cause = exclusion.cause
        while left and exclusion.stage < len(STAGES):
            left -= STAGES[exclusion.stage](context, exclusion, left)
            if left:
                exclusion.stage, exclusion.after = exclusion.stage + 1, b""
        if exclusion.stage < len(STAGES):
            tables.EXCLUSIONS.put(state, exclusion.institution, exclusion)
        else:
            tables.EXCLUSIONS.delete(state, exclusion.institution)
    context.cause = ""


def _proposals(context: Context, exclusion: Exclusion, _: int) -> int:
    """What it proposed, and whom it sponsors: few enough for one block (limits.MAX_OPEN_…), so they count as none."""
    governance.recount(context)
    applications.withdraw_of(context, exclusion.institution, exclusion.reason)
    return 0


def _tasks(context: Context, exclusion: Exclusion, most: int) -> int:
    """What its people asked for, or what it computes in. No deadline of these moves any more: none gets behind."""
    schedule, state = tables.TASK_DEADLINES, context.state
    exclusion.until = exclusion.until or schedule.last(state)
    open_then = takewhile(lambda entry: entry[0] <= exclusion.until, schedule.behind(state, exclusion.after))
    found = list(islice(open_then, most))
    for place, task_id in found:
        task = tables.TASKS.get(state, task_id.decode())
        if exclusion.institution in (task.asker.partition("/")[0], *task.submitted.committee):
            tasks.end(context, task, "task.failed", rule=exclusion.rule, reason=exclusion.reason)
        exclusion.after = place
    return len(found)


def _demands(context: Context, exclusion: Exclusion, most: int) -> int:
    return demand.withdraw_of(context, exclusion.institution, exclusion.reason, at_most=most)


def _datasets(context: Context, exclusion: Exclusion, most: int) -> int:
    """Tokens and requests for its data, and those of its people for others'; its data, if it is gone for good."""
    looked = 0
    for dataset in tables.DATASETS.scan(context.state, after=exclusion.after.decode()):
        if looked < most:
            looked += 1 + _access(context, exclusion, dataset, most - looked - 1)
        if looked == most:
            break  # the same again in the next block: something may be left
        exclusion.after = dataset.published.name.encode()
    return looked


def _access(context: Context, exclusion: Exclusion, dataset: Dataset, most: int) -> int:
    state, name, institution = context.state, dataset.published.name, exclusion.institution
    own = dataset.publisher == institution
    whose = "" if own else f"{institution}/"
    requests = list(islice(tables.OPEN_REQUESTS.under(state, name, beginning=whose), most))
    for request_id in requests:
        access.end_request(context, tables.REQUESTS.get(state, request_id), "access.denied", exclusion.reason)
    held = list(islice(tables.ACTIVE_TOKENS.under(state, name, beginning=whose), most - len(requests)))
    given_up = exclusion.by_notice and not own
    for token_id in held:
        token = tables.TOKENS.get(state, token_id)
        tokens.end(context, token, "token.revoked", detail=exclusion.reason, given_up=given_up)
    if own and exclusion.removed and dataset.status == DATASET_STATUS_PUBLISHED:
        related = [f"institution:{institution}"]
        context.move(DATASET, name, dataset, "dataset.withdrawn", related=related, detail=exclusion.reason)
        tables.DATASETS.put(state, name, dataset)
    return len(requests) + len(held)


def _people(context: Context, exclusion: Exclusion, most: int) -> int:
    """Nobody acts for it any more, should it come back: then its new descriptor says who."""
    if not exclusion.removed:
        return 0
    known = tables.PEOPLE.scan(context.state, f"{exclusion.institution}/", after=exclusion.after.decode())
    people = list(islice(known, most))
    for person in people:
        if not person.revoked:
            identity.dismiss(context, person, exclusion.reason)
        exclusion.after = person.id.partition("/")[2].encode()
    return len(people)


STAGES: tuple[Stage, ...] = (_proposals, _tasks, _demands, _datasets, _people)
"""In this order; an exclusion counts them."""
