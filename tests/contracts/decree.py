"""Membership decided by decree: what governance does with an accepted proposal, without the ballots."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

from koinon.errors import InvalidInput, NotFound, Refused
from koinon.v1.identity_pb2 import ROLE_ANALYST, ROLE_OPERATOR, InstitutionDescriptor
from node.contracts import membership, operations
from node.contracts.context import Context
from tests.contracts.consortium import Consortium, key, person

Action = Callable[[Context], None]


def decree(consortium: Consortium, *actions: Action) -> str:
    """Apply these, all or none, at the end of a block of their own; the rule that refused them, or ''."""
    refused = ""

    def end_block(context: Context) -> None:
        nonlocal refused
        records = len(context.records)
        context.state.savepoint()
        try:
            for action in actions:
                action(context)
        except (InvalidInput, NotFound, Refused) as error:
            refused = error.rule
            context.state.rollback()
            del context.records[records:]
        else:
            context.state.release()
        operations.end_block(context)

    with patch("node.application.end_block", end_block):
        consortium.decide()
    return refused


def descriptor(name: str, number: int) -> InstitutionDescriptor:
    """What an applicant hands in; ``number`` makes its keys and addresses its own.

    Its people's keys have their usual names for numbers below 100: whoever comes back needs others.
    """
    again = f" {number}" if number >= 100 else ""
    return InstitutionDescriptor(
        id=name,
        title=name.upper(),
        validator_key=key(f"{name} validator {number}").public_key,
        node_key=key(f"{name} node {number}").public_key,
        sealing_key=hashlib.sha256(f"{name} sealing {number}".encode()).digest(),
        tls_certificate=b"\x30\x20" + hashlib.sha256(f"{name} certificate {number}".encode()).digest(),
        peer_address=f"127.0.0.1:{8000 + number}",
        rpc_address=f"127.0.0.1:{8200 + number}",
        mpc_address=f"127.0.0.1:{8400 + number}",
        power=1,
        people=[
            person(f"{name}/operator", ROLE_OPERATOR, key_name=f"{name}/operator{again}"),
            person(f"{name}/analyst", ROLE_ANALYST, key_name=f"{name}/analyst{again}"),
        ],
    )


def admit(name: str, number: int = 0, power: int = 1) -> Action:
    return partial(membership.admit, descriptor=descriptor(name, number), power=power)


def set_power(institution: str, power: int) -> Action:
    return partial(membership.set_power, institution=institution, power=power)


def suspend(institution: str) -> Action:
    return partial(membership.suspend, institution=institution, reason="broke the rules")


def readmit(institution: str) -> Action:
    return partial(membership.readmit, institution=institution)


def remove(institution: str) -> Action:
    return partial(membership.remove, institution=institution, reason="left the study")


def recover(institution: str, person_id: str, key_name: str) -> Action:
    return partial(
        membership.recover, institution=institution, person_id=person_id, public_key=key(key_name).public_key
    )
