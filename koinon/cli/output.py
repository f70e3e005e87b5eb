"""What a command says: data to stdout, everything else to stderr, nothing a terminal would obey."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from koinon.display import printable

HELP_WIDTH = 100  # of help texts, where the terminal is not narrower
_PIPE_WIDTH = 1_000  # where there is no terminal, lines are not folded
_GAP = 3  # between columns
_LONG_WORD = 24  # characters of the longest that is never broken while anything else can give way
_SHORT_LINE = 12  # characters of a line that can still be read
_PATIENCE_S = 1.0  # work that takes longer shows that it goes on


def out() -> Console:
    """The console for data."""
    return _console(sys.stdout.isatty(), stderr=False)


def err() -> Console:
    """The console for everything else."""
    return _console(sys.stderr.isatty(), stderr=True)


def _console(terminal: bool, *, stderr: bool) -> Console:
    width = None if terminal else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def show(data: RenderableType) -> None:
    """Print data for a person; without padding at the ends of lines where a program may read it."""
    console = out()
    if console.is_terminal:
        console.print(data)
        return
    with console.capture() as captured:
        console.print(data)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def show_json(data: Any) -> None:
    """Print data for a program; ASCII only, so that no text can act on a terminal."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=True) + "\n")


def show_json_line(data: Any) -> None:
    """The same on one line, at once: for streams."""
    sys.stdout.write(json.dumps(data, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def show_text(text: str) -> None:
    """Print text that is safe already, exactly as it is."""
    sys.stdout.write(text)


def say(text: str, style: str = "") -> None:
    """Tell a person something beside the data, on one line."""
    err().print(Text(printable(text), style=style), soft_wrap=True)


def say_error(message: str, rule: str, hint: str) -> None:
    """One line what happened and which rule, one line what to do."""
    console = err()
    console.print(Text.assemble(("error:", "bold red"), f" {printable(message)} [{rule}]"), soft_wrap=True)
    if hint:
        console.print(Text.assemble(("hint:", "bold"), f" {printable(hint)}"), soft_wrap=True)


def show_finding(weight: str, text: str, hint: str) -> None:
    """Data for a person: one thing found, and on a second line what to do about it."""
    style = {"problem": "bold red", "warning": "bold yellow", "ok": "bold green"}[weight]
    console = out()
    console.print(Text.assemble((f"{weight}:", style), f" {printable(text)}"), soft_wrap=True)
    if hint:
        console.print(Text.assemble(("hint:", "bold"), f" {printable(hint)}"), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> RenderableType:
    """A table of texts from anywhere; columns named in ``right`` are aligned there."""
    return _Table(columns, [[printable(value) for value in row] for row in rows], right)


class _Table:
    """Fits its columns to the width there is; names and ids are broken only where nothing else helps."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
        self._columns = columns
        self._rows = rows
        self._right = right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        cells = [[name, *column] for name, *column in zip(self._columns, *self._rows, strict=True)]
        result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name, width in zip(self._columns, fit(cells, options.max_width - _GAP * (len(cells) - 1)), strict=True):
            result.add_column(name, justify="right" if name in self._right else "left", overflow="fold", width=width)
        for row in self._rows:
            result.add_row(*(Text(value) for value in row))
        yield result


def fit(columns: Sequence[Sequence[str]], available: int) -> list[int]:
    """Widths of columns of texts, so that together they are at most ``available`` where that is possible.

    The widest column gives way first, down to its longest word as far as that is no monster; the last column, which
    is free text as a rule, breaks words sooner. If that is not enough, all do.
    """
    widths = [max(map(cell_len, column)) for column in columns]
    words = [max(cell_len(word) for text in column for word in (text.split() or ["-"])) for column in columns]
    gentle = [*(min(word, _LONG_WORD) for word in words[:-1]), min(words[-1], _SHORT_LINE)]
    for floors in (gentle, [1] * len(columns)):
        while sum(widths) > available:
            spare = [width if width > floor else 0 for width, floor in zip(widths, floors, strict=True)]
            if not any(spare):
                break
            widths[spare.index(max(spare))] -= 1
    return widths


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values below one another; empty values are left out."""
    result = Table.grid(padding=(0, 2))
    result.add_column(style="bold", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            result.add_row(name, Text(printable(value)))
    return result


class Working:
    """A line on a terminal's stderr that says what goes on, once it takes longer than a second."""

    def __init__(self, text: str) -> None:
        self._status = err().status(Text(printable(text)))
        self._timer = threading.Timer(_PATIENCE_S, self._status.start)

    def update(self, text: str) -> None:
        """Say something else from now on; may be called from any thread."""
        self._status.update(Text(printable(text)))

    def start(self) -> None:
        if sys.stderr.isatty():
            self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()
        if self._timer.ident is not None:
            self._timer.join()
        self._status.stop()


@contextmanager
def working(text: str) -> Iterator[Working]:
    """Show ``text`` while the block runs, if it takes long and somebody watches."""
    line = Working(text)
    line.start()
    try:
        yield line
    finally:
        line.stop()
