"""What a regulator reads is on the ledger first; and who sees that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from koinon import trail
from koinon.errors import PermissionRefused, Refused
from koinon.parameters import PARAMETERS
from koinon.v1.audit_pb2 import (
    READING_KIND_LIST,
    AuditRecord,
    DimensionFilter,
    ReadingKind,
    RecordFilter,
    RecordReading,
)
from koinon.v1.identity_pb2 import ROLE_ANALYST, ROLE_OPERATOR, ROLE_REGULATOR
from node.auth import Caller
from node.read_model import ReadModel
from node.rpc.trail import Trail
from tests.contracts.consortium import Consortium

REGULATOR = Caller("um/regulator", frozenset({ROLE_REGULATOR}))
OPERATOR = Caller("iu/operator", frozenset({ROLE_OPERATOR}))
ANALYST = Caller("um/analyst", frozenset({ROLE_ANALYST}))
OTHER = Caller("iu/analyst", frozenset({ROLE_ANALYST}))


def reading(wanted: RecordFilter, purpose: str = "complaint 7") -> RecordReading:
    return RecordReading(kind=READING_KIND_LIST, filter=wanted, purpose=purpose)


class Watched:
    """A consortium, and its trail as a node serves it."""

    def __init__(self, directory: Path) -> None:
        self.consortium = Consortium()
        self.consortium.publish("iu.a.t")
        self.model = ReadModel(directory / "read.sqlite", self.consortium.app)
        self.trail = Trail(self.consortium.app, self.model)

    def record(self, wanted: RecordFilter, who: str = "um/regulator") -> str:
        made = self.consortium.do(who, reading(wanted))
        self.model.follow()
        return made

    def last(self) -> AuditRecord:
        return self.consortium.records()[-1]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.model.close()


def test_a_reading_is_a_record_that_names_whom_it_concerns(watched: Watched) -> None:
    made = watched.record(trail.make("person:um/analyst", kind="task."))
    record = watched.last()
    assert (record.kind, record.actor, record.subject) == ("audit.read", "um/regulator", f"reading:{made}")
    assert record.related == ["person:um/analyst"]
    assert record.detail == "list kind=task.* person=um/analyst: complaint 7"


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (RecordReading(), "invalid-input"),
        (RecordReading(kind=99), "invalid-input"),  # type: ignore[arg-type]
        (reading(trail.ANYTHING, "x" * 2_001), "invalid-input"),
        (reading(trail.ANYTHING, "\x1b[2J"), "invalid-input"),
        (reading(RecordFilter(dimensions=[DimensionFilter(dimension="kind")])), "invalid-input"),
    ],
)
def test_a_reading_of_bad_form_is_refused(watched: Watched, message: RecordReading, rule: str) -> None:
    assert watched.consortium.refused("um/regulator", message) == rule


def test_every_kind_of_reading_is_recorded(watched: Watched) -> None:
    for kind in ReadingKind.values():
        if kind:
            assert watched.consortium.do("um/regulator", RecordReading(kind=kind))


def test_a_regulator_reads_what_it_recorded_and_nothing_else(watched: Watched) -> None:
    wanted = trail.make("dataset:iu.a.t")
    made = watched.record(wanted)
    watched.trail.admit(REGULATOR, wanted, made)
    watched.trail.admit(REGULATOR, trail.make("dataset:iu.a.t", from_index=3, until_index=9), made)
    for asked, reading_id in (
        (wanted, ""),
        (wanted, "0" * 32),
        (trail.ANYTHING, made),
        (trail.make("dataset:iu.a.u"), made),
    ):
        with pytest.raises(Refused) as caught:
            watched.trail.admit(REGULATOR, asked, reading_id)
        assert caught.value.rule == "unrecorded-reading"


def test_a_reading_is_its_reader_s_own_and_ends(watched: Watched) -> None:
    made = watched.record(trail.ANYTHING)
    with pytest.raises(Refused, match="another person's"):
        watched.trail.admit(Caller("iu/regulator", REGULATOR.roles), trail.ANYTHING, made)
    watched.consortium.wait(PARAMETERS["reading_window_ms"].default)
    with pytest.raises(Refused):
        watched.trail.admit(REGULATOR, trail.ANYTHING, made)
    keys = [key for key, _ in watched.consortium.store.scan(b"s/reading")]
    assert keys == []  # nothing is kept but the record


def test_a_second_role_does_not_excuse_a_regulator(watched: Watched) -> None:
    both = Caller("um/regulator", frozenset({ROLE_REGULATOR, ROLE_OPERATOR}))
    with pytest.raises(Refused):
        watched.trail.admit(both, trail.ANYTHING, "")
    watched.trail.admit(OPERATOR, trail.ANYTHING, "")
    watched.trail.admit(ANALYST, trail.ANYTHING, "")


def test_receipts_are_covered_record_by_record(watched: Watched) -> None:
    published = next(item for item in watched.consortium.records() if item.kind == "dataset.published")
    made = watched.record(trail.make("dataset:iu.a.t"))
    watched.trail.admit_records(REGULATOR, [published], made)
    with pytest.raises(Refused, match="does not include record 0"):
        watched.trail.admit_records(REGULATOR, watched.consortium.records()[:1], made)
    with pytest.raises(PermissionRefused):
        watched.trail.admit_records(OTHER, [watched.last()], "")


def test_those_concerned_see_a_reading(watched: Watched) -> None:
    watched.record(trail.make("person:um/analyst"))
    named = watched.last()
    assert [watched.trail.may_see(who, named) for who in (REGULATOR, OPERATOR, ANALYST, OTHER)] == [
        *(True, True, True),
        False,
    ]
    watched.record(trail.make(kind="task."))
    assert watched.trail.may_see(OTHER, watched.last())  # who names nobody reads about everybody
