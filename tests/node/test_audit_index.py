"""The audit index against the written-out meaning of a filter, over several chunks; and cursors in a growing log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.audit import SyntheticLedger
from koinon import trail
from koinon.errors import InvalidInput, Unavailable
from koinon.trail import Words
from koinon.v1.audit_pb2 import AuditRecord, RecordFilter
from node.read_model import ReadModel

RECORDS = 20_000  # two chunks and a part of a third
START_MS = 1_760_000_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadModel]:
    made = ReadModel(tmp_path_factory.mktemp("index") / "read.sqlite", cast(Any, SyntheticLedger(RECORDS)))
    yield made
    made.close()


@pytest.fixture(scope="module")
def everything(model: ReadModel) -> list[tuple[AuditRecord, set[trail.Dimension]]]:
    ledger = SyntheticLedger(RECORDS)
    return [(record, model.dimensions(record)) for record in map(ledger.record, range(RECORDS))]


VALUES = {
    "kind": ["task.failed", "token.granted", "task.*", "nothing"],
    "institution": ["h01", "h02", "h0*"],
    "outcome": ["failed", "active"],
    "actor": ["h07"],
    "day": ["2025-10-09", "2025-10-1*"],
    "dataset": ["h00.c.t0", "h0*"],
    "purpose": ["study 7 of post-operative outcomes", "study 1*"],
}


@st.composite
def filters(draw: st.DrawFn) -> RecordFilter:
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3, unique=True))
    where = {name: draw(st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=2, unique=True)) for name in names}
    places = st.sampled_from([0, 0, 1, 5, 8_191, 8_192, 8_193, 16_384, 19_999, RECORDS, 2**63])
    words: Words = {"where": where, "from_index": draw(places), "until_index": draw(places)}
    times = st.sampled_from([0, 0, START_MS, START_MS + 10_000 * 20_000, START_MS + 19_990 * 20_000, 2**62])
    words["since_ms"], words["until_ms"] = draw(times), draw(times)
    return trail.make(**words)


def pages(model: ReadModel, wanted: RecordFilter, limit: int, newest_first: bool) -> list[int]:
    """Every page, as a client asks for them."""
    rest, found = RecordFilter(), list[int]()
    rest.CopyFrom(wanted)
    while True:
        records, following = model.records(rest, limit=limit, newest_first=newest_first)
        assert len(records) <= limit
        found += [record.index for record in records]
        if not following:
            return found
        if newest_first:
            rest.until_index = following
        else:
            rest.from_index = following


@settings(max_examples=20)
@given(filters(), st.sampled_from([500, 3_000]), st.booleans())
def test_pages_and_counts_are_what_the_filter_means(
    model: ReadModel,
    everything: list[tuple[AuditRecord, set[trail.Dimension]]],
    wanted: RecordFilter,
    limit: int,
    newest_first: bool,
) -> None:
    expected = [(record.index, found) for record, found in everything if trail.matches(wanted, record, found)]
    indices = [index for index, _ in expected]
    assert pages(model, wanted, limit, newest_first) == (indices[::-1] if newest_first else indices)
    for by in ("kind", "institution", "day", "token"):
        counts = model.counter(wanted, by)()
        groups = Counter(value for _, found in expected for name, value in found if name == by)
        assert (counts.records, counts.groups) == (len(indices), dict(groups))


@settings(max_examples=10)
@given(steps=st.lists(st.integers(0, 300), max_size=4), limit=st.integers(100, 400), begin=st.integers(7_900, 8_300))
def test_a_cursor_survives_new_records(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], limit: int, begin: int
) -> None:
    """Between pages the log grows, over ends of chunks too: every record comes once, in order, new ones at the end."""
    ledger = SyntheticLedger(begin)
    model = ReadModel(tmp_path_factory.mktemp("grows") / "read.sqlite", cast(Any, ledger))
    wanted = trail.make(kind="task.accepted")
    found, growth = list[int](), iter(steps)
    while True:
        records, following = model.records(wanted, limit=limit)
        found += [record.index for record in records]
        grown = next(growth, 0)
        ledger.audit_log.size += grown
        model.follow()
        if not following and not grown:
            break
        wanted.from_index = following or found[-1] + 1 if found or following else 0
    size = ledger.audit_log.size
    assert found == [index for index in range(size) if ledger.record(index).kind == "task.accepted"]
    model.close()


@pytest.mark.parametrize("size", [1, 8_191, 8_192, 8_193])
def test_a_restart_changes_no_answer(tmp_path: Path, size: int) -> None:
    ledger = SyntheticLedger(size // 2)
    path = tmp_path / "read.sqlite"
    ReadModel(path, cast(Any, ledger)).close()
    ledger.audit_log.size = size
    restarted = ReadModel(path, cast(Any, ledger))
    anew = ReadModel(tmp_path / "anew.sqlite", cast(Any, ledger))
    for wanted in (trail.ANYTHING, trail.make(kind="token."), trail.make("institution:h03")):
        assert pages(restarted, wanted, 3_000, False) == pages(anew, wanted, 3_000, False)
        assert restarted.counter(wanted, "person")() == anew.counter(wanted, "person")()
    restarted.close()
    anew.close()


def test_a_write_that_fails_is_taken_in_again(tmp_path: Path) -> None:
    ledger = SyntheticLedger(8_000)
    model = ReadModel(tmp_path / "read.sqlite", cast(Any, ledger))
    ledger.audit_log.size = 9_000
    model._database.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable):
        model.follow()
    assert pages(model, trail.ANYTHING, 3_000, False) == list(range(8_000))
    model._database.execute("PRAGMA query_only = OFF")
    model.follow()
    assert pages(model, trail.ANYTHING, 3_000, False) == list(range(9_000))
    assert sum(model.counter(trail.ANYTHING, "kind")().groups.values()) == 9_000
    model.close()


def test_a_beginning_that_means_too_much_is_refused(tmp_path: Path) -> None:
    model = ReadModel(tmp_path / "read.sqlite", cast(Any, SyntheticLedger(20_000)))
    with pytest.raises(InvalidInput, match="begin so"):
        model.records(trail.make(where={"token": "*"}), limit=5)
    model.close()


def test_the_index_is_read_by_key(model: ReadModel) -> None:
    """No question reads the whole table."""
    plan = model._database.execute(
        "EXPLAIN QUERY PLAN SELECT offsets FROM chunks WHERE dimension = 'kind' AND value IN ('a', 'b') AND chunk = 3"
    )
    assert all("SEARCH" in row[3] for row in plan)
