"""PointsService: balances, statements, data unions, and why somebody was paid how much."""

from __future__ import annotations

from typing import Any

from grpc import aio

from governance import sharing
from koinon.errors import PermissionRefused
from koinon.names import AccountName
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.identity_pb2 import Role
from koinon.v1.points_pb2 import DataUnion, Terms, UnionMembership
from node.application import Application
from node.auth import Caller, caller
from node.read_model import ReadModel
from node.rpc.bounds import page_size

Context = aio.ServicerContext[Any, Any]


def explained(terms: Terms) -> list[services_pb2.ExplainedPayout]:
    """Every payout that the terms promise for a task that completes, and why in one line."""
    return [
        services_pb2.ExplainedPayout(account=item.account, points=item.points, why=item.why)
        for item in sharing.share(terms)
    ]


class PointsService(services_pb2_grpc.PointsServiceServicer):
    """People's accounts are their own business, operators' and regulators'; all others are everybody's."""

    def __init__(self, application: Application, read_model: ReadModel) -> None:
        self._application = application
        self._read_model = read_model

    async def ListAccounts(
        self, request: services_pb2.ListAccountsRequest, context: Context
    ) -> services_pb2.ListAccountsResponse:
        size, who = page_size(request.page_size), caller()
        if request.account:
            _require_sight(who, request.account)
            found, following = [self._application.account(request.account)], ""
        else:
            found = self._application.accounts(request.page_token, size + 1)
            following = found[size - 1].id if len(found) > size else ""
            found = [account for account in found[:size] if _may_see(who, account.id)]
        return services_pb2.ListAccountsResponse(
            accounts=found, next_page_token=following, supply=self._application.supply()
        )

    async def GetStatement(
        self, request: services_pb2.GetStatementRequest, context: Context
    ) -> services_pb2.GetStatementResponse:
        _require_sight(caller(), request.account)
        self._application.account(request.account)  # an unknown one is an error, not an empty statement
        records, following = self._read_model.statement(
            request.account, page_size=page_size(request.page_size), page_token=request.page_token
        )
        lines = [line for record in records for line in _lines(record, request.account)]
        return services_pb2.GetStatementResponse(lines=lines, next_page_token=following)

    async def ExplainTask(
        self, request: services_pb2.ExplainTaskRequest, context: Context
    ) -> services_pb2.ExplainTaskResponse:
        task = self._application.task(self._read_model.task_id(request.task_id))
        return services_pb2.ExplainTaskResponse(
            task_id=task.id,
            task_status=task.status,
            terms=task.terms if task.HasField("terms") else None,
            escrow=self._application.escrow(task.id),
            payouts=explained(task.terms) if task.HasField("terms") else (),
        )

    async def ListUnions(
        self, request: services_pb2.ListUnionsRequest, context: Context
    ) -> services_pb2.ListUnionsResponse:
        size = page_size(request.page_size)
        if request.name:
            return services_pb2.ListUnionsResponse(unions=[self._application.union(request.name)])
        found = self._application.unions(request.page_token, size + 1)
        following = found[size - 1].name if len(found) > size else ""
        return services_pb2.ListUnionsResponse(unions=found[:size], next_page_token=following)

    async def ListUnionMembers(
        self, request: services_pb2.ListUnionMembersRequest, context: Context
    ) -> services_pb2.ListUnionMembersResponse:
        size, who = page_size(request.page_size), caller()
        union = self._application.union(request.union)
        if request.account:
            found, following = [self._application.union_member(union.name, request.account)], ""
        else:
            found = self._application.union_members(union.name, request.page_token, size + 1)
            following = found[size - 1].account if len(found) > size else ""
        members = [self._member(who, union, member) for member in found[:size]]
        return services_pb2.ListUnionMembersResponse(members=members, next_page_token=following)

    def _member(self, who: Caller, union: DataUnion, member: UnionMembership) -> services_pb2.UnionMemberInfo:
        known = who.person == union.administrator or _may_see(who, member.account)
        return services_pb2.UnionMemberInfo(
            account=member.account,
            weight=member.weight,
            earned=self._application.union_earnings(union.name, member.account) if known else 0,
        )


def _may_see(who: Caller, account: str) -> bool:
    name = AccountName.parse(account)
    return name.kind != "person" or name.owner == who.person or who.is_any(Role.ROLE_OPERATOR, Role.ROLE_REGULATOR)


def _require_sight(who: Caller, account: str) -> None:
    """Raises InvalidName or PermissionRefused."""
    if not _may_see(who, account):
        raise PermissionRefused(
            f"{who.person} may not see the account of somebody else",
            hint="operators and regulators may, and everybody the accounts of institutions, unions and the fund",
        )


def _lines(record: AuditRecord, account: str) -> list[services_pb2.StatementLine]:
    """One line for every posting to the account; seldom more than one."""
    return [
        services_pb2.StatementLine(
            index=record.index,
            time_ms=record.time_ms,
            kind=record.kind,
            subject=record.subject,
            related=[name for name in record.related if name != account],
            reason=record.detail,
            change=posting.change,
            balance=posting.balance,
        )
        for posting in record.postings
        if posting.account == account
    ]
