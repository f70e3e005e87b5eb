"""Making an institution's home: keys, certificate, people, and the public descriptor of them all.

The same code serves `koinon init` and the local test network, so that a rehearsal differs from the
real thing in nothing but the addresses and the missing passphrase.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from koinon import files, genesis, key_files
from koinon.errors import InvalidFile
from koinon.keys import SealingKey, SigningKey
from koinon.names import PersonId, check_institution
from koinon.v1.identity_pb2 import InstitutionDescriptor, Person, Role
from node import config, tls
from node.config import Address, Home, NodeConfig
from node.journal import Journal
from node.store.wal import FileWal

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The three ports of a node: where others reach them, or what the machine binds."""

    rpc: Address
    peer: Address
    mpc: Address


def create(
    home: Home,
    institution: str,
    title: str,
    endpoints: Endpoints,
    *,
    listen: Endpoints | None = None,
    people: Mapping[str, Sequence[Role.ValueType]] | None = None,
    passphrase: str | None,
) -> InstitutionDescriptor:
    """Make a new home and return its public descriptor, which is also written to ``descriptor.json``.

    Args:
        home: a directory that holds no node yet.
        endpoints: what the descriptor tells the others.
        listen: what the machine binds, where that differs from the endpoints.
        people: names (without the institution) and roles; one operator when not given.
        passphrase: encrypts every key; None leaves them in clear, for test networks only.

    Raises:
        InvalidName: the institution or a person's name is not well formed.
        InvalidFile: the home exists, or cannot be written. What was written before stays.
        Exhausted: the disk is full.
    """
    check_institution(institution)
    if home.config.exists() or home.key("validator").exists():
        raise InvalidFile(
            f"{home.path} is already the home of a node",
            rule="already-exists",
            hint="its keys would be lost: choose another --home, or move the directory away",
        )
    files.make_private(home.path, "home")
    validator, node, sealing = SigningKey.generate(), SigningKey.generate(), SealingKey.generate()
    for name, key in (("validator", validator), ("node", node), ("sealing", sealing)):
        key_files.save(home.key(name), key, passphrase)
    wal = FileWal(home.wal)
    Journal.create(wal, validator.public_key)  # signing state is born with the key
    wal.close()
    identity = tls.create_identity(institution)
    files.write_new(home.certificate, identity.certificate.decode("ascii"), "TLS certificate")
    files.write_new(home.certificate_key, identity.key.decode("ascii"), "TLS key", private=True)

    persons = []
    for name, roles in sorted((people or {OPERATOR: [Role.ROLE_OPERATOR]}).items()):
        person = PersonId.parse(f"{institution}/{name}")
        key = SigningKey.generate()
        key_files.save(home.people / f"{name}.key", key, passphrase)
        files.write_new(home.people / f"{name}.toml", profile(person, endpoints.rpc), "profile")
        persons.append(Person(id=str(person), public_key=key.public_key, roles=roles))

    descriptor = InstitutionDescriptor(
        id=institution,
        title=title,
        validator_key=validator.public_key,
        node_key=node.public_key,
        sealing_key=sealing.public_key,
        tls_certificate=tls.pem_to_der(identity.certificate),
        rpc_address=str(endpoints.rpc),
        peer_address=str(endpoints.peer),
        mpc_address=str(endpoints.mpc),
        power=1,
        people=persons,
    )
    genesis.save_descriptor(home.descriptor, descriptor)

    bound = listen or endpoints
    settings = NodeConfig(home, institution, bound.rpc, bound.peer, bound.mpc)
    files.write_new(home.config, config.render(settings), "configuration")  # last: a home without it is no home
    return descriptor


def profile(person: PersonId, rpc: Address) -> str:
    """The client profile of someone made with the home; its paths start from HOME/people."""
    fields = {
        "institution": person.institution,
        "person": str(person),
        "key_file": f"{person.name}.key",
        "rpc_address": str(rpc),
        "node_certificate": "../tls/certificate.pem",
        "genesis": "../genesis.json",
    }
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
