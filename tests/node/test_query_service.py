"""Plans for a caller: which of its tokens are used, and what for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from koinon.errors import Refused
from koinon.v1.identity_pb2 import ROLE_ANALYST
from koinon.v1.services_pb2 import PlanQueryRequest, PlanQueryResponse
from node import auth
from node.peers import Peers
from node.read_model import ReadModel
from node.rpc.tasks import QueryService
from tests.contracts.consortium import Consortium, access_request

SQL = "SELECT COUNT(*) AS n FROM ercp.indo_rct"
UM, IU = "um.ercp.indo_rct", "iu.ercp.indo_rct"


@pytest.fixture
def consortium() -> Iterator[Consortium]:
    """um/analyst asks, and all nodes are connected."""
    made = Consortium()
    made.publish(UM, IU)
    before = auth._caller.set(auth.Caller("um/analyst", frozenset({ROLE_ANALYST})))
    yield made
    auth._caller.reset(before)


async def plan(consortium: Consortium, directory: Path, *, purpose: str = "") -> PlanQueryResponse:
    connected = [SimpleNamespace(institution=name, connected=True) for name in ("case", "iu", "uk")]
    peers = cast(Peers, SimpleNamespace(status=lambda: connected))
    read_model = ReadModel(directory / "read.sqlite", consortium.app)
    service = QueryService(consortium.app, read_model, "um", peers)
    nobody: Any = None
    return await service.PlanQuery(PlanQueryRequest(sql=SQL, purpose=purpose), nobody)


def granted(consortium: Consortium, dataset: str, *purposes: str) -> str:
    wanted = access_request(dataset)
    wanted.purposes[:] = purposes
    return consortium.app.request(consortium.do("um/analyst", wanted)).token_id


async def test_the_only_purpose_of_all_tokens_need_not_be_stated(consortium: Consortium, tmp_path: Path) -> None:
    tokens = [granted(consortium, IU, "to learn", "to teach"), granted(consortium, UM, "to learn")]
    planned = await plan(consortium, tmp_path)
    assert planned.task.purpose == "to learn"
    assert [source.token_id for source in planned.task.sources] == tokens


async def test_a_purpose_chooses_the_tokens_that_were_granted_for_it(consortium: Consortium, tmp_path: Path) -> None:
    learning = [granted(consortium, name, "to learn") for name in (IU, UM)]
    teaching = [granted(consortium, name, "to teach") for name in (IU, UM)]
    for purpose, tokens in (("to teach", teaching), ("to learn", learning)):
        planned = await plan(consortium, tmp_path, purpose=purpose)
        assert planned.task.purpose == purpose
        assert [source.token_id for source in planned.task.sources] == tokens
    with pytest.raises(Refused, match="for which one purpose") as caught:
        await plan(consortium, tmp_path)
    assert caught.value.rule == "token-purpose"
    assert caught.value.hint == "state one with --purpose: to learn; to teach"


async def test_a_purpose_that_a_token_lacks_is_refused_before_anything_is_signed(
    consortium: Consortium, tmp_path: Path
) -> None:
    granted(consortium, IU, "to teach")
    granted(consortium, UM, "to learn")
    for purpose in ("to teach", "to sell"):
        with pytest.raises(Refused, match="another purpose") as caught:
            await plan(consortium, tmp_path, purpose=purpose)
        assert caught.value.rule == "token-purpose"
    with pytest.raises(Refused) as nothing:
        await plan(consortium, tmp_path)
    assert (nothing.value.rule, "in the same words" in nothing.value.hint) == ("token-purpose", True)
