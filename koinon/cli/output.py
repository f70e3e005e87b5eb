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
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from koinon.cli import layout
from koinon.display import printable

HELP_WIDTH = 100  # of help texts, where the terminal is not narrower
_PIPE_WIDTH = 20_000  # where there is no terminal, lines are not folded
_GAP = 3  # between columns
_INDENT = 2  # between a name and its value
_ZONE = " UTC"
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


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = (), spare: Sequence[str] = ()
) -> RenderableType:
    """A table of texts from anywhere; columns named in ``right`` are aligned there.

    Where the terminal is too narrow for names to stay whole, those named in ``spare`` are left out, one after the
    other; if that is not enough, each row is shown as ``facts``.
    """
    return _Table(columns, [[printable(value) for value in row] for row in rows], right, spare)


class _Table:
    def __init__(
        self, names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], spare: Sequence[str]
    ) -> None:
        self._columns = list(zip(names, *rows, strict=True))
        self._right = right
        self._spare = spare

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = layout.natural(self._columns)
        if sum(widths) <= options.max_width - _GAP * (len(widths) - 1):
            yield self._lines(self._columns, widths)
            return
        for columns, whole in [(columns, whole) for whole in (True, False) for columns in self._narrower()]:
            fitting = layout.fit(columns, options.max_width - _GAP * (len(columns) - 1), whole=whole)
            if fitting is not None:
                yield self._lines(columns, fitting)
                return
        for row in zip(*(column[1:] for column in self._columns), strict=True):
            yield facts(zip((column[0] for column in self._columns), row, strict=True))
            yield ""

    def _narrower(self) -> Iterator[Sequence[Sequence[str]]]:
        """The columns that say something, with time zones in the heading; and without those that can be spared."""
        named = {column[0]: column for column in self._columns}
        kept = {name: _zone_above(column) for name, column in named.items() if any(column[1:])} or named
        yield list(kept.values())
        for name in self._spare:
            kept.pop(name, None)
            yield list(kept.values())

    def _lines(self, columns: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
        result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for (name, *_), width in zip(columns, widths, strict=True):
            justify: JustifyMethod = "right" if name in self._right else "left"
            result.add_column(Text(_folded(name, width)), justify=justify, width=width)
        for row in zip(*(column[1:] for column in columns), strict=True):
            result.add_row(*(Text(_folded(cell, width)) for cell, width in zip(row, widths, strict=True)))
        return result


def _zone_above(column: Sequence[str]) -> Sequence[str]:
    """A column of times, with what they have in common in its heading."""
    name, *cells = column
    if not any(cells) or not all(cell.endswith(_ZONE) for cell in cells if cell):
        return column
    return [f"{name} ({_ZONE.strip()})", *(cell.removesuffix(_ZONE) for cell in cells)]


def _folded(text: str, width: int) -> str:
    return "\n".join(layout.fold(text, width))


def facts(pairs: Iterable[tuple[str, str]]) -> RenderableType:
    """Names and values below one another; empty values are left out."""
    return _Facts([(name, printable(value)) for name, value in pairs if value])


class _Facts:
    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._pairs = pairs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        names = max((cell_len(name) for name, _ in self._pairs), default=0)
        result = Table.grid(padding=(0, _INDENT))
        result.add_column(style="bold", no_wrap=True)
        result.add_column(overflow="fold")
        for name, value in self._pairs:
            result.add_row(name, Text(_folded(value, options.max_width - names - _INDENT)))
        yield result


class Working:
    """A line on a terminal's stderr that says what goes on, once it takes longer than a second."""

    def __init__(self, text: str) -> None:
        self._spinner = Spinner("dots", Text(printable(text)), style="status.spinner")
        # Text is printed above the line where stdout is a terminal, too; data for a pipe or file are left alone.
        self._live = Live(self._spinner, console=err(), transient=True, redirect_stdout=sys.stdout.isatty())
        self._timer = threading.Timer(_PATIENCE_S, self._live.start)

    def update(self, text: str) -> None:
        """Say something else from now on; may be called from any thread."""
        self._spinner.update(text=Text(printable(text)))

    def start(self) -> None:
        if sys.stderr.isatty():
            self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()
        if self._timer.ident is not None:
            self._timer.join()
        self._live.stop()


@contextmanager
def working(text: str) -> Iterator[Working]:
    """Show ``text`` while the block runs, if it takes long and somebody watches."""
    line = Working(text)
    line.start()
    try:
        yield line
    finally:
        line.stop()
