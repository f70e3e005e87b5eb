"""The institution's own files: taken in whole or not at all, found by commitment, trusted only after a check."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from koinon import canonical
from koinon.errors import Corrupt, Exhausted, InvalidFile, KoinonError, Refused, Unavailable
from koinon.limits import MAX_CHUNK_BYTES
from koinon.v1.catalog_pb2 import (
    COLUMN_TYPE_DATE,
    COLUMN_TYPE_DECIMAL,
    COLUMN_TYPE_INTEGER,
    COLUMN_TYPE_TEXT,
    Column,
    Dataset,
    PublishDataset,
)
from mpc.engines.duckdb_engine import DuckDBEngine
from mpc.plan import compile_plan
from node.datasets import STAGED_KEPT_S, DatasetStore, Staged
from tests.mpc.tables import MEMBERS, source

CONTENT = b"id,sex,age,none\n1,f,40,\n2,m,,\n3,f,50,\n"


async def chunks(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def catalog_entry(staged: Staged) -> Dataset:
    """As the publisher's client makes it of what its node found."""
    response = staged.response()
    columns = [Column(name=column.name, type=column.type, nullable=column.nullable) for column in response.columns]
    columns[1].codelist.extend(["f", "m"])
    return Dataset(
        published=PublishDataset(
            name="um.ercp.indo_rct",
            columns=columns,
            row_count=response.row_count,
            row_count_step=1,
            commitment=response.commitment,
        )
    )


class Kept(NamedTuple):
    store: DatasetStore
    staged: Staged
    entry: Dataset
    directory: Path  # of this one file


@pytest.fixture(scope="module")
def staged_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Staged]:
    """Staging starts a process: once is enough for most tests, which work on a copy."""
    directory = tmp_path_factory.mktemp("once") / "datasets"
    return directory, asyncio.run(DatasetStore(directory).stage("csv", chunks(CONTENT)))


@pytest.fixture
def kept(tmp_path: Path, staged_once: tuple[Path, Staged]) -> Kept:
    directory, staged = staged_once
    shutil.copytree(directory, tmp_path / "datasets")
    store = DatasetStore(tmp_path / "datasets")
    return Kept(store, staged, catalog_entry(staged), tmp_path / "datasets" / staged.commitment.hex())


def test_what_was_staged_is_served_once_it_is_published(kept: Kept) -> None:
    response = kept.staged.response()
    assert response.row_count == 3
    assert [(p.column, list(p.codes), p.smallest_count) for p in response.proposed_codelists] == [
        ("id", ["1", "2", "3"], 1),
        ("sex", ["f", "m"], 1),
        ("age", ["40", "50"], 1),
        ("none", [], 0),
    ]
    assert all(not column.codelist for column in response.columns), "nothing is published by being staged"
    table = kept.store.table_for(kept.entry)
    assert Path(table.path).read_bytes() == CONTENT
    assert table.columns == ("id", "sex", "age", "none")
    assert dict(table.types)["age"] == COLUMN_TYPE_INTEGER


def test_the_commitment_hides_and_binds(kept: Kept) -> None:
    metadata = json.loads((kept.directory / "metadata.json").read_bytes())
    digest = bytes.fromhex(metadata["sha256"])
    salt = bytes.fromhex(metadata["salt"])
    assert len(salt) == 32
    assert canonical.content_commitment(salt, digest) == kept.staged.commitment


async def test_the_same_content_has_another_commitment_every_time(kept: Kept) -> None:
    """Otherwise the commitment would tell who holds the same three patients."""
    again = await kept.store.stage("csv", chunks(CONTENT))
    assert again.commitment != kept.staged.commitment
    assert kept.store.table_for(catalog_entry(again)).path != kept.store.table_for(kept.entry).path


def test_only_the_node_may_read(kept: Kept) -> None:
    for directory in (kept.directory.parent, kept.directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_files_survive_a_restart(kept: Kept) -> None:
    (kept.directory.parent / "incoming-0123").mkdir()  # what a crash leaves
    (kept.directory.parent / "incoming-0123" / "content").write_bytes(b"half")
    again = DatasetStore(kept.directory.parent)
    assert again.table_for(kept.entry) == kept.store.table_for(kept.entry)
    assert [path.name for path in kept.directory.parent.iterdir()] == [kept.directory.name]


# --- what is refused, and leaves nothing ----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "file_format", "words"),
    [
        (b"", "csv", "the file is empty"),
        (b"a,b\n1\n", "csv", "line 2 has 1 fields"),
        (b"a,b\n\xff,2\n", "csv", "line 2 is not UTF-8"),
        (b"a,a\n1,2\n", "csv", "two columns are called a"),
        (b"PAR1 and nothing", "parquet", "not readable as Parquet"),
        (CONTENT, "xlsx", "'xlsx' is no format"),
    ],
)
async def test_what_is_no_table_is_not_kept(tmp_path: Path, content: bytes, file_format: str, words: str) -> None:
    store = DatasetStore(tmp_path / "datasets")
    with pytest.raises(InvalidFile, match=words) as caught:
        await store.stage(file_format, chunks(content))
    assert caught.value.hint
    assert list((tmp_path / "datasets").iterdir()) == []


async def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ConnectionResetError(errno.ECONNRESET, "gone")

    store = DatasetStore(tmp_path / "datasets")
    with pytest.raises((KoinonError, ConnectionResetError)):
        await store.stage("csv", broken())
    assert list((tmp_path / "datasets").iterdir()) == []


async def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DatasetStore(tmp_path / "datasets")
    with pytest.raises(Exhausted, match="larger than allowed"):
        await store.stage("csv", chunks(b"x" * (MAX_CHUNK_BYTES + 1), MAX_CHUNK_BYTES + 1))
    monkeypatch.setattr("node.datasets.MAX_STAGED_BYTES", 20)
    with pytest.raises(Exhausted, match="larger than allowed"):
        await store.stage("csv", chunks(CONTENT))
    assert list((tmp_path / "datasets").iterdir()) == []


async def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DatasetStore(tmp_path / "datasets")
    usage = shutil.disk_usage(tmp_path)._replace(free=1024)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(Exhausted, match="too little space") as caught:
        await store.stage("csv", chunks(CONTENT))
    assert caught.value.rule == "disk-full"
    assert list((tmp_path / "datasets").iterdir()) == []


def test_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Unavailable) as caught:
        DatasetStore(tmp_path / "datasets")
    assert caught.value.rule == "disk-read-only"
    # without the path: the reason of a task's failure is on the ledger
    assert caught.value.message == "HOME/datasets cannot be used: Read-only file system"


async def test_an_inspection_that_dies_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    store = DatasetStore(tmp_path / "datasets")
    with pytest.raises(InvalidFile, match="the engine gave up on it"):
        await store.stage("csv", chunks(CONTENT))
    assert list((tmp_path / "datasets").iterdir()) == []


# --- content and publication must agree -----------------------------------------------------------


def refused(kept: Kept) -> str:
    with pytest.raises(Refused) as caught:
        kept.store.table_for(kept.entry)
    assert "um.ercp.indo_rct" in caught.value.message
    return caught.value.rule


def test_content_that_was_changed_is_not_served(kept: Kept) -> None:
    kept.store.table_for(kept.entry)  # hashed once, remembered
    content = kept.directory / "content"
    before = content.stat()
    content.write_bytes(CONTENT.replace(b"50", b"60"))
    assert content.stat().st_size == before.st_size
    os.utime(content, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert refused(kept) == "dataset-changed"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"format"', b'"formal"'),
        (b'"salt": "', b'"salt": "x'),
        (b'"inspection"', b'"inspektion"'),
        (b'"row_count": ', b'"row_count": 1e999'),
        (b'"columns": ', b'"columns": 1, "rows": '),
        (b"{", b"[" * 100_000),
        (b"}", b""),
    ],
)
def test_metadata_that_were_changed_are_named(kept: Kept, before: bytes, after: bytes) -> None:
    metadata = kept.directory / "metadata.json"
    metadata.write_bytes(metadata.read_bytes().replace(before, after, 1))
    with pytest.raises(Corrupt, match="are damaged"):
        kept.store.table_for(kept.entry)


def test_unchanged_content_is_hashed_once(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.store.table_for(kept.entry)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert kept.store.table_for(kept.entry).format == "csv"


def test_content_this_node_does_not_hold(kept: Kept) -> None:
    kept.entry.published.commitment = bytes(32)
    assert refused(kept) == "dataset-missing"


def test_a_publication_may_tell_less_or_read_wider(kept: Kept) -> None:
    published = kept.entry.published
    published.columns[2].type = COLUMN_TYPE_DECIMAL  # integers are decimals too
    published.columns[0].type = COLUMN_TYPE_TEXT  # anything is text
    published.columns[3].type = COLUMN_TYPE_DATE  # no values: any type is true
    published.columns[1].codelist.append("x")  # a code that no row has
    published.columns[1].nullable = True
    published.row_count, published.row_count_step = 0, 10
    assert [name for name, _ in kept.store.table_for(kept.entry).types] == ["id", "sex", "age", "none"]
    del published.columns[0]
    assert [name for name, _ in kept.store.table_for(kept.entry).types] == ["sex", "age", "none"]


@pytest.mark.parametrize(
    "lie", ["column", "type", "missing values", "codes", "codes of a date", "row count", "rounded row count"]
)
def test_a_publication_that_is_not_true_is_not_served(kept: Kept, lie: str) -> None:
    published = kept.entry.published
    match lie:
        case "column":
            published.columns.add(name="weight", type=COLUMN_TYPE_INTEGER)
        case "type":
            published.columns[1].type = COLUMN_TYPE_INTEGER
        case "missing values":
            published.columns[2].nullable = False
        case "codes":
            published.columns[1].codelist.remove("m")
        case "codes of a date":
            published.columns[3].type = COLUMN_TYPE_DATE
            published.columns[3].codelist.append("2020-01-01")
        case "row count":
            published.row_count = 4
        case _:
            published.row_count, published.row_count_step = 10, 10
    assert refused(kept) == "dataset-mismatch"


def test_what_is_served_can_be_computed_on(kept: Kept) -> None:
    """From the operator's bytes to the owner's integers, as a worker does it."""
    entry = source("um", list(kept.entry.published.columns), min_cohort=1)
    plan = compile_plan("SELECT sex, COUNT(*), SUM(age) FROM ercp.indo_rct GROUP BY sex", [entry], MEMBERS, asker="um")
    assert DuckDBEngine().aggregate(kept.store.table_for(kept.entry), plan, 0) == [[2, 2, 90 * 10**6], [1, 0, 0]]


# --- removal --------------------------------------------------------------------------------------


def test_files_nobody_refers_to_are_removed_after_a_while(kept: Kept) -> None:
    staged_at = kept.directory.stat().st_mtime
    kept.store.sweep([], staged_at + STAGED_KEPT_S - 1)
    assert kept.directory.exists(), "its publication may be on the way"
    kept.store.sweep([kept.staged.commitment], staged_at + 10 * STAGED_KEPT_S)
    assert kept.directory.exists(), "it is published"
    kept.store.sweep([], staged_at + STAGED_KEPT_S + 1)
    assert not kept.directory.exists()
    assert refused(kept) == "dataset-missing"
