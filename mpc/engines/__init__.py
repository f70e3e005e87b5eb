"""Local engines: where an owner's data is read, inspected and aggregated, without ever leaving home.

An engine reads one table from where it lies and answers two questions: what is in it (``inspect``, for its owner's
eyes, before publication) and what a plan asks of it (``aggregate``, for the joint computation).
``mpc.engines.duckdb_engine`` is the engine for CSV and Parquet files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from koinon.v1.plan_pb2 import Plan
from mpc.expressions import Type

FORMATS = ("csv", "parquet")


@dataclass(frozen=True, slots=True)
class InspectedColumn:
    """A column as the engine found it. ``codes`` is None unless a codelist can be proposed; NULL is no code."""

    name: str
    type: Type
    nullable: bool
    codes: tuple[str, ...] | None  # ascending; empty when the column has no value at all
    smallest_count: int  # rows of the rarest code: what publishing the codes might reveal


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file holds. Private to its owner until published."""

    row_count: int
    columns: tuple[InspectedColumn, ...]  # in the order of the file

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; ``from_json`` reads them back."""
        return {
            "row_count": self.row_count,
            "columns": [
                {
                    "name": column.name,
                    "type": int(column.type),
                    "nullable": column.nullable,
                    "codes": None if column.codes is None else list(column.codes),
                    "smallest_count": column.smallest_count,
                }
                for column in self.columns
            ],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Inspection:
        """Trusted input: written by this node. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            row_count=int(value["row_count"]),
            columns=tuple(
                InspectedColumn(
                    name=str(column["name"]),
                    type=Type(column["type"]),
                    nullable=bool(column["nullable"]),
                    codes=None if column["codes"] is None else tuple(str(code) for code in column["codes"]),
                    smallest_count=int(column["smallest_count"]),
                )
                for column in value["columns"]
            ),
        )


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file to compute on: where it is, every column in the order of the file, and the types of those published.

    Only columns in ``types`` can be reached by a query.
    """

    path: str
    format: str  # one of FORMATS
    columns: tuple[str, ...]
    types: tuple[tuple[str, Type], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, for the worker process; ``from_json`` reads them back."""
        return {
            "path": self.path,
            "format": self.format,
            "columns": list(self.columns),
            "types": [[name, int(kind)] for name, kind in self.types],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TableFile:
        """Trusted input: written by this node. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            path=str(value["path"]),
            format=str(value["format"]),
            columns=tuple(str(name) for name in value["columns"]),
            types=tuple((str(name), Type(kind)) for name, kind in value["types"]),
        )


class LocalEngine(Protocol):
    """What every engine offers. No method lets a data value into an error: refusals may become public."""

    def inspect(self, path: str, file_format: str) -> Inspection:
        """What the file holds. Raises InvalidFile, with line and remedy, and Exhausted (memory-limit)."""
        ...

    def aggregate(self, table: TableFile, plan: Plan, source_index: int) -> list[list[int]]:
        """The exact integers of one source: ``groups x aggregates``, groups in the order of cleartext.group_codes.

        Raises Refused (value-out-of-range, codelist-violated, expression-failed) and Exhausted (memory-limit).
        """
        ...
