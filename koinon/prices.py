"""Prices as people write and read them: ``free``, ``100/use``, ``2/row``, ``500/30d``."""

from __future__ import annotations

import re

from koinon.errors import InvalidInput
from koinon.limits import MAX_PERIOD_MS, MAX_PRICE
from koinon.v1.points_pb2 import (
    PRICE_UNIT_PERIOD,
    PRICE_UNIT_ROW,
    PRICE_UNIT_USE,
    Price,
    SourceTerms,
    Terms,
)

FREE = "free"

_DAY_MS = 86_400_000
_PRICE = re.compile(r"([1-9][0-9]{0,15})/(?:(use|row)|([1-9][0-9]{0,4})d)")
_UNITS = {"use": PRICE_UNIT_USE, "row": PRICE_UNIT_ROW}


def parse(text: str) -> Price | None:
    """The price that a text means; None for ``free``. Raises InvalidInput."""
    if text in ("", FREE):
        return None
    match = _PRICE.fullmatch(text)
    if not match:
        raise InvalidInput(f"{text!a} is no price", hint="write free, 100/use, 2/row, or 500/30d for thirty days")
    points, unit, days = int(match[1]), match[2], match[3]
    price = Price(unit=_UNITS[unit], points=points) if unit else _for_days(points, int(days))
    if points > MAX_PRICE or price.period_ms > MAX_PERIOD_MS:
        raise InvalidInput(f"the price {text} is too high", hint=f"use at most {MAX_PRICE} points, and a hundred years")
    return price


def text(price: Price) -> str:
    """A price as ``parse`` reads it, except for periods that are no whole days."""
    if price.unit == PRICE_UNIT_USE:
        return f"{price.points}/use"
    if price.unit == PRICE_UNIT_ROW:
        return f"{price.points}/row"
    if price.unit == PRICE_UNIT_PERIOD:
        days, rest = divmod(price.period_ms, _DAY_MS)
        return f"{price.points}/{days}d" if not rest else f"{price.points}/{price.period_ms}ms"
    return FREE


def cost(terms: Terms) -> int:
    """All that a task's asker pays on submitting: its price, the consortium's fee, and the periods that it begins."""
    return terms.points + terms.fee + sum(source.subscription for source in terms.sources)


def of_one_use(price: Price, rows: int) -> int:
    """Points for one task over data of so many published rows; of a price per period, for the period that it begins."""
    return min(price.points * rows, MAX_PRICE) if price.unit == PRICE_UNIT_ROW else price.points


def of_source(source: SourceTerms) -> str:
    """What one dataset adds to a task's cost, in words."""
    if source.subscription:
        return f"{source.subscription} for a period that begins"
    return str(source.points) if source.points else FREE


def _for_days(points: int, days: int) -> Price:
    return Price(unit=PRICE_UNIT_PERIOD, points=points, period_ms=days * _DAY_MS)
