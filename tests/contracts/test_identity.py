"""Identity: registration, rotation, revocation, and where nodes are."""

from __future__ import annotations

import pytest

from koinon.v1.identity_pb2 import (
    ROLE_ANALYST,
    ROLE_NODE,
    ROLE_OPERATOR,
    ROLE_UNSPECIFIED,
    Person,
    RegisterPerson,
    RevokePerson,
    UpdateEndpoints,
)
from tests.contracts.consortium import Consortium, access_request, key, person, publication


def register(name: str, *roles: int, key_name: str = "") -> RegisterPerson:
    return RegisterPerson(person=person(name, *(roles or (ROLE_ANALYST,)), key_name=key_name))  # type: ignore[arg-type]


def test_a_registered_person_can_act(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    assert consortium.refused("iu/new", access_request("um.a.t")) == "unknown-key"
    consortium.do("iu/operator", register("iu/new"))
    consortium.do("iu/new", access_request("um.a.t"))


def test_rotation_replaces_the_key_and_keeps_the_tokens(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    token = consortium.token("um.a.t", "iu/analyst")
    consortium.do("iu/operator", register("iu/analyst", key_name="iu/analyst second"))
    assert consortium.refused("iu/analyst", access_request("um.a.t")) == "revoked-key"
    consortium.do("iu/analyst second", consortium.submission({"um.a.t": token}))
    record = consortium.records()[-3]
    assert (record.kind, record.from_state, record.to_state) == ("person.registered", "active", "active")


def test_a_revoked_person_is_readmitted_with_a_new_key_only(consortium: Consortium) -> None:
    consortium.do("iu/operator", RevokePerson(person_id="iu/analyst", reason="key lost"))
    assert consortium.refused("iu/operator", register("iu/analyst")) == "already-exists"
    consortium.do("iu/operator", register("iu/analyst", key_name="iu/analyst second"))
    assert not consortium.app.person("iu/analyst").revoked


def test_a_key_belongs_to_one_id_for_ever(consortium: Consortium) -> None:
    for taken in ("um/analyst", "um", "iu/operator"):
        assert consortium.refused("iu/operator", register("iu/twin", key_name=taken)) == "already-exists"
    consortium.do("iu/operator", register("iu/analyst", key_name="iu/analyst second"))
    assert consortium.refused("iu/operator", register("iu/twin", key_name="iu/analyst")) == "already-exists"


def test_a_new_key_that_another_member_registers_first_costs_its_owner_a_new_key_and_nothing_else(
    consortium: Consortium,
) -> None:
    """Registration proves no possession. What it takes away is a key that nobody has used; what it gives is nothing."""
    consortium.do("iu/operator", register("iu/squatter", ROLE_OPERATOR, key_name="um/new"))
    record = next(record for record in reversed(consortium.records()) if record.subject == "person:iu/squatter")
    assert (record.kind, record.actor) == ("person.registered", "iu/operator")
    assert consortium.refused("um/operator", register("um/new")) == "already-exists"
    assert consortium.refused("um/new", publication("um.a.t")) == "permission"  # the key counts for iu alone
    consortium.do("um/operator", register("um/new", ROLE_OPERATOR, key_name="um/new second"))
    consortium.do("um/new second", publication("um.a.t"))


def test_an_institution_keeps_an_operator(consortium: Consortium) -> None:
    last = RevokePerson(person_id="iu/operator", reason="leaves")
    assert consortium.refused("iu/operator", last) == "last-operator"
    assert consortium.refused("iu/operator", register("iu/operator", ROLE_ANALYST)) == "last-operator"
    consortium.do("iu/operator", register("iu/second", ROLE_OPERATOR))
    consortium.do("iu/second", last)
    assert consortium.refused("iu/operator", publication("iu.a.t")) == "revoked-key"
    assert consortium.refused("iu/second", RevokePerson(person_id="iu/second", reason="leaves too")) == "last-operator"


def test_revoking_a_person_fails_the_open_tasks(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    token = consortium.token("um.a.t", "iu/analyst")
    task = consortium.do("iu/analyst", consortium.submission({"um.a.t": token}))
    consortium.do("iu/operator", RevokePerson(person_id="iu/analyst", reason="left"))
    ended = consortium.app.task(task)
    assert (ended.rule, ended.ended_by) == ("revoked-key", "iu/operator")
    assert "iu/analyst was revoked: left" in ended.reason
    assert consortium.app.token(token).uses_left == 2


def test_a_second_revocation_is_refused(consortium: Consortium) -> None:
    revocation = RevokePerson(person_id="iu/analyst", reason="left")
    consortium.do("iu/operator", revocation)
    assert consortium.refused("iu/operator", revocation) == "wrong-state"
    assert consortium.refused("iu/operator", RevokePerson(person_id="iu/nobody", reason="who?")) == "not-found"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"id": "iu"}, "invalid-name"),
        ({"id": "iu/Big"}, "invalid-name"),
        ({"id": "iu/a/b"}, "invalid-name"),
        ({"public_key": b"short"}, "invalid-input"),
        ({"roles": []}, "invalid-input"),
        ({"roles": [ROLE_NODE]}, "invalid-input"),
        ({"roles": [ROLE_UNSPECIFIED]}, "invalid-input"),
        ({"roles": [99]}, "invalid-input"),
        ({"roles": [ROLE_ANALYST, ROLE_ANALYST]}, "invalid-input"),
        ({"roles": [ROLE_ANALYST, ROLE_OPERATOR]}, "invalid-input"),  # ascending
        ({"revoked": True}, "invalid-input"),
    ],
)
def test_a_malformed_person_is_refused(consortium: Consortium, change: dict[str, object], rule: str) -> None:
    fields: dict[str, object] = {"id": "iu/new", "public_key": key("iu/new").public_key, "roles": [ROLE_ANALYST]}
    fields |= change
    malformed = Person(**fields)  # type: ignore[arg-type]
    assert consortium.refused("iu/operator", RegisterPerson(person=malformed)) == rule


def test_a_node_moves(consortium: Consortium) -> None:
    moved = UpdateEndpoints(peer_address="node.iu.example:1", rpc_address="[::1]:65535", mpc_address="10.0.0.1:7300")
    for sender in ("iu", "iu/operator"):
        consortium.do(sender, moved)
    assert consortium.app.institution("iu").descriptor.rpc_address == "[::1]:65535"
    assert consortium.app.institution("um").descriptor.rpc_address != "[::1]:65535"
    assert consortium.records()[-1].kind == "institution.moved"


@pytest.mark.parametrize("address", ["", "host", "host:0", "host:65536", ":80", "ho st:80", "host:٣", "-x:1"])
def test_a_node_does_not_move_to_nowhere(consortium: Consortium, address: str) -> None:
    moved = UpdateEndpoints(peer_address="a:1", rpc_address=address, mpc_address="a:2")
    assert consortium.refused("iu", moved) == "invalid-name"


def test_one_place_does_not_serve_two_purposes(consortium: Consortium) -> None:
    moved = UpdateEndpoints(peer_address="a:1", rpc_address="a:1", mpc_address="a:2")
    assert consortium.refused("iu", moved) == "invalid-input"
