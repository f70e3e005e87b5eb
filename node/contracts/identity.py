"""Identity: people, their keys and roles, and where institutions' nodes are reached.

Registering an id again replaces its key or roles (rotation), and readmits a person whose key was revoked. A key
belongs to one id for ever, so that old signatures stay accountable. Tokens are held by the id: rotation keeps them,
and while a person is revoked nobody can use them. Devices are registered, rotated and revoked like people; an id stays
what it was registered as, a person or a device.

A registration is vouched for by the operator who signs it, and proves no possession of the key. So an operator of
another institution that sees a new key before it is registered can register it first, for a person of its own. That
gains nothing, since nobody there can sign with it; the key's owner makes another one; and the ledger names who did it.
Keys that the members decide on are reserved meanwhile (``keys.reserve``), because another one takes another ballot.
Keys unique per institution would cost more: a signature could mean two people.
"""

from __future__ import annotations

from governance.permissions import is_device
from koinon.errors import Refused
from koinon.limits import MAX_TEXT
from koinon.names import PersonId
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_PERSON,
    ROLE_OPERATOR,
    InstitutionDescriptor,
    Person,
    RegisterPerson,
    RevokePerson,
    Role,
    UpdateEndpoints,
)
from node.contracts import keys, shapes, tables, tasks
from node.contracts.context import Context
from node.contracts.transitions import INSTITUTION, PERSON


def register_person(context: Context, operation: RegisterPerson) -> str:
    """An operator registers a person of its institution, or gives one a new key or other roles."""
    person = operation.person
    institution = shapes.person(person).institution
    context.authorise(institution=institution)
    known = tables.PEOPLE.find(context.state, person.id)
    if known and ROLE_OPERATOR in known.roles and not known.revoked and ROLE_OPERATOR not in person.roles:
        _require_other_operator(context, person.id)
    admit(context, person)
    return ""


def admit(context: Context, person: Person) -> None:
    """Write a person whose form was checked.

    Raises Refused with rule ``already-exists`` for a key in use, or the id of a device for a person, or the reverse.
    """
    state = context.state
    known = tables.PEOPLE.find(state, person.id)
    if known is not None and any(is_device([role]) != is_device(known.roles) for role in person.roles):
        raise Refused(
            f"{person.id} was registered as a {'device' if is_device(known.roles) else 'person'}",
            rule="already-exists",
            hint="give people and devices names of their own: what either did stays theirs",
        )
    before = "" if known is None else _state(known)
    owner = tables.KEY_OWNERS.find(state, person.public_key)
    kept = known is not None and known.public_key == person.public_key and not known.revoked
    if owner is not None and not kept:
        raise Refused(
            f"the key of {person.id} was registered before, for {owner}",
            rule="already-exists",
            hint="make a new key: one that was ever registered stays with whom it was registered for",
        )
    roles = ", ".join(Role.Name(role).removeprefix("ROLE_").lower() for role in person.roles)
    after = PERSON.after(person.id, before, "person.registered")
    detail = f"{roles}; key {person.public_key.hex()}"
    context.record("person.registered", f"person:{person.id}", before, after, related=_related(person), detail=detail)
    tables.PEOPLE.put(state, person.id, person)
    if not kept:
        if known is not None:
            keys.end(context, known.public_key, "rotated")
        keys.register(context, person.public_key, person.id, KEY_PURPOSE_PERSON)
    (tables.OPERATORS.add if ROLE_OPERATOR in person.roles else tables.OPERATORS.remove)(state, *_operator_key(person))


def revoke_person(context: Context, operation: RevokePerson) -> str:
    """An operator revokes a person's key; the person's open tasks fail."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    institution = PersonId.parse(operation.person_id).institution
    context.authorise(institution=institution)
    revoke(context, tables.PEOPLE.get(context.state, operation.person_id), operation.reason)
    return ""


def revoke(context: Context, person: Person, reason: str) -> None:
    """Refuse everything new from a person. Raises Refused with rule ``wrong-state`` or ``last-operator``."""
    PERSON.after(person.id, _state(person), "person.revoked")
    if ROLE_OPERATOR in person.roles:
        _require_other_operator(context, person.id)
    dismiss(context, person, reason)


def dismiss(context: Context, person: Person, reason: str) -> None:
    """Refuse everything new from a person that is not revoked yet, the last operator included."""
    state, before = context.state, _state(person)
    after = PERSON.after(person.id, before, "person.revoked")
    context.record("person.revoked", f"person:{person.id}", before, after, related=_related(person), detail=reason)
    person.revoked = True
    tables.PEOPLE.put(state, person.id, person)
    keys.end(context, person.public_key, reason)
    tables.OPERATORS.remove(state, *_operator_key(person))
    tasks.fail_of_asker(context, person.id, "revoked-key", f"{person.id} was revoked: {reason}")


def update_endpoints(context: Context, operation: UpdateEndpoints) -> str:
    """An institution's node moved: its operator, or the node itself, says where to."""
    shapes.addresses(operation.peer_address, operation.rpc_address, operation.mpc_address)
    institution_id = context.sender.institution
    context.authorise(institution=institution_id)
    institution = tables.INSTITUTIONS.get(context.state, institution_id)
    descriptor = institution.descriptor
    descriptor.peer_address = operation.peer_address
    descriptor.rpc_address = operation.rpc_address
    descriptor.mpc_address = operation.mpc_address
    context.move(INSTITUTION, institution_id, institution, "institution.moved", detail=_places(descriptor))
    tables.INSTITUTIONS.put(context.state, institution_id, institution)
    return ""


def _require_other_operator(context: Context, person_id: str) -> None:
    """Raises Refused with rule ``last-operator``: nobody could ever act for the institution again."""
    institution = person_id.partition("/")[0]
    if tables.OPERATORS.count_under(context.state, institution, at_most=2) < 2:
        raise Refused(
            f"{person_id} is the last operator of {institution}",
            rule="last-operator",
            hint="register another operator first",
        )


def _state(person: Person) -> str:
    return "revoked" if person.revoked else "active"


def _operator_key(person: Person) -> tuple[str, str]:
    name = PersonId.parse(person.id)
    return name.institution, name.name


def _related(person: Person) -> list[str]:
    return [f"institution:{person.id.partition('/')[0]}"]


def _places(descriptor: InstitutionDescriptor) -> str:
    return f"peer {descriptor.peer_address}, rpc {descriptor.rpc_address}, mpc {descriptor.mpc_address}"
