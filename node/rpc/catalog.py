"""CatalogService and DatasetService: finding data, and bringing files to their own institution's node."""

from __future__ import annotations

from typing import Any

from grpc import aio

from koinon.v1 import services_pb2, services_pb2_grpc
from node.application import Application
from node.read_model import ReadModel
from node.rpc.bounds import page_size

Context = aio.ServicerContext[Any, Any]


class CatalogService(services_pb2_grpc.CatalogServiceServicer):
    """What exists, for every registered person."""

    def __init__(self, application: Application, read_model: ReadModel) -> None:
        self._application = application
        self._read_model = read_model

    async def SearchDatasets(
        self, request: services_pb2.SearchDatasetsRequest, context: Context
    ) -> services_pb2.SearchDatasetsResponse:
        datasets, next_page_token = self._read_model.search_datasets(
            text=request.text,
            institution=request.institution,
            column=request.column,
            include_withdrawn=request.include_withdrawn,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return services_pb2.SearchDatasetsResponse(datasets=datasets, next_page_token=next_page_token)

    async def GetDataset(
        self, request: services_pb2.GetDatasetRequest, context: Context
    ) -> services_pb2.GetDatasetResponse:
        return services_pb2.GetDatasetResponse(dataset=self._application.dataset(request.name, request.version))
