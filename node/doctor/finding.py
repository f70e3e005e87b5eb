"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from koinon.errors import KoinonError

Weight: TypeAlias = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer to one question; anything but ``ok`` says what to do."""

    check: str  # what was looked at, e.g. "keys"
    weight: Weight
    text: str
    hint: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def warning(check: str, text: str, hint: str) -> Finding:
    return Finding(check, "warning", text, hint)


def problem(check: str, text: str, hint: str) -> Finding:
    return Finding(check, "problem", text, hint)


def refused(check: str, error: KoinonError) -> Finding:
    """The problem that the node would meet as an error."""
    return problem(check, error.message, error.hint)
