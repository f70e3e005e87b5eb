"""The largest records still make chunks that one message bears."""

from __future__ import annotations

import pytest

from koinon.limits import MAX_FILTER_TEXT, MAX_PEER_MESSAGE_BYTES, MAX_TEXT, SNAPSHOT_AUDIT_RECORDS
from koinon.v1.audit_pb2 import READING_KIND_LIST, DimensionFilter, RecordFilter, RecordReading
from node import snapshot
from node.store.memory import MemoryStore
from tests.node.recorded_ledger import RecordedLedger

FOUR_BYTES = "\U00020000"


def reading(number: int, text: int) -> RecordReading:
    values = [FOUR_BYTES * (text // 2 - 6) + f"{number:05}{end}" for end in "ab"]
    named = RecordFilter(dimensions=[DimensionFilter(dimension="dataset", values=values)])
    return RecordReading(kind=READING_KIND_LIST, purpose=FOUR_BYTES * MAX_TEXT, filter=named)


@pytest.mark.parametrize("text", [MAX_FILTER_TEXT // 4, MAX_FILTER_TEXT])
def test_whatever_a_regulator_reads_its_records_fit_into_chunks(text: int) -> None:
    """One message that is too large breaks the stream, and nobody could join by a snapshot again."""
    ledger = RecordedLedger(MemoryStore())
    number = 0
    for _ in range(20):
        ledger.decide(*(ledger.envelope("um/regulator", reading(number + i, text)) for i in range(15)))
        number += 15
    size = ledger.app.audit_log.size
    chunks = [
        snapshot.audit_chunk(ledger.app.audit_log.record, index, size)
        for index in range(-(-size // SNAPSHOT_AUDIT_RECORDS))
    ]
    assert max(map(len, chunks)) < MAX_PEER_MESSAGE_BYTES - 1_000
