"""Case files: every record that concerns one dataset, person, task or any other subject, with receipts, in one file.
Pure.

Verification, in the order in which it is done:

1. to 6. Every record stands as a receipt says (koinon.receipt), all under one head, in the order of the log.
7. The scope is the subject and, for a task, the tokens and requests that its records name.
8. Every record concerns something in the scope.
9. The records about each of these follow on one another: each begins in the state in which the one before it ended,
   and the first where nothing was.

**What it proves**: that these records are in the log; and by step 9 that none is missing by which something in the
scope changed its state before the last change that is shown. The size of the log is under the head, so it is also
known up to which record the case was looked for, if whoever gathered it was honest.

**What it does not prove**: that no later change was cut off (a revocation!), nor that no record was left out by which
nothing changed its state (a use of a token, a reading), or which names the subject without being about it. The log is
a tree by place, not by subject: to prove such an absence one would have to show all records. It can be refuted,
though: whoever holds the ledger finds what is missing, and its receipt shows that it is. ``koinon audit verify
--compare`` asks another node; ``koinon ledger verify`` replays everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from koinon import json_form, receipt, trail
from koinon.errors import Corrupt
from koinon.receipt import Proof
from koinon.v1.audit_pb2 import AuditRecord, CaseFile
from koinon.v1.identity_pb2 import Genesis

FORMAT = "koinon-case/1"

_USED = {"task": ("token:", "request:")}
"""What belongs to the case of a subject of some kind: what its records name of these."""


@dataclass(frozen=True, slots=True)
class VerifiedCase:
    """What a case file proved."""

    subject: str
    scope: tuple[str, ...]
    records: tuple[AuditRecord, ...]  # ascending
    tree_size: int  # records in the log when it was gathered
    proof: Proof


def scope(subject: str, records: Iterable[AuditRecord]) -> list[str]:
    """The subjects of a case, ascending, by the records about its subject."""
    wanted = _USED.get(subject.partition(":")[0], ())
    named = {name for record in records if record.subject == subject for name in record.related}
    return sorted({subject, *(name for name in named if name.startswith(wanted))}) if wanted else [subject]


def render(case: CaseFile) -> str:
    """The case as JSON."""
    return json_form.render(case, FORMAT)


def parse(text: str) -> CaseFile:
    """The case of a JSON text from anywhere, unverified. Raises InvalidFile."""
    return json_form.parse(text, CaseFile, FORMAT, "case file")


def verify(case: CaseFile, genesis: Genesis) -> VerifiedCase:
    """Prove a case from anywhere, trusting a valid genesis alone. Raises Corrupt, naming the step that failed."""
    # 1. to 6. the records
    proved = receipt.verify_records(case.proved, genesis)
    # 7. the scope
    expected = scope(case.subject, proved.records)
    if list(case.scope) != expected:
        raise _failed(7, f"the case of {case.subject!a} is about other subjects than its records say")
    # 8. nothing foreign
    for record in proved.records:
        if not concerns(record, expected):
            raise _failed(8, f"record {record.index} does not concern {case.subject!a}")
    # 9. no change before the last one is missing
    for subject in expected:
        _check_path(subject, [record for record in proved.records if record.subject == subject])
    return VerifiedCase(case.subject, tuple(expected), proved.records, case.proved.tree_size, proved.proof)


def concerns(record: AuditRecord, wanted: Sequence[str]) -> bool:
    """Is the record about one of these subjects, or does it name one?"""
    found = {f"{name}:{value}" for name, value in trail.dimensions(record)}
    return not found.isdisjoint(wanted)


def _check_path(subject: str, records: Sequence[AuditRecord]) -> None:
    state = ""
    for record in records:
        if record.from_state != state:
            raise _failed(
                9, f"before record {record.index}, {subject} changed from {state or 'nothing'!a} without a record"
            )
        state = record.to_state


def _failed(step: int, problem: str) -> Corrupt:
    return Corrupt(
        f"step {step}: {problem}",
        rule="invalid-receipt",
        hint="the case proves nothing as it is: gather it again, from another member's node",
    )
