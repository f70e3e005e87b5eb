"""The words for enum values, in both directions (TOKEN_STATUS_USED_UP is ``used_up``), and for whose rows count."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from koinon.errors import InvalidInput


def word(enum: Any, value: int) -> str:
    """The word for a value of a generated enum; a value of a later version is ``unknown_N``."""
    return word_of(enum.DESCRIPTOR, value)


def word_of(descriptor: Any, value: int) -> str:
    """The same, for the descriptor of an enum."""
    known = descriptor.values_by_number.get(value)
    return _short(descriptor, known.name) if known is not None else f"unknown_{value}"


def words(enum: Any) -> tuple[str, ...]:
    """All words of an enum, without the unspecified value."""
    return tuple(_short(enum.DESCRIPTOR, value.name) for value in enum.DESCRIPTOR.values if value.number)


def number(enum: Any, text: str, what: str) -> Any:
    """The value a person means by a word; the empty text is the unspecified value. Raises InvalidInput."""
    if not text:
        return 0
    for value in enum.DESCRIPTOR.values:
        if value.number and _short(enum.DESCRIPTOR, value.name) == text.strip().lower().replace("-", "_"):
            return value.number
    raise InvalidInput(f"{text!a} is no {what}", hint=f"use {', '.join(words(enum))}")


def numbers(enum: Any, texts: Iterable[str], what: str) -> list[Any]:
    """The values of several words, ascending, each once. Raises InvalidInput."""
    return sorted({number(enum, text, what) for text in texts})


def of_others(uncounted: Iterable[str]) -> str:
    """Whose rows count towards a minimum cohort, given the institutions whose do not; nothing if everybody's do."""
    names = ", ".join(sorted(set(uncounted)))
    return f" of institutions other than {names}" if names else ""


def _short(descriptor: Any, name: str) -> str:
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", descriptor.name).upper() + "_"
    return name.removeprefix(prefix).lower()
