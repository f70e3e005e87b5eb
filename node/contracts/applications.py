"""Applications for membership: open -> admitted | withdrawn.

A would-be member has no key that the ledger knows, and its descriptor is a file that anyone may write. So an operator
of a member hands it in and sponsors it by name, and strangers cannot fill the ledger. Who is admitted, and with which
keys, a proposal says by itself: an application replaced meanwhile changes nothing about what members decide on.
"""

from __future__ import annotations

from koinon.errors import Refused
from koinon.limits import MAX_OPEN_APPLICATIONS, MAX_TEXT
from koinon.names import PersonId, check_institution
from koinon.v1.governance_pb2 import (
    Application,
    ApplyForMembership,
    WithdrawApplication,
)
from koinon.v1.identity_pb2 import MEMBER_STATUS_REMOVED
from node.contracts import keys, membership, shapes, tables
from node.contracts.context import Context
from node.contracts.transitions import APPLICATION


def apply(context: Context, operation: ApplyForMembership) -> str:
    """An operator hands in a would-be member's descriptor. Returns the applicant's id."""
    shapes.text("motivation", operation.motivation, MAX_TEXT)
    membership.check_descriptor(operation.descriptor)
    context.authorise()
    state, name, sponsor = context.state, operation.descriptor.id, context.sender.institution
    member = tables.INSTITUTIONS.find(state, name)
    if member is not None and member.status != MEMBER_STATUS_REMOVED:
        raise Refused(f"{name} is a member", rule="already-exists", hint="koinon member list shows who is")
    open_count = tables.OPEN_APPLICATIONS.count_under(state, sponsor, at_most=MAX_OPEN_APPLICATIONS)
    if open_count >= MAX_OPEN_APPLICATIONS:
        raise Refused(
            f"{sponsor} sponsors {MAX_OPEN_APPLICATIONS} open applications", rule="too-many", hint="withdraw some"
        )
    application = tables.APPLICATIONS.find(state, name) or Application()
    application.descriptor.CopyFrom(operation.descriptor)
    application.motivation, application.sponsor = operation.motivation, context.sender.id
    application.applied_at_ms = context.time_ms
    context.move(APPLICATION, name, application, "application.made", related=_related(application))
    tables.APPLICATIONS.put(state, name, application)
    tables.OPEN_APPLICATIONS.add(state, sponsor, name)
    keys.reserve(state, keys.all_of_descriptor(application.descriptor), f"application:{name}")
    return name


def withdraw(context: Context, operation: WithdrawApplication) -> str:
    """An operator of the sponsor takes an application back."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    application = tables.APPLICATIONS.get(context.state, check_institution(operation.institution))
    context.authorise(institution=PersonId.parse(application.sponsor).institution)
    end(context, application, "application.withdrawn", operation.reason)
    return ""


def withdraw_of(context: Context, sponsor: str, reason: str) -> None:
    """An application does not wait for a sponsor who is gone: another one may hand it in."""
    for name in list(tables.OPEN_APPLICATIONS.under(context.state, sponsor)):
        end(context, tables.APPLICATIONS.get(context.state, name), "application.withdrawn", reason)


def end(context: Context, application: Application, kind: str, detail: str = "") -> None:
    """End an open application. Raises Refused with rule ``wrong-state``."""
    name = application.descriptor.id
    context.move(APPLICATION, name, application, kind, related=_related(application), detail=detail)
    tables.APPLICATIONS.put(context.state, name, application)
    tables.OPEN_APPLICATIONS.remove(context.state, PersonId.parse(application.sponsor).institution, name)
    keys.release(context.state, keys.all_of_descriptor(application.descriptor), f"application:{name}")


def _related(application: Application) -> list[str]:
    return [f"institution:{application.descriptor.id}", f"person:{application.sponsor}"]
