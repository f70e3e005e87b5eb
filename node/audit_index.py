"""An index of the audit log by dimension (koinon.trail): for each value, which records have it.

The log is cut into chunks of 8,192 records. For every value and every chunk that has it there is one row, with the
records' offsets: a bitmap where there are many, a list where there are few. A page intersects bitmaps chunk by chunk
and stops when it is full; a count never looks at a record. The last chunk is in memory only, and is
read from the log again after a restart; rows are never changed. So feeding a record costs a few list
appends, a question sees one moment however long it takes, and a cursor is a place in the log.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from koinon.errors import InvalidInput
from koinon.limits import MAX_FILTER_MATCHES
from koinon.trail import Dimension
from koinon.v1.audit_pb2 import DimensionFilter

CHUNK = 8_192
_BITMAP_BYTES = CHUNK // 8
_FEW = _BITMAP_BYTES // 2  # two bytes each: so many offsets take as much as a bitmap
_ALL = (1 << CHUNK) - 1

SCHEMA = """
CREATE TABLE chunks (
    dimension TEXT, value TEXT, chunk INTEGER, count INTEGER NOT NULL, offsets BLOB NOT NULL,
    PRIMARY KEY (dimension, value, chunk)
) WITHOUT ROWID;
"""
INSERT = "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)"
Row = tuple[str, str, int, int, bytes]


class OpenChunk:
    """The last chunk: offsets by dimension and value, ascending."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._offsets: dict[str, dict[str, list[int]]] = {}

    def add(self, offset: int, found: Iterable[Dimension]) -> None:
        for dimension, value in found:
            self._offsets.setdefault(dimension, {}).setdefault(value, []).append(offset)

    def rows(self) -> list[Row]:
        """What to store once the chunk is complete, in the order of the table."""
        return [
            (dimension, value, self.number, len(offsets), _pack(offsets))
            for dimension, values in sorted(self._offsets.items())
            for value, offsets in sorted(values.items())
        ]

    def copy(self, names: Collection[str]) -> OpenChunk:
        """These dimensions as they are now, for another thread."""
        twin = OpenChunk(self.number)
        for name in names:
            values = self._offsets.get(name, {})
            twin._offsets[name] = {value: list(offsets) for value, offsets in values.items()}
        return twin

    def values(self, dimension: str) -> dict[str, list[int]]:
        return self._offsets.get(dimension, {})


@dataclass(frozen=True, slots=True)
class Counts:
    """How many records fit, and how many of them have each value."""

    records: int
    groups: dict[str, int]


class AuditIndex:
    """Questions to the index at one moment: what is stored of the chunks before the open one, and that one."""

    def __init__(self, database: sqlite3.Connection, open_chunk: OpenChunk, size: int) -> None:
        """``size``: how many records the index knows."""
        self._execute = database.execute
        self._open = open_chunk
        self._size = size

    def page(
        self, wanted: Sequence[DimensionFilter], first: int, end: int, limit: int, *, newest_first: bool = False
    ) -> tuple[list[int], int]:
        """Up to ``limit`` records in [first, end) that fit, in order; and where to go on, or 0.

        To go on is ``first`` of the next page, or its ``end`` where the newest come first. Raises InvalidInput.
        """
        found: list[int] = []
        for chunk, bits in self._fitting(wanted, first, end, newest_first):
            found += _indices(chunk, bits, newest_first)
            if len(found) > limit:
                return found[:limit], found[limit - 1] if newest_first else found[limit]
        return found, 0

    def count(self, wanted: Sequence[DimensionFilter], first: int, end: int, by: str) -> Counts:
        """How many records in [first, end) fit, and of these by the values of a dimension. Raises InvalidInput."""
        masks = dict(self._fitting(wanted, first, end, False))
        records = sum(bits.bit_count() for bits in masks.values())
        groups: dict[str, int] = {}
        whole = [chunk for chunk, bits in masks.items() if bits == _ALL and chunk < self._open.number]
        if whole and len(whole) == whole[-1] - whole[0] + 1:  # nothing to intersect: the rows know their counts
            rows = self._execute(
                "SELECT value, SUM(count) FROM chunks WHERE dimension = ? AND chunk BETWEEN ? AND ? GROUP BY value",
                (by, whole[0], whole[-1]),
            )
            groups = dict(rows)
            for chunk in whole:
                del masks[chunk]
        for value, chunk, offsets in self._rows_of(by, masks):
            if count := _common(masks[chunk], offsets):
                groups[value] = groups.get(value, 0) + count
        mask = masks.get(self._open.number, 0)
        for value, listed in self._open.values(by).items():
            if mask and (count := (mask & _bits(listed)).bit_count()):
                groups[value] = groups.get(value, 0) + count
        return Counts(records, groups)

    def _rows_of(self, by: str, masks: Collection[int]) -> Iterator[tuple[str, int, bytes]]:
        stored = [chunk for chunk in masks if chunk < self._open.number]
        if not stored:
            return iter(())
        rows: Iterable[tuple[str, int, bytes]] = self._execute(
            "SELECT value, chunk, offsets FROM chunks WHERE dimension = ? AND chunk BETWEEN ? AND ?",
            (by, min(stored), max(stored)),
        )
        return (row for row in rows if row[1] in masks)

    # --- one filter, chunk by chunk

    def _fitting(
        self, wanted: Sequence[DimensionFilter], first: int, end: int, newest_first: bool
    ) -> Iterator[tuple[int, int]]:
        """(chunk, bitmap of the records in it that fit), for those that have any."""
        end = min(end, self._size)
        if first >= end:
            return
        conditions = [(item.dimension, self._values(item)) for item in wanted]
        chunks: Collection[int] = range(first // CHUNK, (end - 1) // CHUNK + 1)
        for dimension, values in conditions:
            chunks = set(chunks) & self._chunks(dimension, values)
        for chunk in sorted(chunks, reverse=newest_first):
            bits = _between(first - chunk * CHUNK, end - chunk * CHUNK)
            for dimension, values in conditions:
                if bits:
                    bits &= self._bits_of(dimension, values, chunk)
            if bits:
                yield chunk, bits

    def _values(self, item: DimensionFilter) -> list[str]:
        """The values meant, beginnings spelt out. Raises InvalidInput when these are too many."""
        values = {value for value in item.values if not value.endswith("*")}
        for begin in (value[:-1] for value in item.values if value.endswith("*")):
            rows = self._execute(
                "SELECT DISTINCT value FROM chunks WHERE dimension = ? AND value >= ? AND value < ? LIMIT ?",
                (item.dimension, begin, begin + "\U0010ffff", MAX_FILTER_MATCHES + 1),
            )
            values.update(value for (value,) in rows)
            values.update(value for value in self._open.values(item.dimension) if value.startswith(begin))
        if len(values) > MAX_FILTER_MATCHES:
            raise InvalidInput(
                f"more than {MAX_FILTER_MATCHES} values of {item.dimension!a} begin so", hint="write more of it"
            )
        return sorted(values)

    def _chunks(self, dimension: str, values: Sequence[str]) -> set[int]:
        rows = self._execute(
            f"SELECT DISTINCT chunk FROM chunks WHERE dimension = ? AND value IN ({_marks(values)}) AND chunk < ?",  # noqa: S608
            (dimension, *values, self._open.number),
        )
        found = {chunk for (chunk,) in rows}
        known = self._open.values(dimension)
        return found | {self._open.number} if any(value in known for value in values) else found

    def _bits_of(self, dimension: str, values: Sequence[str], chunk: int) -> int:
        if chunk == self._open.number:
            known = self._open.values(dimension)
            return _bits(offset for value in values for offset in known.get(value, ()))
        bits = 0
        for (offsets,) in self._execute(
            f"SELECT offsets FROM chunks WHERE dimension = ? AND value IN ({_marks(values)}) AND chunk = ?",  # noqa: S608
            (dimension, *values, chunk),
        ):
            bits |= _unpack(offsets)
        return bits


def _marks(values: Sequence[str]) -> str:
    """So many placeholders; what they stand for is bound."""
    return ", ".join("?" * len(values))


# --- sets of offsets


def _pack(offsets: Sequence[int]) -> bytes:
    if len(offsets) < _FEW:
        return array("H", offsets).tobytes()
    return _bits(offsets).to_bytes(_BITMAP_BYTES, "little")


def _unpack(data: bytes) -> int:
    return int.from_bytes(data, "little") if len(data) == _BITMAP_BYTES else _bits(array("H", data))


def _bits(offsets: Iterable[int]) -> int:
    bitmap = bytearray(_BITMAP_BYTES)
    for offset in offsets:
        bitmap[offset >> 3] |= 1 << (offset & 7)
    return int.from_bytes(bitmap, "little")


def _common(bits: int, data: bytes) -> int:
    """How many of the packed offsets are in the bitmap."""
    if len(data) > 16:
        return (bits & _unpack(data)).bit_count()
    return sum(bits >> offset & 1 for offset in array("H", data))  # the many values that few records have


def _between(first: int, end: int) -> int:
    """The bitmap of the offsets in [first, end), as far as there are such."""
    return ((1 << min(max(end, 0), CHUNK)) - 1) >> max(first, 0) << max(first, 0)


def _indices(chunk: int, bits: int, newest_first: bool) -> list[int]:
    """The places in the log that a bitmap means."""
    found = []
    start = chunk * CHUNK
    for number, byte in enumerate(bits.to_bytes(_BITMAP_BYTES, "little")):
        if byte:
            found += [start + number * 8 + bit for bit in range(8) if byte >> bit & 1]
    return found[::-1] if newest_first else found
