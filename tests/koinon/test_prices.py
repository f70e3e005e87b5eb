"""Prices as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import prices
from koinon.errors import InvalidInput
from koinon.limits import MAX_PRICE
from koinon.v1.points_pb2 import PRICE_UNIT_PERIOD, PRICE_UNIT_ROW, PRICE_UNIT_USE, Price, SourceTerms, Terms

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("100/use", Price(unit=PRICE_UNIT_USE, points=100)),
        ("2/row", Price(unit=PRICE_UNIT_ROW, points=2)),
        ("500/30d", Price(unit=PRICE_UNIT_PERIOD, points=500, period_ms=30 * DAY_MS)),
    ],
)
def test_a_price_is_read_and_written(text: str, price: Price) -> None:
    assert prices.parse(text) == price
    assert prices.text(price) == text


def test_free_is_no_price() -> None:
    assert prices.parse("free") is None
    assert prices.parse("") is None
    assert prices.text(Price()) == "free"


@pytest.mark.parametrize(
    "text",
    [
        *("0/use", "-1/use", "1", "1/", "/use", "1/day", "1/0d", "01/use", "1.5/use", "1/use ", "1/USE", "¹/use"),
        *("1/99999d", f"{MAX_PRICE + 1}/use", "9" * 5000 + "/use"),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        prices.parse(text)
    assert caught.value.hint


@given(st.text(max_size=20))
def test_any_text_is_a_price_or_refused(text: str) -> None:
    try:
        price = prices.parse(text)
    except InvalidInput:
        return
    assert price is None or prices.text(price) == text


def test_a_task_costs_its_price_and_the_periods_it_begins() -> None:
    terms = Terms(sources=[SourceTerms(points=5), SourceTerms(subscription=7), SourceTerms()], points=5)
    assert prices.cost(terms) == 12
    assert [prices.of_source(source) for source in terms.sources] == ["5", "7 for a period that begins", "free"]
