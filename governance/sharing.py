"""Profit sharing: who gets how much of a task's price, to the point. Pure, integers only.

``divide`` is the largest remainder method (Hamilton): everybody gets the whole part of its quota, and the points left
over go, one each, to the largest fractions; among equal fractions to whoever comes first. Nothing is lost, nobody is
more than one point from its quota, and the order of the weights is all that decides ties.

``share`` divides a price in three steps, each exact, so that every payout is explained in one line; a fee beside it
goes to the fund whole:

1. the whole, between computing, coordinator, fund, and the data providers, who have what is left;
2. the computing share in equal parts among the committee; the providers' among the datasets, by the weighting voted;
3. what a data union receives, between its administrator and its members.

The terms hold only what the ledger shows anyway: prices, published rows, columns that the query reads. So payouts say
nothing about data. In particular "contribution" is published rows times columns read, not rows that matched: how many
of an institution's rows satisfy a WHERE clause is what the joint computation keeps to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koinon.limits import BASIS_POINTS
from koinon.v1.points_pb2 import (
    WEIGHTING_CONTRIBUTION,
    WEIGHTING_EQUAL,
    WEIGHTING_ROWS,
    WEIGHTING_UNSPECIFIED,
    Shares,
    SourceTerms,
    Terms,
    Weighting,
)

FUND = "fund:consortium"


@dataclass(frozen=True, slots=True)
class Share:
    """What an account gets for one part in a task, and why, in one line."""

    account: str
    points: int
    why: str


def divide(points: int, weights: Sequence[int]) -> list[int]:
    """Parts of ``points`` in proportion to ``weights``, by largest remainder: they add up to it exactly.

    ``points`` and weights are not negative. Where every weight is 0, the parts are equal. No weights, no parts:
    then ``points`` must be 0.
    """
    if not weights:
        assert not points, "points without anybody to get them"
        return []
    total = sum(weights)
    if not total:
        weights, total = [1] * len(weights), len(weights)
    quotas = [divmod(points * weight, total) for weight in weights]
    parts = [whole for whole, _ in quotas]
    by_fraction = sorted(range(len(weights)), key=lambda index: (-quotas[index][1], index))
    for index in by_fraction[: points - sum(parts)]:
        parts[index] += 1
    return parts


def share(terms: Terms) -> list[Share]:
    """Every payout of a task's price and fee, by what it is for; an account may occur several times, and none gets 0.

    Terms are well formed: their shares were checked by ``koinon.parameters``, and the sources' points add up.
    """
    shares, price = terms.shares, terms.points
    bounds = [shares.computing_bp, shares.coordinator_bp, shares.fund_bp]
    providers_bp = BASIS_POINTS - sum(bounds)
    computing, coordinator, fund, providers = divide(price, [*bounds, providers_bp])
    found = [
        Share(account, points, f"computing: 1 of {len(terms.computing)} equal parts of {computing} of {price}")
        for account, points in zip(terms.computing, divide(computing, [1] * len(terms.computing)), strict=True)
    ]
    found.append(Share(terms.coordinator, coordinator, f"coordinator: {coordinator} of {price}"))
    found.append(Share(FUND, fund, f"consortium fund: {fund} of {price}"))
    found.append(Share(FUND, terms.fee, "fee of a task, whatever its price"))
    weights = [weight(source, shares.weighting) for source in terms.sources]
    for source, points, own in zip(terms.sources, divide(providers, weights), weights, strict=True):
        measure = _MEASURES[shares.weighting].format(own=own, total=sum(weights))
        why = f"data of {source.dataset}: {measure}, of the providers' {providers} of {price}"
        found += _of_data(source, points, shares, why)
    return [item for item in found if item.points]


def share_subscription(source: SourceTerms, shares: Shares) -> list[Share]:
    """Every payout of a price per period: between publisher and fund alone, for no task is paid for by it.

    What computing and coordinating would get of a task stays with the publisher.
    """
    fund, rest = divide(source.points, [shares.fund_bp, BASIS_POINTS - shares.fund_bp])
    found = [Share(FUND, fund, f"consortium fund: {fund} of {source.points}")]
    why = f"data of {source.dataset} for a period: {rest} of {source.points}"
    found += _of_data(source, rest, shares, why)
    return [item for item in found if item.points]


def weight(source: SourceTerms, weighting: Weighting.ValueType) -> int:
    """What a dataset counts among those of a task. An unknown weighting counts as equal parts."""
    if weighting == WEIGHTING_UNSPECIFIED:
        return source.points
    if weighting == WEIGHTING_ROWS:
        return source.rows
    return source.rows * source.columns if weighting == WEIGHTING_CONTRIBUTION else 1


def payouts(shares: Sequence[Share]) -> list[tuple[str, int]]:
    """One sum per account, ascending by account."""
    sums: dict[str, int] = {}
    for item in shares:
        sums[item.account] = sums.get(item.account, 0) + item.points
    return sorted(sums.items())


_MEASURES = {
    WEIGHTING_UNSPECIFIED: "priced {own} of {total}",
    WEIGHTING_ROWS: "{own} of {total} published rows",
    WEIGHTING_EQUAL: "1 of {total} equal parts",
    WEIGHTING_CONTRIBUTION: "{own} of {total} published values read",
}


def _of_data(source: SourceTerms, points: int, shares: Shares, why: str) -> list[Share]:
    """What a dataset earns goes to its payee; of a data union's part, its administrator gets some."""
    if not source.administrator:
        return [Share(source.payee, points, why)]
    bp = shares.union_administrator_bp
    administrator, members = divide(points, [bp, BASIS_POINTS - bp])
    return [
        Share(
            source.administrator, administrator, f"administers {source.payee}: {administrator} of {points} for {why}"
        ),
        Share(source.payee, members, f"members of a union: {members} of {points} for {why}"),
    ]
