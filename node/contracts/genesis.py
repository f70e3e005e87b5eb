"""The state that a genesis file makes, at height 0."""

from __future__ import annotations

from governance import constitution
from koinon.v1.identity_pb2 import MEMBER_STATUS_UNSPECIFIED, Genesis, Institution
from node.contracts import accounts, identity, keys, tables
from node.contracts.context import Context
from node.contracts.transitions import INSTITUTION


def apply(context: Context, genesis: Genesis) -> None:
    """Write constitution, parameters, institutions and their people; ``koinon.genesis`` validated all but the first.

    Raises InvalidInput when the genesis brings a constitution that does not hold.
    """
    state = context.state
    tables.PARAMETERS.put(state, "", genesis.parameters)
    chosen = genesis.constitution if genesis.HasField("constitution") else constitution.founding()
    constitution.check(chosen)
    tables.CONSTITUTION.put(state, "", chosen)
    for descriptor in genesis.institutions:
        member = Institution(descriptor=descriptor, status=MEMBER_STATUS_UNSPECIFIED)
        detail = f"node key {descriptor.node_key.hex()}, validator key {descriptor.validator_key.hex()}"
        context.move(INSTITUTION, descriptor.id, member, "institution.joined", detail=detail)
        del member.descriptor.people[:]  # they live in a table of their own
        tables.INSTITUTIONS.put(state, descriptor.id, member)
        for purpose, key in keys.of_descriptor(descriptor):
            keys.register(context, key, descriptor.id, purpose)
    for descriptor in genesis.institutions:
        for person in descriptor.people:
            identity.admit(context, person)
    for account in genesis.points:
        accounts.mint(context, account.id, account.points, "genesis")
