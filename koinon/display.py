"""How ledger content is shown: safe for a terminal, a spreadsheet and a program.

Everything on the ledger was written by some member, so all of it is treated as hostile: control
characters, direction overrides and line breaks never reach a terminal, and no text becomes a formula
in a spreadsheet. All functions are pure and total.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message

from koinon import words

_UNSHOWABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_ID = re.compile(r"\b[0-9a-f]{32,}\b")
_SHORT_ID = 10  # of 32 digits: unique among the requests, tokens or tasks of any consortium
_UNITS = (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000))


def printable(text: str) -> str:
    """``text`` on one line, with everything a terminal might obey written as an escape."""
    return "".join(_escape(c) if unicodedata.category(c) in _UNSHOWABLE else c for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def csv_cell(value: object) -> object:
    """A value for a CSV file: text that a spreadsheet would run as a formula gets a leading apostrophe."""
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value


def number(value: int | Decimal) -> str:
    """A number without exponent and trailing zeros."""
    if isinstance(value, int):
        return str(value)
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def cell(value: object) -> str:
    """A value of a result for a person; NULL is empty."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return printable(str(value))
    return number(value)


def short(identifier: str) -> str:
    """The beginning of an id that a table shows, and that commands accept."""
    return identifier[:_SHORT_ID]


def shortened(text: str) -> str:
    """A text with the beginnings of the ids and digests in it."""
    return _ID.sub(lambda found: short(found[0]), text)


def when(time_ms: int) -> str:
    """A time of the ledger: ``2026-11-21 23:05:12 UTC``; 0 means never."""
    if not 0 < time_ms < 253_402_300_800_000:
        return "-"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(span_ms: int) -> str:
    """A span of time in its largest even unit: ``30 days``."""
    for unit, size in _UNITS:
        if span_ms >= size and (span_ms % size == 0 or unit == "second"):
            count = span_ms // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{span_ms} ms"


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON-ready values, every field present: bytes in hex, enums as words, times as they are."""
    table: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            table[field.name] = [_plain_value(field, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            table[field.name] = _plain_value(field, value)
    return table


def _plain_value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, bytes):
        return value.hex()
    return words.word_of(field.enum_type, value) if field.enum_type is not None else value
