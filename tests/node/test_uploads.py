"""Files on their way to a node: none holds up another, none waits for ever, and what is refused says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from koinon.aio import Client
from koinon.aio.catalog import Upload
from koinon.errors import Exhausted, KoinonError, PermissionRefused
from koinon.rpc import RULE_KEY
from koinon.v1.services_pb2 import StageDatasetHeader, StageDatasetRequest
from node import datasets
from node.config import Home
from node.rpc import catalog
from tests.node.test_runtime import home, running

__all__ = ["home"]
CONTENT = b"a,b\n" + b"1,2\n" * 200_000


@pytest.fixture
async def client(home: Home) -> AsyncIterator[Client]:
    async with running(home) as (connected, _, _):
        yield connected


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_bytes(CONTENT)
    return path


async def begin(client: Client) -> Upload:
    """An upload that has got its place, and sends nothing yet."""
    connection = client.catalog._session.connection
    call: Upload = connection.datasets.StageDataset(timeout=60, metadata=connection.metadata())
    await call.write(StageDatasetRequest(header=StageDatasetHeader(name="um.c.slow", format="csv")))
    assert await call.initial_metadata()
    return call


async def test_a_slow_upload_holds_up_nobody(client: Client, file: Path) -> None:
    slow = await begin(client)
    async with asyncio.timeout(60):
        assert (await client.catalog.stage(file, "c.t")).row_count == 200_000
    await slow.write(StageDatasetRequest(chunk=b"a\n1\n"))
    await slow.done_writing()
    assert (await slow).row_count == 1


async def test_uploads_are_bounded_and_silent_ones_give_their_place_back(
    client: Client, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "MAX_UPLOADS", 2)
    slow = [await begin(client) for _ in range(2)]
    with pytest.raises(Exhausted, match="taking in 2 files") as refused:
        await client.catalog.stage(file, "c.t")
    assert refused.value.hint
    with monkeypatch.context() as hasty:
        hasty.setattr(catalog, "UPLOAD_IDLE_S", 0.1)  # from the next chunk on
        for call in slow:
            await call.write(StageDatasetRequest(chunk=b"a\n"))
            assert (await call.code()).name == "DEADLINE_EXCEEDED"
            assert dict(await call.trailing_metadata())[RULE_KEY] == b"deadline"
    assert (await client.catalog.stage(file, "c.t")).row_count == 200_000


async def test_what_is_refused_is_refused_typed_however_much_was_to_be_sent(
    client: Client, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a client writes to a call that the node has ended, grpc may lose the node's answer; so it does not."""
    for _ in range(50):
        with pytest.raises(PermissionRefused):
            await client.catalog.stage(file, "iu.c.t")
    monkeypatch.setattr(datasets, "MIN_FREE_BYTES", 2**62)
    for _ in range(10):
        with pytest.raises(Exhausted) as full:
            await client.catalog.stage(file, "c.t")
        assert full.value.rule == "disk-full"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Free bytes at one look after the other, as the operating system would say; the last stays."""
    free = [2**50]

    def usage(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=free.pop(0) if len(free) > 1 else free[0])

    monkeypatch.setattr("node.datasets.shutil.disk_usage", usage)
    return free


async def test_a_disk_that_fills_while_the_file_comes_is_named(client: Client, file: Path, disk: list[int]) -> None:
    """Also where grpc lost the node's answer: the node is asked once more, with the header alone."""
    for _ in range(20):
        disk[:] = [2**50, 0]
        with pytest.raises(Exhausted) as full:
            await client.catalog.stage(file, "c.t")
        assert full.value.rule == "disk-full"
        assert "free some space" in full.value.hint


async def test_an_upload_that_ends_half_way_for_what_is_over_may_be_tried_again(
    client: Client, file: Path, disk: list[int]
) -> None:
    rules = set()
    for _ in range(20):
        disk[:] = [2**50, 0, 2**50]
        with pytest.raises(KoinonError) as ended:
            await client.catalog.stage(file, "c.t")
        rules.add(ended.value.rule)
        assert "try again" in ended.value.hint
    assert rules <= {"disk-full", "unavailable"}
