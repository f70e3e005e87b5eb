"""From an operation to its handler, and what a block does once its transactions are done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from governance.permissions import PERMISSIONS, wanted
from koinon.errors import InvalidInput, PermissionRefused
from koinon.v1.consensus_pb2 import Evidence, VoteType
from koinon.v1.transaction_pb2 import Operation
from node.contracts import (
    access,
    accounts,
    applications,
    catalog,
    demand,
    departure,
    disputes,
    exclusion,
    governance,
    identity,
    membership,
    negotiation,
    readings,
    rotation,
    tables,
    tasks,
    unions,
)
from node.contracts.context import Context
from node.contracts.transitions import INSTITUTION

Handler = Callable[[Context, Any], str]
"""Applies one operation and returns the id it created, or ''."""

HANDLERS: dict[str, Handler] = {
    "register_person": identity.register_person,
    "revoke_person": identity.revoke_person,
    "update_endpoints": identity.update_endpoints,
    "rotate_key": rotation.rotate,
    "revoke_key": rotation.revoke,
    "begin_voting": membership.begin_voting,
    "publish_dataset": catalog.publish,
    "withdraw_dataset": catalog.withdraw,
    "verify_dataset": catalog.verify,
    "withdraw_verification": catalog.withdraw_verification,
    "post_demand": demand.post,
    "withdraw_demand": demand.withdraw,
    "request_access": access.request,
    "grant_access": access.grant,
    "deny_access": access.deny,
    "revoke_token": access.revoke,
    "counter_offer": negotiation.counter,
    "accept_offer": negotiation.accept,
    "withdraw_request": negotiation.withdraw,
    "open_dispute": disputes.open_dispute,
    "answer_dispute": disputes.answer,
    "rule_dispute": disputes.rule,
    "withdraw_dispute": disputes.withdraw,
    "submit_task": tasks.submit,
    "accept_task": tasks.accept,
    "complete_task": tasks.complete,
    "fail_task": tasks.fail,
    "cancel_task": tasks.cancel,
    "propose": governance.propose,
    "cast_ballot": governance.cast_ballot,
    "withdraw_proposal": governance.withdraw,
    "apply_for_membership": applications.apply,
    "withdraw_application": applications.withdraw,
    "transfer_points": accounts.transfer_points,
    "define_union": unions.define,
    "set_union_members": unions.set_members,
    "claim_earnings": unions.claim,
    "record_reading": readings.record,
    "give_notice": departure.give_notice,
    "withdraw_notice": departure.withdraw_notice,
    "receive_result": tasks.receive,
}
"""By the name of the operation in ``Operation``'s oneof; every row has one in governance.permissions."""


def execute(context: Context, index: int, operation: Operation) -> str:
    """Apply one operation of a transaction whose sender is in the context. Returns the id it created, or ''.

    On a refusal the state and the records are left half changed: the caller rolls back.

    Raises InvalidInput (with InvalidName), NotFound and Refused (with PermissionRefused), and nothing else.
    """
    name = operation.WhichOneof("operation")
    if name is None:
        raise InvalidInput(f"operation {index} is empty or of a later version", hint="compare versions with the node")
    context.operation, context.operation_index, context.authorised = name, index, False
    if all(permission.role not in context.sender.roles for permission in PERMISSIONS[name]):
        raise PermissionRefused(
            f"{context.sender.id} has no role to {name.replace('_', ' ')}", hint=f"this is for: {wanted(name)}"
        )
    created = HANDLERS[name](context, getattr(operation, name))
    if not context.authorised:
        raise RuntimeError(f"the handler of {name} did not ask who may")  # our own mistake: stop, never apply
    return created


def record_evidence(context: Context, evidence: Evidence) -> None:
    """Put a validator's two conflicting signatures on record, once; the caller verified them."""
    match evidence.WhichOneof("evidence"):
        case "duplicate_vote":
            vote = evidence.duplicate_vote.first
            institution, height, round_ = vote.institution, vote.height, vote.round
            what = VoteType.Name(vote.type).removeprefix("VOTE_TYPE_").lower()
        case "duplicate_proposal":
            proposal = evidence.duplicate_proposal
            institution, height, round_ = proposal.institution, proposal.height, proposal.round
            what = "proposal"
        case _:
            return
    member = tables.INSTITUTIONS.find(context.state, institution)
    key = (institution, f"{height:020d}", f"{round_:010d}", what)
    if member is None or tables.EVIDENCE.contains(context.state, *key):
        return
    tables.EVIDENCE.add(context.state, *key)
    detail = f"signed two {what}s at height {height}, round {round_}"
    context.move(INSTITUTION, institution, member, "evidence.recorded", detail=detail)
    membership.sanction(context, institution, height, detail)


def end_block(context: Context) -> None:
    """What block time brings about: what is over ends, what members decided is done, old ids are forgotten."""
    access.expire_due(context)
    tasks.expire_due(context)
    negotiation.expire_due(context)
    demand.expire_due(context)
    disputes.expire_due(context)
    governance.end_block(context)
    departure.end_block(context)
    exclusion.end_block(context)
    accounts.settle_due(context)
    readings.forget_due(context)
    tables.SEEN.forget_due(context.state, context.time_ms)
