"""CatalogService and DatasetService: finding data, and bringing files to their own institution's node."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio

from koinon.errors import DeadlineExceeded, Exhausted, InvalidInput, NotFound, PermissionRefused
from koinon.limits import MAX_TITLE, MAX_UPLOAD_S, MAX_UPLOADS, UPLOAD_IDLE_S
from koinon.names import DatasetName
from koinon.rpc import GO_AHEAD_KEY
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.catalog_pb2 import DatasetStatus, Taxonomy
from koinon.v1.identity_pb2 import Role
from node.application import Application
from node.auth import require
from node.datasets import DatasetStore
from node.read_model import ReadModel
from node.read_query import page_position
from node.rpc.aside import Aside
from node.rpc.bounds import page_size

Context = aio.ServicerContext[Any, Any]

_NEAREST = 3  # themes named where there is none of a code


class CatalogService(services_pb2_grpc.CatalogServiceServicer):
    """What exists, for every registered person.

    Searches are on a thread, one at a time: consensus, which has the event loop, waits for none.
    """

    def __init__(self, application: Application, read_model: ReadModel) -> None:
        self._application = application
        self._read_model = read_model
        self._aside = Aside()

    async def SearchDatasets(
        self, request: services_pb2.SearchDatasetsRequest, context: Context
    ) -> services_pb2.SearchDatasetsResponse:
        search = self._read_model.search_datasets(
            text=request.text,
            institution=request.institution,
            theme=request.theme,
            column=request.column,
            unit=request.unit,
            max_price=request.max_price if request.HasField("max_price") else None,
            released_since_ms=request.released_since_ms,
            min_verifications=request.min_verifications,
            include_withdrawn=request.include_withdrawn,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        names, next_page_token = await self._aside.read(search)
        datasets = [self._application.dataset(name) for name in names]
        if request.theme and not datasets:  # one that the members gave up may still be found
            _check_known(self._application.taxonomy(), request.theme)
        return services_pb2.SearchDatasetsResponse(datasets=datasets, next_page_token=next_page_token)

    async def GetDataset(
        self, request: services_pb2.GetDatasetRequest, context: Context
    ) -> services_pb2.GetDatasetResponse:
        return services_pb2.GetDatasetResponse(dataset=self._application.dataset(request.name, request.version))

    async def ListVersions(
        self, request: services_pb2.ListVersionsRequest, context: Context
    ) -> services_pb2.ListVersionsResponse:
        newest = self._application.dataset(request.name).version
        first = min(page_position(request.page_token) or newest, newest)
        last = max(first - page_size(request.page_size), 0)
        return services_pb2.ListVersionsResponse(
            versions=[self._application.dataset(request.name, number) for number in range(first, last, -1)],
            next_page_token=str(last) if last else "",
        )

    async def GetTaxonomy(
        self, request: services_pb2.GetTaxonomyRequest, context: Context
    ) -> services_pb2.GetTaxonomyResponse:
        return services_pb2.GetTaxonomyResponse(taxonomy=self._application.taxonomy())


def _check_known(taxonomy: Taxonomy, theme: str) -> None:
    """Raises NotFound with rule ``unknown-theme``, naming themes that may have been meant."""
    labels = {known.code: known.label for known in taxonomy.themes}
    if theme in labels:
        return
    meant = theme[:MAX_TITLE].upper()
    near = [code for code, label in labels.items() if meant in label.upper()]
    near += [code for code in difflib.get_close_matches(meant, labels, _NEAREST) if code not in near]
    offered = ", ".join(f"{code} ({labels[code]})" for code in near[:_NEAREST])
    raise NotFound(
        f"there is no theme {theme[:MAX_TITLE]!a}",
        rule="unknown-theme",
        hint=f"nearest are {offered}; koinon catalog themes lists all" if near else "koinon catalog themes lists all",
    )


class DatasetService(services_pb2_grpc.DatasetServiceServicer):
    """Operators of the node's own institution bring files to it, and nobody else does."""

    def __init__(self, institution: str, application: Application, datasets: DatasetStore) -> None:
        self._institution = institution
        self._application = application
        self._datasets = datasets
        self._uploads = 0

    async def StageDataset(
        self, request_iterator: AsyncIterator[services_pb2.StageDatasetRequest], context: Context
    ) -> services_pb2.StageDatasetResponse:
        require(Role.ROLE_OPERATOR, Role.ROLE_FEEDER, institution=self._institution, what="bring files to this node")
        parts = _timely(request_iterator)
        first = await anext(parts, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidInput("the first part is no header", hint="use koinon catalog publish")
        if DatasetName.parse(first.header.name).institution != self._institution:
            raise PermissionRefused(
                f"{first.header.name} is not a dataset of {self._institution}",
                hint=f"a node serves its own institution: name it {self._institution}.<collection>.<table>",
            )
        if self._uploads >= MAX_UPLOADS:
            raise Exhausted(f"this node is taking in {MAX_UPLOADS} files", hint="try again when one of them is there")
        self._datasets.require_room(first.header.size)
        self._uploads += 1
        try:
            await context.send_initial_metadata(((GO_AHEAD_KEY, "1"),))
            staged = await self._datasets.stage(first.header.format, (part.chunk async for part in parts))
        finally:
            self._uploads -= 1
        self._datasets.sweep(self._referenced(), self._application.time_ms / 1000)
        return staged.response()

    def _referenced(self) -> set[bytes]:
        """Commitments of what this institution publishes, and of what open tasks still compute on.

        Whatever else was staged a day of *block time* ago was not published: a node that is behind removes nothing
        that the blocks it has not seen might publish.
        """
        published = [
            dataset
            for dataset in self._application.datasets(self._institution)
            if dataset.status == DatasetStatus.DATASET_STATUS_PUBLISHED
        ]
        used = [
            self._application.dataset(source.dataset, source.version)
            for task in self._application.open_tasks()
            for source in task.submitted.sources
        ]
        return {dataset.published.commitment for dataset in [*published, *used]}


async def _timely(
    parts: AsyncIterator[services_pb2.StageDatasetRequest],
) -> AsyncIterator[services_pb2.StageDatasetRequest]:
    """An upload, while it makes progress. Raises DeadlineExceeded."""
    end = asyncio.get_running_loop().time() + MAX_UPLOAD_S
    while True:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now + UPLOAD_IDLE_S, end)):
                part = await anext(parts, None)
        except TimeoutError:
            raise DeadlineExceeded(
                f"an upload ends within {MAX_UPLOAD_S} seconds, and pauses for no more than {UPLOAD_IDLE_S}",
                hint="send it again; over a slow line, as Parquet",
            ) from None
        if part is None:
            return
        yield part
