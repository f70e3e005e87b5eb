"""Dimensions of records, and filters from anywhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import trail
from koinon.errors import InvalidInput
from koinon.limits import MAX_TEXT
from koinon.v1.audit_pb2 import READING_KIND_LIST, AuditRecord, DimensionFilter, RecordFilter
from koinon.v1.points_pb2 import Posting


@pytest.mark.parametrize(
    ("subject", "meant"),
    [
        ("task:58dd81ea25", "task:58dd81ea25*"),
        ("token:" + "a" * 32, "token:" + "a" * 32),
        ("institution:fda", "institution:fda"),
        ("task:58dd*", "task:58dd*"),
        ("dataset:a.b.c", "dataset:a.b.c"),
        ("", ""),
    ],
)
def test_a_shortened_id_means_every_id_that_begins_so(subject: str, meant: str) -> None:
    assert trail.beginning(subject) == meant


def test_dimensions_follow_from_the_record() -> None:
    record = AuditRecord(
        time_ms=1_760_000_000_000,
        kind="task.completed",
        actor="um",
        subject="task:ab",
        related=["dataset:iu.a.b", "novelty:x", "token:cd"],
        to_state="completed",
        postings=[Posting(account="person:case/ada", change=-3)],
    )
    assert trail.dimensions(record) == {
        ("kind", "task.completed"),
        ("actor", "um"),
        ("outcome", "completed"),
        ("day", "2025-10-09"),
        ("task", "ab"),
        ("dataset", "iu.a.b"),
        ("novelty", "x"),  # a kind that nobody knew
        ("token", "cd"),
        ("account", "person:case/ada"),
        ("person", "case/ada"),
        ("institution", "um"),
        ("institution", "iu"),
        ("institution", "case"),
    }


@pytest.mark.parametrize("colons", [":" * MAX_TEXT, "a:" * (MAX_TEXT // 2), "account:" * (MAX_TEXT // 8)])
def test_a_subject_of_many_colons_is_one_dimension(colons: str) -> None:
    """A reading names what it likes; every node indexes that after the block, and dies of what it cannot."""
    assert trail.of_subject(f"account:{colons}") == (("account", colons),)
    assert len(trail.of_subject(colons)) <= 1


def test_an_account_is_what_it_belongs_to_and_nothing_else() -> None:
    assert trail.of_subject("account:kind:token.granted") == (("account", "kind:token.granted"),)
    assert trail.of_subject("escrow:ab:1") == (("escrow", "ab:1"),)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001
def test_days_are_those_of_the_calendar(moment: datetime) -> None:
    record = AuditRecord(time_ms=int(moment.replace(tzinfo=UTC).timestamp() * 1000))
    assert ("day", moment.strftime("%Y-%m-%d")) in trail.dimensions(record)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=40))
def test_no_record_is_beyond_dimensions(kind: str, actor: str, subject: str) -> None:
    record = AuditRecord(kind=kind, actor=actor, subject=subject, related=[subject, ":", "a:b:c:d/e"])
    assert ("kind", kind) in trail.dimensions(record)


@pytest.mark.parametrize(
    "bad",
    [
        RecordFilter(dimensions=[DimensionFilter(dimension="kind")]),
        RecordFilter(dimensions=[DimensionFilter(dimension="", values=["x"])]),
        RecordFilter(dimensions=[DimensionFilter(dimension="kind", values=["b", "a"])]),
        RecordFilter(dimensions=[DimensionFilter(dimension="kind", values=["a", "a"])]),
        RecordFilter(dimensions=[DimensionFilter(dimension=name, values=["a"]) for name in ("b", "a")]),
        RecordFilter(dimensions=[DimensionFilter(dimension=f"d{n}", values=["a"]) for n in range(9)]),
        RecordFilter(dimensions=[DimensionFilter(dimension="kind", values=[f"{n:03}" for n in range(33)])]),
        RecordFilter(dimensions=[DimensionFilter(dimension="kind", values=["x" * 2_001])]),
        RecordFilter(dimensions=[DimensionFilter(dimension="kind", values=["x\x1b[2J"])]),
        RecordFilter(dimensions=[DimensionFilter(dimension="kind", values=[f"{n}" + "x" * 1_900 for n in range(3)])]),
        RecordFilter(since_ms=-1),
    ],
)
def test_a_filter_of_bad_form_is_refused(bad: RecordFilter) -> None:
    with pytest.raises(InvalidInput):
        trail.check(bad)


def test_a_wide_reading_covers_narrow_ones_only() -> None:
    wide = trail.make("dataset:um.a.b", kind="task.", since_ms=10, until_ms=100, until_index=50)
    narrow = trail.make("dataset:um.a.b", kind="task.", since_ms=20, until_ms=100, from_index=7, until_index=50)
    assert trail.covers(wide, wide)
    assert trail.covers(wide, narrow)
    assert not trail.covers(narrow, wide)
    for other in (
        trail.make("dataset:um.a.b", since_ms=10, until_ms=100, until_index=50),
        trail.make("dataset:um.a.c", kind="task.", since_ms=10, until_ms=100, until_index=50),
        trail.make("dataset:um.a.b", kind="task.", since_ms=10, until_index=50),
        trail.make("dataset:um.a.b", kind="task.", since_ms=10, until_ms=100),
    ):
        assert not trail.covers(wide, other)


def test_a_kind_is_exact_or_a_family() -> None:
    for family in ("token", "token.", "token.*"):
        assert trail.make(kind=family) == trail.make(where={"kind": "token.*"})
    assert trail.make(kind="token.granted") == trail.make(where={"kind": "token.granted"})
    assert trail.make(kind="tok*") == trail.make(where={"kind": "tok*"})
    assert trail.make(kind="token.gr*") == trail.make(where={"kind": "token.gr*"})


def test_a_reading_names_whom_it_concerns_and_says_what_it_is() -> None:
    wanted = trail.make("person:um/ada", actor="iu/bo", kind="task.", where={"token": "ab*", "outcome": "failed"})
    assert trail.subjects(wanted) == ["person:iu/bo", "person:um/ada"]
    assert (
        trail.describe(READING_KIND_LIST, wanted)
        == "list actor=iu/bo kind=task.* outcome=failed person=um/ada token=ab*"
    )
