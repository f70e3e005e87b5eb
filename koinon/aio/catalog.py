"""The catalog: find datasets, and publish one's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import grpc

from koinon.aio.session import DEFAULT_LIMIT, Session
from koinon.descriptor import Descriptor, Terms, check, publication
from koinon.errors import InvalidFile, KoinonError, NotFound, Unavailable
from koinon.files import digest
from koinon.limits import MAX_CHUNK_BYTES, MAX_STAGED_BYTES
from koinon.names import DatasetName, TableName, parse_source
from koinon.rpc import GO_AHEAD_KEY
from koinon.v1.catalog_pb2 import (
    Dataset,
    Taxonomy,
    VerificationOutcome,
    VerifyDataset,
    WithdrawDataset,
    WithdrawVerification,
)
from koinon.v1.services_pb2 import (
    GetDatasetRequest,
    GetTaxonomyRequest,
    ListVersionsRequest,
    SearchDatasetsRequest,
    StageDatasetHeader,
    StageDatasetRequest,
    StageDatasetResponse,
)
from koinon.v1.transaction_pb2 import Operation
from koinon.words import number

FORMATS = {".csv": "csv", ".parquet": "parquet"}
_STAGE_S = 3600.0  # uploading and inspecting limits.MAX_STAGED_BYTES
_ASK_AGAIN_S = 10.0
_ENDED = (
    grpc.aio.AioRpcError,
    grpc.aio.InternalError,
    asyncio.InvalidStateError,
)  # of writing to a call that ended
_UNWRITABLE = "Internal error from Core"  # grpc's own status when a write fails before the node's status has come

Upload = grpc.aio.StreamUnaryCall[StageDatasetRequest, StageDatasetResponse]
Sent = Callable[[int, int], None]
"""Hears (bytes sent, bytes in all) while a file goes to its own node."""


class Catalog:
    """``client.catalog``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def search(
        self,
        text: str = "",
        *,
        institution: str = "",
        theme: str = "",
        column: str = "",
        unit: str = "",
        max_price: int | None = None,
        released_since_ms: int = 0,
        min_verifications: int = 0,
        include_withdrawn: bool = False,
        limit: int = DEFAULT_LIMIT,
    ) -> list[Dataset]:
        """Datasets whose metadata speak of ``text`` (all if empty), and that have all that is named.

        ``theme`` finds narrower ones too; ``unit`` is of ``column`` where one is named; ``max_price`` is for a task
        over all rows, or a period; ``min_verifications`` institutions confirm the newest version, and none contests it.
        """
        connection = self._session.connection
        request = SearchDatasetsRequest(
            text=text,
            institution=institution,
            theme=theme,
            column=column,
            unit=unit,
            max_price=max_price,
            released_since_ms=released_since_ms,
            min_verifications=min_verifications,
            include_withdrawn=include_withdrawn,
        )
        return await self._session.pages(connection.catalog.SearchDatasets, request, lambda page: page.datasets, limit)

    async def show(self, name: str, version: int = 0) -> Dataset:
        """One dataset by its full name; version 0 is the newest. Raises NotFound."""
        DatasetName.parse(name)
        connection = self._session.connection
        request = GetDatasetRequest(name=name, version=version)
        return (await connection.call(connection.catalog.GetDataset, request)).dataset

    async def history(self, name: str, limit: int = DEFAULT_LIMIT) -> list[Dataset]:
        """Every version of a dataset, newest first. Raises NotFound."""
        DatasetName.parse(name)
        connection = self._session.connection
        request = ListVersionsRequest(name=name)
        return await self._session.pages(connection.catalog.ListVersions, request, lambda page: page.versions, limit)

    async def taxonomy(self) -> Taxonomy:
        """The themes by which the members classify datasets."""
        connection = self._session.connection
        return (await connection.call(connection.catalog.GetTaxonomy, GetTaxonomyRequest())).taxonomy

    async def verify(
        self, name: str, *, outcome: str, method: str, evidence: bytes | str | os.PathLike[str], version: int = 0
    ) -> Dataset:
        """State that one's institution checked another's dataset: how, and that it is ``confirmed`` or ``contested``.

        ``evidence`` is a report, whose digest alone is published: a file, or its bytes. Operators only; version 0 is
        the newest. Raises InvalidFile, NotFound, Refused.
        """
        statement = VerifyDataset(
            dataset=name,
            version=version or (await self.show(name)).version,
            outcome=number(VerificationOutcome, outcome, "outcome"),
            method=method,
            evidence_digest=digest(evidence),
        )
        await self._session.submit(Operation(verify_dataset=statement))
        return await self.show(name)

    async def withdraw_verification(self, name: str, reason: str, *, version: int = 0) -> Dataset:
        """Take one's institution's statement on a dataset back. Raises NotFound, Refused."""
        version = version or (await self.show(name)).version
        withdrawal = WithdrawVerification(dataset=name, version=version, reason=reason)
        await self._session.submit(Operation(withdraw_verification=withdrawal))
        return await self.show(name, version)

    async def named(self, name: str) -> list[Dataset]:
        """What a query means by ``name``: one dataset, or every institution's table of that name. Raises NotFound."""
        source = parse_source(name)
        if isinstance(source, DatasetName):
            return [await self.show(name)]
        found = [dataset for dataset in await self.search() if _table(dataset) == source]
        if not found:
            raise NotFound(f"no institution publishes a table {name}", hint="koinon catalog search lists what there is")
        return found

    async def stage(
        self, path: str | os.PathLike[str], name: str, *, on_progress: Sent | None = None
    ) -> StageDatasetResponse:
        """Hand a CSV or Parquet file to one's own node, which keeps it and says what it found.

        Nothing is published by it. Operators only. Raises InvalidFile, PermissionRefused, Exhausted, Unavailable.
        """
        session = self._session
        full_name = self.own_name(name)
        file = Path(path)
        size = _file_size(file)
        header = StageDatasetHeader(name=full_name, format=FORMATS[file.suffix.lower()], size=size)
        async with session.connection.turns:
            call = session.connection.datasets.StageDataset(timeout=_STAGE_S, metadata=session.connection.metadata())
            try:
                with suppress(*_ENDED):  # the node ended the call while we wrote: its status says why
                    await call.write(StageDatasetRequest(header=header))
                    if any(key == GO_AHEAD_KEY for key, _ in await call.initial_metadata()):
                        await _send(call, file, size, on_progress)
                return await call
            except grpc.aio.AioRpcError as error:
                if error.details() == _UNWRITABLE:
                    raise await self._why_ended(header, file) from None
                raise session.connection.error(error) from None
            except OSError as error:
                raise _unreadable(file, error) from None
            finally:
                call.cancel()

    async def _why_ended(self, header: StageDatasetHeader, file: Path) -> KoinonError:
        """Why the node ended an upload, where gRPC lost its answer: a full disk refuses the header alone, too."""
        connection = self._session.connection
        call = connection.datasets.StageDataset(timeout=_ASK_AGAIN_S, metadata=connection.metadata())
        try:
            await call.write(StageDatasetRequest(header=header))
            if not any(key == GO_AHEAD_KEY for key, _ in await call.initial_metadata()):
                await call
        except grpc.aio.AioRpcError as error:
            return connection.error(error)
        except _ENDED:
            pass
        finally:
            call.cancel()
        return Unavailable(
            f"the node ended the upload of {file}", hint="it would take it now: try again; its log says what it was"
        )

    async def publish(
        self,
        path: str | os.PathLike[str],
        name: str,
        *,
        descriptor: Descriptor,
        codelists: Collection[str] = (),
        terms: Terms | None = None,
        on_progress: Sent | None = None,
        max_fee: int = 0,
    ) -> Dataset:
        """Stage a file and publish its metadata as ``collection.table`` of one's own institution.

        The values of a column are published only if named in ``codelists`` or confirmed in the descriptor. A new
        dataset may cost the institution up to ``max_fee`` points, where the members voted a fee.
        Raises InvalidFile, InvalidInput, NotFound (a column), Refused.
        """
        descriptor = check(descriptor.with_codelists(codelists))
        staged = await self.stage(path, name, on_progress=on_progress)
        return await self.publish_staged(name, staged, descriptor, terms or Terms(), max_fee=max_fee)

    async def publish_staged(
        self, name: str, staged: StageDatasetResponse, descriptor: Descriptor, terms: Terms, *, max_fee: int = 0
    ) -> Dataset:
        """Publish the metadata of a file staged before. Raises as ``publish``."""
        full_name = self.own_name(name)
        entry = publication(full_name, staged, descriptor, terms)
        await self._session.submit(Operation(publish_dataset=entry), max_fee=max_fee)
        return await self.show(full_name)

    async def withdraw(self, name: str, reason: str) -> Dataset:
        """Take one's own dataset back: its tokens stop working, its entry stays; the reason is public to members.

        Raises Refused, NotFound.
        """
        full_name = self.own_name(name)
        await self._session.submit(Operation(withdraw_dataset=WithdrawDataset(name=full_name, reason=reason)))
        return await self.show(full_name)

    def own_name(self, name: str) -> str:
        """The full name of one's own table; ``collection.table`` gets the institution. Raises InvalidName."""
        source = parse_source(name)
        if isinstance(source, TableName):
            source = DatasetName(self._session.profile.person.institution, source)
        return str(source)


def _table(dataset: Dataset) -> TableName:
    return DatasetName.parse(dataset.published.name).table


def _unreadable(path: Path, error: OSError) -> InvalidFile:
    return InvalidFile(f"cannot read {path}: {error.strerror}", hint="give the path of a readable file")


def _file_size(path: Path) -> int:
    """Size of a file that can be staged. Raises InvalidFile."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidFile(f"{path} is neither .csv nor .parquet", hint="rename it, or convert it to one of these")
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise _unreadable(path, error) from None
    if not size:
        raise InvalidFile(f"{path} is empty", hint="give a file with a header and at least one row")
    if size > MAX_STAGED_BYTES:
        raise InvalidFile(f"{path} takes {size} bytes; at most {MAX_STAGED_BYTES} are accepted", hint="split the table")
    return size


async def _send(call: Upload, path: Path, size: int, on_progress: Sent | None) -> None:
    sent = 0
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, MAX_CHUNK_BYTES):
            await call.write(StageDatasetRequest(chunk=chunk))
            sent += len(chunk)
            if on_progress is not None:
                on_progress(sent, size)
    await call.done_writing()
