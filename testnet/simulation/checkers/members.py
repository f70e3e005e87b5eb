"""Who votes, from the audit log alone: joined, empowered, suspended, with which key. The state must say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from koinon.v1 import consensus_pb2 as pb
from koinon.v1.audit_pb2 import AuditRecord
from testnet.simulation.checkers.violation import Violation

_SUBJECT, _KEY, _APPROVED = "institution:", "validator key ", "may vote with power "


@dataclass(slots=True)
class _Member:
    power: int
    key: bytes
    belongs: bool = True  # and is not suspended
    gone: bool = False
    approved: int = 0  # power that it may take up


class Members:
    """Every institution that ever was one."""

    def __init__(self, validators: Iterable[pb.Validator]) -> None:
        self._members = {each.institution: _Member(int(each.power), each.public_key) for each in validators}
        self.counted: Counter[str] = Counter()  # records by kind, after the genesis

    def check(self, record: AuditRecord) -> None:
        """The next record."""
        if not record.height:
            return  # the genesis names its validators
        self.counted[record.kind] += 1
        if not record.subject.startswith(_SUBJECT):
            return
        name, detail = record.subject.removeprefix(_SUBJECT), record.detail
        match record.kind:
            case "institution.joined":
                approved = int(detail.split(_APPROVED)[1].split(";")[0]) if _APPROVED in detail else 0
                self._members[name] = _Member(0, _key(detail), approved=approved)
            case "institution.empowered":
                member = self._members[name]
                _, before, _, after, *_ = detail.replace(",", " ").split()  # from 0 to 2, at height 9
                if not member.belongs or int(before) != member.power:
                    raise Violation(f"record {record.index} empowers {name}, which has {member}")
                member.power, member.approved = int(after), 0
            case "institution.readmitted":
                self._members[name].belongs, self._members[name].power = True, 0
            case "institution.suspended":
                self._members[name].belongs = False
            case "institution.removed" | "institution.left":
                self._members[name].belongs, self._members[name].gone = False, True
            case "key.rotated" if detail.startswith(_KEY):
                self._members[name].key = _key(detail)
            case "key.revoked" if detail.startswith(_KEY):
                self._members[name].key, self._members[name].power = b"", 0

    def compare(self, height: int, voters: Iterable[pb.Validator]) -> None:
        """``voters``: who votes two heights after the block at ``height``, as the application says."""
        said = {each.institution: (int(each.power), each.public_key) for each in voters}
        logged = {
            name: (member.power, member.key)
            for name, member in self._members.items()
            if member.belongs and member.power and member.key
        }
        if said != logged:
            raise Violation(
                f"after block {height} those vote whom the log does not name: {said.keys()}, {logged.keys()}"
            )

    def belongs(self, name: str) -> bool:
        """Is this an active member, as far as the log goes?"""
        return name in self._members and self._members[name].belongs

    def waits(self, name: str) -> bool:
        """Has it not taken up yet what was approved when it joined?"""
        return self.belongs(name) and self._members[name].approved > 0

    def follows(self, name: str) -> bool:
        """Is it let in, if only to look on?"""
        return name in self._members and not self._members[name].gone


def _key(detail: str) -> bytes:
    """The validator key that a record's words name."""
    return bytes.fromhex(detail.partition(_KEY)[2][:64])
