"""Profit sharing: exact to the point, whatever the weights; and every payout says why."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from governance.sharing import FUND, divide, payouts, share, share_subscription
from koinon.limits import BASIS_POINTS, MAX_FEE, MAX_POINTS
from koinon.v1.points_pb2 import (
    WEIGHTING_CONTRIBUTION,
    WEIGHTING_EQUAL,
    WEIGHTING_ROWS,
    Shares,
    SourceTerms,
    Terms,
    Weighting,
)

POINTS = st.integers(0, MAX_POINTS)
WEIGHTS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**40)), min_size=1, max_size=12)


@given(POINTS, WEIGHTS)
def test_parts_add_up_and_nobody_is_a_whole_point_from_its_quota(points: int, weights: list[int]) -> None:
    parts = divide(points, weights)
    assert sum(parts) == points
    total = sum(weights) or len(weights)
    for part, weight in zip(parts, weights if sum(weights) else [1] * len(weights), strict=True):
        assert abs(part - Fraction(points * weight, total)) < 1


@given(POINTS, WEIGHTS)
def test_who_weighs_more_gets_no_less_and_nothing_goes_to_no_weight(points: int, weights: list[int]) -> None:
    parts = divide(points, weights)
    for mine, my_part in zip(weights, parts, strict=True):
        assert mine or not sum(weights) or not my_part
        for other, other_part in zip(weights, parts, strict=True):
            assert mine <= other or my_part >= other_part


@given(POINTS, WEIGHTS, st.randoms(use_true_random=False))
def test_another_order_changes_only_who_wins_ties(points: int, weights: list[int], random: object) -> None:
    def left_over(weights: list[int]) -> list[tuple[int, int]]:
        """(remainder, points it won) of each part: a tie is between equal remainders, whatever the weights."""
        total = sum(weights) or len(weights)
        quotas = [divmod(points * weight, total) for weight in (weights if sum(weights) else [1] * len(weights))]
        return sorted((rest, part - whole) for part, (whole, rest) in zip(divide(points, weights), quotas, strict=True))

    order = list(weights)
    random.shuffle(order)  # type: ignore[attr-defined]
    assert left_over(order) == left_over(weights)


@given(st.integers(0, 10_000), WEIGHTS)
def test_the_largest_remainders_get_the_points_left_over(points: int, weights: list[int]) -> None:
    """Held against a dumb twin that hands out one point at a time."""
    total = sum(weights)
    if not total:
        return
    quotas = [Fraction(points * weight, total) for weight in weights]
    parts = [int(quota) for quota in quotas]
    for _ in range(points - sum(parts)):
        parts[max(range(len(parts)), key=lambda i: (quotas[i] - parts[i], -i))] += 1
    assert divide(points, weights) == parts


def test_ties_go_to_whoever_comes_first() -> None:
    assert divide(2, [1, 1, 1]) == [1, 1, 0]
    assert divide(5, [0, 0]) == [3, 2]
    assert divide(0, []) == []


BASIS = st.integers(0, BASIS_POINTS)


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    cuts = sorted(draw(st.tuples(BASIS, BASIS, BASIS)))
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True))
    sources = [
        SourceTerms(
            dataset=f"{name}.c.t",
            payee="union:u" if union else f"institution:{name}",
            administrator="person:a/admin" if union else "",
            rows=draw(st.integers(0, 1000)),
            columns=draw(st.integers(1, 4)),
            points=draw(st.integers(0, 10**15)),
        )
        for name in sorted(names)
        for union in (draw(st.booleans()),)
    ]
    return Terms(
        sources=sources,
        computing=["institution:a", "institution:b", "institution:c"],
        coordinator="institution:b",
        shares=Shares(
            computing_bp=cuts[0],
            coordinator_bp=cuts[1] - cuts[0],
            fund_bp=cuts[2] - cuts[1],
            union_administrator_bp=draw(BASIS),
            weighting=draw(st.sampled_from(Weighting.values())),
        ),
        points=sum(source.points for source in sources),
        fee=draw(st.integers(0, MAX_FEE)),
    )


@given(terms())
def test_price_and_fee_are_paid_out_to_the_point(fixed: Terms) -> None:
    shares = share(fixed)
    assert sum(item.points for item in shares) == fixed.points + fixed.fee
    assert all(item.points > 0 and "\n" not in item.why and item.why for item in shares)
    accounts = [account for account, _ in payouts(shares)]
    assert accounts == sorted(set(accounts))
    assert sum(points for _, points in payouts(shares)) == fixed.points + fixed.fee


@given(terms())
def test_the_fund_gets_its_share_to_within_a_point(fixed: Terms) -> None:
    fund = dict(payouts(share(fixed))).get(FUND, 0) - fixed.fee
    assert abs(fund - Fraction(fixed.points * fixed.shares.fund_bp, BASIS_POINTS)) < 1


@given(terms())
def test_a_subscription_is_paid_out_to_the_point(fixed: Terms) -> None:
    for source in fixed.sources:
        assert sum(item.points for item in share_subscription(source, fixed.shares)) == source.points


def example(**shares: object) -> Terms:
    return Terms(
        sources=[
            SourceTerms(dataset="a.c.t", payee="institution:a", rows=10, columns=3, points=80),
            SourceTerms(
                dataset="b.c.t", payee="union:b", administrator="person:b/admin", rows=30, columns=1, points=21
            ),
        ],
        computing=["institution:a", "institution:b", "institution:c"],
        coordinator="institution:c",
        shares=Shares(**shares),  # type: ignore[arg-type]
        points=101,
    )


def test_by_default_each_provider_gets_its_own_price() -> None:
    assert payouts(share(example())) == [("institution:a", 80), ("union:b", 21)]


def test_providers_share_by_rows_equal_parts_or_what_was_read() -> None:
    assert dict(payouts(share(example(weighting=WEIGHTING_ROWS)))) == {"institution:a": 25, "union:b": 76}
    assert dict(payouts(share(example(weighting=WEIGHTING_EQUAL)))) == {"institution:a": 51, "union:b": 50}
    assert dict(payouts(share(example(weighting=WEIGHTING_CONTRIBUTION)))) == {"institution:a": 51, "union:b": 50}


def test_every_payout_is_explained_in_one_line() -> None:
    fixed = example(
        computing_bp=1000, coordinator_bp=500, fund_bp=500, union_administrator_bp=1000, weighting=WEIGHTING_ROWS
    )
    assert [(item.account, item.points, item.why) for item in share(fixed)] == [
        ("institution:a", 4, "computing: 1 of 3 equal parts of 10 of 101"),
        ("institution:b", 3, "computing: 1 of 3 equal parts of 10 of 101"),
        ("institution:c", 3, "computing: 1 of 3 equal parts of 10 of 101"),
        ("institution:c", 5, "coordinator: 5 of 101"),
        (FUND, 5, "consortium fund: 5 of 101"),
        ("institution:a", 20, "data of a.c.t: 10 of 40 published rows, of the providers' 81 of 101"),
        (
            "person:b/admin",
            6,
            "administers union:b: 6 of 61 for data of b.c.t: 30 of 40 published rows, of the providers' 81 of 101",
        ),
        (
            "union:b",
            55,
            "members of a union: 55 of 61 for data of b.c.t: 30 of 40 published rows, of the providers' 81 of 101",
        ),
    ]
