"""Structured logs: one JSON line per decision, never a payload.

What may be logged: names, heights, ids, counts, durations, rules. What may not: bytes of
transactions, queries' results, shares, keys, file contents.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog


def configure(level: str, institution: str, file: Path | None = None) -> structlog.typing.FilteringBoundLogger:
    """Send the node's log to ``file`` (appending) or stderr and return its logger.

    Raises:
        OSError: the file cannot be opened.
    """
    stream = sys.stderr if file is None else file.open("a", encoding="utf-8", buffering=1)
    structlog.configure(
        processors=[
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
