"""CatalogService: what is refused before an empty list could mislead."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koinon.errors import NotFound
from koinon.v1.catalog_pb2 import Taxonomy, Theme
from koinon.v1.services_pb2 import SearchDatasetsRequest
from node.read_model import ReadModel
from node.rpc.catalog import CatalogService
from tests.contracts.consortium import Consortium, publication
from tests.waiting import until

NO_CONTEXT: Any = None  # the catalog asks it nothing


@pytest.fixture
def consortium() -> Consortium:
    return Consortium()


@pytest.fixture
def model(tmp_path: Path, consortium: Consortium) -> Iterator[ReadModel]:
    made = ReadModel(tmp_path / "read.sqlite", consortium.app)
    yield made
    made.close()


async def found(consortium: Consortium, model: ReadModel, theme: str) -> list[str]:
    model.follow()
    service = CatalogService(consortium.app, model)
    answer = await service.SearchDatasets(SearchDatasetsRequest(theme=theme), NO_CONTEXT)
    return [dataset.published.name for dataset in answer.datasets]


@pytest.mark.parametrize(
    ("theme", "nearest"),
    [
        ("heal", "HEAL (Health)"),
        ("HEAL.C6", "HEAL.C06 (Digestive system diseases)"),
        ("digestive", "HEAL.C06 (Digestive system diseases)"),
        ("\x1b[2J" + "A" * 1_000_000, None),
    ],
)
async def test_an_unknown_theme_is_refused_and_the_nearest_named(
    consortium: Consortium, model: ReadModel, theme: str, nearest: str | None
) -> None:
    with pytest.raises(NotFound) as caught:
        await found(consortium, model, theme)
    assert caught.value.rule == "unknown-theme"
    assert "koinon catalog themes" in caught.value.hint
    assert nearest is None or nearest in caught.value.hint
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 1_000


async def test_a_known_theme_may_be_empty_and_one_given_up_may_be_found(
    consortium: Consortium, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    consortium.do("um/operator", publication("um.a.t", themes=["HEAL.C06"]))
    assert await found(consortium, model, "ENER") == []
    only = Taxonomy(title="Other", themes=[Theme(code="OTHER", label="Other")])
    monkeypatch.setattr(consortium.app, "taxonomy", lambda: only)
    assert await found(consortium, model, "HEAL.C06") == ["um.a.t"]
    with pytest.raises(NotFound):
        await found(consortium, model, "HEAL")


async def test_consensus_waits_for_no_search(
    consortium: Consortium, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One analyst who searched on and on, in a large catalog, kept a node from proposing."""
    consortium.do("um/operator", publication("um.a.t"))
    select, looked, may_end = model._select, threading.Event(), threading.Event()

    def slow(*args: Any, **named: Any) -> list[tuple[Any, ...]]:
        looked.set()
        assert may_end.wait(60), "the event loop waits for it"
        return select(*args, **named)

    monkeypatch.setattr(model, "_select", slow)
    search = asyncio.create_task(found(consortium, model, ""))
    await until(looked.is_set)
    may_end.set()
    assert await search == ["um.a.t"]
