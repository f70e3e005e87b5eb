"""The form of a genesis and of institutions' descriptors, and what follows from them: pure, for contracts too.

Files of them are read and written by ``koinon.genesis``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

from nacl.bindings import crypto_core_ed25519_is_valid_point

from koinon import canonical
from koinon import parameters as parameter_rules
from koinon.errors import InvalidFile, InvalidInput, InvalidName
from koinon.keys import PUBLIC_KEY_BYTES
from koinon.limits import MAX_CERTIFICATE_BYTES, MAX_POINTS, MAX_TITLE
from koinon.names import PersonId, check_address, check_institution
from koinon.v1.consensus_pb2 import Validator
from koinon.v1.constitution_pb2 import Constitution
from koinon.v1.identity_pb2 import (
    ROLE_ANALYST,
    ROLE_OPERATOR,
    ROLE_REGULATOR,
    Genesis,
    InstitutionDescriptor,
    Parameters,
)
from koinon.v1.points_pb2 import Account
from koinon.validators import ValidatorSet

DEFAULT_PARAMETERS = parameter_rules.defaults()

_CHAIN_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_PERSON_ROLES = (ROLE_OPERATOR, ROLE_ANALYST, ROLE_REGULATOR)


def join(
    chain_name: str,
    time_ms: int,
    descriptors: Iterable[InstitutionDescriptor],
    parameters: Parameters = DEFAULT_PARAMETERS,
    points: Mapping[str, int] | None = None,
    constitution: Constitution | None = None,
) -> Genesis:
    """The genesis of a consortium of these institutions, in any order; ``points`` by account are there from the start.

    Without a constitution the usual one holds; one that is given was checked (``governance.constitution.check``).
    Raises InvalidFile, duplicates named.
    """
    genesis = Genesis(
        chain_name=chain_name,
        time_ms=time_ms,
        institutions=sorted(descriptors, key=lambda descriptor: descriptor.id),
        parameters=parameters,
        constitution=constitution,
        points=[Account(id=account, points=number) for account, number in sorted((points or {}).items())],
    )
    validate(genesis)
    return genesis


def genesis_bytes(genesis: Genesis) -> bytes:
    """The bytes whose digest names the chain. Same message, same bytes: it has no maps and no unknown fields."""
    return genesis.SerializeToString(deterministic=True)


def genesis_hash(genesis: Genesis) -> bytes:
    """32 bytes that name exactly this genesis."""
    return canonical.genesis_hash(genesis_bytes(genesis))


def chain_id(genesis: Genesis) -> str:
    """Name of the chain that starts here."""
    return canonical.chain_id(genesis.chain_name, genesis_bytes(genesis))


def validators(genesis: Genesis) -> ValidatorSet:
    """Who votes on the first block of a valid genesis."""
    return ValidatorSet.of(
        Validator(institution=item.id, public_key=item.validator_key, power=item.power) for item in genesis.institutions
    )


def validate(genesis: Genesis) -> None:
    """Check a genesis that came from anywhere. Raises InvalidFile, naming what is wrong and whose it is."""
    if not _CHAIN_NAME.fullmatch(genesis.chain_name):
        raise _invalid(
            f"{genesis.chain_name!a} is not a chain name",
            "use at most 32 lower-case letters, digits and hyphens, starting with a letter",
        )
    if genesis.time_ms <= 0:
        raise _invalid("the genesis has no time", "set time_ms, in milliseconds since 1970")
    for descriptor in genesis.institutions:
        validate_descriptor(descriptor)
    for before, after in pairwise(genesis.institutions):
        if before.id == after.id:
            raise _invalid(f"the institution {after.id} occurs twice", "give each institution one descriptor")
        if before.id > after.id:
            raise _invalid(f"{after.id} comes after {before.id}", "list institutions in ascending order of their ids")
    _refuse_shared(genesis.institutions)
    _validate_points(genesis)
    try:
        validators(genesis)  # number, total power
    except InvalidInput as error:
        raise _invalid(error.message, error.hint) from error
    try:
        parameter_rules.check(genesis.parameters)
    except InvalidInput as error:
        raise _invalid(error.message, error.hint) from error


def _validate_points(genesis: Genesis) -> None:
    """Whoever has points from the start is there from the start, is named once, and all points can be counted."""
    known = {f"institution:{item.id}" for item in genesis.institutions} | {"fund:consortium"}
    known |= {f"person:{person.id}" for item in genesis.institutions for person in item.people}
    names = [account.id for account in genesis.points]
    if any(not before < after for before, after in pairwise(names)):
        raise _invalid("accounts with points are not in ascending order, or one occurs twice", "sort them by their ids")
    for account in genesis.points:
        if account.id not in known:
            raise _invalid(
                f"{account.id!a} has points and is nobody's account here",
                "give points to institution:<id> or person:<id> of this genesis, or to fund:consortium",
            )
        if not 0 < account.points <= MAX_POINTS:
            raise _invalid(f"{account.id} has {account.points} points", f"give it 1 to {MAX_POINTS}, or leave it out")
    if sum(account.points for account in genesis.points) > MAX_POINTS:
        raise _invalid("the accounts have too many points together", f"at most {MAX_POINTS} are ever minted")


def validate_descriptor(descriptor: InstitutionDescriptor) -> None:
    """Check one institution's descriptor that came from anywhere. Raises InvalidFile."""
    try:
        check_institution(descriptor.id)
        for address in (descriptor.peer_address, descriptor.rpc_address, descriptor.mpc_address):
            check_address(address)
    except InvalidName as error:
        raise _invalid(f"the descriptor of {descriptor.id!a}: {error.message}", error.hint) from error
    whose = descriptor.id
    if not 1 <= len(descriptor.title) <= MAX_TITLE:
        raise _invalid(f"the title of {whose} must have 1 to {MAX_TITLE} characters", "give it a title")
    check_signing_key(descriptor.validator_key, f"the validator key of {whose}")
    check_signing_key(descriptor.node_key, f"the node key of {whose}")
    if len(descriptor.sealing_key) != PUBLIC_KEY_BYTES:
        raise _invalid(f"the sealing key of {whose} is not {PUBLIC_KEY_BYTES} bytes", _REMAKE)
    check_certificate(descriptor.tls_certificate, whose)
    if descriptor.power < 1:
        raise _invalid(f"{whose} has no voting power", "set power to at least 1")
    _validate_people(descriptor)


_REMAKE = "make the descriptor again with `koinon init`"


def check_signing_key(key: bytes, what: str) -> None:
    """Is this a key that signatures can be verified with? Raises InvalidFile."""
    if len(key) != PUBLIC_KEY_BYTES or not crypto_core_ed25519_is_valid_point(key):
        raise _invalid(f"{what} is not an Ed25519 public key", _REMAKE)


def check_certificate(der: bytes, whose: str) -> None:
    """Bounds and the outermost form only (one DER SEQUENCE): trust in it comes from being pinned here, byte by byte.

    Raises InvalidFile.
    """
    short = len(der) > 2 and der[1] < 0x80 and len(der) == 2 + der[1]
    medium = len(der) > 3 and der[1] == 0x81 and len(der) == 3 + der[2]
    long = len(der) > 4 and der[1] == 0x82 and len(der) == 4 + int.from_bytes(der[2:4], "big")
    if len(der) > MAX_CERTIFICATE_BYTES or der[:1] != b"\x30" or not (short or medium or long):
        raise _invalid(
            f"the TLS certificate of {whose} is not one in DER of at most {MAX_CERTIFICATE_BYTES} bytes", _REMAKE
        )


def _validate_people(descriptor: InstitutionDescriptor) -> None:
    seen: set[str] = set()
    for person in descriptor.people:
        try:
            name = PersonId.parse(person.id)
        except InvalidName as error:
            raise _invalid(error.message, error.hint) from error
        if name.institution != descriptor.id:
            raise _invalid(f"{person.id} is not a person of {descriptor.id}", "an institution registers its own people")
        if person.id in seen:
            raise _invalid(f"the person {person.id} occurs twice", "give each person one entry")
        seen.add(person.id)
        check_signing_key(person.public_key, f"the key of {person.id}")
        roles = list(person.roles)
        if not roles or len(set(roles)) != len(roles) or not set(roles) <= set(_PERSON_ROLES):
            raise _invalid(
                f"the roles of {person.id} do not fit", "use operator, analyst, regulator, each at most once"
            )
        if person.revoked:
            raise _invalid(f"{person.id} is revoked from the start", "leave the person out")
    if not any(ROLE_OPERATOR in person.roles for person in descriptor.people):
        raise _invalid(f"{descriptor.id} has no operator", "register at least one person with the role operator")


def _refuse_shared(institutions: Iterable[InstitutionDescriptor]) -> None:
    """No two may use one key, certificate or address; not even one institution for two purposes."""
    owners: dict[tuple[str, bytes], str] = {}
    for descriptor in institutions:
        claims = [
            ("key", descriptor.validator_key, f"the validator of {descriptor.id}"),
            ("key", descriptor.node_key, f"the node of {descriptor.id}"),
            *(("key", person.public_key, person.id) for person in descriptor.people),
            ("sealing key", descriptor.sealing_key, descriptor.id),
            ("TLS certificate", descriptor.tls_certificate, descriptor.id),
            ("address", descriptor.peer_address.encode(), f"peer_address of {descriptor.id}"),
            ("address", descriptor.rpc_address.encode(), f"rpc_address of {descriptor.id}"),
            ("address", descriptor.mpc_address.encode(), f"mpc_address of {descriptor.id}"),
        ]
        for kind, value, owner in claims:
            other = owners.setdefault((kind, value), owner)
            if other != owner:
                raise _invalid(f"{other} and {owner} have the same {kind}", f"give each a {kind} of its own")


def _invalid(message: str, hint: str) -> InvalidFile:
    return InvalidFile(message, rule="invalid-genesis", hint=hint)
