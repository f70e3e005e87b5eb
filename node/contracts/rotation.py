"""Rotation and revocation of keys: one transaction each, in force at a defined height, old signatures accountable.

Nobody proves to hold a new key: see ``identity`` for why that costs nothing. A validator key counts from two blocks
after its transaction; the old one signs until then. A new certificate is let in at once, and the old one beside it,
until it is revoked or a third comes, CERTIFICATE_BLOCKS later at the earliest: so a node that has not heard of its own
rotation yet can still be told.
"""

from __future__ import annotations

import hashlib

from koinon import genesis_form
from koinon.errors import InvalidInput, Refused
from koinon.limits import CERTIFICATE_BLOCKS, MAX_NEW_VALIDATOR_KEYS, MAX_TEXT, NEW_VALIDATOR_KEYS_BLOCKS
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_NODE,
    KEY_PURPOSE_PERSON,
    KEY_PURPOSE_SEALING,
    KEY_PURPOSE_TLS,
    KEY_PURPOSE_VALIDATOR,
    Institution,
    KeyPurpose,
    Person,
    RevokeKey,
    RotateKey,
)
from node.contracts import identity, keys, membership, shapes, tables
from node.contracts.context import Context
from node.contracts.transitions import INSTITUTION

_KEY_BYTES = 32
_FIELDS: dict[KeyPurpose.ValueType, str] = {
    KEY_PURPOSE_VALIDATOR: "validator_key",
    KEY_PURPOSE_NODE: "node_key",
    KEY_PURPOSE_SEALING: "sealing_key",
    KEY_PURPOSE_TLS: "tls_certificate",
}


def rotate(context: Context, operation: RotateKey) -> str:
    """An operator gives its institution a new key, or a person itself one."""
    sender = context.sender
    if operation.purpose == KEY_PURPOSE_PERSON:
        context.authorise(institution=sender.institution, person=sender.id)
        person = tables.PEOPLE.get(context.state, sender.id)
        shapes.exactly("key", operation.key, _KEY_BYTES)
        identity.admit(context, Person(id=person.id, public_key=operation.key, roles=person.roles))
        return ""
    context.authorise(institution=sender.institution)
    field = _field(operation.purpose)
    if operation.purpose == KEY_PURPOSE_TLS:
        genesis_form.check_certificate(operation.key, sender.institution)
    elif operation.purpose == KEY_PURPOSE_SEALING:
        shapes.exactly("key", operation.key, _KEY_BYTES)
    else:
        genesis_form.check_signing_key(operation.key, f"the new {keys.name(operation.purpose)} key")
    member = tables.INSTITUTIONS.get(context.state, sender.institution)
    descriptor = member.descriptor
    old, new = getattr(descriptor, field), _recorded(operation.purpose, operation.key)
    if operation.purpose == KEY_PURPOSE_VALIDATOR:
        _check_number(context, descriptor.id)
    if operation.purpose == KEY_PURPOSE_TLS:
        _check_age(context, old)
        _end_former(context, member, "rotated")
        member.former_tls_certificate = old
    else:
        keys.end(context, old, "rotated")
    keys.register(context, new, descriptor.id, operation.purpose)
    setattr(descriptor, field, operation.key)
    detail = f"{keys.name(operation.purpose)} key {new.hex()}"
    context.move(INSTITUTION, descriptor.id, member, "key.rotated", detail=detail)
    tables.INSTITUTIONS.put(context.state, descriptor.id, member)
    return ""


def revoke(context: Context, operation: RevokeKey) -> str:
    """An operator ends a key of its institution before there is another; without a validator key it observes."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    context.authorise(institution=context.sender.institution)
    field = _field(operation.purpose)
    member = tables.INSTITUTIONS.get(context.state, context.sender.institution)
    descriptor = member.descriptor
    if operation.purpose == KEY_PURPOSE_TLS:
        key = _end_former(context, member, operation.reason)
    else:
        key = getattr(descriptor, field)
        keys.end(context, key, operation.reason)
        setattr(descriptor, field, b"")
    if not key:
        raise Refused(
            f"{descriptor.id} has no {keys.name(operation.purpose)} key that could be revoked",
            rule="wrong-state",
            hint="a certificate in use is rotated first: without one nobody could connect",
        )
    detail = f"{keys.name(operation.purpose)} key {key.hex()}: {operation.reason}"
    context.move(INSTITUTION, descriptor.id, member, "key.revoked", detail=detail)
    if operation.purpose == KEY_PURPOSE_VALIDATOR:
        member.approved_power = max(member.approved_power, descriptor.power)
        descriptor.power = 0
    tables.INSTITUTIONS.put(context.state, descriptor.id, member)
    membership.check_set(context)
    return ""


def _field(purpose: KeyPurpose.ValueType) -> str:
    if purpose not in _FIELDS:
        raise InvalidInput(
            "this is no key of an institution", hint="name its validator, node or sealing key, or its certificate"
        )
    return _FIELDS[purpose]


def _check_number(context: Context, institution: str) -> None:
    """With every new key the way from the genesis to any header grows: one member must not make it endless."""
    records = keys.validator_keys(context.state, institution)
    named = [item.from_height for item in records if item.from_height > 1]
    if len(named) < MAX_NEW_VALIDATOR_KEYS:
        return
    since = named[-MAX_NEW_VALIDATOR_KEYS]
    free_at = since + NEW_VALIDATOR_KEYS_BLOCKS
    if context.height < free_at:
        raise Refused(
            f"{institution} has had {MAX_NEW_VALIDATOR_KEYS} new validator keys since block {since}",
            rule="validator-keys",
            hint=f"rotate it again from block {free_at} on; one that was stolen can be revoked at any time",
        )


def _check_age(context: Context, certificate: bytes) -> None:
    """All nodes make their ports anew to let a new certificate in: one member must not have them do it all the time.

    Founders' certificates may be rotated from the first block on.
    """
    named_at = tables.KEYS.get(context.state, _recorded(KEY_PURPOSE_TLS, certificate).hex()).from_height
    if named_at > 1 and context.height < (free_at := named_at + CERTIFICATE_BLOCKS):
        raise Refused(
            f"the certificate is in force since block {named_at}",
            rule="certificate-blocks",
            hint=f"rotate it again from block {free_at} on",
        )


def _end_former(context: Context, member: Institution, reason: str) -> bytes:
    """Let the certificate before the present one in no more; its SHA-256, or nothing where there is none."""
    if not member.former_tls_certificate:
        return b""
    former = _recorded(KEY_PURPOSE_TLS, member.former_tls_certificate)
    keys.end(context, former, reason)
    member.ClearField("former_tls_certificate")
    return former


def _recorded(purpose: KeyPurpose.ValueType, key: bytes) -> bytes:
    return hashlib.sha256(key).digest() if purpose == KEY_PURPOSE_TLS else key
