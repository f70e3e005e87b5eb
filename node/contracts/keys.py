"""Keys: whose each one is and was, from which height to which; rotation and revocation of an institution's own.

A key belongs to one owner for ever, so that old signatures stay accountable. A validator key counts from two blocks
after it was named, like every change of validators; all others from the next block on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from koinon.errors import Refused
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_NODE,
    KEY_PURPOSE_PERSON,
    KEY_PURPOSE_SEALING,
    KEY_PURPOSE_TLS,
    KEY_PURPOSE_VALIDATOR,
    Institution,
    InstitutionDescriptor,
    KeyPurpose,
    KeyRecord,
)
from node.contracts import tables
from node.contracts.context import Context
from node.ledger.state import State

_SIGN_TRANSACTIONS = (KEY_PURPOSE_NODE, KEY_PURPOSE_PERSON)
VOTES_LATER = 2  # blocks between a change of validators and its effect


def of_descriptor(descriptor: InstitutionDescriptor) -> list[tuple[KeyPurpose.ValueType, bytes]]:
    """An institution's keys, 32 bytes each; of the certificate its SHA-256."""
    return [
        (KEY_PURPOSE_VALIDATOR, descriptor.validator_key),
        (KEY_PURPOSE_NODE, descriptor.node_key),
        (KEY_PURPOSE_SEALING, descriptor.sealing_key),
        (KEY_PURPOSE_TLS, hashlib.sha256(descriptor.tls_certificate).digest()),
    ]


def all_of_descriptor(descriptor: InstitutionDescriptor) -> list[bytes]:
    """These, and its people's."""
    return [*(key for _, key in of_descriptor(descriptor)), *(person.public_key for person in descriptor.people)]


def reserve(state: State, keys: Iterable[bytes], by: str) -> None:
    """Keep keys that a proposal or an application names for what the members decide.

    They are public long before they are registered: whoever registered them first would veto the decision.
    """
    for key in keys:
        tables.RESERVED_KEYS.add(state, key.hex(), by)


def release(state: State, keys: Iterable[bytes], by: str) -> None:
    """What named them is over."""
    for key in keys:
        tables.RESERVED_KEYS.remove(state, key.hex(), by)


def register(context: Context, key: bytes, owner: str, purpose: KeyPurpose.ValueType) -> None:
    """Put a new key under its owner's name.

    Raises Refused with rule ``already-exists`` for one ever used, or reserved while no decision is being executed.
    """
    state = context.state
    if not context.cause and (by := next(tables.RESERVED_KEYS.under(state, key.hex()), None)) is not None:
        raise Refused(
            f"the {name(purpose)} key of {owner} is named by {by}",
            rule="already-exists",
            hint="make a new key, or wait until that is decided",
        )
    if (before := tables.KEYS.find(state, key.hex())) is not None:
        raise Refused(
            f"the {name(purpose)} key of {owner} was registered before, for {before.owner}",
            rule="already-exists",
            hint="make a new key: one that was ever registered stays with whom it was registered for",
        )
    if purpose in _SIGN_TRANSACTIONS:
        tables.KEY_OWNERS.put(state, key, owner)
    record = KeyRecord(key=key, owner=owner, purpose=purpose, from_height=_counts_from(context, purpose))
    tables.KEYS.put(state, key.hex(), record)
    tables.OWNER_KEYS.add(state, owner, f"{context.height:020d}{key.hex()}")
    if purpose == KEY_PURPOSE_VALIDATOR:
        tables.VALIDATOR_KEYS.add(state, owner, f"{context.height:020d}{key.hex()}")


def end(context: Context, key: bytes, reason: str) -> None:
    """The key counts no more; its record says since when, and why."""
    record = tables.KEYS.find(context.state, key.hex())
    if record is not None and not record.until_height:
        record.until_height = _counts_from(context, record.purpose)
        record.end = reason
        tables.KEYS.put(context.state, key.hex(), record)


def end_all(context: Context, member: Institution, reason: str) -> None:
    """None of an institution's own keys counts any more; earlier ones have ended before."""
    former = hashlib.sha256(member.former_tls_certificate).digest()
    for key in (*(key for _, key in of_descriptor(member.descriptor)), former):
        end(context, key, reason)


def of_owner(state: State, owner: str) -> Iterator[KeyRecord]:
    """Every key that an institution, or a person, ever had; oldest first."""
    return (tables.KEYS.get(state, entry[20:]) for entry in tables.OWNER_KEYS.under(state, owner))


def validator_keys(state: State, institution: str) -> Iterator[KeyRecord]:
    """Every validator key that an institution ever had, oldest first: few, however many others it makes."""
    return (tables.KEYS.get(state, entry[20:]) for entry in tables.VALIDATOR_KEYS.under(state, institution))


def validator_key(state: State, institution: str, height: int) -> bytes | None:
    """With which key this institution voted at a height, if it did."""
    for record in validator_keys(state, institution):
        if record.from_height <= height and not 0 < record.until_height <= height:
            return record.key
    return None


def _counts_from(context: Context, purpose: KeyPurpose.ValueType) -> int:
    if not context.height:
        return 1  # the genesis'
    return context.height + (VOTES_LATER if purpose == KEY_PURPOSE_VALIDATOR else 1)


def name(purpose: KeyPurpose.ValueType) -> str:
    """'validator', for messages."""
    return KeyPurpose.Name(purpose).removeprefix("KEY_PURPOSE_").lower()
