"""Tables fit the terminal: names stay whole, or are broken where a reader expects it, or rows become lists of facts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from koinon.cli.layout import fit, fold
from koinon.cli.output import facts, table

TEXTS = st.text("ab ./_-\N{CJK UNIFIED IDEOGRAPH-4E2D}1", max_size=60)
LONG = "heidelberg-university-hospital.pancreatitis_prevention.indomethacin_trial"


def printed(width: int, data: RenderableType) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(data)
    return [line.rstrip() for line in captured.get().splitlines()]


def shown(width: int, *rows: Sequence[str], spare: Sequence[str] = ()) -> list[str]:
    return printed(width, table(("Name", "When", "Text"), rows, spare=spare))


# --- one text


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 13, ["one two three"]),
        ("one two three", 8, ["one two", "three"]),
        ("um.ercp.indo_rct", 12, ["um.ercp.", "indo_rct"]),  # after a separator
        ("the table um.ercp.indo_rct", 16, ["the table", "um.ercp.indo_rct"]),  # not, where the word fits
        ("2026-11-22 05:54:00", 12, ["2026-11-22", "05:54:00"]),  # dates, times and addresses are no names
        ("127.0.0.1:7400", 10, ["127.0.0.1:", "7400"]),
        ("f" * 20, 8, ["f" * 8, "f" * 8, "f" * 4]),
    ],
)
def test_lines_are_broken_where_a_reader_expects_it(text: str, width: int, lines: list[str]) -> None:
    assert fold(text, width) == lines


@given(TEXTS, st.integers(2, 80))
def test_no_line_is_too_wide_and_nothing_but_space_is_lost(text: str, width: int) -> None:
    lines = fold(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


# --- columns


def test_what_fits_is_not_folded() -> None:
    assert fit([["Name", "um.ercp.indo_rct"], ["Text", "one two"]], 30) == [16, 7]


def test_free_text_gives_way_before_names() -> None:
    assert fit([["Name", "um.ercp.indo_rct"], ["Text", "one two three four five"]], 30, whole=True) == [16, 14]
    assert fit([["Name", "um.ercp.indo_rct"], ["Digest", "f" * 64]], 30, whole=True) == [16, 14]


def test_names_are_broken_at_separators_or_not_at_all() -> None:
    columns = [["Name", "um.ercp.indo_rct"], ["Text", "one two three"]]
    assert fit(columns, 20, whole=True) is None
    assert fit(columns, 20) == [10, 10]
    assert fit(columns, 9) is None
    assert fit([["Key", "f" * 64], ["State", "in use"]], 60) is None, "who copies a key needs it whole"


def test_a_cell_as_tall_as_the_screen_is_no_row() -> None:
    assert fit([["Name", "um"], ["Text", "word " * 60]], 20) is None


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=4), min_size=1, max_size=6), st.integers(0, 200), st.booleans())
def test_widths_are_within_the_bound(columns: list[list[str]], available: int, whole: bool) -> None:
    columns = [[name or "x", *cells] for name, *cells in columns]
    widths = fit(columns, available, whole=whole)
    assert widths is None or (sum(widths) <= available and min(widths) >= 1)


# --- tables


def test_no_line_is_wider_than_the_terminal_and_names_are_whole() -> None:
    lines = shown(50, ("um.ercp.indo_rct", "-", "Rectal indomethacin to prevent post-ERCP pancreatitis"))
    assert max(map(len, lines)) <= 50
    assert any(line.startswith("um.ercp.indo_rct ") for line in lines)


def test_what_rows_have_in_common_goes_into_the_heading_and_empty_columns_go() -> None:
    rows = [("um.ercp.indo_rct", "2026-11-22 05:54:00 UTC", "")]
    assert shown(80, *rows)[0].split() == ["Name", "When", "Text"], "only where there is no room"
    assert shown(42, *rows)[0].split() == ["Name", "When", "(UTC)"]


def test_what_can_be_spared_goes_before_a_name_is_broken() -> None:
    rows = [("um.ercp.indo_rct", "2026-11-22 05:54:00 UTC", "three little words")]
    assert "When" not in shown(36, *rows, spare=("When",))[0]
    assert shown(36, *rows, spare=("When",))[2].split()[0] == "um.ercp.indo_rct"


def test_rows_that_cannot_be_read_across_become_facts() -> None:
    first, second = (LONG, "-", "of a trial"), ("um.ercp.indo_rct", "", "word " * 80)
    lines = shown(40, first, second)
    assert max(map(len, lines)) <= 40
    assert lines[0].startswith("Name  heidelberg-university-hospital.")
    assert sum(line.startswith("When") for line in lines) == 1, "what is empty is left out"
    assert "" in lines, "between two rows"


def test_a_pipe_gets_every_column_of_every_row_on_a_line() -> None:
    lines = shown(1_000, (LONG, "2026-11-22 05:54:00 UTC", "word " * 80), ("um", "", "x"), spare=("When",))
    assert len(lines) == 4
    assert "05:54:00 UTC" in lines[2]


def test_a_table_without_rows_is_its_heading() -> None:
    assert shown(40)[0].split() == ["Name", "When", "Text"]


def test_facts_are_folded_beside_their_names() -> None:
    lines = printed(40, facts([("Dataset", LONG), ("Empty", ""), ("Digest", "f" * 31)]))
    assert lines == [
        "Dataset  heidelberg-university-hospital.",
        "         pancreatitis_prevention.",
        "         indomethacin_trial",
        "Digest   " + "f" * 31,
    ]
