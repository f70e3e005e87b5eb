"""Runs the ```console blocks of a page and compares what comes out with what the page says.

A line that starts with ``$ `` is a command (``> `` continues it); the lines after it, up to the next command, are its
output, standard error included. In the output ``…`` stands for anything on a line, and a line that is only ``…``
for any number of lines; blank lines and trailing space are not compared. A last line ``[4]`` says that the command
ends with exit code 4. A command that ends in ``&`` goes on in the background until the page ends, and
``export NAME=VALUE`` holds for the commands after it. A ```python block is a program that must end well.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 120
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"export (\w+)=(\S+)")
_EXIT = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Example:
    """One command of a page, and what it should give."""

    page: str
    line: int  # of the command, from 1
    command: str
    output: tuple[str, ...]
    exit_code: int


def examples(path: Path) -> Iterator[Example]:
    """The commands of a page, in order."""
    text = path.read_text("utf-8")
    for block in _BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(2)) + 1
        if block.group(1) == "python":
            yield Example(path.name, first, f"python - <<'END'\n{block.group(2)}END", (), 0)
            continue
        lines = block.group(2).splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            command = [lines[start][2:]]
            body = start + 1
            while body < end and lines[body].startswith("> "):
                command.append(lines[body][2:])
                body += 1
            output = [line.rstrip() for line in lines[body:end] if line.strip()]
            code = _EXIT.fullmatch(output[-1]) if output else None
            yield Example(
                page=path.name,
                line=first + start,
                command="\n".join(command),
                output=tuple(output[:-1] if code else output),
                exit_code=int(code[1]) if code else 0,
            )


class Shell:
    """A directory in which commands run one after another, as a reader would type them."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._background: list[subprocess.Popen[bytes]] = []

    def run(self, example: Example) -> None:
        """Run a command and compare. Raises AssertionError with both texts."""
        if export := _EXPORT.fullmatch(example.command):
            self._environment = self._environment | {export[1]: export[2]}
            return
        if example.command.endswith("&"):
            self._start(example.command.removesuffix("&"))
            return
        done = subprocess.run(
            ["bash", "-c", example.command],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        actual = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
        where = f"{example.page}:{example.line}: $ {example.command}\n"
        assert done.returncode == example.exit_code, f"{where}exit code {done.returncode}\n{done.stdout}"
        wanted = "\n".join(example.output)
        assert matches(example.output, actual), f"{where}--- says\n{wanted}\n--- gives\n{done.stdout}"

    def _start(self, command: str) -> None:
        self._background.append(
            subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def close(self) -> None:
        """End what runs in the background."""
        for process in self._background:
            process.send_signal(signal.SIGTERM)
        for process in self._background:
            process.wait(TIMEOUT_S)


def matches(wanted: tuple[str, ...] | list[str], actual: list[str]) -> bool:
    """Whether the output is what the page says; an example without output accepts any."""
    if not wanted:
        return True
    pattern = "".join(
        r"(?:[^\n]*\n)*?" if line == "…" else re.escape(line).replace("…", r"[^\n]*?") + "\n" for line in wanted
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in actual)) is not None


def environment(bin_directory: Path) -> dict[str, str]:
    """The environment of a reader with nothing set but the path to the commands; lines come in a terminal's order."""
    keep = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return keep | {"PATH": f"{bin_directory}:{os.environ['PATH']}", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
