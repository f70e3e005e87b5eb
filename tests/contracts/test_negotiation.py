"""Negotiation: offers and answers until both sides agree, one ends it, or silence does."""

from __future__ import annotations

from typing import Any

import pytest

from koinon.v1.access_pb2 import (
    REQUEST_STATUS_COUNTERED,
    REQUEST_STATUS_EXPIRED,
    REQUEST_STATUS_GRANTED,
    REQUEST_STATUS_OPEN,
    REQUEST_STATUS_WITHDRAWN,
    AcceptOffer,
    AccessTerms,
    CounterOffer,
    DenyAccess,
    GrantAccess,
    WithdrawRequest,
)
from koinon.v1.catalog_pb2 import TASK_OPERATION_COUNT, TASK_OPERATION_VARIANCE
from koinon.v1.identity_pb2 import ROLE_ANALYST, ROLE_OPERATOR, RegisterPerson
from koinon.v1.points_pb2 import PRICE_UNIT_USE, Price
from node.contracts import negotiation
from tests.contracts.consortium import BLOCK_MS, Consortium, access_request, person, publication

NAME = "um.a.review"
WINDOW_MS = 10_000


@pytest.fixture
def consortium() -> Consortium:
    consortium = Consortium()
    consortium.genesis.parameters.request_window_ms = WINDOW_MS
    consortium = Consortium(genesis=consortium.genesis)
    consortium.publish(NAME, auto=False)
    return consortium


def offer(request: str, **changes: Any) -> CounterOffer:
    terms: dict[str, Any] = {
        "columns": ["age"],
        "operations": [TASK_OPERATION_COUNT],
        "purposes": ["to count"],
        "duration_ms": 50_000,
        "uses": 5,
        "min_cohort": 20,
    }
    return CounterOffer(request_id=request, terms=AccessTerms(**{**terms, **changes}), note="how about this")


def test_a_counter_offer_is_taken_with_all_its_terms(consortium: Consortium) -> None:
    request = consortium.do("iu/analyst", access_request(NAME))
    consortium.do("um/operator", offer(request))
    asked = consortium.app.request(request)
    assert (asked.status, asked.offers[0].number) == (REQUEST_STATUS_COUNTERED, 1)
    assert (asked.offers[0].by_publisher, asked.offers[0].note) == (True, "how about this")
    token = consortium.app.token(consortium.do("iu/analyst", AcceptOffer(request_id=request, offer=1)))
    assert (list(token.columns), list(token.operations)) == (["age"], [TASK_OPERATION_COUNT])
    assert (list(token.purposes), token.uses_left, token.min_cohort, token.decided_by) == (
        ["to count"],
        5,
        20,
        "um/operator",
    )
    assert token.expires_at_ms == consortium.time_ms + 50_000
    asked = consortium.app.request(request)
    assert (asked.status, asked.token_id, asked.deadline_ms) == (REQUEST_STATUS_GRANTED, token.id, 0)
    assert consortium.app.open_requests(NAME) == []


def test_offers_go_to_and_fro_and_the_last_word_counts(consortium: Consortium) -> None:
    request = consortium.do("iu/analyst", access_request(NAME))
    consortium.do("um/operator", offer(request, uses=1))
    consortium.do("iu/analyst", offer(request, uses=4, purposes=["to count well"]))
    assert consortium.app.request(request).status == REQUEST_STATUS_OPEN
    assert consortium.refused("iu/analyst", AcceptOffer(request_id=request, offer=1)) == "offer"  # overtaken by its own
    assert consortium.refused("um/operator", GrantAccess(request_id=request)) == "offer"  # that is the request itself
    assert consortium.refused("um/operator", GrantAccess(request_id=request, offer=2, uses=5)) == "policy"
    token = consortium.app.token(consortium.do("um/operator", GrantAccess(request_id=request, offer=2, uses=3)))
    assert (token.uses_left, list(token.purposes), token.min_cohort) == (3, ["to count well"], 20)


def test_an_offer_is_accepted_by_number_only(consortium: Consortium) -> None:
    request = consortium.do("iu/analyst", access_request(NAME))
    assert consortium.refused("iu/analyst", AcceptOffer(request_id=request)) == "offer"
    consortium.do("um/operator", offer(request, uses=5))
    consortium.do("um/operator", offer(request, uses=1))  # the publisher thinks again
    assert consortium.refused("iu/analyst", AcceptOffer(request_id=request, offer=1)) == "offer"
    consortium.do("iu/analyst", AcceptOffer(request_id=request, offer=2))


def test_the_price_is_part_of_an_offer(consortium: Consortium) -> None:
    priced = publication(NAME, auto=False, price=Price(unit=PRICE_UNIT_USE, points=10))
    consortium.do("um/operator", priced)
    cheaper, free, usual = (consortium.do("iu/analyst", access_request(NAME)) for _ in range(3))
    consortium.do("iu/analyst", offer(cheaper, price=Price(unit=PRICE_UNIT_USE, points=7)))
    consortium.do("um/operator", offer(free, price=Price()))
    consortium.do("um/operator", offer(usual))
    consortium.do("um/operator", GrantAccess(request_id=cheaper, offer=1))
    for request in (free, usual):
        consortium.do("iu/analyst", AcceptOffer(request_id=request, offer=1))
    tokens = [consortium.app.token(consortium.app.request(item).token_id) for item in (cheaper, free, usual)]
    assert [token.price.points for token in tokens] == [7, 0, 10]
    assert not tokens[1].HasField("price")


def test_silence_of_either_side_ends_it(consortium: Consortium) -> None:
    first, second = (consortium.do("iu/analyst", access_request(NAME)) for _ in range(2))
    consortium.do("um/operator", offer(second))
    consortium.wait(WINDOW_MS - 3 * BLOCK_MS)
    assert consortium.app.request(first).status == REQUEST_STATUS_OPEN
    consortium.wait(3 * BLOCK_MS)
    for request, silent in ((first, "um"), (second, "iu/analyst")):
        ended = consortium.app.request(request)
        assert (ended.status, ended.reason) == (REQUEST_STATUS_EXPIRED, f"{silent} did not answer in time")
    assert consortium.app.open_requests(NAME) == []


def test_every_offer_gives_the_other_side_the_whole_window(consortium: Consortium) -> None:
    request = consortium.do("iu/analyst", access_request(NAME))
    consortium.wait(WINDOW_MS - 2 * BLOCK_MS)
    consortium.do("um/operator", offer(request))
    consortium.wait(WINDOW_MS - 1)
    assert consortium.app.request(request).status == REQUEST_STATUS_COUNTERED
    consortium.wait(1)
    assert consortium.app.request(request).status == REQUEST_STATUS_EXPIRED


def test_one_block_ends_so_many_and_the_next_the_rest(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "MAX_DUE_PER_BLOCK", 2)
    for _ in range(3):
        consortium.do("iu/analyst", access_request(NAME))
    assert [len(consortium.wait(WINDOW_MS).records), len(consortium.wait(1).records)] == [2, 1]


def test_either_side_may_end_it(consortium: Consortium) -> None:
    first, second = (consortium.do("iu/analyst", access_request(NAME)) for _ in range(2))
    for request in (first, second):
        consortium.do("um/operator", offer(request))
    consortium.do("iu/analyst", WithdrawRequest(request_id=first, reason="found elsewhere"))
    consortium.do("um/operator", DenyAccess(request_id=second, reason="changed our mind"))
    assert consortium.app.request(first).status == REQUEST_STATUS_WITHDRAWN
    for request in (first, second):
        for sender, message in (
            ("um/operator", offer(request)),
            ("iu/analyst", offer(request)),
            ("iu/analyst", AcceptOffer(request_id=request, offer=1)),
            ("iu/analyst", WithdrawRequest(request_id=request)),
            ("um/operator", GrantAccess(request_id=request)),
        ):
            assert consortium.refused(sender, message) == "wrong-state"


def test_who_stands_on_both_sides_answers_the_other_one(consortium: Consortium) -> None:
    consortium.do("um/operator", RegisterPerson(person=person("um/analyst", ROLE_OPERATOR, ROLE_ANALYST)))
    request = consortium.do("um/analyst", access_request(NAME))
    consortium.do("um/analyst", offer(request))
    assert consortium.app.request(request).status == REQUEST_STATUS_COUNTERED
    consortium.do("um/analyst", offer(request))
    assert consortium.app.request(request).status == REQUEST_STATUS_OPEN


BAD_OFFERS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown column": ({"columns": ["weight"]}, "not-found"),
    "no operations": ({"operations": []}, "invalid-input"),
    "an operation not allowed at all": ({"operations": [TASK_OPERATION_VARIANCE]}, "policy"),
    "no purpose": ({"purposes": []}, "invalid-input"),
    "no duration": ({"duration_ms": 0}, "invalid-input"),
    "too long": ({"duration_ms": 1_000_001}, "policy"),
    "too many uses": ({"uses": 101}, "policy"),
    "no price": ({"price": Price(unit=PRICE_UNIT_USE)}, "invalid-input"),
    "a smaller cohort": ({"min_cohort": 4}, "policy"),
}


@pytest.mark.parametrize("case", BAD_OFFERS)
@pytest.mark.parametrize("sender", ["um/operator", "iu/analyst"])
def test_neither_side_offers_more_than_the_policy_allows(consortium: Consortium, sender: str, case: str) -> None:
    change, rule = BAD_OFFERS[case]
    request = consortium.do("iu/analyst", access_request(NAME))
    assert consortium.refused(sender, offer(request, **change)) == rule
    assert not consortium.app.request(request).offers


def test_an_offer_beyond_a_policy_that_changed_is_not_taken(consortium: Consortium) -> None:
    request = consortium.do("iu/analyst", access_request(NAME))
    consortium.do("um/operator", offer(request, uses=50))
    stricter = publication(NAME, auto=False)
    stricter.policy.max_uses = 10
    consortium.do("um/operator", stricter)
    assert consortium.refused("iu/analyst", AcceptOffer(request_id=request, offer=1)) == "policy"


def test_offers_are_bounded(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "MAX_OFFERS_PER_REQUEST", 2)
    request = consortium.do("iu/analyst", access_request(NAME))
    consortium.do("um/operator", offer(request))
    consortium.do("iu/analyst", offer(request))
    assert consortium.refused("um/operator", offer(request)) == "too-many"


def test_institutions_that_the_policy_names_need_not_wait(consortium: Consortium) -> None:
    friendly = publication(NAME, auto=False)
    friendly.policy.auto_institutions.extend(["iu", "uk"])
    consortium.do("um/operator", friendly)
    granted = consortium.app.request(consortium.do("iu/analyst", access_request(NAME)))
    assert (granted.status, granted.decided_by) == (REQUEST_STATUS_GRANTED, "policy")
    assert consortium.app.request(consortium.do("case/analyst", access_request(NAME))).status == REQUEST_STATUS_OPEN
