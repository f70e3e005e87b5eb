"""DisputeService: who quarrels over what, for every registered person."""

from __future__ import annotations

from typing import Any

from grpc import aio

from koinon.v1 import services_pb2, services_pb2_grpc
from node.read_model import ReadModel
from node.rpc.bounds import page_size

Context = aio.ServicerContext[Any, Any]


class DisputeService(services_pb2_grpc.DisputeServiceServicer):
    """Lists; changing them is done by transactions."""

    def __init__(self, read_model: ReadModel) -> None:
        self._read_model = read_model

    async def ListDisputes(
        self, request: services_pb2.ListDisputesRequest, context: Context
    ) -> services_pb2.ListDisputesResponse:
        disputes, next_page_token = self._read_model.disputes(
            institution=request.institution,
            subject=request.subject,
            status=request.status,
            id_prefix=request.id_prefix,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return services_pb2.ListDisputesResponse(disputes=disputes, next_page_token=next_page_token)
