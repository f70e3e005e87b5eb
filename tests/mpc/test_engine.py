"""The engine computes what SQL says, exactly, and can reach nothing but the one table."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.errors import Corrupt, Exhausted, Refused
from koinon.v1.catalog_pb2 import COLUMN_TYPE_DECIMAL, COLUMN_TYPE_INTEGER, COLUMN_TYPE_TEXT, Column
from koinon.v1.plan_pb2 import Plan, PlanSource
from mpc.cleartext import GroupResult, evaluate
from mpc.engines import TableFile
from mpc.engines.duckdb_engine import DuckDBEngine
from mpc.plan import Source, compile_plan
from testnet.data import PATIENTS, table_path
from tests.mpc.tables import MEMBERS, OUTSIDER, PAPER_QUERY, source

ENGINE = DuckDBEngine(memory_mb=256)


def published(path: Path, institution: str, codelists: dict[str, list[str]]) -> tuple[Source, TableFile]:
    """A file as its node would publish it."""
    found = ENGINE.inspect(str(path), "csv")
    columns = [
        Column(name=c.name, type=c.type, nullable=c.nullable, codelist=codelists.get(c.name, [])) for c in found.columns
    ]
    types = tuple((c.name, c.type) for c in found.columns)
    return source(institution, columns, rows=1000), TableFile(str(path), "csv", tuple(n for n, _ in types), types)


def joint(sql: str, tables: dict[str, tuple[Source, TableFile]]) -> list[GroupResult]:
    plan = compile_plan(sql, [entry[0] for entry in tables.values()], MEMBERS, asker=OUTSIDER)
    inputs = [ENGINE.aggregate(tables[s.institution][1], plan, i) for i, s in enumerate(plan.sources)]
    return evaluate(plan, inputs)


# --- the trial -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trial() -> dict[str, tuple[Source, TableFile]]:
    codes = {"rx": ["0_placebo", "1_indomethacin"], "asa": ["0_no", "1_yes"], "bleed": ["1", "2"]}
    return {name: published(table_path(name), name, codes) for name in PATIENTS}


def test_the_result_of_the_paper(trial: dict[str, tuple[Source, TableFile]]) -> None:
    """27 of 295 (9.2 %) with indomethacin and 52 of 307 (16.9 %) with placebo had pancreatitis."""
    placebo, indomethacin = joint(PAPER_QUERY, trial)
    assert placebo == GroupResult(("0_placebo",), True, (307, 52_000_000, 169_381, 46_035_831, 171_256_882))
    assert indomethacin == GroupResult(("1_indomethacin",), True, (295, 27_000_000, 91_525, 44_471_186, 181_991_514))


def test_missing_values_have_their_own_group_and_no_part_in_aggregates(
    trial: dict[str, tuple[Source, TableFile]],
) -> None:
    results = joint("SELECT bleed, COUNT(*), COUNT(bleed), SUM(bleed) FROM ercp.indo_rct GROUP BY bleed", trial)
    assert [(r.codes, r.values) for r in results] == [
        (("1",), (11, 11, 11_000_000)),
        (("2",), (16, 16, 32_000_000)),
        (("",), (575, 0, None)),
    ]


# --- against SQL itself --------------------------------------------------------------------------

_AGGREGATES = (
    "COUNT(*), COUNT(x), SUM(x), AVG(x), VAR_SAMP(x), STDDEV_SAMP(x), SUM(CASE WHEN n > 0 THEN n * 2 ELSE x END), "
    "AVG(n % 3), COUNT(CASE WHEN x > 1 THEN 1 END), SUM(n IS NULL)"
)
_WHERES = ["", "WHERE n > -3", "WHERE x IS NOT NULL AND NOT n BETWEEN 1 AND 2", "WHERE g IN ('a', 'c') OR n IS NULL"]
_number = st.decimals(min_value=-(10**6), max_value=10**6, places=3, allow_nan=False, allow_infinity=False)
_rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]),
        st.one_of(st.none(), st.integers(-5, 5)),
        st.one_of(st.none(), _number),
    ),
    min_size=1,
    max_size=30,
)


def _write(path: Path, rows: list[tuple[str | None, int | None, Decimal | None]]) -> None:
    lines = [",".join("" if value is None else str(value) for value in row) for row in rows]
    path.write_text("\n".join(["g,n,x", *lines]) + "\n")


@settings(max_examples=25)
@given(first=_rows, second=_rows, where=st.sampled_from(_WHERES))
def test_joint_results_equal_sql_over_all_rows(
    tmp_path: Path,
    first: list[tuple[str | None, int | None, Decimal | None]],
    second: list[tuple[str | None, int | None, Decimal | None]],
    where: str,
) -> None:
    tables = {}
    for name, rows in (("um", first), ("iu", second)):
        _write(tmp_path / name, rows)
        columns = [
            Column(name="g", type=COLUMN_TYPE_TEXT, nullable=True, codelist=["a", "b", "c"]),
            Column(name="n", type=COLUMN_TYPE_INTEGER, nullable=True),
            Column(name="x", type=COLUMN_TYPE_DECIMAL, nullable=True),
        ]
        types = tuple((column.name, column.type) for column in columns)
        table = TableFile(str(tmp_path / name), "csv", ("g", "n", "x"), types)
        tables[name] = (source(name, columns, min_cohort=1), table)
    results = joint(f"SELECT g, {_AGGREGATES} FROM ercp.indo_rct {where} GROUP BY g", tables)

    connection = duckdb.connect()
    connection.execute("CREATE TABLE t (g VARCHAR, n BIGINT, x DOUBLE)")
    values = [(g, n, None if x is None else float(x)) for g, n, x in first + second]
    connection.executemany("INSERT INTO t VALUES (?, ?, ?)", values)
    expected = {
        row[0] or "": row[1:]
        for row in connection.execute(f"SELECT g, {_AGGREGATES} FROM t {where} GROUP BY g").fetchall()
    }
    assert {r.codes[0] for r in results if r.shown} == set(expected)
    for result in results:
        if result.shown:
            for position, (got, want) in enumerate(zip(result.values, expected[result.codes[0]], strict=True)):
                if position in (0, 1, 8):
                    assert got == want
                elif want is None:
                    assert got is None
                else:
                    assert got is not None
                    assert math.isclose(got / 10**6, want, rel_tol=1e-9, abs_tol=2e-6)


def test_sums_are_exact_whatever_the_order(tmp_path: Path) -> None:
    """In doubles, 10^9 swallows the small values that follow it; here nothing is lost."""
    small = ["0.000001"] * 1_000
    for order in (["1000000000", *small, "-1000000000"], [*small, "1000000000", "-1000000000"]):
        path = tmp_path / "t"
        path.write_text("\n".join(["x", *order]) + "\n")
        result = joint("SELECT SUM(x) FROM ercp.indo_rct", {"um": published(path, "um", {})})
        assert result[0].values == (1_000,)


def test_quantisation_is_to_the_nearest_millionth(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("x\n0.0000014\n0.0000016\n-0.0000016\n1e-9\n0\n")
    entry, table = published(path, "um", {})
    plan = compile_plan("SELECT VAR_SAMP(x) FROM ercp.indo_rct", [entry], MEMBERS, asker=OUTSIDER)
    assert ENGINE.aggregate(table, plan, 0) == [[5, 1 + 2 - 2, 1 + 4 + 4]]


# --- refusals ------------------------------------------------------------------------------------


@pytest.fixture
def secrets(tmp_path: Path) -> tuple[Source, TableFile]:
    path = tmp_path / "t"
    path.write_text("g,n,secret,x\na,1,4711,0\nb,2,word,1e9\n")
    return published(path, "um", {"g": ["a", "b"]})


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        ("SUM(x + 1)", "value-out-of-range"),
        ("AVG(x * 1e80 * 1e80 * 1e80 * 1e80)", "value-out-of-range"),
        ("SUM(n / 0)", "value-out-of-range"),
        ("SUM(SQRT(-n))", "value-out-of-range"),
        ("SUM(LN(0 * n))", "value-out-of-range"),
        ("SUM(CAST(secret AS INTEGER))", "expression-failed"),
        ("SUM(n // 0)", "expression-failed"),
        ("SUM(n * 999999999999999999)", "value-out-of-range"),
        ("COUNT(NULLIF(n, 0) * 999999999999999999 * 999)", "expression-failed"),
        ("COUNT(REGEXP_MATCHES(secret, '('))", "expression-failed"),
        ("SUM(DATE_DIFF('day', CAST(secret AS DATE), DATE '2020-01-01'))", "expression-failed"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_without_a_value(
    secrets: tuple[Source, TableFile], item: str, rule: str
) -> None:
    with pytest.raises(Refused) as caught:
        joint(f"SELECT {item} FROM ercp.indo_rct", {"um": secrets})
    assert caught.value.rule == rule
    assert "um.ercp.indo_rct" in caught.value.message
    assert caught.value.hint
    for value in ("4711", "word", "1e9"):
        assert value not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_values_at_the_bound_enter(secrets: tuple[Source, TableFile]) -> None:
    secrets[0].dataset.published.policy.min_cohort = 1
    assert joint("SELECT SUM(x), SUM(-x) FROM ercp.indo_rct", {"um": secrets})[0].values == (10**15, -(10**15))


@pytest.mark.parametrize("cell", ["c", "", '""'])
def test_rows_outside_the_codelist_are_refused(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "t"
    path.write_text(f"g,n\na,1\n{cell},2\n")
    entry, table = published(path, "um", {"g": ["a", "b"]})
    entry.dataset.published.columns[0].nullable = False  # a publication that is not true
    with pytest.raises(Refused, match="outside the published codelist of g") as caught:
        joint("SELECT g, COUNT(*) FROM ercp.indo_rct GROUP BY g", {"um": (entry, table)})
    assert caught.value.rule == "codelist-violated"
    # What WHERE leaves out is not looked at.
    assert joint("SELECT g, COUNT(*) FROM ercp.indo_rct WHERE n = 1 GROUP BY g", {"um": (entry, table)})


def test_columns_that_are_not_published_cannot_be_reached(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("g,hidden\na,1\n")
    table = TableFile(str(path), "csv", ("g", "hidden"), (("g", COLUMN_TYPE_TEXT),))
    plan = compile_plan(
        "SELECT SUM(hidden) FROM ercp.indo_rct",
        [source("um", [Column(name="hidden", type=COLUMN_TYPE_INTEGER)])],
        MEMBERS,
        asker=OUTSIDER,
    )
    with pytest.raises(Refused) as caught:
        ENGINE.aggregate(table, plan, 0)
    assert caught.value.rule == "expression-failed"


# --- the lock ------------------------------------------------------------------------------------


def _attack(table: TableFile, sql: str) -> None:
    """Run a statement in the engine as if the whitelist had let it through."""
    plan = Plan(sources=[PlanSource(dataset="um.ercp.indo_rct", local_sql=sql)])
    ENGINE.aggregate(table, plan, 0)


def _reads() -> Iterator[str]:
    yield from ("read_csv('/etc/passwd')", "read_text('/etc/passwd')", "read_blob('/etc/passwd')", "'/etc/passwd'")
    yield from ("read_parquet('/etc/passwd')", "read_json('/etc/passwd')", "glob('/etc/*')", "read_csv('../*')")
    yield from ("read_csv('http://127.0.0.1:9/x')", "read_csv('s3://bucket/x')", "sqlite_scan('/x', 'y')")
    yield from ("ENGINE", "os.environ", "duckdb_secrets_persistent()")


@pytest.mark.parametrize("table_function", list(_reads()))
def test_the_engine_reads_nothing_else(secrets: tuple[Source, TableFile], table_function: str) -> None:
    with pytest.raises(Refused) as caught:
        _attack(secrets[1], f"SELECT * FROM {table_function}")
    assert caught.value.rule == "expression-failed"
    assert "root" not in caught.value.message


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{dir}/out'",
        "COPY (SELECT 1) TO '{path}' (USE_TMP_FILE false)",
        "ATTACH '{dir}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "PRAGMA database_list",
        "CREATE TABLE t AS SELECT 1",
        "EXPORT DATABASE '{dir}/out'",
        "SELECT 1; SELECT 2",
        "DROP VIEW source",
    ],
)
def test_the_engine_runs_one_select_and_nothing_else(
    secrets: tuple[Source, TableFile], tmp_path: Path, statement: str
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises((Corrupt, Refused)):
        _attack(secrets[1], statement.format(dir=tmp_path, path=secrets[1].path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "expression", ["getenv('HOME')", "getvariable('x')", "nextval('s')", "current_setting('home')"]
)
def test_the_engine_knows_nothing_of_its_surroundings(secrets: tuple[Source, TableFile], expression: str) -> None:
    assert os.environ["HOME"]
    with pytest.raises((Refused, KeyError)):
        _attack(secrets[1], f"SELECT {expression}")


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "big"
    duckdb.execute(f"COPY (SELECT 'k' || i AS g FROM range(400000) t(i)) TO '{path}' (HEADER)")
    table = TableFile(str(path), "csv", ("g",), (("g", COLUMN_TYPE_TEXT),))
    plan = Plan(sources=[PlanSource(local_sql="SELECT g, COUNT(*) FROM source GROUP BY g")])
    with pytest.raises(Exhausted, match="more than the 16 MB") as caught:
        DuckDBEngine(memory_mb=16).aggregate(table, plan, 0)
    assert caught.value.rule == "memory-limit"
