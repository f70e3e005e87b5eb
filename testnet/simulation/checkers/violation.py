"""The one error of all checkers."""

from __future__ import annotations


class Violation(AssertionError):
    """Something happened that must never happen."""
