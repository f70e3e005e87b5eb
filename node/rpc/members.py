"""NodeService and MemberService: how the node does, and who is who."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grpc import aio

from koinon.v1 import services_pb2, services_pb2_grpc
from node.application import Application

Context = aio.ServicerContext[Any, Any]


class NodeService(services_pb2_grpc.NodeServiceServicer):
    """``status`` puts together what the parts of the node know."""

    def __init__(self, status: Callable[[], services_pb2.GetStatusResponse]) -> None:
        self._status = status

    async def GetStatus(
        self, request: services_pb2.GetStatusRequest, context: Context
    ) -> services_pb2.GetStatusResponse:
        return self._status()


class MemberService(services_pb2_grpc.MemberServiceServicer):
    """Members and their people, as registered."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def ListInstitutions(
        self, request: services_pb2.ListInstitutionsRequest, context: Context
    ) -> services_pb2.ListInstitutionsResponse:
        return services_pb2.ListInstitutionsResponse(institutions=self._application.institutions())

    async def ListPeople(
        self, request: services_pb2.ListPeopleRequest, context: Context
    ) -> services_pb2.ListPeopleResponse:
        if request.institution:
            self._application.institution(request.institution)  # an unknown one is an error, not an empty list
        return services_pb2.ListPeopleResponse(people=self._application.people(request.institution))
