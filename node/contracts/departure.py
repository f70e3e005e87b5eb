"""Leaving by one's own will: notice given -> left, at the end of the block that the notice names; or notice withdrawn.

Nobody decides on it, so nobody can keep a member. Only where those who stay could not decide without it (rule
``no-live-quorum``), because some of their nodes are down, say, the notice is refused; and where that is so at its
height, the member stays for ``limits.KEPT_BLOCKS`` more, as often as it takes. One leaves per block, so that several
may name the same height, and where others' powers change in that block, it leaves with the next. Until then the member
is one like all others, and may think again.

Leaving is no way out of anything. What ends with a removal ends. Points in escrow stay there, frozen if disputed, and
disputes go on by their deadlines. Evidence is recorded as before. A suspension, or removal, by the members ends the
notice. And the way back is the same ballot that would readmit, or admit, anybody.
"""

from __future__ import annotations

from functools import partial

from koinon.errors import Refused
from koinon.limits import KEPT_BLOCKS, MAX_NOTICE_BLOCKS, MAX_TEXT, MIN_NOTICE_BLOCKS
from koinon.v1.catalog_pb2 import DATASET_STATUS_PUBLISHED
from koinon.v1.identity_pb2 import GiveNotice, WithdrawNotice
from node.contracts import accounts, keys, membership, shapes, tables, weights
from node.contracts.context import Context
from node.contracts.transitions import INSTITUTION
from node.ledger.state import State


def give_notice(context: Context, operation: GiveNotice) -> str:
    """An operator says that its institution leaves, when, and why."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    state, name = context.state, context.sender.institution
    context.authorise(institution=name)
    check_notice(context, name, operation.height)
    member = tables.INSTITUTIONS.get(state, name)
    detail = f"at height {operation.height}: {operation.reason}"
    context.move(INSTITUTION, name, member, "institution.leaving", detail=detail)
    member.notice.CopyFrom(operation)
    tables.INSTITUTIONS.put(state, name, member)
    tables.DEPARTURES.add(state, operation.height, name.encode())
    return ""


def check_notice(context: Context, institution: str, height: int) -> None:
    """May this active member give notice for that height?

    Raises NotFound, and Refused with rule ``already-exists``, ``notice``, ``no-live-quorum``, ``validator-set`` or
    ``constitution``.
    """
    member = tables.INSTITUTIONS.get(context.state, institution)
    if member.HasField("notice"):
        raise Refused(
            f"{institution} leaves at height {member.notice.height}",
            rule="already-exists",
            hint="nothing to do; or withdraw that notice first: koinon member stay",
        )
    first, last = context.height + MIN_NOTICE_BLOCKS, context.height + MAX_NOTICE_BLOCKS
    if not first <= height <= last:
        raise Refused(
            f"{institution} would leave at height {height}, and this is {context.height}",
            rule="notice",
            hint=f"name a height from {first} to {last}",
        )
    membership.check_without(context, institution)


def withdraw_notice(context: Context, operation: WithdrawNotice) -> str:
    """An operator takes its institution's notice back: it stays."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    state, name = context.state, context.sender.institution
    context.authorise(institution=name)
    member = tables.INSTITUTIONS.get(state, name)
    if not member.HasField("notice"):
        raise Refused(f"{name} has given no notice", rule="wrong-state", hint="nothing to do: it stays")
    context.move(INSTITUTION, name, member, "institution.staying", detail=operation.reason)
    tables.DEPARTURES.remove(state, member.notice.height, name.encode())
    member.ClearField("notice")
    tables.INSTITUTIONS.put(state, name, member)
    return ""


def end_block(context: Context) -> None:
    """Let the member leave whose notice is due, or keep it a little longer. Raises nothing that a block could cause."""
    state = context.state
    for item in tables.DEPARTURES.pop_due(state, context.height, at_most=1):
        name = item.decode()
        refused = membership.attempt(context, partial(membership.leave, context, name))
        if refused is not None:
            member = tables.INSTITUTIONS.get(state, name)
            again = 1 if refused.rule == "set-change" else KEPT_BLOCKS  # others' changes of a moment keep nobody
            member.notice.height = context.height + again
            detail = f"until height {member.notice.height}: {refused.message}"[:MAX_TEXT]
            context.move(INSTITUTION, name, member, "institution.kept", detail=detail)
            tables.INSTITUTIONS.put(state, name, member)
            tables.DEPARTURES.add(state, member.notice.height, item)


def effects(state: State, institution: str, height: int) -> list[str]:
    """What would change, in words, if this institution left at a height and all were as it is now. Raises NotFound."""
    member = tables.INSTITUTIONS.get(state, institution)
    members = weights.of_all(state)
    own = [item for item in tables.DATASETS.scan(state, f"{institution}.") if item.status == DATASET_STATUS_PUBLISHED]
    given = sum(tables.ACTIVE_TOKENS.count(state, item.published.name) for item in own)
    held = sum(
        sum(1 for _ in tables.ACTIVE_TOKENS.under(state, item.published.name, beginning=f"{institution}/"))
        for item in tables.DATASETS.scan(state)
        if item.publisher != institution
    )
    tasks = [tables.TASKS.get(state, task_id.decode()) for _, task_id in tables.TASK_DEADLINES.all(state)]
    concerned = sum(
        task.asker.partition("/")[0] == institution or institution in task.submitted.committee for task in tasks
    )
    people = [account.points for account in tables.ACCOUNTS.scan(state, f"person:{institution}/")]
    points = accounts.balance(state, f"institution:{institution}") + sum(people)
    return [
        f"member {institution}: active -> removed, at height {height}",
        f"power of {institution}: {member.descriptor.power} -> 0, from height {height + keys.VOTES_LATER} on",
        f"ballot weight of {institution}: {members.get(institution, 0)} of {sum(members.values())} -> 0",
        f"its {len(own)} datasets are withdrawn, and {given} tokens for them lapse",
        f"{held} tokens that its people hold lapse, and {concerned} open tasks fail",
        f"its people are revoked; its {points} points stay its own, and nobody can spend them while it is away",
    ]
