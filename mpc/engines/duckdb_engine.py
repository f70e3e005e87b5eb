"""The engine for files: DuckDB, in memory, over one CSV or Parquet file and nothing else.

Every call makes a connection of its own, and locks it before any expression of a query is bound: the one file may be
read (``allowed_paths``), everything else outside is out of reach (no other files, no network, no extensions, no Python
variables, no spilling to disk), memory and threads are bounded, and the configuration can no longer be changed. The
statement itself was written by mpc.local_sql from a closed language; the lock is what holds if that failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from koinon.errors import Corrupt, Exhausted, InvalidFile, Refused
from koinon.limits import MAX_ROWS, MAX_VALUE
from koinon.v1.plan_pb2 import Plan
from mpc.cleartext import group_codes
from mpc.engines import FORMATS, Inspection, TableFile
from mpc.engines.csv_text import read_header
from mpc.engines.inspection import describe_parquet, inspect_columns, refuse_csv
from mpc.expressions import BOOLEAN, DATE, DECIMAL, INTEGER, TEXT, TIMESTAMP, Type, quote
from mpc.schema import NULL_CODE

PHYSICAL: dict[Type, str] = {
    BOOLEAN: "BOOLEAN",
    INTEGER: "BIGINT",
    DECIMAL: "DOUBLE",
    TEXT: "VARCHAR",
    DATE: "DATE",
    TIMESTAMP: "TIMESTAMP",
}
"""How the catalog's types are held while computing."""


class DuckDBEngine:
    """Stateless; safe to use from several threads."""

    def __init__(self, *, memory_mb: int = 1024, threads: int = 1) -> None:
        self._memory_mb = memory_mb
        self._threads = threads

    def inspect(self, path: str, file_format: str) -> Inspection:
        """See LocalEngine.inspect. Reads every row: types are what all values are, not a sample's."""
        _check_format(file_format)
        if file_format == "csv":
            columns = read_header(path)
            with self._open(path) as connection:
                connection.execute(f"CREATE TEMP VIEW raw AS SELECT * FROM {_csv(path, columns)}")
                try:
                    return inspect_columns(connection, None)
                except duckdb.InvalidInputException as error:
                    raise refuse_csv(error) from None
        if not Path(path).is_file():
            raise InvalidFile("the file cannot be read", hint="check path and permissions")
        with self._open(path) as connection:
            types = describe_parquet(connection, _parquet(path))
            casts = ", ".join(
                f"CAST({quote(name)} AS {PHYSICAL[kind]}) AS {quote(name)}" for name, kind in types.items()
            )
            connection.execute(f"CREATE TEMP VIEW raw AS SELECT {casts} FROM {_parquet(path)}")
            return inspect_columns(connection, types)

    def aggregate(self, table: TableFile, plan: Plan, source_index: int) -> list[list[int]]:
        """See LocalEngine.aggregate."""
        source = plan.sources[source_index]
        with self._open(table.path) as connection:
            _create_source(connection, table)
            rows = _run(connection, source.local_sql, source.dataset)
        return _arrange(rows, plan, source.dataset)

    @contextmanager
    def _open(self, path: str) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{self._memory_mb}MB",
                "threads": self._threads,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
                "allow_persistent_secrets": False,
                "python_enable_replacements": False,
                "temp_directory": "",
            },
        )
        try:
            connection.execute(f"SET allowed_paths = [{_literal(path)}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield connection
        except duckdb.OutOfMemoryException:
            raise Exhausted(
                f"the query needs more than the {self._memory_mb} MB that the engine may use",
                rule="memory-limit",
                hint="use fewer columns, or ask the owner to raise the node's memory limit",
            ) from None
        finally:
            connection.close()


def _check_format(file_format: str) -> None:
    if file_format not in FORMATS:
        raise InvalidFile(f"{file_format!a} is no format of a table", hint=f"use one of {', '.join(FORMATS)}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _csv(path: str, columns: tuple[str, ...]) -> str:
    """Everything explicit: what a file means does not depend on what a sniffer guesses."""
    types = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in columns)
    return (
        f"read_csv({_literal(path)}, columns = {{{types}}}, auto_detect = false, header = true, delim = ',', "
        "quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = true, encoding = 'utf-8', comment = '', "
        "strict_mode = true, null_padding = false, ignore_errors = false, compression = 'none', "
        "hive_partitioning = false)"
    )


def _parquet(path: str) -> str:
    return f"read_parquet({_literal(path)}, hive_partitioning = false)"


def _create_source(connection: duckdb.DuckDBPyConnection, table: TableFile) -> None:
    """The view ``source``: published columns in their published types, and no others."""
    _check_format(table.format)
    reader = _csv(table.path, table.columns) if table.format == "csv" else _parquet(table.path)
    casts = ", ".join(f"CAST({quote(name)} AS {PHYSICAL[kind]}) AS {quote(name)}" for name, kind in table.types)
    connection.execute(f"CREATE TEMP VIEW source AS SELECT {casts} FROM {reader}")


def _run(connection: duckdb.DuckDBPyConnection, sql: str, dataset: str) -> list[dict[str, object]]:
    """Run one SELECT. What DuckDB says of a failure may hold values, so only its kind is passed on."""
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise Corrupt("the plan's local SQL is not one SELECT", rule="plan-mismatch", hint="report this as a bug")
        result = connection.execute(statements[0])
        names = [column[0] for column in result.description or []]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        what, hint = _FAILURES.get(type(error), ("an expression could not be evaluated", "simplify the expression"))
        raise Refused(f"{what} in {dataset}", rule="expression-failed", hint=hint) from None


_FAILURES: dict[type[duckdb.Error], tuple[str, str]] = {
    duckdb.ConversionException: ("a value could not be converted", "TRY_CAST gives NULL where CAST fails"),
    duckdb.OutOfRangeException: ("a number left the range of its type", "CAST to DOUBLE before multiplying"),
    duckdb.InvalidInputException: (
        "a function met a value it is not defined for",
        "exclude such rows with WHERE or CASE",
    ),
    duckdb.IOException: ("the file could not be read", "the owner should check the node's disk"),
}


def _arrange(rows: list[dict[str, object]], plan: Plan, dataset: str) -> list[list[int]]:
    groups: dict[tuple[str | None, ...], int] = {codes: index for index, codes in enumerate(group_codes(plan))}
    result = [[0] * len(plan.aggregates) for _ in groups]
    counted = 0
    for row in rows:
        if row["beyond"]:
            raise Refused(
                f"a value in {dataset} is no number, or beyond ±{MAX_VALUE}",
                rule="value-out-of-range",
                hint="scale the expression down, or exclude such rows with WHERE or CASE",
            )
        codes = tuple(_code(row[f"g{index}"]) for index in range(len(plan.group_by)))
        if codes not in groups:
            raise Refused(
                f"{dataset} has a row outside the published codelist of {', '.join(c.name for c in plan.group_by)}",
                rule="codelist-violated",
                hint="the publisher must publish the dataset again, with a complete codelist",
            )
        numbers = [_whole(row[f"a{index}"]) for index in range(len(plan.aggregates))]
        counted += numbers[0]
        result[groups[codes]] = numbers
    if counted > MAX_ROWS:
        raise Exhausted(f"{dataset} has more than {MAX_ROWS} rows", hint="split the table")
    return result


def _code(value: object) -> str | None:
    """The code of a group: NULL has its own, and an empty text has none."""
    if value is None:
        return NULL_CODE
    return str(value) or None


def _whole(value: object) -> int:
    if value is None:  # SUM of no values
        return 0
    if not isinstance(value, int):
        raise Corrupt("the engine returned something else than a whole number", hint="report this as a bug")
    return value
