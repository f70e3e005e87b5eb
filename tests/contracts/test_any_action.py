"""Whatever an action says, it is refused by its form, fails with a rule, or is applied: the ledger goes on.

Actions are built from their descriptors, each field from values that mean something and values that should not. An
exception at the end of a block would stop every node at once.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koinon.proposals import describe
from koinon.rules import RULES
from koinon.v1.governance_pb2 import (
    CHOICE_YES,
    PROPOSAL_STATUS_EXECUTED,
    PROPOSAL_STATUS_FAILED,
    PROPOSAL_STATUS_OPEN,
    Action,
    CastBallot,
    Propose,
    SetParameter,
)
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_COMMITTED
from tests.contracts.consortium import MEMBERS, Consortium, key
from tests.contracts.decree import descriptor

TEXTS = (
    "um",
    "iu",
    "osu",
    "agreed",
    "um/operator",
    "um/analyst",
    "fda/inspector",
    "institution:um",
    "fund:consortium",
    "union:none",
    "min_cohort_floor",
    "max_committee",
    "heartbeat_ms",
    "settlement_delay_ms",
    "usual",
    "suspend",
    "0" * 32,
    "127.0.0.1:9",
    "",
    "a\x00b",
    "é" * 300,
)
BYTES = (b"", bytes(32), bytes(31), key("anybody").public_key, key("um").public_key, b"\x30\x00", b"x" * 2_000)
NUMBERS = (0, 1, 2, 3, 7, 60_000, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**64 - 1)
RANGES = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
}
HARMLESS = Action(set_parameter=SetParameter(name="min_cohort_floor", value=7))
"""Beside a precondition there has to be something that is done."""

_WHOLE = {"InstitutionDescriptor": descriptor("osu", 5)}


def value(draw: st.DrawFn, field: FieldDescriptor, depth: int) -> Any:
    if field.message_type is not None:
        if field.message_type.name in _WHOLE and draw(st.booleans()):
            return _WHOLE[field.message_type.name]
        return message(draw, GetMessageClass(field.message_type), depth + 1)
    if field.enum_type is not None:
        return draw(st.sampled_from((*field.enum_type.values_by_number, 77)))
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw(st.sampled_from(TEXTS))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(st.sampled_from(BYTES))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return draw(st.booleans())
    least, most = RANGES[field.type]
    return draw(st.sampled_from([number for number in (*NUMBERS, -1) if least <= number <= most]))


def message(draw: st.DrawFn, kind: Any, depth: int = 0) -> Any:
    fields: dict[str, Any] = {}
    for field in kind.DESCRIPTOR.fields:
        if depth > 3 or (draw(st.integers(0, 9)) == 0 and field.name not in ("institution", "reason")):
            continue
        if field.is_repeated:
            fields[field.name] = [value(draw, field, depth) for _ in range(draw(st.integers(0, 2)))]
        else:
            fields[field.name] = value(draw, field, depth)
    return kind(**fields)


@st.composite
def actions(draw: st.DrawFn) -> Action:
    field = draw(st.sampled_from(tuple(Action.DESCRIPTOR.fields)))
    assert field.message_type is not None
    content: dict[str, Any] = {field.name: message(draw, GetMessageClass(field.message_type))}
    return Action(**content)


@given(action=actions())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_action_is_refused_fails_or_is_applied(action: Action) -> None:
    assert describe(action)
    proposed = [action, HARMLESS]
    consortium = Consortium()
    result = consortium.send("um/operator", Propose(title="t", reason="r", actions=proposed))
    if result.status != TRANSACTION_STATUS_COMMITTED:
        assert result.refusal.rule in RULES
        return
    consortium.app.preview(Propose(title="t", reason="r", actions=proposed))
    for member in MEMBERS:
        if consortium.app.proposal(result.created[0]).status == PROPOSAL_STATUS_OPEN:
            consortium.send(f"{member}/operator", CastBallot(proposal_id=result.created[0], choice=CHOICE_YES))
    decided = consortium.app.proposal(result.created[0])
    assert decided.status in (PROPOSAL_STATUS_EXECUTED, PROPOSAL_STATUS_FAILED)
    if decided.status == PROPOSAL_STATUS_FAILED:
        assert decided.rule in RULES
    consortium.wait(1)
    assert any(consortium.app.ballot_weights().values())
