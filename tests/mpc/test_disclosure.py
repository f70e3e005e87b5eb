"""Cohort rules, and the cleartext twin that applies them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon.errors import Refused
from mpc.cleartext import GroupResult, evaluate, group_codes, nearest, root
from mpc.disclosure import minimum_cohort, rows_at_most
from mpc.plan import compile_plan
from tests.mpc.tables import MEMBERS, OUTSIDER, source, sources

S = 10**6


def test_the_strictest_policy_or_token_sets_the_cohort() -> None:
    given_sources = [source("um", min_cohort=3), source("iu", min_cohort=7), source("uk", token_cohort=11)]
    assert minimum_cohort((s.dataset, s.token) for s in given_sources) == 11
    assert minimum_cohort([(given_sources[1].dataset, given_sources[1].token)]) == 7
    free = source("um", min_cohort=0)
    assert minimum_cohort([(free.dataset, free.token)]) == 1, "a group without a row is no group"


@pytest.mark.parametrize(("rows", "step", "bound"), [(0, 10, 9), (160, 10, 169), (164, 1, 164), (3, 0, 3)])
def test_published_counts_are_lower_bounds(rows: int, step: int, bound: int) -> None:
    dataset = source("um").dataset
    dataset.published.row_count = rows
    dataset.published.row_count_step = step
    assert rows_at_most(dataset) == bound


def test_what_can_show_nothing_is_refused_before_it_runs() -> None:
    """The three patients of one centre: refused from the published row count alone, with the rule named."""
    small = source("case", rows=0, min_cohort=10)
    with pytest.raises(Refused, match="at most 9 rows together, fewer than the minimum cohort of 10") as caught:
        compile_plan("SELECT COUNT(*) FROM case.ercp.indo_rct", [small], MEMBERS, asker=OUTSIDER)
    assert caught.value.rule == "minimum-cohort"
    together = [small, *sources("um", "iu")]
    assert compile_plan("SELECT COUNT(*) FROM ercp.indo_rct", together, MEMBERS, asker=OUTSIDER).min_cohort == 10
    with pytest.raises(Refused, match="at most 9 rows of institutions other than um together, fewer than") as caught:
        compile_plan("SELECT COUNT(*) FROM ercp.indo_rct", [small, *sources("um")], MEMBERS, asker="um")
    assert caught.value.rule == "minimum-cohort"


def _evaluated(
    select: str, inputs: list[list[list[int]]], min_cohort: int = 5, asker: str = OUTSIDER
) -> list[GroupResult]:
    given_sources = [source(name, min_cohort=min_cohort) for name in MEMBERS[: len(inputs)]]
    return evaluate(compile_plan(f"SELECT {select}", given_sources, MEMBERS, asker=asker), inputs)


def test_a_group_is_shown_from_the_minimum_cohort_on() -> None:
    query = "rx, COUNT(*) FROM ercp.indo_rct GROUP BY rx"
    results = _evaluated(query, [[[2], [4]], [[3], [0]]])
    assert results == [GroupResult(("0_placebo",), True, (5,)), GroupResult(("1_indomethacin",), False, (None,))]
    assert [result.opened() for result in results] == [[1, 1, 5], [0, 0, 0]]


def test_an_aggregate_is_present_from_the_minimum_cohort_of_values_on() -> None:
    """Otherwise AVG(CASE WHEN id = 1001 THEN age END) would open one person's age."""
    query = "COUNT(risk), SUM(risk), AVG(risk), VAR_SAMP(risk), STDDEV_SAMP(risk) FROM ercp.indo_rct"
    few = _evaluated(query, [[[100, 4, 8 * S, 20 * S * S]]])
    assert few[0].values == (4, None, None, None, None)
    assert few[0].opened() == [1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0]
    enough = _evaluated(query, [[[100, 5, 8 * S, 20 * S * S]]])
    assert enough[0].values == (5, 8 * S, 1_600_000, 1_800_000, 1_341_641)


def test_rows_that_the_asker_knows_make_no_cohort() -> None:
    """Case publishes four rows that it knows, and asks: the fifth, which is iu's, would be what is left."""
    query = "COUNT(*), SUM(risk) FROM ercp.indo_rct"
    one = [[[4, 4, 8 * S]], [[1, 1, 3 * S]]]
    assert _evaluated(query, one) == [GroupResult((), True, (5, 11 * S))]
    assert _evaluated(query, one, asker="case") == [GroupResult((), False, (None, None))]
    few = [[[4, 4, 8 * S]], [[9, 4, 3 * S]]]
    assert _evaluated(query, few, asker="case") == [GroupResult((), True, (13, None))]
    enough = [[[4, 4, 8 * S]], [[9, 5, 3 * S]]]
    assert _evaluated(query, enough, asker="case") == [GroupResult((), True, (13, 11 * S))]
    assert _evaluated(query, [[[5, 5, 8 * S]]], asker="case") == [GroupResult((), True, (5, 8 * S))], "all its own"


def test_a_variance_needs_two_values_whatever_the_policy() -> None:
    one = _evaluated("SUM(risk), VAR_SAMP(risk) FROM ercp.indo_rct", [[[1, 1, 3 * S, 9 * S * S]]], min_cohort=1)
    assert one[0].values == (3 * S, None)


def test_groups_are_the_product_of_the_codelists_last_column_fastest() -> None:
    query = "SELECT COUNT(*) FROM ercp.indo_rct GROUP BY trained, rx"
    plan = compile_plan(query, sources("um"), MEMBERS, asker=OUTSIDER)
    assert group_codes(plan) == [
        ("false", "0_placebo"),
        ("false", "1_indomethacin"),
        ("true", "0_placebo"),
        ("true", "1_indomethacin"),
    ]


@given(st.integers(-(10**40), 10**40), st.integers(1, 10**20))
def test_nearest_is_floor_of_the_half_added(numerator: int, denominator: int) -> None:
    assert nearest(numerator, denominator) == math.floor(Fraction(numerator, denominator) + Fraction(1, 2))


@given(st.integers(0, 10**40))
def test_root_is_the_nearest_integer(value: int) -> None:
    result = root(value)
    assert 4 * value < (2 * result + 1) ** 2
    assert result == 0 or (2 * result - 1) ** 2 <= 4 * value
