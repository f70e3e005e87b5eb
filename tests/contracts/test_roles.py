"""Every operation by everyone who may not: refused by rule ``permission``, and nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from koinon.v1.access_pb2 import (
    AcceptOffer,
    AccessTerms,
    CounterOffer,
    DenyAccess,
    GrantAccess,
    RevokeToken,
    WithdrawRequest,
)
from koinon.v1.audit_pb2 import READING_KIND_LIST, RecordReading
from koinon.v1.catalog_pb2 import (
    VERIFICATION_OUTCOME_CONFIRMED,
    VerifyDataset,
    WithdrawDataset,
    WithdrawVerification,
)
from koinon.v1.demand_pb2 import WithdrawDemand
from koinon.v1.dispute_pb2 import REMEDY_REVOCATION, AnswerDispute, RuleDispute, WithdrawDispute
from koinon.v1.governance_pb2 import (
    CHOICE_YES,
    Action,
    ApplyForMembership,
    CastBallot,
    Propose,
    SetParameter,
    WithdrawApplication,
    WithdrawProposal,
)
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_NODE,
    KEY_PURPOSE_SEALING,
    ROLE_ANALYST,
    ROLE_GATEWAY,
    BeginVoting,
    GiveNotice,
    RegisterPerson,
    RevokeKey,
    RevokePerson,
    RotateKey,
    UpdateEndpoints,
    WithdrawNotice,
)
from koinon.v1.points_pb2 import ClaimEarnings, DefineUnion, SetUnionMembers, TransferPoints, UnionMember
from koinon.v1.task_pb2 import CancelTask, FailTask
from koinon.v1.transaction_pb2 import Operation
from tests.contracts.consortium import (
    ALL_OPERATIONS,
    MEMBERS,
    Consortium,
    accept,
    access_request,
    claim,
    complete,
    key,
    operation,
    person,
    publication,
    receive,
    wanted,
)
from tests.contracts.decree import descriptor

SENDERS = [f"{name}{role}" for name in MEMBERS for role in ("", "/operator", "/analyst", "/regulator")]
SENDERS += ["um/gateway"]

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
    "verify_dataset": {"case/operator", "uk/operator", "um/operator"},
    "withdraw_verification": {"case/operator", "uk/operator", "um/operator"},
    "post_demand": {name for name in SENDERS if name.endswith("/analyst")},
    "withdraw_demand": {"um/analyst", "um/operator"},
    "request_access": {name for name in SENDERS if name.endswith(("/analyst", "/gateway"))},
    "grant_access": {"iu/operator"},
    "deny_access": {"iu/operator"},
    "revoke_token": {"iu/operator", "um/analyst"},
    "counter_offer": {"iu/operator", "um/analyst"},
    "accept_offer": {"um/analyst"},
    "withdraw_request": {"um/analyst"},
    "open_dispute": {"iu/operator", "um/operator", "um/analyst"},
    "answer_dispute": {"iu/operator"},
    "rule_dispute": {"case/operator", "uk/operator"},
    "withdraw_dispute": {"um/analyst", "um/operator"},
    "submit_task": {name for name in SENDERS if name.endswith(("/analyst", "/gateway"))},
    "accept_task": {"case", "iu", "um"},
    "complete_task": {"case", "iu", "um"},
    "fail_task": {"case", "iu", "um"},
    "cancel_task": {"um/analyst", "um/operator"},
    "propose": {name for name in SENDERS if name.endswith("/operator")},
    "cast_ballot": {name for name in SENDERS if name.endswith("/operator")},
    "withdraw_proposal": {"iu/operator"},
    "apply_for_membership": {name for name in SENDERS if name.endswith("/operator")},
    "withdraw_application": {"iu/operator"},
    "transfer_points": {"iu/operator"},
    "define_union": {name for name in SENDERS if name.endswith("/operator")},
    "set_union_members": {"iu/operator", "iu/analyst"},
    "claim_earnings": {"um/analyst"},
    "record_reading": {name for name in SENDERS if name.endswith("/regulator")},
    "give_notice": {name for name in SENDERS if name.endswith("/operator")},
    "withdraw_notice": {name for name in SENDERS if name.endswith("/operator")},
    "receive_result": {"um/analyst"},
}


def set_floor(value: int) -> Propose:
    """A proposal to change a parameter."""
    action = Action(set_parameter=SetParameter(name="min_cohort_floor", value=value))
    return Propose(title="another floor", reason="agreed", actions=[action])


def make_scene() -> tuple[Consortium, dict[str, Any]]:
    """A consortium and one well-formed message for each operation."""
    consortium = Consortium()
    consortium.do("um/operator", RegisterPerson(person=person("um/gateway", ROLE_GATEWAY)))
    consortium.publish("iu.a.t")
    consortium.publish("iu.a.review", auto=False)
    request = consortium.do("um/analyst", access_request("iu.a.review"))
    token = consortium.token("iu.a.t")
    submission = consortium.submission({"iu.a.t": token})
    task = consortium.do("um/analyst", submission)
    terms = AccessTerms(operations=ALL_OPERATIONS, purposes=["to learn"], duration_ms=1, uses=1)
    demand = consortium.do("um/analyst", wanted(columns=["age"]))
    dispute = consortium.do("um/analyst", claim(token, "iu", REMEDY_REVOCATION))
    consortium.do("iu/operator", DefineUnion(name="patients", title="Patients", administrator="iu/analyst"))
    proposal = consortium.do("iu/operator", set_floor(7))
    consortium.do("iu/operator", ApplyForMembership(descriptor=descriptor("osu", 5), motivation="to learn"))
    messages = [
        RegisterPerson(person=person("iu/new", ROLE_ANALYST)),
        RevokePerson(person_id="iu/analyst", reason="left"),
        UpdateEndpoints(peer_address="a:1", rpc_address="a:2", mpc_address="a:3"),
        RotateKey(purpose=KEY_PURPOSE_NODE, key=key("new node").public_key),
        RevokeKey(purpose=KEY_PURPOSE_SEALING, reason="lost"),
        BeginVoting(height=consortium.app.info().height),
        publication("iu.a.new"),
        WithdrawDataset(name="iu.a.t", reason="over"),
        VerifyDataset(
            dataset="iu.a.t",
            version=1,
            outcome=VERIFICATION_OUTCOME_CONFIRMED,
            method="recounted",
            evidence_digest=bytes(32),
        ),
        WithdrawVerification(dataset="iu.a.t", version=1, reason="a mistake"),
        wanted(columns=["rx"]),
        WithdrawDemand(demand_id=demand),
        access_request("iu.a.t"),
        GrantAccess(request_id=request),
        DenyAccess(request_id=request, reason="no"),
        RevokeToken(token_id=token, reason="over"),
        CounterOffer(request_id=request, terms=terms),
        AcceptOffer(request_id=request, offer=1),
        WithdrawRequest(request_id=request),
        claim(token, "iu", REMEDY_REVOCATION),
        AnswerDispute(dispute_id=dispute, statement="no"),
        RuleDispute(dispute_id=dispute, reason="seen"),
        WithdrawDispute(dispute_id=dispute),
        submission,
        accept(task, "um"),
        complete(task, "um"),
        FailTask(task_id=task, rule="deadline", reason="gave up"),
        CancelTask(task_id=task),
        set_floor(8),
        CastBallot(proposal_id=proposal, choice=CHOICE_YES),
        WithdrawProposal(proposal_id=proposal, reason="no longer"),
        ApplyForMembership(descriptor=descriptor("psu", 6), motivation="to learn"),
        WithdrawApplication(institution="osu", reason="no longer"),
        TransferPoints(source="institution:iu", target="person:iu/analyst", points=1, reason="budget"),
        DefineUnion(name="new", title="New", administrator="iu/analyst"),
        SetUnionMembers(union="patients", members=[UnionMember(account="person:um/analyst", weight=1)]),
        ClaimEarnings(union="patients", account="person:um/analyst"),
        RecordReading(kind=READING_KIND_LIST),
        GiveNotice(height=consortium.app.info().height + 100, reason="moves on"),
        WithdrawNotice(reason="stays"),
        receive(task, *MEMBERS[:3]),
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
