"""Access: requests, grants within request and policy, and how tokens end."""

from __future__ import annotations

from typing import Any

import pytest

from koinon import limits
from koinon.names import PersonId
from koinon.v1.access_pb2 import (
    REQUEST_STATUS_DENIED,
    REQUEST_STATUS_GRANTED,
    REQUEST_STATUS_OPEN,
    TOKEN_STATUS_ACTIVE,
    TOKEN_STATUS_EXPIRED,
    TOKEN_STATUS_REVOKED,
    TOKEN_STATUS_USED_UP,
    DenyAccess,
    GrantAccess,
    RevokeToken,
)
from koinon.v1.catalog_pb2 import TASK_OPERATION_COUNT, TASK_OPERATION_SUM, TASK_OPERATION_VARIANCE, AccessPolicy
from koinon.v1.identity_pb2 import ROLE_ANALYST, RegisterPerson
from node.contracts import access, tokens
from tests.contracts.consortium import ALL_OPERATIONS, BLOCK_MS, Consortium, access_request, person, publication

AUTO, REVIEW = "um.a.auto", "um.a.review"
ANALYST = PersonId("iu", "analyst")


@pytest.fixture
def consortium() -> Consortium:
    consortium = Consortium()
    consortium.publish(AUTO)
    consortium.publish(REVIEW, auto=False)
    return consortium


def test_policy_grants_in_the_same_block(consortium: Consortium) -> None:
    request_id = consortium.do("iu/analyst", access_request(AUTO, uses=3, duration_ms=5_000))
    request = consortium.app.request(request_id)
    token = consortium.app.token(request.token_id)
    assert (request.status, request.decided_by) == (REQUEST_STATUS_GRANTED, "policy")
    assert (token.status, token.holder, token.dataset) == (TOKEN_STATUS_ACTIVE, "iu/analyst", AUTO)
    assert list(token.columns) == ["age", "rx"]
    assert tuple(token.operations) == ALL_OPERATIONS
    assert (token.uses_left, token.uses_granted, token.min_cohort) == (3, 3, 5)
    assert token.expires_at_ms == consortium.time_ms + 5_000
    assert consortium.app.active_tokens(ANALYST, AUTO) == [token]


def test_review_waits_for_an_operator(consortium: Consortium) -> None:
    request_id = consortium.do("iu/analyst", access_request(REVIEW))
    assert consortium.app.request(request_id).status == REQUEST_STATUS_OPEN
    assert [request.id for request in consortium.app.open_requests(REVIEW)] == [request_id]
    token_id = consortium.do("um/operator", GrantAccess(request_id=request_id))
    request = consortium.app.request(request_id)
    assert (request.token_id, request.decided_by) == (token_id, "um/operator")
    assert consortium.app.open_requests(REVIEW) == []
    assert consortium.app.token(token_id).uses_left == 2


def test_an_operator_may_grant_less(consortium: Consortium) -> None:
    request = consortium.do("iu/analyst", access_request(REVIEW, uses=5, duration_ms=9_000))
    granted = GrantAccess(
        request_id=request, columns=["age"], operations=[TASK_OPERATION_COUNT], duration_ms=1_000, uses=1, min_cohort=20
    )
    token = consortium.app.token(consortium.do("um/operator", granted))
    assert (list(token.columns), list(token.operations)) == (["age"], [TASK_OPERATION_COUNT])
    assert (token.uses_left, token.min_cohort) == (1, 20)
    assert token.expires_at_ms == consortium.time_ms + 1_000


@pytest.mark.parametrize(
    "terms",
    [
        {"uses": 3},
        {"duration_ms": 100_001},
        {"operations": [TASK_OPERATION_VARIANCE]},
        {"columns": ["weight"]},
        {"min_cohort": 4},
    ],
)
def test_an_operator_may_not_grant_more(consortium: Consortium, terms: dict[str, Any]) -> None:
    request = consortium.do("iu/analyst", access_request(REVIEW))
    assert consortium.refused("um/operator", GrantAccess(request_id=request, **terms)) == "policy"
    assert consortium.app.request(request).status == REQUEST_STATUS_OPEN


def test_a_grant_is_held_to_the_policy_of_today(consortium: Consortium) -> None:
    request = consortium.do("iu/analyst", access_request(REVIEW))
    stricter = publication(REVIEW, auto=False)
    stricter.policy.ClearField("operations")
    stricter.policy.operations.append(TASK_OPERATION_COUNT)
    consortium.do("um/operator", stricter)
    assert consortium.refused("um/operator", GrantAccess(request_id=request)) == "policy"
    consortium.do("um/operator", GrantAccess(request_id=request, operations=[TASK_OPERATION_COUNT]))


def test_a_denial_has_a_reason(consortium: Consortium) -> None:
    request_id = consortium.do("iu/analyst", access_request(REVIEW))
    assert consortium.refused("um/operator", DenyAccess(request_id=request_id)) == "invalid-input"
    consortium.do("um/operator", DenyAccess(request_id=request_id, reason="purpose unclear"))
    request = consortium.app.request(request_id)
    assert (request.status, request.reason) == (REQUEST_STATUS_DENIED, "purpose unclear")
    assert consortium.refused("um/operator", GrantAccess(request_id=request_id)) == "wrong-state"
    assert consortium.refused("um/operator", DenyAccess(request_id=request_id, reason="again")) == "wrong-state"


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown dataset": ({"dataset": "um.a.none"}, "not-found"),
    "malformed dataset": ({"dataset": "um"}, "invalid-name"),
    "unknown column": ({"columns": ["weight"]}, "not-found"),
    "malformed column": ({"columns": ["1"]}, "invalid-name"),
    "columns out of order": ({"columns": ["rx", "age"]}, "invalid-input"),
    "a column twice": ({"columns": ["age", "age"]}, "invalid-input"),
    "no operations": ({"operations": []}, "invalid-input"),
    "unspecified operation": ({"operations": [0]}, "invalid-input"),
    "operations out of order": ({"operations": [TASK_OPERATION_SUM, TASK_OPERATION_COUNT]}, "invalid-input"),
    "operation not allowed at all": ({"operations": [TASK_OPERATION_VARIANCE]}, "policy"),
    "no purpose": ({"purposes": []}, "invalid-input"),
    "an empty purpose": ({"purposes": [""]}, "invalid-input"),
    "a long purpose": ({"purposes": ["x" * 2001]}, "invalid-input"),
    "purposes too long together": ({"purposes": ["a" * 1001, "b" * 1000]}, "invalid-input"),
    "purposes out of order": ({"purposes": ["to teach", "to learn"]}, "invalid-input"),
    "a purpose twice": ({"purposes": ["to learn", "to learn"]}, "invalid-input"),
    "too many purposes": ({"purposes": [f"purpose {n}" for n in range(9)]}, "invalid-input"),
    "no duration": ({"duration_ms": 0}, "invalid-input"),
    "a negative duration": ({"duration_ms": -1}, "invalid-input"),
    "too long": ({"duration_ms": 1_000_001}, "policy"),
    "no uses": ({"uses": 0}, "invalid-input"),
    "too many uses": ({"uses": 101}, "policy"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
@pytest.mark.parametrize("dataset", [AUTO, REVIEW])
def test_a_bad_request_is_refused_at_once(consortium: Consortium, dataset: str, case: str) -> None:
    change, rule = BAD_REQUESTS[case]
    request = access_request(dataset)
    for name, value in change.items():
        if isinstance(value, list):
            request.ClearField(name)  # type: ignore[arg-type]
            getattr(request, name).extend(value)
        else:
            setattr(request, name, value)
    assert consortium.refused("iu/analyst", request) == rule


@pytest.mark.parametrize("revoker", ["um/operator", "iu/analyst"])
def test_publisher_and_holder_may_end_a_token(consortium: Consortium, revoker: str) -> None:
    token = consortium.token(AUTO, "iu/analyst")
    consortium.do(revoker, RevokeToken(token_id=token, reason="no longer needed"))
    ended = consortium.app.token(token)
    assert (ended.status, ended.status_reason) == (TOKEN_STATUS_REVOKED, "no longer needed")
    assert consortium.refused(revoker, RevokeToken(token_id=token, reason="again")) == "wrong-state"
    assert consortium.app.active_tokens(ANALYST, AUTO) == []


def test_a_token_expires_by_block_time_and_not_before(consortium: Consortium) -> None:
    token = consortium.token(AUTO, duration_ms=10_000)
    consortium.wait(9_999)
    assert consortium.app.token(token).status == TOKEN_STATUS_ACTIVE
    expired = consortium.wait(1)
    assert consortium.app.token(token).status == TOKEN_STATUS_EXPIRED
    assert [(record.kind, record.actor) for record in expired.records] == [("token.expired", "ledger")]
    assert consortium.wait(10**6).records == ()


def test_an_expiring_token_is_refused_in_the_block_that_ends_it(consortium: Consortium) -> None:
    token = consortium.token(AUTO, duration_ms=BLOCK_MS)
    assert consortium.refused("um/analyst", consortium.submission({AUTO: token})) == "token-expired"


def test_a_running_task_falls_with_its_token(consortium: Consortium) -> None:
    token = consortium.token(AUTO, duration_ms=3 * BLOCK_MS)
    task = consortium.do("um/analyst", consortium.submission({AUTO: token}))
    consortium.wait(2 * BLOCK_MS)
    assert consortium.app.task(task).rule == "token-expired"
    assert token in consortium.app.task(task).reason
    assert consortium.app.token(token).uses_left == 2


def test_a_token_is_used_up_when_no_open_task_may_give_a_use_back(consortium: Consortium) -> None:
    token = consortium.token(AUTO, uses=2)
    first, second = (consortium.do("um/analyst", consortium.submission({AUTO: token})) for _ in range(2))
    third = consortium.submission({AUTO: token})
    assert consortium.refused("um/analyst", third) == "token-used-up"  # both uses are reserved
    for task in (first, second):
        consortium.accept_all(task)
    consortium.complete_all(first)
    assert consortium.app.token(token).status == TOKEN_STATUS_ACTIVE  # the other might give its use back
    consortium.complete_all(second)
    assert consortium.app.token(token).status == TOKEN_STATUS_USED_UP
    assert consortium.refused("um/analyst", third) == "token-used-up"
    consortium.wait(10**6)
    assert consortium.app.token(token).status == TOKEN_STATUS_USED_UP  # it no longer expires


def test_a_grant_to_another_is_no_help(consortium: Consortium) -> None:
    token = consortium.token(AUTO, "iu/analyst")
    assert consortium.refused("um/analyst", consortium.submission({AUTO: token})) == "token-holder"


def test_open_requests_and_active_tokens_are_bounded(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.MAX_OPEN_REQUESTS_PER_DATASET >= 100
    monkeypatch.setattr(access, "MAX_OPEN_REQUESTS_PER_DATASET", 2)
    monkeypatch.setattr(tokens, "MAX_ACTIVE_TOKENS_PER_DATASET", 2)
    first, _ = (consortium.do("iu/analyst", access_request(REVIEW)) for _ in range(2))
    assert consortium.refused("iu/analyst", access_request(REVIEW)) == "too-many"
    consortium.do("um/operator", GrantAccess(request_id=first))
    consortium.do("iu/analyst", access_request(REVIEW))  # an answer makes room
    token, _ = (consortium.token(AUTO) for _ in range(2))
    assert consortium.refused("iu/analyst", access_request(AUTO)) == "too-many"
    consortium.do("um/operator", RevokeToken(token_id=token, reason="room"))
    consortium.token(AUTO)


def test_one_institution_leaves_room_for_others(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks without end, by whatever people, shuts nobody else out."""
    consortium.do("iu/operator", RegisterPerson(person=person("iu/second", ROLE_ANALYST)))
    for module in (access, tokens):
        monkeypatch.setattr(module, "MAX_OF_ONE_INSTITUTION", 2)
    for dataset in (REVIEW, AUTO):
        consortium.do("iu/analyst", access_request(dataset))
        consortium.do("iu/second", access_request(dataset))
        assert consortium.refused("iu/analyst", access_request(dataset)) == "too-many"
        consortium.do("um/analyst", access_request(dataset))


def test_a_block_ends_so_many_and_the_next_the_rest(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_DUE_PER_BLOCK", 2)
    until_ms = consortium.time_ms + 500_000
    held = [consortium.token(AUTO, duration_ms=until_ms - consortium.time_ms - BLOCK_MS) for _ in range(3)]
    consortium.wait(until_ms - consortium.time_ms)
    left = [token for token in held if consortium.app.token(token).status == TOKEN_STATUS_ACTIVE]
    assert len(left) == 1
    assert consortium.refused("um/analyst", consortium.submission({AUTO: left[0]})) == "token-expired"
    assert consortium.app.token(left[0]).status == TOKEN_STATUS_EXPIRED


@pytest.mark.parametrize("request_id", ["", "00", "g" * 32, "0" * 31, "0" * 33, "A" * 32])
def test_an_id_that_is_none(consortium: Consortium, request_id: str) -> None:
    assert consortium.refused("um/operator", GrantAccess(request_id=request_id)) == "invalid-name"
    assert consortium.refused("um/operator", RevokeToken(token_id=request_id, reason="x")) == "invalid-name"


def test_an_id_of_nothing(consortium: Consortium) -> None:
    assert consortium.refused("um/operator", GrantAccess(request_id="0" * 32)) == "not-found"
    assert consortium.refused("um/operator", RevokeToken(token_id="0" * 32, reason="x")) == "not-found"


def test_a_policy_of_one_use(consortium: Consortium) -> None:
    dataset = publication("um.a.once")
    dataset.policy.MergeFrom(AccessPolicy(max_uses=1))
    consortium.do("um/operator", dataset)
    assert consortium.refused("iu/analyst", access_request("um.a.once", uses=2)) == "policy"
    consortium.token("um.a.once", uses=1)
