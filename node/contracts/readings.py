"""Readings: a regulator says on the ledger what it is about to read in the audit trail, and why; then its node answers.

The record names whom the filter names, so that those concerned see that they were read about, by whom and what for.
The entry that the node looks up is forgotten after the parameter ``reading_window_ms``, as it was then: pages and
receipts of one question come within it. The record stays.
"""

from __future__ import annotations

from koinon import parameters, trail
from koinon.errors import InvalidInput
from koinon.limits import MAX_DUE_PER_BLOCK, MAX_TEXT
from koinon.v1.audit_pb2 import Reading, ReadingKind, RecordReading
from node.contracts import shapes, tables
from node.contracts.context import Context
from node.contracts.transitions import READING

_KINDS = range(1, max(ReadingKind.values()) + 1)


def record(context: Context, operation: RecordReading) -> str:
    """A regulator records a reading. Returns its id."""
    if operation.kind not in _KINDS:
        raise InvalidInput("the kind of reading is missing or unknown", hint="use one of this version of Koinon")
    trail.check(operation.filter)
    shapes.text("purpose", operation.purpose, MAX_TEXT, required=False)
    context.authorise()
    reading = Reading(
        id=context.new_id(),
        recorded=operation,
        reader=context.sender.id,
        expires_at_ms=context.time_ms + parameters.get(context.parameters, "reading_window_ms"),
    )
    words = trail.describe(operation.kind, operation.filter)
    context.record(
        "audit.read",
        f"reading:{reading.id}",
        "",
        READING.after(reading.id, "", "audit.read"),
        related=trail.subjects(operation.filter),
        detail=f"{words}: {operation.purpose}" if operation.purpose else words,
    )
    tables.READINGS.put(context.state, reading.id, reading)
    tables.READING_EXPIRIES.add(context.state, reading.expires_at_ms, reading.id.encode())
    return reading.id


def forget_due(context: Context) -> None:
    """Forget readings whose time is over."""
    for reading_id in tables.READING_EXPIRIES.pop_due(context.state, context.time_ms, at_most=MAX_DUE_PER_BLOCK):
        tables.READINGS.delete(context.state, reading_id.decode())
