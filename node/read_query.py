"""What a question to the read model is made of: conditions with bound values, page tokens, search texts.

Everything that comes from outside is a bound value or a number; conditions are the read model's own words.
"""

from __future__ import annotations

from koinon.errors import InvalidInput
from koinon.limits import MAX_SEARCH_TERMS, MAX_TITLE

Value = str | int


class Where:
    """Conditions that must all hold, and the values bound to them."""

    def __init__(self) -> None:
        self._conditions = ["TRUE"]
        self.values: list[Value] = []

    def add(self, condition: str, *values: Value) -> None:
        self._conditions.append(condition)
        self.values += values

    def equal(self, **columns: Value) -> None:
        """Equality for the columns that are asked for; an empty text or zero asks for nothing."""
        for name, value in columns.items():
            if value:
                self.add(f"{name} = ?", value)

    def begins(self, prefix: str) -> None:
        """Ids, which are hexadecimal, with this beginning."""
        if prefix:
            self.add("id >= ? AND id < ?", prefix, prefix + "g")

    def __str__(self) -> str:
        return " AND ".join(self._conditions)


def page_position(page_token: str) -> int:
    """Where a page continues. Raises InvalidInput unless it is one of ours."""
    if not page_token:
        return 0
    if not page_token.isascii() or not page_token.isdigit() or len(page_token) > 18:
        raise InvalidInput("the page token is not one this node gave out", hint="start again from the first page")
    return int(page_token)


def search_terms(text: str) -> str:
    """An FTS5 query for every word of a text, each a prefix; '' when there is none. Raises InvalidInput."""
    if len(text) > MAX_TITLE:
        raise InvalidInput(f"the search text has {len(text)} characters", hint=f"at most {MAX_TITLE} are allowed")
    words = text.replace('"', " ").split()
    if len(words) > MAX_SEARCH_TERMS:
        raise InvalidInput(f"the search text has {len(words)} words", hint=f"at most {MAX_SEARCH_TERMS} are allowed")
    return " ".join(f'"{word}"*' for word in words)
