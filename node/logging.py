"""Structured logs: one JSON line per decision, never a payload; of what others can cause, not without end.

What may be logged: names, heights, ids, counts, durations, rules. What may not: bytes of
transactions, queries' results, shares, keys, file contents.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog

_LINES_PER_MINUTE = 300  # of one event: whoever makes a node write them for ever adds 60 MB a day
_UNBOUNDED = ("block",)  # those are as many as the members decide


class Bound:
    """A processor that leaves out what repeats too often: a flood of messages must not fill the disk with warnings.

    The last line of an event within a minute says so. Events are constants of this program, hence few.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds."""
        self._clock = clock
        self._minute = -1
        self._lines: Counter[str] = Counter()  # by event, in this minute

    def __call__(self, _logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """The line, if it is to be written. Raises DropEvent."""
        event = line["event"]
        if event in _UNBOUNDED:
            return line
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute = minute
            self._lines.clear()
        self._lines[event] += 1
        if self._lines[event] > _LINES_PER_MINUTE:
            raise structlog.DropEvent
        if self._lines[event] == _LINES_PER_MINUTE:
            line["further"] = "left out for up to a minute"
        return line


def configure(level: str, institution: str, file: Path | None = None) -> structlog.typing.FilteringBoundLogger:
    """Send the node's log to ``file`` (appending) or stderr and return its logger.

    Raises:
        OSError: the file cannot be opened.
    """
    stream = sys.stderr if file is None else file.open("a", encoding="utf-8", buffering=1)
    structlog.configure(
        processors=[
            Bound(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(node=institution)
    return logger
