"""Files that are no tables, and what a table is found to hold."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from koinon.errors import Exhausted, InvalidFile
from mpc.engines import InspectedColumn, Inspection
from mpc.engines.duckdb_engine import DuckDBEngine
from mpc.expressions import BOOLEAN, DATE, DECIMAL, INTEGER, TEXT, TIMESTAMP, Type

ENGINE = DuckDBEngine(memory_mb=256)


def inspect(tmp_path: Path, content: bytes, file_format: str = "csv") -> Inspection:
    path = tmp_path / "content"
    path.write_bytes(content)
    return ENGINE.inspect(str(path), file_format)


NO_TABLES = [
    ("empty", b"", "the file is empty"),
    ("blank", b"\n \n", "the file is empty"),
    ("header only", b"a,b\n", "a header but no rows"),
    ("short row", b"a,b\n1,2\n3\n", "line 3 has 1 fields, the header has 2"),
    ("long row", b"a,b\n1,2,3\n", "line 2 has 3 fields, the header has 2"),
    ("open quote", b'a,b\n1,"2\n3,4\n', "line 2 has a quote that does not close"),
    ("text after quote", b'a,b\n1,"x"y\n', "line 2 has a quote that does not close"),
    ("latin-1", "a,b\n1,2\n1,Jos\u00e9\n".encode("latin-1"), "line 3 is not UTF-8"),
    ("UTF-16", "a,b\n1,2\n".encode("utf-16"), "zero byte"),
    ("binary", b"a,b\n1,\x00\n", "line 2 holds a zero byte"),
    ("cut in a character", b"a,b\n1,\xe2\x82", "line 2 is not UTF-8"),
    ("same names", b"a,b,a\n1,2,3\n", "two columns are called a"),
    ("same names but for case", b"Age,age\n1,2\n", "two columns are called age"),
    ("no name", b"a,,c\n1,2,3\n", "column 2 has no name"),
    ("bad name", b"a,b c\n1,2\n", "column 2: 'b c' is not a column name"),
    ("semicolons", b"a;b\n1;2\n", "the header is one field"),
    ("open quote in header", b'a,"b\n1,2\n', "the header"),
    ("too many columns", b",".join(b"c%d" % i for i in range(257)) + b"\n", "257 columns"),
    ("mixed line ends", b"a,b\n1,2\r3,4\n", "is not CSV"),
]


@pytest.mark.parametrize(("content", "words"), [case[1:] for case in NO_TABLES], ids=[case[0] for case in NO_TABLES])
def test_what_is_no_table_is_refused_in_one_line_that_says_where(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        inspect(tmp_path, content)
    assert words in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_messages_hold_no_data(tmp_path: Path) -> None:
    for content in (b"a,b\nsecret\n", b'a,b\n1,"secret\n', b"a,b\nsecret,\xff\n"):
        with pytest.raises(InvalidFile) as caught:
            inspect(tmp_path, content)
        assert "secret" not in caught.value.message + caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for file_format in ("csv", "parquet"):
        with pytest.raises(InvalidFile, match="cannot be read"):
            ENGINE.inspect(str(tmp_path / "nothing"), file_format)
    with pytest.raises(InvalidFile, match="'xlsx' is no format"):
        ENGINE.inspect(str(tmp_path / "nothing"), "xlsx")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-20", "0"], INTEGER),
        (["1", "2.5"], DECIMAL),
        (["1e3", "-2.5E-3"], DECIMAL),
        (["007", "8"], TEXT),  # a leading zero means something
        (["999999999999999999"], INTEGER),
        (["9999999999999999999"], TEXT),
        (["true", "FALSE"], BOOLEAN),
        (["true", "1"], TEXT),
        (["2012-02-29", "1999-12-31"], DATE),
        (["2012-02-30"], TEXT),
        (["2012-02-29", "2012-02-29 10:00"], TIMESTAMP),
        (["2012-02-29T10:00:00.5"], TIMESTAMP),
        (["2012-02-29 10:00:00+01"], TEXT),
        (["1", "NA"], TEXT),  # only an empty field is missing
        (["nan", "inf"], TEXT),
        (["1", " 2"], TEXT),
        (["", ""], INTEGER),  # no value at all goes with any number
    ],
)
def test_a_type_is_what_all_values_are(tmp_path: Path, values: list[str], expected: Type) -> None:
    rows = "".join(f'"{value}",x\n' for value in values)
    assert inspect(tmp_path, f"a,b\n{rows}".encode()).columns[0].type == expected


def test_the_last_row_counts_as_much_as_the_first(tmp_path: Path) -> None:
    rows = b"1,1,1\n" * 5_000 + b"1,2.5,x\n"
    types = [column.type for column in inspect(tmp_path, b"a,b,c\n" + rows).columns]
    assert types == [INTEGER, DECIMAL, TEXT]


def test_missing_values_and_proposed_codelists(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfsex,grade,ok,note,none\r\nf,10,TRUE,"a,b",\r\n,2,false,"""",\r\nf,,True,"",\r\n'
    inspection = inspect(tmp_path, content)
    assert inspection.row_count == 3
    assert inspection.columns == (
        InspectedColumn("sex", TEXT, True, ("f",), 2),
        InspectedColumn("grade", INTEGER, True, ("2", "10"), 1),
        InspectedColumn("ok", BOOLEAN, False, ("false", "true"), 1),
        InspectedColumn("note", TEXT, True, ('"', "a,b"), 1),
        InspectedColumn("none", INTEGER, True, (), 0),
    )
    assert Inspection.from_json(inspection.to_json()) == inspection


def test_no_codelist_is_proposed_for_many_long_or_decimal_values(tmp_path: Path) -> None:
    rows = "".join(f"{i},{'x' * 65},{i % 3}.5,{i % 64}\n" for i in range(65))
    columns = inspect(tmp_path, f"many,long,decimal,few\n{rows}".encode()).columns
    assert [column.codes is None for column in columns] == [True, True, True, False]


def _parquet(tmp_path: Path, select: str) -> bytes:
    path = tmp_path / "made"
    duckdb.execute(f"COPY (SELECT {select}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


def test_parquet_has_its_own_types(tmp_path: Path) -> None:
    content = _parquet(
        tmp_path,
        "1::TINYINT AS a, 2.5::DECIMAL(5, 2) AS b, 'x' AS c, true AS d, DATE '2020-01-01' AS e, "
        "TIMESTAMP '2020-01-01 10:00:00' AS f, 1::UBIGINT AS g, NULL::INTEGER AS h",
    )
    columns = inspect(tmp_path, content, "parquet").columns
    assert [c.type for c in columns] == [INTEGER, DECIMAL, TEXT, BOOLEAN, DATE, TIMESTAMP, DECIMAL, INTEGER]
    assert [c.nullable for c in columns] == [False] * 7 + [True]
    assert [c.codes for c in columns] == [("1",), None, ("x",), ("true",), None, None, None, ()]


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ("[1, 2] AS a", "column a has type INTEGER[], which cannot be published"),
        ("TIMESTAMPTZ '2020-01-01 10:00:00+00' AS a", "column a has type TIMESTAMP WITH TIME ZONE"),
        ('1 AS "a b"', "column 1: 'a b' is not a column name"),
        ("1 AS a WHERE false", "a header but no rows"),
    ],
)
def test_parquet_that_cannot_be_published(tmp_path: Path, select: str, words: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        inspect(tmp_path, _parquet(tmp_path, select), "parquet")
    assert words in caught.value.message


def test_what_is_not_parquet(tmp_path: Path) -> None:
    for content in (b"", b"PAR1", b"a,b\n1,2\n", _parquet(tmp_path, "1 AS a")[:-9]):
        with pytest.raises(InvalidFile, match="not readable as Parquet"):
            inspect(tmp_path, content, "parquet")


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    duckdb.execute(f"COPY (SELECT md5(i::VARCHAR) AS a, i // 2 AS b FROM range(200000) t(i)) TO '{path}'")
    with pytest.raises(Exhausted, match="needs more than the 8 MB") as caught:
        DuckDBEngine(memory_mb=8).inspect(str(path), "csv")
    assert caught.value.rule == "memory-limit"
