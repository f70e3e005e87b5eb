"""How results and ledger texts are shown: exact, and harmless in a terminal, a page and a spreadsheet."""

from __future__ import annotations

import csv
import io
import sys
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from koinon import canonical, display, planned, words
from koinon.errors import Corrupt, InvalidInput, Unavailable
from koinon.planned import PlannedQuery
from koinon.result import Result, build, opened_count
from koinon.v1.access_pb2 import Token, TokenStatus
from koinon.v1.catalog_pb2 import TASK_OPERATION_COUNT as COUNTING
from koinon.v1.catalog_pb2 import TASK_OPERATION_GROUP_BY as GROUPING
from koinon.v1.plan_pb2 import GroupColumn, OutputColumn, OutputKind, Plan, PlanSource, PlanStep
from koinon.v1.services_pb2 import PlanQueryResponse
from koinon.v1.task_pb2 import SubmitTask

HOSTILE = "=HYPERLINK(1)\x1b]0;owned\x07\u202e<script>\n"


def offer(codes: list[str], outputs: list[OutputColumn]) -> PlannedQuery:
    plan = Plan(
        sources=[PlanSource(dataset="um.c.t")],
        committee=["case", "iu", "um"],
        threshold=1,
        group_by=[GroupColumn(name="g", codes=codes)],
        outputs=[OutputColumn(name="g", kind=OutputKind.OUTPUT_KIND_GROUP), *outputs],
        min_cohort=5,
        fraction_digits=6,
        steps=[PlanStep(description=HOSTILE, learns=HOSTILE, who=["asker"])],
    )
    return PlannedQuery(plan, b"h" * 32, SubmitTask())


COUNT = OutputColumn(name="n", kind=OutputKind.OUTPUT_KIND_COUNT, integral=True)
MEAN = OutputColumn(name="-mean", kind=OutputKind.OUTPUT_KIND_AVG)


def hostile_result() -> Result:
    return build(offer([HOSTILE, "b"], [COUNT, MEAN]), "t" * 32, [1, 1, 9, 1, -1_500_000, 1, 1, 8, 0, 0], 0.5)


@given(st.integers(-(2**120), 2**120), st.booleans())
def test_values_are_exact(value: int, integral: bool) -> None:
    column = OutputColumn(name="x", kind=OutputKind.OUTPUT_KIND_SUM, integral=integral)
    scaled = value * 10**6 if integral else value
    (row,) = build(offer(["a"], [column]), "t", [1, 1, scaled], 0.0).rows
    exact = row["x"]
    assert isinstance(exact, int if integral else Decimal)
    assert Fraction(exact) * 10**6 == scaled


def test_a_whole_number_that_is_not_whole_is_corrupt() -> None:
    column = OutputColumn(name="x", kind=OutputKind.OUTPUT_KIND_SUM, integral=True)
    with pytest.raises(Corrupt, match="whole number"):
        build(offer(["a"], [column]), "t", [1, 1, 1_500_000], 0.0)


@pytest.mark.parametrize("length", [0, 4, 6, 9, 11])
def test_too_few_or_too_many_numbers_are_corrupt(length: int) -> None:
    with pytest.raises(Corrupt, match="numbers were opened"):
        build(offer(["a", "b"], [COUNT, MEAN]), "t", [0] * length, 0.0)
    assert opened_count(offer(["a", "b"], [COUNT, MEAN]).plan) == 10


def test_pandas_gets_whole_numbers_floats_and_missing_values() -> None:
    frame = hostile_result().to_pandas()
    assert list(frame.columns) == ["g", "n", "-mean"]
    assert frame["n"].tolist() == [9, 8]
    assert str(frame["n"].dtype) == "Int64"
    assert frame["-mean"].dtype == float
    assert frame["-mean"].iloc[0] == -1.5
    assert frame["-mean"].isna().tolist() == [False, True]


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Unavailable) as caught:
        hostile_result().to_pandas()
    assert caught.value.rule == "missing-extra"
    assert "koinon[pandas]" in caught.value.hint


def test_csv_holds_no_formula_and_every_number() -> None:
    rows = list(csv.reader(io.StringIO(hostile_result().to_csv())))
    assert rows[0] == ["g", "n", "'-mean"]
    assert rows[1][0].startswith("'=HYPERLINK")
    assert rows[1][1:] == ["9", "-1.5"]  # a negative number is a number
    assert rows[2] == ["b", "8", ""]


def test_html_and_terminal_output_are_harmless() -> None:
    result = hostile_result()
    page = result._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    for thing in (result, result.planned):
        console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=400)
        console.print(thing)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "\x1b]0;" not in text
        assert "\u202e" not in text
        assert "HYPERLINK" in text


@given(st.text())
def test_printable_text_has_no_character_that_a_terminal_obeys(text: str) -> None:
    shown = display.printable(text)
    assert shown.isprintable() or all(c.isprintable() or c.isspace() for c in shown)
    assert "\n" not in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Decimal("57.800000"), "57.8"),
        (Decimal("0.000000"), "0"),
        (Decimal("-0.000001"), "-0.000001"),
        (Decimal(100), "100"),
        (1200, "1200"),
    ],
)
def test_numbers_are_shown_without_exponent_and_padding(value: Decimal | int, shown: str) -> None:
    assert display.number(value) == shown


def test_times_and_spans() -> None:
    assert display.when(1_795_305_600_123) == "2026-11-22 00:00:00 UTC"
    assert display.when(0) == display.when(-5) == display.when(2**63 - 1) == "-"
    assert [display.duration(ms) for ms in (86_400_000, 2_592_000_000, 5_400_000, 90_500, 999)] == [
        "1 day",
        "30 days",
        "90 minutes",
        "90 seconds",
        "999 ms",
    ]


def test_plain_messages_have_every_field() -> None:
    shown = display.plain(Token(id="ab", status=TokenStatus.TOKEN_STATUS_USED_UP, operations=[COUNTING, GROUPING]))
    assert (shown["status"], shown["operations"], shown["uses_left"]) == ("used_up", ["count", "group_by"], 0)


def test_words_go_both_ways_and_later_versions_are_shown() -> None:
    for value in TokenStatus.values()[1:]:
        assert words.number(TokenStatus, words.word(TokenStatus, value), "status") == value
    assert words.word(TokenStatus, 99) == "unknown_99"
    with pytest.raises(InvalidInput):
        words.number(TokenStatus, "unspecified", "status")


def test_a_plan_out_of_bounds_is_refused() -> None:
    plan = offer([str(number) for number in range(300)], [COUNT]).plan
    digest = canonical.plan_hash(plan.SerializeToString(deterministic=True))
    task = SubmitTask(plan_hash=digest, committee=plan.committee, threshold=1)
    with pytest.raises(Corrupt, match="bounds"):
        planned.check(PlanQueryResponse(plan=plan, plan_hash=digest, task=task), "SELECT g, COUNT(*) AS n FROM um.c.t")
