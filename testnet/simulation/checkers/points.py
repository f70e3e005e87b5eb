"""Points, from the audit log alone: every balance is what came before and what was posted, and none is lost or made."""

from __future__ import annotations

from collections.abc import Mapping

from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.points_pb2 import Supply
from testnet.simulation.checkers.violation import Violation

_INTO_ESCROW, _OUT_OF_ESCROW = "escrow.held", ("escrow.settled", "escrow.refunded")


class Points:
    """Balances of all accounts, and what is in which escrow."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}
        self._escrows: dict[str, int] = {}
        self._existing = 0  # minted and not burned

    def check(self, record: AuditRecord) -> None:
        """The next record."""
        change = sum(posting.change for posting in record.postings)
        for posting in record.postings:
            before = self.balances.get(posting.account, 0)
            if posting.balance != before + posting.change:
                raise Violation(f"record {record.index} makes {before} points of {posting.account} {posting.balance}")
            self.balances[posting.account] = posting.balance
        if record.kind == _INTO_ESCROW:
            self._escrows[record.subject] = -change
        elif record.kind in _OUT_OF_ESCROW:
            if self._escrows.pop(record.subject, None) != change:
                raise Violation(f"record {record.index} empties {record.subject} of other points than it holds")
        elif record.kind in ("points.minted", "points.burned"):
            self._existing += change
        elif change:
            raise Violation(f"record {record.index}, {record.kind}, changes how many points there are")
        if sum(self.balances.values()) + sum(self._escrows.values()) != self._existing:
            raise Violation(f"after record {record.index} points do not add up")

    def finish(self, name: str, stored: Mapping[str, int], supply: Supply) -> None:
        """``stored`` and ``supply``: the accounts and the totals in a node's state."""
        if stored != self.balances:
            raise Violation(f"the accounts that {name} stores are not those of the audit log")
        if (supply.minted - supply.burned, supply.escrowed) != (self._existing, sum(self._escrows.values())):
            raise Violation(f"the totals that {name} stores are not those of the audit log")
