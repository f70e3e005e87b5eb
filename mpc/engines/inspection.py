"""What a table holds, found by reading all of it: types, missing values, and codelists that could be published.

Works on the view ``raw`` of a locked DuckDB connection. In a CSV file everything is text at first, and a column gets
the narrowest type that *every* value fits: boolean (true, false), integer (at most 18 digits, no leading zeros),
decimal, date (YYYY-MM-DD), timestamp, otherwise text. A column without any value counts as integer, which goes with
any other number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import duckdb

from koinon.errors import InvalidFile
from koinon.limits import MAX_CODE, MAX_CODES, MAX_ROWS
from mpc.engines import InspectedColumn, Inspection
from mpc.engines.csv_text import check_names
from mpc.expressions import BOOLEAN, DATE, DECIMAL, INTEGER, TEXT, TIMESTAMP, UNWRITABLE, Type, quote

_FITS: dict[Type, str] = {
    INTEGER: "regexp_full_match({0}, '-?(0|[1-9][0-9]{{0,17}})')",
    DECIMAL: "regexp_full_match({0}, '-?(0|[1-9][0-9]{{0,17}})(\\.[0-9]{{1,18}})?([eE][+-]?[0-9]{{1,2}})?')",
    BOOLEAN: "regexp_full_match({0}, '(?i)true|false')",
    DATE: "regexp_full_match({0}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') AND TRY_CAST({0} AS DATE) IS NOT NULL",
    TIMESTAMP: (
        "regexp_full_match({0}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([ T][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}"
        "(\\.[0-9]{{1,6}})?)?)?') AND TRY_CAST({0} AS TIMESTAMP) IS NOT NULL"
    ),
    TEXT: "true",
}
_ORDER = (INTEGER, DECIMAL, BOOLEAN, DATE, TIMESTAMP, TEXT)
_WITH_CODES = (TEXT, BOOLEAN, INTEGER)
_SAMPLE_ROWS = 1_000  # a first guess saves passes over large files; every guess is checked on all rows

_PARQUET_TYPES: tuple[tuple[re.Pattern[str], Type], ...] = (
    (re.compile(r"BOOLEAN"), BOOLEAN),
    (re.compile(r"U?(TINY|SMALL)INT|U?INTEGER|BIGINT"), INTEGER),
    (re.compile(r"FLOAT|DOUBLE|UBIGINT|U?HUGEINT|DECIMAL\(\d+,\d+\)"), DECIMAL),
    (re.compile(r"VARCHAR|ENUM\(.*\)|UUID"), TEXT),
    (re.compile(r"DATE"), DATE),
    (re.compile(r"TIMESTAMP(_S|_MS|_NS)?"), TIMESTAMP),
)


def inspect_columns(connection: duckdb.DuckDBPyConnection, types: Mapping[str, Type] | None) -> Inspection:
    """Inspect the view ``raw``; ``types`` is None for a CSV file, whose values are text. Raises InvalidFile."""
    names = [str(row[0]) for row in connection.execute("DESCRIBE raw").fetchall()]
    filled = ", ".join(f"COUNT({quote(name)})" for name in names)
    rows, *values = _row(connection, f"SELECT COUNT(*), {filled} FROM raw")
    if rows == 0:
        raise InvalidFile("the file has a header but no rows", hint="publish a table with at least one row")
    if rows > MAX_ROWS:
        raise InvalidFile(f"the file has {rows} rows", hint=f"at most {MAX_ROWS} are possible: split the table")
    known = dict(types) if types is not None else _infer(connection, names)
    known = {
        name: INTEGER if types is None and not count else known[name] for name, count in zip(names, values, strict=True)
    }
    few = _few_values(connection, [name for name in names if known[name] in _WITH_CODES])
    columns = []
    for name, count in zip(names, values, strict=True):
        codes, smallest = _codes(connection, name, known[name]) if name in few else (None, 0)
        columns.append(InspectedColumn(name, known[name], count < rows, codes, smallest))
    return Inspection(rows, tuple(columns))


def describe_parquet(connection: duckdb.DuckDBPyConnection, reader: str) -> dict[str, Type]:
    """Columns of a Parquet file and their types. Raises InvalidFile."""
    try:
        found = connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()
    except duckdb.Error:
        raise InvalidFile("the file is not readable as Parquet", hint="export the table again, or use CSV") from None
    names = check_names([str(row[0]) for row in found])
    types = {}
    for name, row in zip(names, found, strict=True):
        kind = next((kind for pattern, kind in _PARQUET_TYPES if pattern.fullmatch(str(row[1]))), None)
        if kind is None:
            raise InvalidFile(
                f"column {name} has type {str(row[1])[:40]}, which cannot be published",
                hint="convert it to boolean, number, text, date or timestamp without time zone, or leave it out",
            )
        types[name] = kind
    return types


def refuse_csv(error: duckdb.Error) -> InvalidFile:
    """What is wrong with the rows of a CSV file, in words of ours: DuckDB's message quotes the line."""
    text = str(error)
    line = re.search(r"CSV Error on Line: (\d+)", text)
    where = f"line {line[1]}" if line else "the file"
    fields = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if fields:
        return InvalidFile(
            f"{where} has {fields[2]} fields, the header has {fields[1]}", hint="quote fields that hold commas"
        )
    if "unterminated quote" in text:
        return InvalidFile(f"{where} has a quote that does not close", hint='double a quote inside a quoted field: ""')
    if "Maximum line size" in text:
        return InvalidFile(f"{where} is longer than 2 MB", hint="check the quotes before that line")
    return InvalidFile(f"{where} is not CSV as in RFC 4180", hint="end every line the same way, with CRLF or LF")


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> list[int]:
    row = connection.execute(sql).fetchone()
    return [int(value) for value in row or ()]


def _infer(connection: duckdb.DuckDBPyConnection, names: list[str]) -> dict[str, Type]:
    """The narrowest type that all values fit, guessed from the first rows and then widened until all rows agree."""
    found = dict.fromkeys(names, _ORDER[0])
    for source in (f"(SELECT * FROM raw LIMIT {_SAMPLE_ROWS})", "raw"):
        open_names = list(names)
        while open_names:
            tests = [f"COUNT(*) FILTER (WHERE NOT ({_FITS[found[n]].format(quote(n))}))" for n in open_names]
            misfits = _row(connection, f"SELECT {', '.join(tests)} FROM {source}")
            open_names = [name for name, count in zip(open_names, misfits, strict=True) if count]
            for name in open_names:
                found[name] = _ORDER[_ORDER.index(found[name]) + 1]
    return found


def _few_values(connection: duckdb.DuckDBPyConnection, names: list[str]) -> set[str]:
    """Columns that may have few enough values for a codelist: an estimate that errs on the side of looking."""
    if not names:
        return set()
    counts = _row(connection, f"SELECT {', '.join(f'approx_count_distinct({quote(name)})' for name in names)} FROM raw")
    return {name for name, count in zip(names, counts, strict=True) if count <= 2 * MAX_CODES}


def _codes(connection: duckdb.DuckDBPyConnection, name: str, kind: Type) -> tuple[tuple[str, ...] | None, int]:
    spelled = f"CAST({quote(name)} AS VARCHAR)" if kind != BOOLEAN else f"LOWER(CAST({quote(name)} AS VARCHAR))"
    found = connection.execute(
        f"SELECT {spelled} AS code, COUNT(*) FROM raw WHERE {quote(name)} IS NOT NULL "
        f"GROUP BY code LIMIT {MAX_CODES + 1}"
    ).fetchall()
    codes = [str(code) for code, _ in found]
    if len(codes) > MAX_CODES or any(not 0 < len(code) <= MAX_CODE or UNWRITABLE.search(code) for code in codes):
        return None, 0
    ordered = sorted(codes, key=int) if kind == INTEGER else sorted(codes)
    return tuple(ordered), min((int(count) for _, count in found), default=0)
