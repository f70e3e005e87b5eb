"""Devices: machines with a key of their own, which repeat what people decided and agree to nothing new."""

from __future__ import annotations

from typing import Any

import pytest

from koinon.v1.access_pb2 import REQUEST_STATUS_WITHDRAWN, CounterOffer, WithdrawRequest
from koinon.v1.catalog_pb2 import AccessPolicy, WithdrawDataset
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_PERSON,
    ROLE_ANALYST,
    ROLE_FEEDER,
    ROLE_GATEWAY,
    ROLE_NODE,
    ROLE_OPERATOR,
    RegisterPerson,
    RevokePerson,
    Role,
    RotateKey,
)
from koinon.v1.points_pb2 import (
    PRICE_UNIT_USE,
    Account,
    ClaimEarnings,
    DefineUnion,
    Price,
    SetUnionMembers,
    TransferPoints,
    UnionMember,
)
from koinon.v1.task_pb2 import TASK_STATUS_CANCELLED, TASK_STATUS_FAILED, CancelTask
from tests.contracts.consortium import Consortium, access_request, genesis, key, person, publication, receive
from tests.contracts.test_negotiation import offer

DATA, GATEWAY, FEEDER = "iu.a.t", "um/gateway", "iu/feeder"
ACCOUNT = f"person:{GATEWAY}"


def register(name: str, *roles: Role.ValueType, key_name: str = "") -> RegisterPerson:
    return RegisterPerson(person=person(name, *roles, key_name=key_name))


@pytest.fixture
def consortium() -> Consortium:
    """um has a gateway and iu a feeder."""
    start = genesis()
    start.points.append(Account(id="institution:um", points=100))
    made = Consortium(genesis=start)
    made.do("um/operator", register(GATEWAY, ROLE_GATEWAY))
    made.do("iu/operator", register(FEEDER, ROLE_FEEDER))
    made.publish(DATA)
    return made


def submitted(consortium: Consortium, token: str) -> str:
    return consortium.do(GATEWAY, consortium.submission({DATA: token}))


def test_a_gateway_asks_with_tokens_of_its_own(consortium: Consortium) -> None:
    token = consortium.token(DATA, GATEWAY)
    task = submitted(consortium, token)
    consortium.accept_all(task)
    consortium.complete_all(task)
    consortium.do(GATEWAY, receive(task, "case", "iu", "um"))
    assert consortium.app.task(task).received_at_ms
    cancelled = submitted(consortium, token)
    consortium.do(GATEWAY, CancelTask(task_id=cancelled))
    assert consortium.app.task(cancelled).status == TASK_STATUS_CANCELLED
    foreign = consortium.token(DATA, "um/analyst")
    assert consortium.refused(GATEWAY, consortium.submission({DATA: foreign})) == "token-holder"


def test_a_gateway_agrees_to_nothing_that_it_was_not_told_to_ask_for(consortium: Consortium) -> None:
    consortium.publish("iu.a.review", auto=False)
    request = consortium.do(GATEWAY, access_request("iu.a.review"))
    consortium.do("iu/operator", offer(request))
    counter: CounterOffer = offer(request)
    assert consortium.refused(GATEWAY, counter) == "permission"
    consortium.do(GATEWAY, WithdrawRequest(request_id=request))
    assert consortium.app.request(request).status == REQUEST_STATUS_WITHDRAWN


def test_what_a_gateway_may_spend_is_given_and_taken_by_operators(consortium: Consortium) -> None:
    consortium.do("iu/operator", publication("iu.a.dear", price=Price(unit=PRICE_UNIT_USE, points=10)))
    token = consortium.token("iu.a.dear", GATEWAY)
    task = consortium.submission({"iu.a.dear": token})
    task.max_price = 10
    assert consortium.refused(GATEWAY, task) == "insufficient-points"
    consortium.do("um/operator", TransferPoints(source="institution:um", target=ACCOUNT, points=30, reason="a month"))
    consortium.do(GATEWAY, task)
    back = TransferPoints(source=ACCOUNT, target="institution:um", points=20, reason="unspent")
    for nobody in (GATEWAY, "iu/operator", "um/analyst"):
        assert consortium.refused(nobody, back) == "permission"
    consortium.do("um/operator", RevokePerson(person_id=GATEWAY, reason="stolen"))
    consortium.do("um/operator", back)
    theirs = TransferPoints(source="person:um/analyst", target="institution:um", points=1, reason="mine")
    assert consortium.refused("um/operator", theirs) == "permission", "a person's points are nobody else's"


def test_what_a_device_earns_in_a_union_is_claimed_by_operators(consortium: Consortium) -> None:
    """It agrees to nothing itself, and nobody else could: it would stay in the union for ever."""
    consortium.do("um/operator", DefineUnion(name="crew", title="Crew", administrator="um/analyst"))
    everybody = SetUnionMembers(union="crew", members=[UnionMember(account=ACCOUNT, weight=1)])
    gift = TransferPoints(source="institution:um", target="union:crew", points=10, reason="earned")
    consortium.do("um/operator", everybody, gift)
    claim = ClaimEarnings(union="crew", account=ACCOUNT)
    assert consortium.refused(GATEWAY, claim) == "permission"
    assert consortium.refused("iu/operator", claim) == "permission"
    consortium.do("um/operator", claim)
    assert consortium.app.account(ACCOUNT).points == 10


def test_a_feeder_brings_new_content_and_nothing_else(consortium: Consortium) -> None:
    fresh = publication(DATA, row_count=320, commitment=b"n" * 32)
    consortium.do(FEEDER, fresh)
    assert (consortium.app.dataset(DATA).version, consortium.app.dataset(DATA).published_by) == (2, FEEDER)
    assert consortium.refused(FEEDER, publication("iu.a.new")) == "permission"
    assert consortium.refused(FEEDER, publication("um.a.t")) == "permission"
    assert consortium.refused(FEEDER, WithdrawDataset(name=DATA, reason="over")) == "permission"
    consortium.do("iu/operator", WithdrawDataset(name=DATA, reason="over"))
    assert consortium.refused(FEEDER, fresh) == "permission"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("title", {"title": "Another trial"}),
        ("policy", {"policy": AccessPolicy(max_uses=101)}),
        ("price", {"price": Price(unit=PRICE_UNIT_USE, points=1)}),
        ("row count step", {"row_count_step": 5}),
        ("columns", {"columns": [{"name": "weight", "type": 1}]}),
    ],
)
def test_on_which_terms_data_are_offered_people_decide(consortium: Consortium, field: str, change: Any) -> None:
    result = consortium.send(FEEDER, publication(DATA, **change))
    assert result.refusal.rule == "permission"
    assert field in result.refusal.message
    consortium.do("iu/operator", publication(DATA, **change))
    consortium.do(FEEDER, publication(DATA, **change, commitment=b"n" * 32))


def test_a_device_s_key_is_rotated_and_revoked_like_a_person_s(consortium: Consortium) -> None:
    token = consortium.token(DATA, GATEWAY)
    second = key("um/gateway second").public_key
    consortium.do(GATEWAY, RotateKey(purpose=KEY_PURPOSE_PERSON, key=second))
    assert consortium.refused(GATEWAY, access_request(DATA)) == "revoked-key"
    task = consortium.do("um/gateway second", consortium.submission({DATA: token}))
    consortium.do("um/operator", RevokePerson(person_id=GATEWAY, reason="stolen"))
    assert consortium.app.task(task).status == TASK_STATUS_FAILED
    assert consortium.refused("um/gateway second", access_request(DATA)) == "revoked-key"
    assert [record.end for record in consortium.app.keys(GATEWAY)] == ["rotated", "stolen"]


def test_an_id_is_a_person_s_or_a_device_s_for_ever(consortium: Consortium) -> None:
    for name, role in ((GATEWAY, ROLE_OPERATOR), ("um/analyst", ROLE_GATEWAY)):
        assert consortium.refused("um/operator", register(name, role, key_name="new")) == "already-exists"
    consortium.do("um/operator", RevokePerson(person_id=GATEWAY, reason="sold"))
    assert consortium.refused("um/operator", register(GATEWAY, ROLE_ANALYST, key_name="new")) == "already-exists"
    consortium.do("um/operator", register(GATEWAY, ROLE_GATEWAY, ROLE_FEEDER, key_name="new"))


@pytest.mark.parametrize(
    "roles", [(ROLE_ANALYST, ROLE_GATEWAY), (ROLE_NODE, ROLE_GATEWAY), (ROLE_FEEDER, ROLE_GATEWAY)]
)
def test_a_device_has_roles_of_devices_in_order(consortium: Consortium, roles: tuple[Role.ValueType, ...]) -> None:
    assert consortium.refused("um/operator", register("um/new", *roles)) == "invalid-input"
