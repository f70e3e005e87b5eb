"""NodeService and MemberService: how the node does, and who is who."""

from __future__ import annotations

from typing import Any

from grpc import aio

from koinon.limits import MAX_NOTICE_BLOCKS
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.identity_pb2 import Role
from node.application import Application
from node.auth import require
from node.report import Report
from node.rpc.aside import Aside

Context = aio.ServicerContext[Any, Any]


class NodeService(services_pb2_grpc.NodeServiceServicer):
    """The node's report on itself."""

    def __init__(self, report: Report) -> None:
        self._report = report

    async def GetStatus(
        self, request: services_pb2.GetStatusRequest, context: Context
    ) -> services_pb2.GetStatusResponse:
        return self._report.status()

    async def DiagnoseStall(
        self, request: services_pb2.DiagnoseStallRequest, context: Context
    ) -> services_pb2.DiagnoseStallResponse:
        return self._report.stall()


class MemberService(services_pb2_grpc.MemberServiceServicer):
    """Members and their people, as registered.

    People, keys and datasets are without number, so they are read on a thread, for one call at a time: consensus, which
    has the event loop, waits for none of it.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._aside = Aside()

    async def ListInstitutions(
        self, request: services_pb2.ListInstitutionsRequest, context: Context
    ) -> services_pb2.ListInstitutionsResponse:
        return services_pb2.ListInstitutionsResponse(institutions=self._application.institutions())

    async def ListPeople(
        self, request: services_pb2.ListPeopleRequest, context: Context
    ) -> services_pb2.ListPeopleResponse:
        if request.institution:
            self._application.institution(request.institution)  # an unknown one is an error, not an empty list
        return await self._aside.read(
            lambda: services_pb2.ListPeopleResponse(people=self._application.people(request.institution))
        )

    async def ListKeys(self, request: services_pb2.ListKeysRequest, context: Context) -> services_pb2.ListKeysResponse:
        return await self._aside.read(lambda: services_pb2.ListKeysResponse(keys=self._application.keys(request.owner)))

    async def PreviewNotice(
        self, request: services_pb2.PreviewNoticeRequest, context: Context
    ) -> services_pb2.PreviewNoticeResponse:
        require(Role.ROLE_OPERATOR, institution=request.institution, what="look at what its leaving would change")
        blocks = min(request.blocks, MAX_NOTICE_BLOCKS + 1)  # further ahead is refused alike
        height = self._application.info().height + blocks
        effects, refusal = await self._aside.read(lambda: self._application.preview_notice(request.institution, height))
        return services_pb2.PreviewNoticeResponse(effects=effects, refusal=refusal, height=height)
