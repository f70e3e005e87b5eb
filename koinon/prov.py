"""The audit trail as W3C PROV (PROV-DM, in its PROV-JSON form of the W3C member submission of 2013). Pure.

A record is an activity. Who caused it is an agent that the activity was associated with; a person acted on behalf of
its institution. What the record is about is an entity, and each record generates a state of it: a specialisation,
derived from the state before. What the record names besides was used. Identifiers are those of the ledger, under
``urn:koinon:<chain>:``; nothing is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from koinon.v1.audit_pb2 import AuditRecord

Document = dict[str, dict[str, Any]]

_AGENTS = {"person": "prov:Person", "institution": "prov:Organization"}


def document(chain_id: str, records: Iterable[AuditRecord]) -> Document:
    """A PROV-JSON document of records, which are ascending."""
    made: Document = {"prefix": {"k": f"urn:koinon:{quote(chain_id)}:", "koinon": "urn:koinon:v1#"}}
    last: dict[str, str] = {}
    for record in records:
        _add(made, record, last)
    return made


def _add(made: Document, record: AuditRecord, last: dict[str, str]) -> None:
    """One record; ``last`` is the newest state of each subject so far."""
    moment = _time(record.time_ms)
    activity = f"k:record/{record.index}"
    _put(
        made,
        "activity",
        activity,
        {
            "prov:startTime": moment,
            "prov:endTime": moment,
            "prov:type": _typed(record.kind),
            "koinon:height": record.height,
            **({"koinon:detail": record.detail} if record.detail else {}),
            **({"koinon:transaction": record.transaction_id.hex()} if record.transaction_id else {}),
        },
    )
    _associate(made, record, activity)
    general, state = _entity(made, record.subject), f"{_identifier(record.subject)}/at/{record.index}"
    _put(made, "entity", state, {"prov:type": _typed("State"), "koinon:state": record.to_state})
    key = str(record.index)
    _put(made, "specializationOf", f"_:s{key}", {"prov:specificEntity": state, "prov:generalEntity": general})
    _put(
        made,
        "wasGeneratedBy",
        f"_:g{key}",
        {"prov:entity": state, "prov:activity": activity, "prov:time": moment},
    )
    if before := last.get(record.subject):
        _put(
            made,
            "wasDerivedFrom",
            f"_:d{key}",
            {
                "prov:generatedEntity": state,
                "prov:usedEntity": before,
                "prov:activity": activity,
                "prov:type": {"$": "prov:Revision", "type": "prov:QUALIFIED_NAME"},
            },
        )
    last[record.subject] = state
    for number, name in enumerate(record.related):
        used = {"prov:activity": activity, "prov:entity": _entity(made, name), "prov:time": moment}
        _put(made, "used", f"_:u{key}-{number}", used)


def _associate(made: Document, record: AuditRecord, activity: str) -> None:
    """Who did it, and for whom."""
    actor = record.actor
    if actor == "ledger":
        agent = "k:ledger"
        _put(made, "agent", agent, {"prov:type": _qualified("prov:SoftwareAgent")})
    else:
        agent = _agent(made, "person" if "/" in actor else "institution", actor)
    _put(made, "wasAssociatedWith", f"_:a{record.index}", {"prov:activity": activity, "prov:agent": agent})
    if "/" in actor:
        institution = _agent(made, "institution", actor.partition("/")[0])
        name = f"_:b{quote(actor, safe='')}"
        _put(made, "actedOnBehalfOf", name, {"prov:delegate": agent, "prov:responsible": institution})


def _agent(made: Document, kind: str, name: str) -> str:
    identifier = _identifier(f"{kind}:{name}")
    _put(made, "agent", identifier, {"prov:type": _qualified(_AGENTS[kind]), "prov:label": name})
    return identifier


def _entity(made: Document, subject: str) -> str:
    kind, _, name = subject.partition(":")
    identifier = _identifier(subject)
    _put(made, "entity", identifier, {"prov:type": _typed(kind), "prov:label": name})
    return identifier


def _identifier(subject: str) -> str:
    kind, _, name = subject.partition(":")
    return f"k:{quote(kind, safe='')}/{quote(name, safe='/._-')}"


def _typed(word: str) -> dict[str, str]:
    return _qualified(f"koinon:{quote(word, safe='._-')}")


def _qualified(name: str) -> dict[str, str]:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


def _put(made: Document, kind: str, identifier: str, values: dict[str, Any]) -> None:
    made.setdefault(kind, {})[identifier] = values


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
