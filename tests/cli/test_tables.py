"""Tables fit the terminal, and break names only where nothing else helps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from koinon.cli.output import fit, table

TEXTS = st.text("ab ", min_size=1, max_size=60)


def shown(width: int, *rows: tuple[str, str]) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table(("Name", "Text"), rows))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_what_fits_is_not_folded() -> None:
    assert fit([["Name", "um.ercp.indo_rct"], ["Text", "one two"]], 30) == [16, 7]


def test_free_text_gives_way_before_names() -> None:
    assert fit([["Name", "um.ercp.indo_rct"], ["Text", "one two three four five"]], 30) == [16, 14]
    assert fit([["Name", "um.ercp.indo_rct"], ["Digest", "f" * 64]], 30) == [16, 14]


def test_a_narrow_terminal_breaks_what_it_must() -> None:
    assert sum(fit([["Name", "um.ercp.indo_rct"], ["Text", "one two three"]], 10)) == 10


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=4), min_size=1, max_size=6), st.integers(0, 200))
def test_widths_are_within_the_bound_and_never_nothing(columns: list[list[str]], available: int) -> None:
    widths = fit(columns, available)
    assert sum(widths) <= max(available, len(columns))
    assert min(widths) >= 1


def test_no_line_is_wider_than_the_terminal() -> None:
    lines = shown(40, ("um.ercp.indo_rct", "Rectal indomethacin to prevent post-ERCP pancreatitis"))
    assert max(map(len, lines)) <= 40
    assert any(line.startswith("um.ercp.indo_rct ") for line in lines)
