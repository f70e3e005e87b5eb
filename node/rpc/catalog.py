"""CatalogService and DatasetService: finding data, and bringing files to their own institution's node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio

from koinon.errors import InvalidInput, PermissionRefused
from koinon.names import DatasetName
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.catalog_pb2 import DatasetStatus
from koinon.v1.identity_pb2 import Role
from node.application import Application
from node.auth import require
from node.datasets import DatasetStore
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


class DatasetService(services_pb2_grpc.DatasetServiceServicer):
    """Operators of the node's own institution bring files to it, and nobody else does."""

    def __init__(self, institution: str, application: Application, datasets: DatasetStore) -> None:
        self._institution = institution
        self._application = application
        self._datasets = datasets
        self._one_at_a_time = asyncio.Lock()  # inspecting a table takes memory

    async def StageDataset(
        self, request_iterator: AsyncIterator[services_pb2.StageDatasetRequest], context: Context
    ) -> services_pb2.StageDatasetResponse:
        require(Role.ROLE_OPERATOR, institution=self._institution, what="bring files to this node")
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidInput("the first part is no header", hint="use koinon catalog publish")
        if DatasetName.parse(first.header.name).institution != self._institution:
            raise PermissionRefused(
                f"{first.header.name} is not a dataset of {self._institution}",
                hint=f"a node serves its own institution: name it {self._institution}.<collection>.<table>",
            )
        async with self._one_at_a_time:
            staged = await self._datasets.stage(first.header.format, _chunks(request_iterator))
            self._datasets.sweep(self._referenced(), self._application.time_ms / 1000)
        return staged.response()

    def _referenced(self) -> set[bytes]:
        """Commitments of what this institution publishes, and of what open tasks still compute on.

        Whatever else was staged a day of *block time* ago was not published: a node that is behind removes nothing
        that the blocks it has not seen might publish.
        """
        published = [
            dataset
            for dataset in self._application.datasets()
            if dataset.publisher == self._institution and dataset.status == DatasetStatus.DATASET_STATUS_PUBLISHED
        ]
        used = [
            self._application.dataset(source.dataset, source.version)
            for task in self._application.open_tasks()
            for source in task.submitted.sources
        ]
        return {dataset.published.commitment for dataset in [*published, *used]}


async def _chunks(parts: AsyncIterator[services_pb2.StageDatasetRequest]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part.chunk
