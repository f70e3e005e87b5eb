"""AccessService: requests and tokens, which are the members' common knowledge."""

from __future__ import annotations

from typing import Any

from grpc import aio

from koinon.v1 import services_pb2, services_pb2_grpc
from node.read_model import ReadModel
from node.rpc.bounds import page_size

Context = aio.ServicerContext[Any, Any]


class AccessService(services_pb2_grpc.AccessServiceServicer):
    """Lists; deciding is done by transactions."""

    def __init__(self, read_model: ReadModel) -> None:
        self._read_model = read_model

    async def ListRequests(
        self, request: services_pb2.ListRequestsRequest, context: Context
    ) -> services_pb2.ListRequestsResponse:
        requests, next_page_token = self._read_model.requests(
            institution=request.institution,
            requester=request.requester,
            status=request.status,
            id_prefix=request.id_prefix,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return services_pb2.ListRequestsResponse(requests=requests, next_page_token=next_page_token)

    async def ListTokens(
        self, request: services_pb2.ListTokensRequest, context: Context
    ) -> services_pb2.ListTokensResponse:
        tokens, next_page_token = self._read_model.tokens(
            holder=request.holder,
            dataset=request.dataset,
            status=request.status,
            id_prefix=request.id_prefix,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return services_pb2.ListTokensResponse(tokens=tokens, next_page_token=next_page_token)
