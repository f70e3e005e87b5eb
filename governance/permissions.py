"""Who may do what: the one table.

An operation is allowed when one of its permissions fits: the sender holds the role, and stands in the
relation to the subject. A regulator appears for its own key, and for saying what it reads: reading itself is
no operation, and everything else here writes.

Devices are machines with a key of their own: what runs unattended, and may be stolen as a whole. Their roles are those
of ``DEVICE_ROLES``, of which a person has none: they repeat what people decided, and agree to nothing new.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from koinon.v1.identity_pb2 import (
    ROLE_ANALYST,
    ROLE_FEEDER,
    ROLE_GATEWAY,
    ROLE_NODE,
    ROLE_OPERATOR,
    ROLE_REGULATOR,
    Role,
)

PERSON_ROLES = (ROLE_OPERATOR, ROLE_ANALYST, ROLE_REGULATOR)
DEVICE_ROLES = (ROLE_GATEWAY, ROLE_FEEDER)


def is_device(roles: Collection[int]) -> bool:
    """Are these a device's roles? A person with a device's role is one, too, and refused (node.contracts.identity)."""
    return any(role in DEVICE_ROLES for role in roles)


class Relation(Enum):
    """How the sender must stand to what the operation acts on; in words that follow a role."""

    MEMBER = "of any member"
    INSTITUTION = "of the institution concerned"  # the publisher, the person's, or the asker's
    PERSON = "who is the person concerned"  # the holder or the asker
    PARTY = "of a member of the committee"
    OUTSIDER = "of another institution than the one concerned"
    SIDE = "of a side of the token or task"
    ARBITER = "of an arbiter of the dispute"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose the subject of an operation is; a field that does not apply stays empty and fits nobody."""

    institution: str = ""
    person: str = ""
    parties: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Permission:
    """One way to be allowed."""

    role: Role.ValueType
    relation: Relation

    def fits(self, sender: str, institution: str, roles: Collection[int], subject: Subject) -> bool:
        """Does a sender (its id, its institution, its roles) have this permission over the subject?"""
        if self.role not in roles:
            return False
        match self.relation:
            case Relation.MEMBER:
                return True
            case Relation.INSTITUTION:
                return institution == subject.institution
            case Relation.PERSON:
                return sender == subject.person
            case Relation.PARTY | Relation.SIDE | Relation.ARBITER:
                return institution in subject.parties
            case Relation.OUTSIDER:
                return bool(subject.institution) and institution != subject.institution

    def __str__(self) -> str:
        return f"{Role.Name(self.role).removeprefix('ROLE_').lower()} {self.relation.value}"


_OPERATOR = Permission(ROLE_OPERATOR, Relation.INSTITUTION)
_ANALYST = Permission(ROLE_ANALYST, Relation.MEMBER)
_CONCERNED = Permission(ROLE_ANALYST, Relation.PERSON)
_OPERATOR_CONCERNED = Permission(ROLE_OPERATOR, Relation.PERSON)
_GATEWAY = Permission(ROLE_GATEWAY, Relation.MEMBER)
_GATEWAY_CONCERNED = Permission(ROLE_GATEWAY, Relation.PERSON)
_PARTY = Permission(ROLE_NODE, Relation.PARTY)
_VERIFIER = Permission(ROLE_OPERATOR, Relation.OUTSIDER)
_SIDE = Permission(ROLE_OPERATOR, Relation.SIDE)
_MEMBER = Permission(ROLE_OPERATOR, Relation.MEMBER)

PERMISSIONS: dict[str, tuple[Permission, ...]] = {
    # operation              who
    "register_person": (_OPERATOR,),
    "revoke_person": (_OPERATOR,),
    "update_endpoints": (_OPERATOR, Permission(ROLE_NODE, Relation.INSTITUTION)),
    "rotate_key": (  # or each one's own
        _OPERATOR,
        *(Permission(role, Relation.PERSON) for role in (ROLE_ANALYST, ROLE_REGULATOR, *DEVICE_ROLES)),
    ),
    "revoke_key": (_OPERATOR,),
    "begin_voting": (_OPERATOR, Permission(ROLE_NODE, Relation.INSTITUTION)),
    "publish_dataset": (_OPERATOR, Permission(ROLE_FEEDER, Relation.INSTITUTION)),
    "withdraw_dataset": (_OPERATOR,),
    "verify_dataset": (_VERIFIER,),
    "withdraw_verification": (_VERIFIER,),
    "post_demand": (_ANALYST,),
    "withdraw_demand": (_CONCERNED, _OPERATOR),  # who posted it, or its institution
    "request_access": (_ANALYST, _GATEWAY),
    "grant_access": (_OPERATOR,),
    "deny_access": (_OPERATOR,),
    "revoke_token": (_OPERATOR, _CONCERNED),  # the publisher takes it back, or the holder gives it up
    "counter_offer": (_OPERATOR, _CONCERNED),  # the publisher, or the requester
    "accept_offer": (_CONCERNED,),
    "withdraw_request": (_CONCERNED, _GATEWAY_CONCERNED),
    "open_dispute": (_SIDE, _CONCERNED),  # either side of the token or task, or the holder or asker
    "answer_dispute": (_OPERATOR, _CONCERNED),  # the respondent, or the holder or asker there
    "rule_dispute": (Permission(ROLE_OPERATOR, Relation.ARBITER),),
    "withdraw_dispute": (_OPERATOR, _CONCERNED),  # the claimant
    "submit_task": (_ANALYST, _GATEWAY),
    "accept_task": (_PARTY,),
    "complete_task": (_PARTY,),
    "fail_task": (_PARTY,),
    "cancel_task": (_CONCERNED, _GATEWAY_CONCERNED, _OPERATOR),  # the asker, or its own institution
    "propose": (_MEMBER,),
    "cast_ballot": (_MEMBER,),  # its own institution's
    "withdraw_proposal": (_OPERATOR,),  # of the institution that proposed
    "apply_for_membership": (_MEMBER,),  # as sponsor
    "withdraw_application": (_OPERATOR,),  # of the sponsor
    "transfer_points": (
        _CONCERNED,
        _OPERATOR_CONCERNED,
        _OPERATOR,
    ),  # whose account it is, or for the institution's and its devices'
    "define_union": (_OPERATOR,),
    "set_union_members": (_CONCERNED, _OPERATOR_CONCERNED, _OPERATOR),  # its administrator, or the founding institution
    "claim_earnings": (_CONCERNED, _OPERATOR_CONCERNED, _OPERATOR),  # the member; a device's operators
    "record_reading": (Permission(ROLE_REGULATOR, Relation.MEMBER),),
    "give_notice": (_OPERATOR,),  # each for its own
    "withdraw_notice": (_OPERATOR,),
    "receive_result": (_CONCERNED, _GATEWAY_CONCERNED),  # the asker
}
"""By the name of the operation in ``Operation``'s oneof (transaction.proto)."""


def allowed(operation: str, sender: str, institution: str, roles: Collection[int], subject: Subject) -> bool:
    """May this sender perform the operation on the subject? An operation without a row is nobody's."""
    return any(permission.fits(sender, institution, roles, subject) for permission in PERMISSIONS.get(operation, ()))


def wanted(operation: str) -> str:
    """Who may perform the operation, in words: 'operator of the institution concerned'."""
    return " or ".join(str(permission) for permission in PERMISSIONS[operation])
