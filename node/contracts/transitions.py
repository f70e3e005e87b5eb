"""State machines of everything the contracts manage, as data.

One table per kind of subject: audit kind -> {state before: state after}. The audit kind *is* the event,
so that no transition can happen without its record, and no record without its transition. The empty
state is "does not exist yet"; a pair that is not listed is refused with rule ``wrong-state``.

``task.running``, ``task.completed`` and ``token.used_up`` follow at once on the event that made the last
condition true, as records of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.descriptor import EnumDescriptor

from koinon.errors import Refused
from koinon.v1.access_pb2 import AccessRequest, RequestStatus, Token, TokenStatus
from koinon.v1.catalog_pb2 import Dataset, DatasetStatus
from koinon.v1.demand_pb2 import Demand, DemandStatus
from koinon.v1.dispute_pb2 import Dispute, DisputeStatus
from koinon.v1.governance_pb2 import (
    Application,
    ApplicationStatus,
    GovernanceProposal,
    ProposalStatus,
    Upgrade,
    UpgradeStatus,
)
from koinon.v1.identity_pb2 import Institution, MemberStatus
from koinon.v1.points_pb2 import Escrow, EscrowStatus
from koinon.v1.task_pb2 import Task, TaskStatus

Stateful = (
    Institution
    | Dataset
    | AccessRequest
    | Token
    | Task
    | Demand
    | Dispute
    | Escrow
    | GovernanceProposal
    | Application
    | Upgrade
)


@dataclass(frozen=True)
class Machine:
    """The states and transitions of one kind of subject; ``names`` maps the wire's enum to states."""

    subject: str
    transitions: Mapping[str, Mapping[str, str]]
    names: Mapping[int, str]

    def after(self, subject_id: str, state: str, kind: str) -> str:
        """The state that ``kind`` leads to from ``state``. Raises Refused with rule ``wrong-state``."""
        after = self.transitions[kind].get(state)
        if after is None:
            allowed = " or ".join(sorted(before or "new" for before in self.transitions[kind]))
            raise Refused(
                f"{self.subject} {subject_id} is {state or 'new'}",
                rule="wrong-state",
                hint=f"{kind} is possible only while it is {allowed}",
            )
        return after

    def move(self, subject_id: str, subject: Stateful, kind: str) -> tuple[str, str]:
        """Take the transition: set ``subject.status`` and return the states before and after.

        Raises Refused with rule ``wrong-state``, and leaves the subject as it was.
        """
        before = self.names[subject.status]
        after = self.after(subject_id, before, kind)
        _assign_status(subject, self._numbers[after])
        return before, after

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in self.names.items()}


def _assign_status(subject: Any, status: int) -> None:  # the five enums share no type
    subject.status = status


def _names(enum: EnumDescriptor, prefix: str) -> dict[int, str]:
    """States by enum number: TASK_STATUS_RUNNING is 'running', and UNSPECIFIED is the empty state."""
    names = {value.number: value.name.removeprefix(prefix).lower() for value in enum.values}
    return names | {0: ""}


INSTITUTION = Machine(
    "institution",
    {
        "institution.joined": {"": "active", "removed": "active"},
        "institution.moved": {"active": "active"},
        "institution.empowered": {"active": "active"},
        "institution.suspended": {"active": "suspended"},
        "institution.readmitted": {"suspended": "active"},
        "institution.removed": {"active": "removed", "suspended": "removed"},
        "institution.leaving": {"active": "active"},  # by its own notice
        "institution.staying": {"active": "active"},  # it was withdrawn
        "institution.kept": {"active": "active"},  # a while longer, because the others could not decide now
        "institution.left": {"active": "removed"},
        "institution.spared": {"active": "active"},  # evidence suspends, unless the others could not decide then
        "evidence.recorded": {"active": "active", "suspended": "suspended", "removed": "removed"},
        "key.rotated": {"active": "active"},
        "key.revoked": {"active": "active"},
    },
    _names(MemberStatus.DESCRIPTOR, "MEMBER_STATUS_"),
)

# A Person carries `revoked` in place of a status. Registering anew replaces roles or key (rotation), and
# readmits one whose key was revoked: the id stays accountable for every key it ever had.
PERSON = Machine(
    "person",
    {
        "person.registered": {"": "active", "active": "active", "revoked": "active"},
        "person.revoked": {"active": "revoked"},
    },
    {},
)

DATASET = Machine(
    "dataset",
    {
        "dataset.published": {"": "published", "published": "published", "withdrawn": "published"},
        "dataset.withdrawn": {"published": "withdrawn"},
        "dataset.verified": {"published": "published"},
        "dataset.unverified": {"published": "published", "withdrawn": "withdrawn"},  # by whoever verified it
    },
    _names(DatasetStatus.DESCRIPTOR, "DATASET_STATUS_"),
)

REQUEST = Machine(
    "request",
    {
        "access.requested": {"": "open"},
        "access.countered": {"open": "countered", "countered": "countered"},  # by the publisher
        "access.revised": {"open": "open", "countered": "open"},  # by the requester
        "access.granted": {"open": "granted", "countered": "granted"},
        "access.denied": {"open": "denied", "countered": "denied"},
        "access.withdrawn": {"open": "withdrawn", "countered": "withdrawn"},
        "access.expired": {"open": "expired", "countered": "expired"},
    },
    _names(RequestStatus.DESCRIPTOR, "REQUEST_STATUS_"),
)

TOKEN = Machine(
    "token",
    {
        "token.granted": {"": "active"},
        "token.used": {"active": "active"},  # one use reserved by a task
        "token.returned": {"active": "active", "expired": "expired", "revoked": "revoked"},  # the task did not run
        "token.used_up": {"active": "used_up"},
        "token.expired": {"active": "expired"},
        "token.revoked": {"active": "revoked"},
    },
    _names(TokenStatus.DESCRIPTOR, "TOKEN_STATUS_"),
)

TASK = Machine(
    "task",
    {
        "task.submitted": {"": "submitted"},
        "task.accepted": {"submitted": "submitted"},
        "task.running": {"submitted": "running"},
        "task.reported": {"running": "running"},
        "task.completed": {"running": "completed"},
        "task.received": {"completed": "completed"},  # its asker opened the result
        "task.failed": {"submitted": "failed", "running": "failed"},
        "task.cancelled": {"submitted": "cancelled", "running": "cancelled"},
        "task.expired": {"submitted": "expired", "running": "expired"},
    },
    _names(TaskStatus.DESCRIPTOR, "TASK_STATUS_"),
)

# A taxonomy has no status: there is one, and it changes.
TAXONOMY = Machine("taxonomy", {"taxonomy.changed": {"": "active", "active": "active"}}, {})

DEMAND = Machine(
    "demand",
    {
        "demand.posted": {"": "open"},
        "demand.matched": {"open": "open"},
        "demand.priced_out": {"open": "open"},  # all but its price would match
        "demand.withdrawn": {"open": "withdrawn"},
        "demand.expired": {"open": "expired"},
    },
    _names(DemandStatus.DESCRIPTOR, "DEMAND_STATUS_"),
)

DISPUTE = Machine(
    "dispute",
    {
        "dispute.opened": {"": "open"},
        "dispute.answered": {"open": "arbitration"},
        "dispute.unanswered": {"open": "arbitration"},  # the respondent's time is over
        "dispute.ruled": {"arbitration": "arbitration"},  # by one arbiter
        "dispute.decided": {"open": "decided", "arbitration": "decided"},
        "dispute.withdrawn": {"open": "withdrawn", "arbitration": "withdrawn"},
    },
    _names(DisputeStatus.DESCRIPTOR, "DISPUTE_STATUS_"),
)

# An account has no states of its own: what moves are its points, and each record holds the postings.
ACCOUNT = Machine(
    "account",
    {
        "points.minted": {"": ""},
        "points.burned": {"": ""},
        "points.transferred": {"": ""},
        "points.claimed": {"": ""},  # by a member of a data union
        "points.charged": {"": ""},  # a fee, to the fund
    },
    {},
)

ESCROW = Machine(
    "escrow",
    {
        "escrow.held": {"": "held"},
        "escrow.frozen": {"held": "frozen"},  # by a dispute
        "escrow.thawed": {"frozen": "held"},
        "escrow.settled": {"held": "settled", "frozen": "settled"},
        "escrow.refunded": {"held": "refunded", "frozen": "refunded"},
    },
    _names(EscrowStatus.DESCRIPTOR, "ESCROW_STATUS_"),
)

# A data union has no status: it lasts, also without members, so that what it earned is never without an owner.
UNION = Machine(
    "union",
    {
        "union.defined": {"": "open", "open": "open"},
        "union.members_set": {"open": "open"},
    },
    {},
)

PROPOSAL = Machine(
    "proposal",
    {
        "proposal.made": {"": "open"},
        "ballot.cast": {"open": "open"},  # an institution's first
        "ballot.replaced": {"open": "open"},
        "proposal.accepted": {"open": "accepted"},  # and waits for its delay, if it has one
        "proposal.rejected": {"open": "rejected"},
        "proposal.expired": {"open": "expired"},  # too few took part in time
        "proposal.withdrawn": {"open": "withdrawn"},
        "proposal.dropped": {"open": "dropped", "accepted": "dropped"},  # its rules changed, or its proposer is gone
        "proposal.postponed": {"accepted": "accepted"},  # by a block, because others' powers change in this one
        "proposal.executed": {"accepted": "executed"},
        "proposal.failed": {"accepted": "failed"},  # an action was refused: none was applied
    },
    _names(ProposalStatus.DESCRIPTOR, "PROPOSAL_STATUS_"),
)

APPLICATION = Machine(
    "application",
    {
        "application.made": {"": "open", "withdrawn": "open", "admitted": "open"},
        "application.withdrawn": {"open": "withdrawn"},
        "application.admitted": {"open": "admitted"},
    },
    _names(ApplicationStatus.DESCRIPTOR, "APPLICATION_STATUS_"),
)

UPGRADE = Machine(
    "upgrade",
    {
        "upgrade.scheduled": {"": "scheduled", "cancelled": "scheduled"},
        "upgrade.cancelled": {"scheduled": "cancelled"},
        "upgrade.active": {"scheduled": "active"},  # from the next block on
    },
    _names(UpgradeStatus.DESCRIPTOR, "UPGRADE_STATUS_"),
)

# What the members set together has no states: records hold what it was and what it is.
CONSORTIUM = Machine(
    "consortium",
    {
        "parameter.changed": {"": ""},
        "weight.changed": {"": ""},
        "constitution.changed": {"": ""},
    },
    {},
)

# What a regulator read. It has no later: the entry is forgotten, the record stays.
READING = Machine("reading", {"audit.read": {"": "recorded"}}, {})

MACHINES: tuple[Machine, ...] = (
    INSTITUTION,
    PERSON,
    DATASET,
    REQUEST,
    TOKEN,
    TASK,
    TAXONOMY,
    DEMAND,
    DISPUTE,
    ACCOUNT,
    ESCROW,
    UNION,
    PROPOSAL,
    APPLICATION,
    UPGRADE,
    CONSORTIUM,
    READING,
)
