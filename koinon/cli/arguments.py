"""Kinds of arguments that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from koinon.v1.catalog_pb2 import TaskOperation
from koinon.words import words

Function = TypeVar("Function", bound=Callable[..., Any])

OPERATIONS = ",".join(words(TaskOperation))
_MOMENTS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S")


def comma_list(text: str) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def moment(text: str) -> int:
    """A date or time in UTC as milliseconds since 1970; 0 for none. Raises click.BadParameter."""
    if not text:
        return 0
    for form in _MOMENTS:
        with suppress(ValueError):
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp() * 1000)
    raise click.BadParameter(f"{text!a} is no time; write 2026-11-21 or 2026-11-21T12:30, in UTC")


def operations_option(help_text: str) -> Callable[[Function], Function]:
    """``--operations count,sum,…``"""
    return click.option(
        "--operations", type=comma_list, default="", metavar="LIST", help=f"{help_text} ({OPERATIONS})."
    )


def max_fee_option(what: str) -> Callable[[Function], Function]:
    """``--max-fee N``: agreement to what the members voted that ``what`` costs."""
    return click.option(
        "--max-fee",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help=f"Points you agree to pay for {what}; koinon gov constitution shows the fees.",
    )


def limit_option(default: int) -> Callable[[Function], Function]:
    """``--limit N``"""
    return click.option(
        "--limit", type=click.IntRange(min=1), default=default, show_default=True, help="At most so many."
    )
