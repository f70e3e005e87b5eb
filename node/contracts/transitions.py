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
from koinon.v1.identity_pb2 import Institution, MemberStatus
from koinon.v1.task_pb2 import Task, TaskStatus

Stateful = Institution | Dataset | AccessRequest | Token | Task


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
        "institution.joined": {"": "active"},
        "institution.moved": {"active": "active"},
        "evidence.recorded": {"active": "active", "suspended": "suspended"},
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
    },
    _names(DatasetStatus.DESCRIPTOR, "DATASET_STATUS_"),
)

REQUEST = Machine(
    "request",
    {
        "access.requested": {"": "open"},
        "access.granted": {"open": "granted"},
        "access.denied": {"open": "denied"},
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
        "task.failed": {"submitted": "failed", "running": "failed"},
        "task.cancelled": {"submitted": "cancelled", "running": "cancelled"},
        "task.expired": {"submitted": "expired", "running": "expired"},
    },
    _names(TaskStatus.DESCRIPTOR, "TASK_STATUS_"),
)

MACHINES: tuple[Machine, ...] = (INSTITUTION, PERSON, DATASET, REQUEST, TOKEN, TASK)
