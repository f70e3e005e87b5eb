"""MemberService: what grows without number is read while consensus goes on, and not for everybody."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from koinon.errors import PermissionRefused
from koinon.v1.identity_pb2 import ROLE_ANALYST, ROLE_OPERATOR, KeyRecord
from koinon.v1.services_pb2 import ListKeysRequest, PreviewNoticeRequest
from node import auth
from node.application import Application
from node.auth import Caller
from node.rpc.members import MemberService
from tests.contracts.consortium import Consortium

NO_CONTEXT: Any = None  # the service asks it nothing


async def test_keys_without_number_are_read_one_call_at_a_time_while_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One person's call held up the event loop, and with it consensus, for as long as it took."""
    go_on, under_way, most = threading.Event(), [0], [0]

    def read(_: Application, owner: str) -> list[KeyRecord]:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        assert go_on.wait(60)
        under_way[0] -= 1
        return [KeyRecord(owner=owner)]

    monkeypatch.setattr(Application, "keys", read)
    service = MemberService(Consortium().app)
    calls = [asyncio.create_task(service.ListKeys(ListKeysRequest(owner="um"), NO_CONTEXT)) for _ in range(3)]
    await asyncio.sleep(0)  # the loop is free, or this would never go on
    go_on.set()
    assert [call.keys[0].owner for call in await asyncio.gather(*calls)] == ["um"] * 3
    assert most == [1]


@pytest.mark.parametrize(
    ("caller", "allowed"),
    [
        (Caller("um/operator", frozenset({ROLE_OPERATOR})), True),
        (Caller("um/analyst", frozenset({ROLE_ANALYST})), False),
        (Caller("iu/operator", frozenset({ROLE_OPERATOR})), False),
    ],
)
async def test_what_leaving_would_change_is_worked_out_for_who_may_leave(caller: Caller, allowed: bool) -> None:
    """All datasets and open tasks of the ledger are gone through for it."""
    consortium = Consortium()
    consortium.wait(1)
    service, asked = MemberService(consortium.app), PreviewNoticeRequest(institution="um", blocks=20)
    auth._caller.set(caller)
    if allowed:
        assert "member um" in (await service.PreviewNotice(asked, NO_CONTEXT)).effects[0]
    else:
        with pytest.raises(PermissionRefused, match="its leaving"):
            await service.PreviewNotice(asked, NO_CONTEXT)
