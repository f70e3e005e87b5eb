"""Who may read what of the audit log.

Operators see every record: their node holds them all. Regulators see every record too, and the ledger says first what
they read (node.contracts.readings). Others see the records they caused and those that concern them: about themselves,
or about a request, token or task of theirs. A reading concerns whom its filter names; one that names nobody concerns
everybody.
"""

from __future__ import annotations

from collections.abc import Iterable

from koinon import trail
from koinon.errors import NotFound, PermissionRefused, Refused, Unauthenticated
from koinon.v1.audit_pb2 import AuditRecord, RecordFilter
from koinon.v1.identity_pb2 import Role
from koinon.v1.transaction_pb2 import Envelope
from node.application import Application
from node.auth import Caller
from node.read_model import ReadModel


class Trail:
    """The audit log as one caller may see it."""

    def __init__(self, application: Application, read_model: ReadModel) -> None:
        self._application = application
        self._read_model = read_model

    # --- what a regulator said it would read

    def admit(self, who: Caller, wanted: RecordFilter, reading_id: str) -> None:
        """Is what a regulator asks for on the ledger? Others need not say. Raises Refused: unrecorded-reading."""
        if who.is_any(Role.ROLE_REGULATOR) and not trail.covers(self._recorded(who, reading_id), wanted):
            raise _unrecorded(f"reading {reading_id} is for something else")

    def admit_records(self, who: Caller, records: Iterable[AuditRecord], reading_id: str) -> None:
        """The same, for records one by one; and may the caller see them? Raises PermissionRefused, Refused."""
        recorded = self._recorded(who, reading_id) if who.is_any(Role.ROLE_REGULATOR) else None
        for record in records:
            if not self.may_see(who, record):
                raise PermissionRefused(
                    f"record {record.index} does not concern {who.person}",
                    hint="regulators and operators see every record",
                )
            if recorded is not None and not trail.matches(recorded, record, self._read_model.dimensions(record)):
                raise _unrecorded(f"reading {reading_id} does not include record {record.index}")

    def _recorded(self, who: Caller, reading_id: str) -> RecordFilter:
        try:
            reading = self._application.reading(reading_id)
        except NotFound:
            raise _unrecorded(f"{who.person} reads as a regulator") from None
        if reading.reader != who.person or reading.expires_at_ms <= self._application.time_ms:
            raise _unrecorded(f"reading {reading_id} is over, or another person's")
        return reading.recorded.filter

    # --- what anybody sees

    def may_see(self, who: Caller, record: AuditRecord) -> bool:
        if who.is_any(Role.ROLE_REGULATOR, Role.ROLE_OPERATOR):
            return True
        if record.kind == "audit.read" and not record.related:
            return True
        return record.actor == who.person or any(
            self._is_of(who.person, subject) for subject in (record.subject, *record.related)
        )

    def may_see_transaction(self, who: Caller, envelope: bytes) -> bool:
        """``envelope`` is from a block."""
        if who.is_any(Role.ROLE_REGULATOR, Role.ROLE_OPERATOR):
            return True
        try:
            return self._application.sender(Envelope.FromString(envelope).public_key).id == who.person
        except Unauthenticated:  # revoked since, or never known
            return False

    def record(self, index: int) -> AuditRecord:
        """Raises NotFound."""
        record = self._application.record(index)
        if record is None:
            raise NotFound(
                f"the audit log has no record {index}",
                hint=f"its last one is {self._application.audit_log.size - 1}; koinon audit list shows them",
            )
        return record

    def _is_of(self, person: str, subject: str) -> bool:
        kind, _, name = subject.partition(":")
        try:
            match kind:
                case "person":
                    return name == person
                case "request":
                    return self._application.request(name).requester == person
                case "token":
                    return self._application.token(name).holder == person
                case "task":
                    return self._application.task(name).asker == person
        except NotFound:
            pass
        return False


def _unrecorded(problem: str) -> Refused:
    return Refused(
        f"{problem}, and what it asks for is not on the ledger",
        rule="unrecorded-reading",
        hint="record the reading first, as Koinon's own client does",
    )
