"""What a command says: data to stdout, everything else to stderr, nothing a terminal would obey."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from koinon.display import printable

_PIPE_WIDTH = 1_000  # where there is no terminal, lines are not folded
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


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """A table of texts from anywhere; columns named in ``right`` are aligned there."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        result.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(printable(value)) for value in row))
    return result


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
