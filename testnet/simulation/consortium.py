"""Members of simulated consortia: their keys, made from their names, and the genesis they agreed on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

from koinon import genesis as genesis_file
from koinon import parameters
from koinon.keys import SigningKey
from koinon.v1.identity_pb2 import ROLE_ANALYST, ROLE_OPERATOR, Genesis, InstitutionDescriptor, Person, Role
from testnet.simulation.world import START_MS

OPERATOR, ANALYST = "operator", "analyst"
VALIDATOR_KEYS = 4  # of each institution
NODE_KEYS = 3
FUND_BP, TASK_FEE = 500, 3


@cache
def key(name: str) -> SigningKey:
    """The key of a node ('v0'), a validator ('v0 validator') or a person ('v0/analyst')."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


def validator_key(institution: str, number: int) -> SigningKey:
    """The key that it begins with (0), or one of those that it may rotate to; a node holds them all."""
    return key(f"{institution} validator" + (f" {number}" if number else ""))


def node_key_name(institution: str, number: int) -> str:
    """The name of the key that its node begins with (0), or of one that it may rotate to."""
    return institution + (f" node {number}" if number else "")


def person(name: str, *roles: Role.ValueType, key_name: str = "") -> Person:
    return Person(id=name, public_key=key(key_name or name).public_key, roles=roles)


def descriptor(name: str, number: int, power: int, people: Sequence[Person]) -> InstitutionDescriptor:
    """An institution with keys made from its name; ``number`` makes its addresses its own."""
    return InstitutionDescriptor(
        id=name,
        title=name.upper(),
        validator_key=key(f"{name} validator").public_key,
        node_key=key(name).public_key,
        sealing_key=hashlib.sha256(f"{name} sealing".encode()).digest(),
        tls_certificate=b"\x30\x20" + hashlib.sha256(f"{name} certificate".encode()).digest(),
        peer_address=f"127.0.0.1:{7000 + number}",
        rpc_address=f"127.0.0.1:{7100 + number}",
        mpc_address=f"127.0.0.1:{7200 + number}",
        power=power,
        people=people,
    )


@cache
def member(number: int, power: int) -> InstitutionDescriptor:
    """Of member v0, v1, …, with an operator and an analyst."""
    name = f"v{number}"
    people = [person(f"{name}/{OPERATOR}", ROLE_OPERATOR), person(f"{name}/{ANALYST}", ROLE_ANALYST)]
    return descriptor(name, number, power, people)


@cache
def genesis(powers: Sequence[int], retention_ms: int = 0) -> Genesis:
    """Of the members v0, v1, … with these powers. Windows are short, so that deadlines pass within a run.

    ``retention_ms``: for how long they demand whole blocks.
    """
    chosen = parameters.defaults()
    chosen.accept_window_ms = 2_000
    chosen.run_window_ms = 4_000
    chosen.heartbeat_ms = 3_000
    members = [member(number, power) for number, power in enumerate(powers)]
    chosen.computing_share_bp, chosen.coordinator_share_bp, chosen.fund_share_bp = 1_001, 333, FUND_BP
    chosen.settlement_delay_ms = 1_000
    chosen.task_fee, chosen.request_fee = TASK_FEE, 1
    chosen.block_retention_ms = retention_ms
    budgets = {f"person:{member.id}/{ANALYST}": 1_000 for member in members}
    return genesis_file.join("sim", START_MS, members, chosen, budgets)
