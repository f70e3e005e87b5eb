"""Compiling: the same plan everywhere, every refusal with its rule, nothing in a plan that the tokens do not cover."""

from __future__ import annotations

import itertools

import pytest

from koinon.errors import InvalidInput, KoinonError, NotFound, Refused, UnsupportedQuery
from koinon.v1.access_pb2 import TOKEN_STATUS_EXPIRED, TOKEN_STATUS_REVOKED
from koinon.v1.catalog_pb2 import (
    COLUMN_TYPE_DECIMAL,
    COLUMN_TYPE_INTEGER,
    COLUMN_TYPE_TEXT,
    DATASET_STATUS_WITHDRAWN,
    TASK_OPERATION_AVG,
    TASK_OPERATION_COUNT,
    TASK_OPERATION_GROUP_BY,
    TASK_OPERATION_SUM,
    TASK_OPERATION_VARIANCE,
    Column,
)
from koinon.v1.plan_pb2 import (
    AGGREGATE_KIND_COUNT,
    AGGREGATE_KIND_ROWS,
    AGGREGATE_KIND_SUM,
    AGGREGATE_KIND_SUM_OF_SQUARES,
    PLAN_STEP_KIND_LOCAL,
    PLAN_STEP_KIND_OPENING,
    PLAN_STEP_KIND_SECURE,
    Plan,
)
from mpc.plan import Source, compile_plan, plan_hash, task_for
from tests.mpc.tables import MEMBERS, OUTSIDER, PAPER_QUERY, patients, source, sources

ALL = sources("um", "iu", "uk", "case")


def compiled(
    sql: str, given: list[Source] | None = None, members: list[str] | None = None, asker: str = OUTSIDER
) -> Plan:
    return compile_plan(sql, ALL if given is None else given, MEMBERS if members is None else members, asker=asker)


def test_the_plan_of_the_trial() -> None:
    plan = compiled(PAPER_QUERY)
    assert list(plan.committee) == ["case", "iu", "uk", "um"]
    assert plan.threshold == 1
    assert plan.min_cohort == 5
    assert [(column.name, list(column.codes)) for column in plan.group_by] == [("rx", ["0_placebo", "1_indomethacin"])]
    assert plan.aggregates[0].kind == AGGREGATE_KIND_ROWS
    assert [(a.kind, a.expression) for a in plan.aggregates[3:]] == [
        (AGGREGATE_KIND_SUM, '"age"'),
        (AGGREGATE_KIND_SUM_OF_SQUARES, '"age"'),
    ]
    assert [(o.name, list(o.aggregate_indices), o.integral) for o in plan.outputs] == [
        ("rx", [], False),
        ("n", [0], True),
        ("pep", [0, 1], True),
        ("rate", [0, 2], False),
        ("avg(age)", [0, 3], False),
        ("var_samp(age)", [0, 3, 4], False),
    ]
    assert [s.dataset for s in plan.sources] == [f"{name}.ercp.indo_rct" for name in MEMBERS]
    for part in plan.sources:
        assert list(part.columns) == ["age", "outcome", "rx"]
        assert list(part.operations) == [
            TASK_OPERATION_COUNT,
            TASK_OPERATION_SUM,
            TASK_OPERATION_AVG,
            TASK_OPERATION_VARIANCE,
            TASK_OPERATION_GROUP_BY,
        ]


def test_the_compiler_is_frozen() -> None:
    """Every party must compile the same bytes: changing the compiler means raising PLAN_VERSION, knowingly."""
    assert plan_hash(compiled(PAPER_QUERY)).hex() == FROZEN


FROZEN = "a7bf1fb65dadcd061ecd891999c4b342d28b2284c0a67637870bf7e77e2e9135"


def test_order_of_sources_and_members_does_not_matter() -> None:
    plans = {
        plan_hash(compiled(PAPER_QUERY, list(order), members))
        for order in itertools.permutations(ALL)
        for members in (MEMBERS, MEMBERS[::-1])
    }
    assert len(plans) == 1


@pytest.mark.parametrize(
    "sql",
    [
        PAPER_QUERY,
        "SELECT AVG(AGE) FROM um.ercp.indo_rct WHERE Note LIKE 'a%' AND born >= '2000-02-29'",
        "SELECT grade, trained, STDDEV(risk) FROM ercp.indo_rct WHERE seen < '2012-01-01 10:00:00' GROUP BY 1, 2",
        "SELECT SUM(1e-3 * age) FROM ercp.indo_rct",
    ],
)
def test_the_normal_form_compiles_to_the_same_plan(sql: str) -> None:
    given = ALL if "um." not in sql else ALL[:1]
    plan = compiled(sql, given)
    assert compiled(plan.sql, given) == plan
    # Parties compile with the committee of the task as members.
    assert compile_plan(plan.sql, given, list(plan.committee), asker=OUTSIDER) == plan


def test_the_task_says_what_the_plan_says() -> None:
    plan = compiled(PAPER_QUERY)
    task = task_for(plan)
    assert task.sql == plan.sql
    assert task.plan_hash == plan_hash(plan)
    assert list(task.committee) == list(plan.committee)
    assert task.threshold == plan.threshold
    assert not task.result_key
    assert [(s.dataset, s.version, s.token_id, list(s.columns), list(s.operations)) for s in task.sources] == [
        (s.dataset, s.version, s.token_id, list(s.columns), list(s.operations)) for s in plan.sources
    ]


def test_steps_say_who_learns_what() -> None:
    steps = compiled(PAPER_QUERY).steps
    kinds = [step.kind for step in steps]
    assert kinds == [PLAN_STEP_KIND_LOCAL, PLAN_STEP_KIND_SECURE, PLAN_STEP_KIND_SECURE, PLAN_STEP_KIND_OPENING]
    assert [step.learns for step in steps[:-1]] == ["", "", ""], "only the opening tells anyone anything"
    assert list(steps[-1].who) == ["asker"]
    assert steps[-1].learns == (
        "whether at least 5 rows are in each of 2 groups and, only then, n, pep, rate, avg(age), var_samp(age)"
    )
    some = compiled("SELECT COUNT(risk), AVG(risk) FROM ercp.indo_rct").steps[-1].learns
    assert some == (
        "whether at least 5 rows take part and, only then, count(risk), avg(risk); "
        "NULL where fewer than 5 values entered"
    )
    assert steps[0].values == 2 * 5 * 4
    assert steps[-1].values == 2 * (1 + 2 * 5)


@pytest.mark.parametrize(
    ("asker", "owners", "counted"),
    [
        (OUTSIDER, ["iu", "um"], ["iu", "um"]),
        ("um", ["iu", "um"], ["iu"]),
        ("iu", ["iu", "uk", "um"], ["uk", "um"]),
        ("um", ["um"], ["um"]),
    ],
)
def test_rows_of_the_asker_s_institution_do_not_count(asker: str, owners: list[str], counted: list[str]) -> None:
    plan = compiled("SELECT COUNT(*), AVG(risk) FROM ercp.indo_rct", sources(*owners), asker=asker)
    assert [source.institution for source in plan.sources if source.counted] == counted
    others = f"at least 5 rows of institutions other than {asker}"
    assert (others in plan.steps[2].description) == (others in plan.steps[3].learns) == (counted != owners)
    values = f"fewer than 5 values of institutions other than {asker} entered"
    assert (values in plan.steps[3].learns) == (counted != owners)


# --- committee -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owners", "members", "committee", "threshold"),
    [
        (["um"], ["um", "iu", "uk", "case"], ["case", "iu", "um"], 1),
        (["um", "iu"], ["um", "iu", "uk", "case"], ["case", "iu", "um"], 1),
        (["um", "iu", "uk"], ["um", "iu", "uk", "case"], ["iu", "uk", "um"], 1),
        (["um", "iu", "uk", "case"], ["um", "iu", "uk", "case"], ["case", "iu", "uk", "um"], 1),
        (["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e", "f"], ["a", "b", "c", "d", "e"], 2),
    ],
)
def test_owners_compute_and_further_members_join_them(
    owners: list[str], members: list[str], committee: list[str], threshold: int
) -> None:
    plan = compiled("SELECT COUNT(*) FROM ercp.indo_rct", sources(*owners), members)
    assert list(plan.committee) == committee
    assert plan.threshold == threshold
    helpers = sorted(set(committee) - set(owners))
    assert ("without input: " + ", ".join(helpers) in plan.steps[1].description) == bool(helpers)


def test_too_few_members_or_too_many_owners() -> None:
    with pytest.raises(Refused, match="a committee needs 3 members, 2 are available") as caught:
        compiled("SELECT COUNT(*) FROM ercp.indo_rct", sources("um"), ["um", "iu"])
    assert caught.value.rule == "committee"
    with pytest.raises(Refused, match="4 owners, a committee has at most 3 members") as caught:
        compile_plan("SELECT COUNT(*) FROM ercp.indo_rct", ALL, MEMBERS, asker=OUTSIDER, max_committee=3)
    assert caught.value.rule == "committee"


# --- tokens --------------------------------------------------------------------------------------


def _with(change: str) -> list[Source]:
    given = sources("um", "iu", "uk", "case")
    broken = given[2]
    match change:
        case "revoked":
            broken.token.status = TOKEN_STATUS_REVOKED
            broken.token.status_reason = "trial closed"
        case "expired":
            broken.token.status = TOKEN_STATUS_EXPIRED
        case "other dataset":
            broken.token.dataset = "uk.ercp.other"
        case "fewer columns":
            broken.token.columns.remove("age")
        case "fewer operations":
            broken.token.operations.remove(TASK_OPERATION_VARIANCE)
            broken.token.operations.remove(TASK_OPERATION_GROUP_BY)
        case "withdrawn":
            broken.dataset.status = DATASET_STATUS_WITHDRAWN
        case "other type":
            broken.dataset.published.columns[2].type = COLUMN_TYPE_TEXT
        case "no codelist":
            del broken.dataset.published.columns[0].codelist[:]
        case "twice":
            given.append(broken)
        case "another table":
            given.append(source("um", table="ercp.other"))
    return given


@pytest.mark.parametrize(
    ("change", "kind", "rule", "words"),
    [
        ("revoked", Refused, "token-revoked", ["756b", "uk.ercp.indo_rct", "trial closed"]),
        ("expired", Refused, "token-expired", ["756b", "uk.ercp.indo_rct"]),
        ("other dataset", Refused, "token-dataset", ["756b", "uk.ercp.other", "uk.ercp.indo_rct"]),
        ("fewer columns", Refused, "token-columns", ["756b", "uk.ercp.indo_rct", "age"]),
        ("fewer operations", Refused, "token-operations", ["756b", "VARIANCE", "GROUP_BY"]),
        ("withdrawn", Refused, "dataset-withdrawn", ["uk.ercp.indo_rct"]),
        (
            "other type",
            Refused,
            "schema-mismatch",
            ["age", "uk.ercp.indo_rct has text", "um.ercp.indo_rct has integer"],
        ),
        ("no codelist", Refused, "no-codelist", ["uk.ercp.indo_rct", "rx"]),
        ("twice", InvalidInput, "invalid-input", ["uk.ercp.indo_rct"]),
        ("another table", InvalidInput, "invalid-input", ["um.ercp.other"]),
    ],
)
def test_each_source_is_checked_and_named(change: str, kind: type[KoinonError], rule: str, words: list[str]) -> None:
    with pytest.raises(kind) as caught:
        compiled(PAPER_QUERY, _with(change))
    assert caught.value.rule == rule
    for word in words:
        assert word in caught.value.message


def test_every_token_was_granted_for_the_purpose() -> None:
    given = sources("um", "iu")
    given[0].token.purposes[:] = ["to learn", "to teach"]
    given[1].token.purposes[:] = ["to teach"]
    plan = compile_plan(PAPER_QUERY, given, MEMBERS, asker=OUTSIDER, purpose="to teach")
    assert task_for(plan, "to teach").purpose == "to teach"
    assert plan == compile_plan(PAPER_QUERY, given, MEMBERS, asker=OUTSIDER), "the plan is the same whatever it is for"
    with pytest.raises(Refused, match="granted for another purpose: to teach") as caught:
        compile_plan(PAPER_QUERY, given, MEMBERS, asker=OUTSIDER, purpose="to learn")
    assert caught.value.rule == "token-purpose"
    assert "iu.ercp.indo_rct" in caught.value.message


def test_no_token_at_all() -> None:
    with pytest.raises(Refused, match=r"no usable token for ercp\.indo_rct") as caught:
        compiled(PAPER_QUERY, [])
    assert caught.value.rule == "token-missing"


def test_a_token_needs_to_cover_only_what_the_query_uses() -> None:
    narrow = source("um", token_columns=["age"])
    del narrow.token.operations[:]
    narrow.token.operations.extend([TASK_OPERATION_AVG])
    plan = compiled("SELECT AVG(age) FROM ercp.indo_rct", [narrow])
    assert list(plan.sources[0].columns) == ["age"]
    with pytest.raises(Refused, match="does not cover the columns risk"):
        compiled("SELECT AVG(age) FROM ercp.indo_rct WHERE risk > 1", [narrow])


# --- columns -------------------------------------------------------------------------------------


def test_unknown_columns_come_with_a_suggestion() -> None:
    with pytest.raises(NotFound, match=r"case\.ercp\.indo_rct has no column outcom$") as caught:
        compiled("SELECT COUNT(outcom) FROM ercp.indo_rct")
    assert caught.value.rule == "unknown-column"
    assert caught.value.hint == "did you mean outcome?"


def test_case_does_not_tell_columns_apart_and_each_source_keeps_its_spelling() -> None:
    loud = source("zz", [Column(name=column.name.upper(), type=column.type) for column in patients()])
    plan = compiled("SELECT AVG(Age) FROM ercp.indo_rct WHERE AGE > 1", [*sources("um"), loud])
    assert [list(part.columns) for part in plan.sources] == [["age"], ["AGE"]]
    assert plan.aggregates[1].expression == '"age"'
    assert '"AGE" AS "age"' in plan.sources[1].local_sql


def test_integers_and_decimals_go_together_as_decimals() -> None:
    whole = source("um", [Column(name="dose", type=COLUMN_TYPE_INTEGER)])
    parts = source("iu", [Column(name="dose", type=COLUMN_TYPE_DECIMAL)])
    plan = compiled("SELECT SUM(dose) FROM ercp.indo_rct", [whole, parts])
    assert not plan.outputs[0].integral
    assert 'CAST("dose" AS DOUBLE) AS "dose"' in plan.sources[1].local_sql
    with pytest.raises(UnsupportedQuery, match="// does not go with"):
        compiled("SELECT SUM(dose // 2) FROM ercp.indo_rct", [whole, parts])
    assert compiled("SELECT SUM(dose) FROM ercp.indo_rct", [whole]).outputs[0].integral


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("SUM(note)", "SUM needs numbers, this is text"),
        ("AVG(born)", "AVG needs numbers, this is date"),
        ("SUM(age + note)", r"\+ does not go with \(integer, text\)"),
        ("SUM(age = '3')", r"= does not go with \(integer, text\)"),
        ("SUM(NOT age)", r"NOT does not go with \(integer\)"),
        ("SUM(CASE WHEN age THEN 1 END)", "CASE does not go with"),
        ("SUM(CASE WHEN trained THEN 1 ELSE 'x' END)", "CASE does not go with"),
        ("SUM(LENGTH(age))", r"LENGTH does not go with \(integer\)"),
        ("SUM(EXTRACT(year FROM age))", "DATE_PART year does not go with"),
        ("SUM(born > 'yesterday')", "'yesterday' is compared with a date but is none"),
        ("SUM(born > '2021-04-31')", "'2021-04-31' is compared with a date but is none"),
        ("SUM(seen > '1900-02-29 10:00')", "'1900-02-29 10:00' is compared with a timestamp but is none"),
        ("SUM(born > '2020-02-30')", "'2020-02-30' is compared with a date but is none"),
        ("SUM(born > '\u0662020-01-01')", "is compared with a date but is none"),
        ("SUM(born > '2020-13-01')", "'2020-13-01' is compared with a date but is none"),
        ("SUM(COALESCE(age, note))", "COALESCE does not go with"),
        ("SUM(age IN (1, 'x'))", "IN does not go with"),
    ],
)
def test_types_are_checked_before_anything_runs(item: str, words: str) -> None:
    with pytest.raises(UnsupportedQuery, match=words):
        compiled(f"SELECT {item} FROM ercp.indo_rct")
    with pytest.raises(UnsupportedQuery, match="WHERE needs a condition, this is integer"):
        compiled("SELECT COUNT(*) FROM ercp.indo_rct WHERE age")


@pytest.mark.parametrize(
    ("expression", "counted"),
    [
        ("age", False),  # published without missing values: every row has one
        ("age * 2 + 1", False),
        ("CASE WHEN risk > 1 THEN 1 ELSE 0 END", False),
        ("COALESCE(risk, 0)", False),
        ("risk IS NULL", False),
        ("CAST(rx = '0_placebo' AS INTEGER)", False),
        ("risk", True),
        ("CASE WHEN age > 1 THEN 1 END", True),
        ("age / 2", True),  # by zero, some versions of DuckDB say NULL
        ("NULLIF(age, 0)", True),
        ("TRY_CAST(rx AS INTEGER)", True),
        ("age + risk", True),
        ("NULL", True),
    ],
)
def test_values_are_counted_only_where_they_may_be_missing(expression: str, counted: bool) -> None:
    plan = compiled(f"SELECT SUM({expression}) FROM ercp.indo_rct")
    assert (AGGREGATE_KIND_COUNT in [aggregate.kind for aggregate in plan.aggregates]) == counted
    assert list(plan.outputs[0].aggregate_indices) == ([1, 2] if counted else [0, 1])


def test_one_source_with_missing_values_is_enough_to_count() -> None:
    full = source("um", [Column(name="dose", type=COLUMN_TYPE_INTEGER)])
    gaps = source("iu", [Column(name="dose", type=COLUMN_TYPE_INTEGER, nullable=True)])
    assert len(compiled("SELECT SUM(dose) FROM ercp.indo_rct", [full]).aggregates) == 2
    assert len(compiled("SELECT SUM(dose) FROM ercp.indo_rct", [full, gaps]).aggregates) == 3


# --- groups --------------------------------------------------------------------------------------


def test_codelists_unite_in_order_and_null_has_its_own_group() -> None:
    first = source("um", [Column(name="grade", type=COLUMN_TYPE_INTEGER, codelist=["10", "-2"])])
    second = source("iu", [Column(name="grade", type=COLUMN_TYPE_INTEGER, codelist=["9", "10"], nullable=True)])
    query = "SELECT grade, COUNT(*) FROM ercp.indo_rct GROUP BY grade"
    assert list(compiled(query, [first]).group_by[0].codes) == ["-2", "10"]
    assert list(compiled(query, [first, second]).group_by[0].codes) == ["-2", "9", "10", ""]


def test_too_many_groups() -> None:
    wide = [Column(name=name, type=COLUMN_TYPE_TEXT, codelist=[f"{i:02}" for i in range(17)]) for name in "ab"]
    with pytest.raises(Refused, match="289 groups, at most 256") as caught:
        compiled("SELECT COUNT(*) FROM ercp.indo_rct GROUP BY a, b", [source("um", wide)])
    assert caught.value.rule == "too-many-groups"
