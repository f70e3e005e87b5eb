"""Points: balances, transfers, statements, who was paid why, and data unions.

An account is written whole (``institution:um``, ``person:um/analyst``, ``union:patients``, ``fund:consortium``) or as
an id of an institution or a person alone: ``um``, ``um/analyst``.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping

from koinon.aio.session import DEFAULT_LIMIT, Session
from koinon.limits import MAX_UNION_CHANGES
from koinon.names import AccountName, PersonId
from koinon.v1.points_pb2 import (
    Account,
    ClaimEarnings,
    DataUnion,
    DefineUnion,
    SetUnionMembers,
    Supply,
    TransferPoints,
    UnionMember,
)
from koinon.v1.services_pb2 import (
    ExplainTaskRequest,
    ExplainTaskResponse,
    GetStatementRequest,
    ListAccountsRequest,
    ListUnionMembersRequest,
    ListUnionsRequest,
    StatementLine,
    UnionMemberInfo,
)
from koinon.v1.transaction_pb2 import Operation


class Points:
    """``client.points``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def balance(self, account: str = "") -> int:
        """Points that an account can spend now; one's own unless named. Raises NotFound, PermissionRefused."""
        connection = self._session.connection
        request = ListAccountsRequest(account=self._account(account))
        return (await connection.call(connection.points.ListAccounts, request)).accounts[0].points

    async def accounts(self, *, limit: int = DEFAULT_LIMIT) -> builtins.list[Account]:
        """Every account that ever had points and that one may see, ascending by name."""
        connection = self._session.connection
        request = ListAccountsRequest()
        return await self._session.pages(connection.points.ListAccounts, request, lambda page: page.accounts, limit)

    async def supply(self) -> Supply:
        """All points there are: minted, burned, and in escrow now."""
        connection = self._session.connection
        return (await connection.call(connection.points.ListAccounts, ListAccountsRequest(page_size=1))).supply

    async def transfer(self, target: str, points: int, *, reason: str, source: str = "") -> int:
        """Move points from one's own account, or an operator from its institution's; the balance after it.

        The reason is public to members. Raises Refused (insufficient-points), NotFound, PermissionRefused.
        """
        paid = TransferPoints(
            source=self._account(source), target=_account(target), points=max(points, 0), reason=reason
        )
        await self._session.submit(Operation(transfer_points=paid))
        return await self.balance(source)

    async def statement(self, account: str = "", *, limit: int = DEFAULT_LIMIT) -> builtins.list[StatementLine]:
        """What came into an account and left it, newest first, each with the balance after it."""
        connection = self._session.connection
        name = self._account(account)
        request = GetStatementRequest(account=name)
        return await self._session.pages(connection.points.GetStatement, request, lambda page: page.lines, limit)

    async def explain(self, task_id: str) -> ExplainTaskResponse:
        """What a task costs, where its points are now, and every payout in one line. Raises NotFound."""
        connection = self._session.connection
        return await connection.call(connection.points.ExplainTask, ExplainTaskRequest(task_id=task_id))

    async def unions(self, *, limit: int = DEFAULT_LIMIT) -> builtins.list[DataUnion]:
        """All data unions, ascending by name."""
        connection = self._session.connection
        request = ListUnionsRequest()
        return await self._session.pages(connection.points.ListUnions, request, lambda page: page.unions, limit)

    async def union(self, name: str) -> DataUnion:
        """One data union. Raises NotFound."""
        connection = self._session.connection
        return (await connection.call(connection.points.ListUnions, ListUnionsRequest(name=name))).unions[0]

    async def define_union(self, name: str, title: str, *, administrator: str = "") -> DataUnion:
        """Found a data union, or give one of one's own institution another title or administrator. Operators only.

        The administrator is the caller unless named. Raises Refused, NotFound, PermissionRefused.
        """
        person = str(PersonId.parse(administrator)) if administrator else self._session.person
        defined = DefineUnion(name=name, title=title, administrator=person)
        await self._session.submit(Operation(define_union=defined))
        return await self.union(name)

    async def union_members(self, name: str, *, limit: int = DEFAULT_LIMIT) -> builtins.list[UnionMemberInfo]:
        """Members of a data union with weights, and earnings as far as one may see them. Raises NotFound."""
        connection = self._session.connection
        request = ListUnionMembersRequest(union=name)
        return await self._session.pages(connection.points.ListUnionMembers, request, lambda page: page.members, limit)

    async def set_union_members(self, name: str, weights: Mapping[str, int]) -> DataUnion:
        """Admit members, weigh them anew, or let them go with weight 0; others stay. Administrators only.

        More than limits.MAX_UNION_CHANGES go in several transactions, each all or none. Raises Refused, NotFound.
        """
        members = sorted(
            (UnionMember(account=_account(account), weight=weight) for account, weight in weights.items()),
            key=lambda member: member.account,
        )
        for start in range(0, len(members), MAX_UNION_CHANGES):
            changes = SetUnionMembers(union=name, members=members[start : start + MAX_UNION_CHANGES])
            await self._session.submit(Operation(set_union_members=changes))
        return await self.union(name)

    async def claim(self, name: str, *, account: str = "") -> int:
        """Move what one has earned in a data union to one's own account; the balance after it. Raises Refused."""
        claimed = ClaimEarnings(union=name, account=self._account(account))
        await self._session.submit(Operation(claim_earnings=claimed))
        return await self.balance(account)

    def _account(self, text: str) -> str:
        return _account(text or self._session.person)


def _account(text: str) -> str:
    """An account's full name; an id alone means an institution's or a person's. Raises InvalidName."""
    if ":" not in text:
        text = f"person:{text}" if "/" in text else f"institution:{text}"
    return str(AccountName.parse(text))
