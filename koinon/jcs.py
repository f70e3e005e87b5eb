"""JSON in its one canonical spelling (RFC 8785), for what is signed as JSON.

No whitespace, keys in the order of their UTF-16 code units, the shortest escapes. Numbers are whole ones that every
reader holds exactly (section 3.2.2.3 writes those as digits); a fraction has no place in a credential of ours, and is
refused.
"""

from __future__ import annotations

import json
from typing import Any

from koinon.errors import InvalidInput

_EXACT = 2**53 - 1
_MAX_DEPTH = 32


def canonical(value: Any) -> bytes:
    """The canonical bytes of what json.loads may have returned. Raises InvalidInput."""
    try:
        return _text(value, 0).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput("a text holds half a surrogate pair", hint="such a document cannot be signed") from None


def _text(value: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"a document is nested more than {_MAX_DEPTH} deep", hint="such a document cannot be signed")
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_string(key)}:{_text(value[key], depth + 1)}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_text(item, depth + 1) for item in value) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) <= _EXACT):
        return json.dumps(value)
    raise InvalidInput("a document holds a number that is not whole, or too large", hint="it cannot be signed")


def _string(text: str) -> str:
    """json's own escapes are the RFC's: the two-letter ones, \\u00XX for other control characters, nothing else."""
    return json.dumps(text, ensure_ascii=False)
