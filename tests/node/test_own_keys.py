"""The keys that a node signs with follow the ledger, however fast it names others."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from koinon.v1.identity_pb2 import Genesis, Institution
from node import config as configs
from node import credentials
from node.application import Application
from node.config import Address, Home
from node.credentials import Credentials
from node.home import Endpoints, create
from node.own_keys import OwnKeys


class Ledger:
    """What it names for one institution."""

    def __init__(self, member: Institution) -> None:
        self.member = member

    def institutions(self) -> list[Institution]:
        return [self.member]

    def name(self, kind: str, key: bytes) -> None:
        after = Institution()
        after.CopyFrom(self.member)
        setattr(after.descriptor, f"{kind}_key", key)
        self.member = after


async def test_two_keys_that_two_blocks_name_are_taken_up_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second block comes while the first one's key is being exchanged on a thread."""
    home = Home(tmp_path / "um")
    ports = [Address("127.0.0.1", number) for number in (1001, 1002, 1003)]
    descriptor = create(home, "um", "UM", Endpoints(*ports), passphrase=None)
    config, ledger = configs.load(home.path), Ledger(Institution(descriptor=descriptor))
    present = credentials.load(config, Genesis(institutions=[descriptor]), None)
    keys = OwnKeys(config, present, cast(Application, ledger), structlog.get_logger())
    settle, together = credentials.settle, threading.Barrier(2)

    def meet(*args: Any) -> Credentials:
        with suppress(threading.BrokenBarrierError):
            together.wait(0.2)
            pytest.fail("two threads exchange the same files")
        return settle(*args)

    monkeypatch.setattr(credentials, "settle", meet)
    taken = []
    named = {kind: credentials.make_next(home, kind, None) for kind in ("validator", "node")}
    for kind, key in named.items():
        ledger.name(kind, key)
        taken.append(asyncio.create_task(keys.take_up()))
        await asyncio.sleep(0)
    assert await asyncio.gather(*taken) == [True, True]
    assert keys.credentials.validator.public_key == named["validator"]
    assert keys.credentials.node.public_key == named["node"]
