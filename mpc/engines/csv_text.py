"""What must be right about a CSV file before an engine reads its rows: encoding and header.

The one dialect is RFC 4180: UTF-8 (a byte order mark is allowed), a header line, fields separated by commas, quoted
with ``"`` and a quote inside doubled. *Missing*: an empty field, quoted or not, is NULL, in every type; no other text
is (``NA`` is text).
"""

from __future__ import annotations

import codecs
import csv
from typing import BinaryIO

from koinon.errors import InvalidFile, InvalidName
from koinon.limits import MAX_COLUMNS
from koinon.names import check_column

_CHUNK_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024  # 256 names of 63 characters take a quarter


def read_header(path: str) -> tuple[str, ...]:
    """Check the encoding of the whole file and return its column names.

    Raises InvalidFile when the file is unreadable, empty, not UTF-8, binary, or has a header that cannot name columns.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path as text comes from the job description
            names = _first_record(file)
            file.seek(0)
            _check_encoding(file)
    except OSError as error:
        raise InvalidFile(f"the file cannot be read: {error.strerror}", hint="check path and permissions") from error
    return check_names(names)


def check_names(names: list[str]) -> tuple[str, ...]:
    """Column names, well formed and different without regard to case. Raises InvalidFile."""
    if len(names) > MAX_COLUMNS:
        raise InvalidFile(f"the file has {len(names)} columns", hint=f"at most {MAX_COLUMNS} can be published")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise InvalidFile("the header is one field", hint="separate fields with commas")
    seen: dict[str, str] = {}
    for position, name in enumerate(names, 1):
        if not name:
            raise InvalidFile(f"column {position} has no name", hint="name every column in the header")
        try:
            check_column(name)
        except InvalidName as error:
            raise InvalidFile(f"column {position}: {error.message}", hint=error.hint) from None
        if name.lower() in seen:
            raise InvalidFile(
                f"two columns are called {name} (case does not tell columns apart)", hint="rename or remove one of them"
            )
        seen[name.lower()] = name
    return tuple(names)


def _first_record(file: BinaryIO) -> list[str]:
    head = file.read(MAX_HEADER_BYTES)
    if not head.strip():
        raise InvalidFile("the file is empty", hint="a table has a header line and at least one row")
    text = head.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="replace")
    try:
        return next(csv.reader(text.splitlines(keepends=True), strict=True))
    except (csv.Error, StopIteration):
        raise InvalidFile(
            "the header line cannot be read", hint="check its quotes; separate fields with commas"
        ) from None


def _check_encoding(file: BinaryIO) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    while True:
        chunk = file.read(_CHUNK_BYTES)
        if b"\0" in chunk:
            raise InvalidFile(
                f"line {line + chunk[: chunk.index(0)].count(10)} holds a zero byte: this is no text file",
                hint="export the table as CSV in UTF-8",
            )
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            raise InvalidFile(f"line {line} is not UTF-8", hint="export the table as CSV in UTF-8") from None
        if not chunk:
            return
        line += chunk.count(b"\n")
