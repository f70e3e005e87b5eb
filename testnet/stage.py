"""How the demo speaks: numbered steps with live progress, what happened, and what it proves.

On a terminal a spinner tells what goes on and a bar how far it is; elsewhere only finished lines appear.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from koinon.display import printable

_INDENT = 3

Advance = Callable[[str, int, int], None]
"""Says what goes on now, and how much of how much is done; a total of 0 means that nobody knows."""


class Stage:
    """Where the story is told. ``console`` decides width, colour and whether anything moves."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(markup=False, emoji=False, highlight=False)
        self._started = time.monotonic()
        self._number = 0

    def title(self, title: str, subtitle: str) -> None:
        """Open the story."""
        text = Text.assemble((title, "bold"), "\n", (subtitle, "dim"))
        self.console.print(Panel(text, box=box.ROUNDED, expand=False, padding=(0, 2)))

    def end(self, text: str) -> None:
        """Close the story."""
        self.console.print()
        self.console.print(
            Text.assemble(("Done", "bold green"), f" in {time.monotonic() - self._started:.0f} s. {text}")
        )

    @contextmanager
    def step(self, title: str, proves: str) -> Iterator[None]:
        """One step of the story; ``proves`` is said once the block has run without an error."""
        self._number += 1
        self.console.print()
        self.console.print(Text.assemble((f"{self._number}  ", "bold cyan"), (title, "bold")))
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        proof = Text.assemble(("✓ ", "bold green"), ("proves: ", "green"), proves, (f"  ({took:.1f} s)", "dim"))
        self.show(proof)

    def say(self, *parts: str | tuple[str, str]) -> None:
        """A line of the story; parts are texts, or texts with a style."""
        self.show(Text.assemble(*parts))

    def show(self, what: RenderableType) -> None:
        """Anything rich can show, in the step's indentation."""
        self.console.print(Padding(what, (0, 0, 0, _INDENT), expand=False))

    def refusal(self, message: str, rule: str, hint: str) -> None:
        """What a user of the command line would see."""
        self.say(("error: ", "bold red"), f"{printable(message)} [{rule}]")
        self.say(("hint: ", "bold"), printable(hint))

    def table(self, *columns: str, right: tuple[str, ...] = ()) -> Table:
        """An empty table in the story's style."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
        for name in columns:
            table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
        return table

    @contextmanager
    def progress(self, text: str) -> Iterator[Advance]:
        """Show that something goes on while the block runs; gives the function that says what."""
        columns = (
            TextColumn(" " * (_INDENT - 1)),
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            bar = progress.add_task(printable(text), total=None)

            def advance(text: str, done: int, total: int) -> None:
                progress.update(bar, description=printable(text), completed=done, total=total or None)

            yield advance
