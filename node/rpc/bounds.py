"""Bounds of what a request may ask for."""

from __future__ import annotations

from koinon.errors import InvalidInput
from koinon.limits import DEFAULT_PAGE_SIZE, MAX_GROUPS_COUNTED, MAX_PAGE_SIZE, MAX_WAIT_MS


def page_size(asked: int) -> int:
    """Items per page; 0 asks for the usual number. Raises InvalidInput."""
    if asked > MAX_PAGE_SIZE:
        raise InvalidInput(f"a page of {asked} items is too large", hint=f"ask for at most {MAX_PAGE_SIZE} at a time")
    return asked or DEFAULT_PAGE_SIZE


def group_limit(asked: int) -> int:
    """Groups of a count; 0 asks for the usual number. Raises InvalidInput."""
    if asked > MAX_GROUPS_COUNTED:
        raise InvalidInput(f"{asked} groups are too many", hint=f"ask for at most {MAX_GROUPS_COUNTED}")
    return asked or DEFAULT_PAGE_SIZE


def wait_ms(asked: int) -> int:
    """How long a call may wait, milliseconds. Raises InvalidInput."""
    if asked > MAX_WAIT_MS:
        raise InvalidInput(f"waiting {asked} ms is too long", hint=f"ask for at most {MAX_WAIT_MS} ms, and call again")
    return asked
