"""What members can decide: the actions of a proposal, and the form of each.

Form only: whether an institution exists or a height is still ahead is seen when the proposal is executed
(``node.contracts.actions``). All input is hostile; each check raises InvalidInput (with InvalidName) and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from governance import taxonomy
from koinon import genesis_form
from koinon.canonical import HASH_BYTES
from koinon.errors import InvalidInput
from koinon.keys import PUBLIC_KEY_BYTES
from koinon.limits import (
    MAX_BALLOT_WEIGHT,
    MAX_FEATURES,
    MAX_KEYWORD,
    MAX_POINTS,
    MAX_TEXT,
    MAX_TITLE,
)
from koinon.names import UNPRINTABLE, PersonId, check_id, check_institution
from koinon.parameters import PARAMETERS
from koinon.v1.dispute_pb2 import REMEDY_SUSPENSION
from koinon.v1.governance_pb2 import (
    Action,
    AdmitInstitution,
    AssertMemberStatus,
    Propose,
    RecoverInstitution,
    ScheduleUpgrade,
)
from koinon.v1.identity_pb2 import ROLE_REGULATOR, MemberStatus

_PRECONDITION = "assert_"

ACTIONS = tuple(field.name for field in Action.DESCRIPTOR.oneofs_by_name["action"].fields)
"""Names of all actions, preconditions included."""

DECIDED = tuple(sorted(name for name in ACTIONS if not name.startswith(_PRECONDITION)))
"""Names of the actions that change something, and may have a policy of their own."""


def kinds_of(proposal: Propose) -> list[str]:
    """Names of the proposal's actions, preconditions included, in order."""
    return [action.WhichOneof("action") or "" for action in proposal.actions]


def effective(proposal: Propose) -> list[str]:
    """Names of those that change something; ``suspend``, too, where a dispute is resolved so: it takes as much."""
    kinds = [kind for kind in kinds_of(proposal) if not kind.startswith(_PRECONDITION)]
    if any(REMEDY_SUSPENSION in action.resolve_dispute.remedies for action in proposal.actions):
        kinds.append("suspend")
    return kinds


def check(action: Action) -> None:
    """Check the form of one action. Raises InvalidInput."""
    kind = action.WhichOneof("action")
    if kind is None:
        raise InvalidInput("an action is empty or of a later version", hint="compare versions with the node")
    content = getattr(action, kind)
    for field in content.DESCRIPTOR.fields:  # what a field is called says what it is
        if field.name in _FIELDS:
            _FIELDS[field.name](getattr(content, field.name))
    if kind in _FURTHER:
        _FURTHER[kind](content)


def check_text(field: str, value: str, limit: int) -> None:
    """Free text of 1 to ``limit`` characters, public to members."""
    if not 1 <= len(value) <= limit:
        raise InvalidInput(
            f"{field} has {len(value)} characters",
            hint=f"say something in 1 to {limit} characters; members can read it",
        )
    if UNPRINTABLE.search(value):
        raise InvalidInput(f"{field} has control characters", hint="use plain text")


def _between(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput(f"{field} is {value}", hint=f"use {least} to {most}")


def _key(key: bytes) -> None:
    if len(key) != PUBLIC_KEY_BYTES:
        raise InvalidInput(f"a public key has {len(key)} bytes", hint=f"exactly {PUBLIC_KEY_BYTES} are expected")


_FIELDS: dict[str, Callable[[Any], object]] = {
    "institution": check_institution,
    "person_id": PersonId.parse,
    "dispute_id": check_id,
    "reason": lambda value: check_text("reason", value, MAX_TEXT),
    "install": lambda value: check_text("install", value, MAX_TEXT),
    "account": lambda value: check_text("account", value, MAX_TITLE),
    "points": lambda value: _between("points", value, 1, MAX_POINTS),
    "weight": lambda value: _between("weight", value, 0, MAX_BALLOT_WEIGHT),
    "public_key": _key,
    "version": lambda value: _between("version", value, 1, 2**32 - 1),
}


def _admission(action: AdmitInstitution) -> None:
    genesis_form.validate_descriptor(action.descriptor)
    if action.descriptor.id != action.institution:
        raise InvalidInput(
            f"the descriptor is of {action.descriptor.id[:MAX_TITLE]!a}, not of {action.institution}",
            hint="name the institution that the descriptor names",
        )


def _parameter(action: Any) -> None:
    if action.name not in PARAMETERS:
        raise InvalidInput(
            f"there is no parameter {action.name[:MAX_TITLE]!a}",
            rule="parameters",
            hint=f"use one of {', '.join(PARAMETERS)}",
        )


def _parameter_value(action: Any) -> None:
    _parameter(action)
    bounds = PARAMETERS[action.name]
    if not bounds.least <= action.value <= bounds.most:
        raise InvalidInput(
            f"the parameter {action.name} would be {action.value}",
            rule="parameters",
            hint=f"choose a value from {bounds.least} to {bounds.most}: {bounds.reason}",
        )


def _regulator(action: Any) -> None:
    PersonId.parse(action.person.id)
    _key(action.person.public_key)
    if list(action.person.roles) != [ROLE_REGULATOR]:
        raise InvalidInput(f"{action.person.id} has other roles", hint="give the role regulator, and no other")


def _upgrade(action: ScheduleUpgrade) -> None:
    if len(action.features) > MAX_FEATURES:
        raise InvalidInput(f"{len(action.features)} features", hint=f"at most {MAX_FEATURES} are allowed")
    for feature in action.features:
        check_text("a feature", feature, MAX_KEYWORD)
    if any(before >= after for before, after in pairwise(action.features)):
        raise InvalidInput("features are not in ascending order, or one is there twice", hint="sort them")


def _recovery(action: RecoverInstitution) -> None:
    if PersonId.parse(action.person_id).institution != action.institution:
        raise InvalidInput(f"{action.person_id} is not of {action.institution}", hint="name one of its own people")


def _status(action: AssertMemberStatus) -> None:
    if action.status not in MemberStatus.values():
        raise InvalidInput(f"{action.status} is no status of a member", hint="compare versions with the node")


def _digest(action: Any) -> None:
    if len(action.digest) != HASH_BYTES:
        raise InvalidInput(
            f"the digest of a constitution has {HASH_BYTES} bytes", hint="koinon gov constitution shows today's"
        )


_FURTHER: dict[str, Callable[[Any], None]] = {
    "admit": _admission,
    "set_parameter": _parameter_value,
    "assert_parameter": _parameter,
    "assert_member_status": _status,
    "assert_constitution": _digest,
    "register_regulator": _regulator,
    "schedule_upgrade": _upgrade,
    "recover": _recovery,
    "set_taxonomy": lambda action: taxonomy.check(action.taxonomy),
}
