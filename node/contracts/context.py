"""What a handler works with: the state, the block's time, the sender, and the records it leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from governance import permissions
from governance.permissions import Subject
from koinon import canonical
from koinon.errors import InvalidInput, NotFound, PermissionRefused, Refused, Unauthenticated
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.identity_pb2 import (
    MEMBER_STATUS_ACTIVE,
    MEMBER_STATUS_REMOVED,
    ROLE_NODE,
    ROLE_REGULATOR,
    Institution,
    Parameters,
    Person,
    Role,
)
from koinon.v1.points_pb2 import Posting
from koinon.validators import ValidatorSet
from node.contracts import tables
from node.contracts.transitions import Machine, Stateful
from node.ledger.state import State


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose key signed: a person, or an institution's node (whose id is the institution's)."""

    id: str
    institution: str
    roles: Collection[Role.ValueType]


REFUSALS = (InvalidInput, NotFound, Refused, Unauthenticated)
"""What a transaction or an action can be refused with. Other errors are this node's own (its disk, say): were they
taken for refusals, members would differ; so they stop the node."""

THE_LEDGER = Sender("ledger", "", ())
"""The actor of what block time, the genesis or evidence causes."""


@dataclass(slots=True)
class Context:
    """One block's view, narrowed to one operation while a transaction executes.

    ``records`` are the block's so far; whoever rolls back the state truncates them as well.
    """

    state: State
    height: int
    time_ms: int
    first_index: int  # of the audit log: the index of records[0]
    parameters: Parameters
    records: list[AuditRecord] = field(default_factory=list)
    transaction_id: bytes = b""
    sender: Sender = THE_LEDGER
    validators: ValidatorSet = field(default_factory=lambda: ValidatorSet(()))  # who votes on the next height
    operation: str = ""
    operation_index: int = 0
    chain_id: str = ""
    cause: str = ""  # the subject, e.g. a proposal, to which every record made now is related
    authorised: bool = False
    max_fee: int = 0  # points that the transaction's sender agreed to pay in fees, and has not paid yet
    compared: Counter[str] = field(default_factory=Counter)  # by publisher: demands looked at for it in this block

    def authorise(self, *, institution: str = "", person: str = "", parties: Collection[str] = ()) -> None:
        """Ask the permission table whether the sender may perform the operation on this subject.

        Raises PermissionRefused.
        """
        sender = self.sender
        subject = Subject(institution, person, parties)
        if not permissions.allowed(self.operation, sender.id, sender.institution, sender.roles, subject):
            raise PermissionRefused(
                f"{sender.id} may not {self.operation.replace('_', ' ')} here",
                hint=f"this is for: {permissions.wanted(self.operation)}",
            )
        self.authorised = True

    def new_id(self) -> str:
        """The id of what this operation creates."""
        return canonical.created_id(self.transaction_id, self.operation_index)

    def move(
        self,
        machine: Machine,
        subject_id: str,
        subject: Stateful,
        kind: str,
        *,
        related: Sequence[str] = (),
        detail: str = "",
        postings: Sequence[Posting] = (),
    ) -> None:
        """Take a transition and record it. Raises Refused with rule ``wrong-state``."""
        before, after = machine.move(subject_id, subject, kind)
        self.record(
            kind,
            f"{machine.subject}:{subject_id}",
            before,
            after,
            related=related,
            detail=detail,
            postings=postings,
        )

    def record(
        self,
        kind: str,
        subject: str,
        before: str,
        after: str,
        *,
        related: Sequence[str] = (),
        detail: str = "",
        postings: Sequence[Posting] = (),
    ) -> None:
        """Append an audit record; only ``move`` and the machines without a status field call this."""
        self.records.append(
            AuditRecord(
                index=self.first_index + len(self.records),
                height=self.height,
                time_ms=self.time_ms,
                transaction_id=self.transaction_id,
                kind=kind,
                actor=self.sender.id,
                subject=subject,
                related=[*related, self.cause] if self.cause and self.cause != subject else related,
                from_state=before,
                to_state=after,
                detail=detail,
                postings=postings,
            )
        )


def sender_of(state: State, public_key: bytes, *, reads: bool = False) -> Sender:
    """Who signs with this key now. Who only ``reads`` may be of a suspended institution.

    Raises Unauthenticated with rule ``unknown-key``, ``revoked-key``, ``member-suspended`` or ``member-removed``.
    """
    owner = tables.KEY_OWNERS.find(state, public_key)
    if owner is None:
        raise Unauthenticated(
            "the key belongs to no registered person or node",
            rule="unknown-key",
            hint="ask an operator of your institution to register it",
        )
    institution = tables.INSTITUTIONS.data(state, owner.partition("/")[0])
    return _sender(public_key, owner, institution or b"", tables.PEOPLE.data(state, owner) or b"", reads)


@lru_cache(maxsize=10_000)  # asked several times for every transaction; pure, so nothing has to be forgotten
def _sender(public_key: bytes, owner: str, institution_data: bytes, person_data: bytes, reads: bool) -> Sender:
    """The sender that these entries make. Raises Unauthenticated."""
    institution_id = owner.partition("/")[0]
    institution, person = Institution.FromString(institution_data), Person.FromString(person_data)
    roles: tuple[Role.ValueType, ...]
    if owner == institution_id:
        current, roles = institution.descriptor.node_key == public_key, (ROLE_NODE,)
    else:
        current, roles = person.public_key == public_key and not person.revoked, tuple(person.roles)
    if institution.status == MEMBER_STATUS_REMOVED:
        raise Unauthenticated(
            f"{institution_id} is no member any more", rule="member-removed", hint="it may apply again"
        )
    if not current:
        raise Unauthenticated(
            f"the key of {owner} was revoked or replaced", rule="revoked-key", hint="use the key registered last"
        )
    if not institution_data:  # of an authority outside, registered by a ballot (governance.actions)
        return Sender(owner, institution_id, tuple(role for role in roles if role == ROLE_REGULATOR))
    if institution.status != MEMBER_STATUS_ACTIVE and not reads:
        raise Unauthenticated(
            f"{institution_id} is suspended", rule="member-suspended", hint="the members decide when it may return"
        )
    return Sender(owner, institution_id, roles)
