"""Every operation by everyone who may not: refused by rule ``permission``, and nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from koinon.v1.access_pb2 import DenyAccess, GrantAccess, RevokeToken
from koinon.v1.catalog_pb2 import WithdrawDataset
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_NODE,
    KEY_PURPOSE_SEALING,
    ROLE_ANALYST,
    BeginVoting,
    RegisterPerson,
    RevokeKey,
    RevokePerson,
    RotateKey,
    UpdateEndpoints,
)
from koinon.v1.task_pb2 import CancelTask, FailTask
from koinon.v1.transaction_pb2 import Operation
from tests.contracts.consortium import (
    MEMBERS,
    Consortium,
    accept,
    access_request,
    complete,
    key,
    operation,
    person,
    publication,
)

SENDERS = [f"{name}{role}" for name in MEMBERS for role in ("", "/operator", "/analyst", "/regulator")]

# Who may, in a consortium where um/analyst computes on iu's data with case, iu and um.
MAY = {
    "register_person": {"iu/operator"},
    "revoke_person": {"iu/operator"},
    "update_endpoints": {name for name in SENDERS if "/" not in name or name.endswith("/operator")},
    "rotate_key": {name for name in SENDERS if name.endswith("/operator")},
    "revoke_key": {name for name in SENDERS if name.endswith("/operator")},
    "begin_voting": {name for name in SENDERS if "/" not in name or name.endswith("/operator")},
    "publish_dataset": {"iu/operator"},
    "withdraw_dataset": {"iu/operator"},
    "request_access": {name for name in SENDERS if name.endswith("/analyst")},
    "grant_access": {"iu/operator"},
    "deny_access": {"iu/operator"},
    "revoke_token": {"iu/operator", "um/analyst"},
    "submit_task": {name for name in SENDERS if name.endswith("/analyst")},
    "accept_task": {"case", "iu", "um"},
    "complete_task": {"case", "iu", "um"},
    "fail_task": {"case", "iu", "um"},
    "cancel_task": {"um/analyst", "um/operator"},
}


def make_scene() -> tuple[Consortium, dict[str, Any]]:
    """A consortium and one well-formed message for each operation."""
    consortium = Consortium()
    consortium.publish("iu.a.t")
    consortium.publish("iu.a.review", auto=False)
    request = consortium.do("um/analyst", access_request("iu.a.review"))
    token = consortium.token("iu.a.t")
    submission = consortium.submission({"iu.a.t": token})
    task = consortium.do("um/analyst", submission)
    messages = [
        RegisterPerson(person=person("iu/new", ROLE_ANALYST)),
        RevokePerson(person_id="iu/analyst", reason="left"),
        UpdateEndpoints(peer_address="a:1", rpc_address="a:2", mpc_address="a:3"),
        RotateKey(purpose=KEY_PURPOSE_NODE, key=key("new node").public_key),
        RevokeKey(purpose=KEY_PURPOSE_SEALING, reason="lost"),
        BeginVoting(height=consortium.app.info().height),
        publication("iu.a.new"),
        WithdrawDataset(name="iu.a.t", reason="over"),
        access_request("iu.a.t"),
        GrantAccess(request_id=request),
        DenyAccess(request_id=request, reason="no"),
        RevokeToken(token_id=token, reason="over"),
        submission,
        accept(task, "um"),
        complete(task, "um"),
        FailTask(task_id=task, rule="deadline", reason="gave up"),
        CancelTask(task_id=task),
    ]
    return consortium, {str(operation(message).WhichOneof("operation")): message for message in messages}


@pytest.fixture(scope="module")
def scene() -> tuple[Consortium, dict[str, Any]]:
    return make_scene()


def test_there_is_a_message_for_every_operation(scene: tuple[Consortium, dict[str, Any]]) -> None:
    assert list(scene[1]) == [field.name for field in Operation.DESCRIPTOR.oneofs_by_name["operation"].fields]
    assert list(scene[1]) == list(MAY)


@pytest.mark.parametrize("name", MAY)
def test_nobody_else_may(scene: tuple[Consortium, dict[str, Any]], name: str) -> None:
    consortium, messages = scene
    others = [sender for sender in SENDERS if sender not in MAY[name]]
    block = consortium.decide(*(consortium.envelope(sender, messages[name]) for sender in others), after_ms=1)
    for sender, result in zip(others, block.results, strict=True):
        assert result.refusal.rule == "permission", sender
        assert result.refusal.hint.startswith("this is for: ")
    assert block.records == ()


@pytest.mark.parametrize("name", MAY)
def test_those_may(name: str) -> None:
    """At least as far as roles go: what refuses them is never their permission."""
    for sender in sorted(MAY[name]):
        consortium, messages = make_scene()
        assert consortium.send(sender, messages[name]).refusal.rule != "permission", sender
