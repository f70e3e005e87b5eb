"""What tasks cost, from the audit log alone: a completed one is paid for, any other is given back, nothing twice."""

from __future__ import annotations

from koinon.v1.audit_pb2 import AuditRecord
from testnet.simulation.checkers.violation import Violation

_FUND, _WHOLE_BP = "fund:consortium", 10_000
_ENDS = ("task.completed", "task.failed", "task.cancelled", "task.expired")


class Settlement:
    """Every task that cost something. What a dispute froze may end in either way."""

    def __init__(self, fund_bp: int, fee: int) -> None:
        self._fund_bp = fund_bp  # of every price, as the genesis says; no proposal of a simulated world changes it
        self._fee = fee  # for a task that begins now
        self._prices: dict[str, tuple[int, int, str]] = {}  # by escrow: price, fee, and the task's subject
        self._ends: dict[str, str] = {}  # by task: the kind of record that ended it
        self._disputed: set[str] = set()
        self._over: set[str] = set()  # escrows

    def check(self, record: AuditRecord) -> None:
        """The next record."""
        subject = record.subject
        if record.kind in _ENDS:
            if self._ends.setdefault(subject, record.kind) != record.kind:
                raise Violation(f"record {record.index} ends {subject}, which was {self._ends[subject]}")
        elif record.kind == "escrow.held":
            task = next((name for name in record.related if name.startswith("task:")), "")
            fee = self._fee if task else 0
            self._prices[subject] = -sum(posting.change for posting in record.postings) - fee, fee, task
        elif record.kind == "parameter.changed" and record.detail.startswith("task_fee: "):
            self._fee = int(record.detail.split()[-1])
        elif record.kind == "escrow.frozen":
            self._disputed.add(subject)
        elif record.kind in ("escrow.settled", "escrow.refunded"):
            self._check_end(record)

    def _check_end(self, record: AuditRecord) -> None:
        price, fee, task = self._prices[record.subject]
        if record.subject in self._over:
            raise Violation(f"record {record.index} ends {record.subject} a second time")
        self._over.add(record.subject)
        if not task or record.subject in self._disputed:
            return
        paid = record.kind == "escrow.settled"
        if paid != (self._ends.get(task) == "task.completed"):
            raise Violation(f"{task} is {self._ends.get(task)}, and record {record.index} is {record.kind}")
        fund = sum(posting.change for posting in record.postings if posting.account == _FUND)
        if paid and abs((fund - fee) * _WHOLE_BP - price * self._fund_bp) >= _WHOLE_BP:
            raise Violation(f"record {record.index} gives the fund {fund} of {price} points and a fee of {fee}")
