"""Demand: matched with what is published, for both sides to see."""

from __future__ import annotations

from typing import Any

import pytest

from koinon.v1.demand_pb2 import DEMAND_STATUS_EXPIRED, DEMAND_STATUS_OPEN, DEMAND_STATUS_WITHDRAWN, WithdrawDemand
from koinon.v1.identity_pb2 import ROLE_ANALYST, RegisterPerson
from koinon.v1.points_pb2 import PRICE_UNIT_PERIOD, PRICE_UNIT_ROW, PRICE_UNIT_USE, Price
from node.contracts import demand
from tests.contracts.consortium import START_MS, Consortium, person, publication, wanted

ASKER = "um/analyst"


def matches(consortium: Consortium, demand_id: str) -> list[str]:
    return [match.dataset for match in consortium.app.demand(demand_id).matches]


def test_a_new_entry_that_has_everything_is_told_to_both_sides(consortium: Consortium) -> None:
    first = consortium.do(ASKER, wanted(columns=["AGE", "rx"], themes=["HEAL"], budget=100))
    consortium.do("iu/operator", publication("iu.a.t", themes=["HEAL.C06"]))
    [match] = consortium.app.demand(first).matches
    assert (match.dataset, match.version, match.matched_at_ms) == ("iu.a.t", 1, consortium.time_ms)
    record = consortium.records()[-1]
    assert (record.kind, record.actor, record.subject) == ("demand.matched", "iu/operator", f"demand:{first}")
    assert list(record.related) == ["person:um/analyst", "dataset:iu.a.t", "institution:iu"]


@pytest.mark.parametrize(
    ("asked", "themes", "matched"),
    [
        ({"columns": ["age"]}, [], True),
        ({"columns": ["Age"]}, ["HEAL"], True),
        ({"columns": ["age", "weight"]}, [], False),
        ({"columns": ["weight"]}, [], False),
        ({"themes": ["HEAL"]}, ["HEAL"], True),
        ({"themes": ["HEAL"]}, ["HEAL.C06"], True),
        ({"themes": ["HEAL.C06"]}, ["HEAL"], False),
        ({"themes": ["ECON", "HEAL"]}, ["HEAL.C01"], True),
        ({"themes": ["ECON"]}, ["HEAL"], False),
        ({"themes": ["HEAL"]}, [], False),
        ({"columns": ["age"], "themes": ["ECON"]}, ["HEAL"], False),
    ],
)
def test_what_matches(consortium: Consortium, asked: dict[str, Any], themes: list[str], matched: bool) -> None:
    posted = consortium.do(ASKER, wanted(**asked))
    consortium.do("iu/operator", publication("iu.a.t", themes=themes))
    assert bool(matches(consortium, posted)) == matched


def test_a_dataset_matches_once_also_when_it_gets_better(consortium: Consortium) -> None:
    posted = consortium.do(ASKER, wanted(columns=["age"], themes=["HEAL"]))
    consortium.do("iu/operator", publication("iu.a.t"))
    assert matches(consortium, posted) == []
    for _ in range(2):
        consortium.do("iu/operator", publication("iu.a.t", themes=["HEAL"]))
    assert matches(consortium, posted) == ["iu.a.t"]
    assert consortium.app.demand(posted).matches[0].version == 2


@pytest.mark.parametrize(
    ("price", "budget", "affordable"),
    [
        (None, 1, True),
        (Price(unit=PRICE_UNIT_USE, points=50), 50, True),
        (Price(unit=PRICE_UNIT_USE, points=51), 50, False),
        (Price(unit=PRICE_UNIT_USE, points=51), 0, True),  # a demand without a budget
        (Price(unit=PRICE_UNIT_ROW, points=2), 320, True),  # of 160 published rows
        (Price(unit=PRICE_UNIT_ROW, points=2), 319, False),
        (Price(unit=PRICE_UNIT_PERIOD, points=50, period_ms=1_000), 49, False),
    ],
)
def test_what_costs_more_than_the_budget_does_not_match_and_says_why(
    consortium: Consortium, price: Price | None, budget: int, affordable: bool
) -> None:
    posted = consortium.do(ASKER, wanted(columns=["age"], budget=budget))
    consortium.do("iu/operator", publication("iu.a.t", price=price))
    found = consortium.app.demand(posted)
    assert [[match.dataset for match in listed] for listed in (found.matches, found.priced_out)] == (
        [["iu.a.t"], []] if affordable else [[], ["iu.a.t"]]
    )
    record = consortium.records()[-1]
    assert record.kind == ("demand.matched" if affordable else "demand.priced_out")
    assert list(record.related) == ["person:um/analyst", "dataset:iu.a.t", "institution:iu"]
    if not affordable:
        assert record.detail.endswith(f": one use costs {found.priced_out[0].price} points, and the budget is {budget}")


def test_a_lower_price_makes_a_match_of_what_was_too_dear(consortium: Consortium) -> None:
    posted = consortium.do(ASKER, wanted(columns=["age"], budget=50))
    for points in (200, 100):  # told once: a publisher cannot fill the trail by changing its price
        consortium.do("iu/operator", publication("iu.a.t", price=Price(unit=PRICE_UNIT_USE, points=points)))
        found = consortium.app.demand(posted)
        assert [(match.version, match.price) for match in found.priced_out] == [(1, 200)]
    consortium.do("iu/operator", publication("iu.a.t", price=Price(unit=PRICE_UNIT_USE, points=50)))
    found = consortium.app.demand(posted)
    assert ([(match.version, match.price) for match in found.matches], list(found.priced_out)) == ([(3, 50)], [])
    consortium.do("iu/operator", publication("iu.a.t", price=Price(unit=PRICE_UNIT_USE, points=100)))
    assert not consortium.app.demand(posted).priced_out
    assert [record.kind for record in consortium.records() if record.kind.startswith("demand.")] == [
        "demand.posted",
        "demand.priced_out",
        "demand.matched",
    ]


def test_matches_come_before_what_is_too_dear(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "MAX_MATCHES_PER_PUBLICATION", 1)
    poor, rich = (consortium.do(ASKER, wanted(columns=["age"], budget=budget)) for budget in (1, 100))
    consortium.do("iu/operator", publication("iu.a.t", price=Price(unit=PRICE_UNIT_USE, points=50)))
    assert (matches(consortium, rich), list(consortium.app.demand(poor).priced_out)) == (["iu.a.t"], [])


def test_a_demand_stands_until_it_is_withdrawn_or_over(consortium: Consortium) -> None:
    kept, dropped, old = (
        consortium.do(ASKER, wanted(columns=["age"], duration_ms=duration)) for duration in (100_000, 100_000, 10_000)
    )
    consortium.do("um/operator", WithdrawDemand(demand_id=dropped, reason="found"))
    consortium.wait(10_000)
    consortium.publish("iu.a.t")
    states = [consortium.app.demand(posted).status for posted in (kept, dropped, old)]
    assert states == [DEMAND_STATUS_OPEN, DEMAND_STATUS_WITHDRAWN, DEMAND_STATUS_EXPIRED]
    assert [matches(consortium, posted) for posted in (kept, dropped, old)] == [["iu.a.t"], [], []]
    for posted in (dropped, old):
        assert consortium.refused(ASKER, WithdrawDemand(demand_id=posted)) == "wrong-state"
    left = [name for name, _ in consortium.store.scan(b"s/demand-") if name.endswith((dropped.encode(), old.encode()))]
    assert left == []


def test_the_longest_waiting_is_told_first_and_so_many_only(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "MAX_MATCHES_PER_PUBLICATION", 2)
    posted = [consortium.do(ASKER, wanted(columns=["age"])) for _ in range(3)]
    consortium.publish("iu.a.t")
    assert [bool(matches(consortium, item)) for item in posted] == [True, True, False]


def test_demands_are_bounded(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "MAX_OPEN_DEMANDS_PER_PERSON", 1)
    posted = consortium.do(ASKER, wanted(columns=["age"]))
    assert consortium.refused(ASKER, wanted(columns=["age"])) == "too-many"
    monkeypatch.setattr(demand, "MAX_DEMANDS_PER_TERM", 1)
    assert consortium.refused("iu/analyst", wanted(columns=["age", "rx"])) == "too-many"
    consortium.do("iu/analyst", wanted(columns=["rx"]))
    consortium.do(ASKER, WithdrawDemand(demand_id=posted))
    consortium.do(ASKER, wanted(columns=["age"]))


def test_one_institution_leaves_room_for_others(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publication reads every demand that shares a column with it, whoever registered people without end for them."""
    monkeypatch.setattr(demand, "MAX_OF_ONE_INSTITUTION", 2)
    consortium.do("um/operator", RegisterPerson(person=person("um/second", ROLE_ANALYST)))
    first = consortium.do("um/analyst", wanted(columns=["age"]))
    consortium.do("um/second", wanted(columns=["rx"]))
    assert consortium.refused("um/second", wanted(columns=["sex"])) == "too-many"
    consortium.do("iu/analyst", wanted(columns=["sex"]))
    consortium.do("um/analyst", WithdrawDemand(demand_id=first))
    consortium.do("um/second", wanted(columns=["sex"]))


def test_what_one_institution_publishes_in_a_block_is_compared_with_so_many_demands_only(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else ten thousand publications, each for a hundred demands of the same people, were a block of half a minute."""
    monkeypatch.setattr(demand, "MAX_DEMANDS_COMPARED", 3)
    posted = [consortium.do(ASKER, wanted(columns=["age"])) for _ in range(2)]
    decided = consortium.decide(
        consortium.envelope("iu/operator", publication("iu.a.t")),
        consortium.envelope("iu/operator", publication("iu.a.second")),
        consortium.envelope("uk/operator", publication("uk.a.t")),
    )
    assert [result.refusal.rule for result in decided.results] == ["", "too-many", ""]
    assert matches(consortium, posted[0]) == ["iu.a.t", "uk.a.t"]
    consortium.publish("iu.a.second")  # in the next block
    monkeypatch.setattr(demand, "MAX_DEMANDS_COMPARED", 1)
    consortium.publish("iu.a.third")  # the first of a block always, whatever others miss


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"title": ""}, "invalid-input"),
        ({"purpose": ""}, "invalid-input"),
        ({"columns": []}, "invalid-input"),
        ({"columns": ["b", "a"]}, "invalid-input"),
        ({"columns": ["a b"]}, "invalid-name"),
        ({"themes": ["HEAL", "ECON"]}, "invalid-input"),
        ({"themes": [f"T{number}" for number in range(10)]}, "invalid-input"),
        ({"themes": [""]}, "invalid-input"),
        ({"themes": ["NOWHERE"]}, "unknown-theme"),
        ({"duration_ms": 0}, "invalid-input"),
        ({"duration_ms": START_MS}, "invalid-input"),
        ({"budget": 2**60}, "invalid-input"),
    ],
)
def test_a_malformed_demand_is_refused(consortium: Consortium, change: dict[str, Any], rule: str) -> None:
    assert consortium.refused(ASKER, wanted(**{"columns": ["age"], **change})) == rule
