"""One node in this process: a validator alone, on real disk and ports, failing where a test tells it to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import structlog

import koinon
from koinon import genesis as genesis_file
from koinon.aio import Client
from koinon.errors import Corrupt, Exhausted, KoinonError, Unavailable
from koinon.keys import SigningKey
from koinon.v1.identity_pb2 import KeyRecord
from koinon.v1.peer_pb2 import BlockResponse, DeliverRequest
from node import config as configs
from node import credentials as credential_files
from node import home as homes
from node import pruning
from node.application import Application
from node.config import Address, Home
from node.engine import Engine
from node.ports import Alarm, Wake
from node.runtime import Node
from node.snapshots import Snapshots
from node.store.leveldb import LevelStore
from node.verified import VerifiedTransactions
from testnet.network import free_ports
from tests.waiting import until


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "um")
    endpoints = homes.Endpoints(*(Address("127.0.0.1", port) for port in free_ports(3)))
    descriptor = homes.create(made, "um", "Michigan", endpoints, passphrase=None)
    genesis_file.save(made.genesis, genesis_file.join("alone", time.time_ns() // 1_000_000, [descriptor]))
    return made


def open_node(home: Home) -> Node:
    config, genesis = configs.load(home.path), genesis_file.load(home.genesis)
    return Node(config, genesis, credential_files.load(config, genesis, None), structlog.get_logger())


@asynccontextmanager
async def running(home: Home) -> AsyncIterator[tuple[Client, Node, asyncio.Task[bool]]]:
    """A node, its operator's client once it answers, and what waits for its end; stopped afterwards."""
    node = open_node(home)
    task = asyncio.create_task(node.run())
    try:
        async with await koinon.aio.connect(home.people / "operator.toml") as client:
            async with asyncio.timeout(60):
                while not await _answers(client):
                    await asyncio.sleep(0.02)
            yield client, node, task
    finally:
        node.stop()
        await asyncio.wait([task])


async def _answers(client: Client) -> bool:
    try:
        await client.status()
    except Unavailable:
        return False
    return True


async def register(client: Client, name: str) -> None:
    await client.members.register(f"um/{name}", SigningKey.generate().public_key, ["analyst"])


async def test_a_ledger_that_lost_its_blocks_does_not_pass_for_a_new_one(home: Home) -> None:
    """LevelDB opens without its tables, and says nothing; what was signed is in the log."""
    async with running(home) as (client, _, _):
        await register(client, "first")
        await register(client, "second")
        height = (await client.status()).height
    for file in (*home.ledger.glob("*.log"), *home.ledger.glob("*.ldb")):
        file.unlink()
    with structlog.testing.capture_logs() as log:
        async with running(home) as (client, _, _):
            assert (await client.status()).height == 0, "it cannot sign again what it signed"
    (said,) = (entry for entry in log if entry["event"] == "ledger lost blocks")
    assert said["signed_height"] >= height > 1


async def test_a_validator_alone_decides_and_remembers(home: Home) -> None:
    async with running(home) as (client, _, _):
        await register(client, "first")
    async with running(home) as (client, _, _):
        await register(client, "second")
        people = {person.id for person in await client.members.people()}
    assert people == {"um/first", "um/operator", "um/second"}


async def test_a_search_for_a_snapshot_asks_a_member_who_hears_us_only_now(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new institution's node waits for its admission: members reach it first, and it them up to two seconds later."""
    asked: list[str] = []
    monkeypatch.setattr(Snapshots, "on_hello", lambda _, peer: asked.append(peer))
    async with running(home) as (_, node, _):
        node.connected("iu")
    assert asked == ["iu"]


async def test_after_a_standstill_of_hours_the_first_transaction_is_taken(home: Home) -> None:
    descriptor = genesis_file.load(home.genesis).institutions[0]
    home.genesis.unlink()
    long_ago_ms = time.time_ns() // 1_000_000 - 5 * 3_600_000
    genesis_file.save(home.genesis, genesis_file.join("alone", long_ago_ms, [descriptor]))
    async with running(home) as (client, _, _):
        await register(client, "first")
        assert "um/first" in {person.id for person in await client.members.people()}


async def test_a_full_disk_ends_the_node_with_the_reason_and_loses_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(home) as (client, _, task):
        await register(client, "first")

        def full(*_: object, **__: object) -> None:
            raise Exhausted("no space left on the disk of um", rule="disk-full", hint="free some space, then restart")

        monkeypatch.setattr(LevelStore, "write", full)
        lost = asyncio.create_task(register(client, "second"))
        with pytest.raises(Exhausted, match="no space left on the disk"):
            await task
        lost.cancel()
        await asyncio.wait([lost])
    monkeypatch.undo()
    async with running(home) as (client, _, _):
        await register(client, "third")
        assert "um/first" in {person.id for person in await client.members.people()}


async def test_a_bug_in_the_engine_ends_the_node_and_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(home) as (_, node, task):
        monkeypatch.setattr(Engine, "on_timer", _bug)
        node.schedule(0, Wake(Alarm.GOSSIP, 0))
        with pytest.raises(KoinonError, match="the node failed: impossible"):
            await task


async def test_blocks_that_cannot_be_verified_end_the_node(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(home) as (client, node, task):
        await register(client, "first")
        monkeypatch.setattr(VerifiedTransactions, "verify_many", _bug)
        response = BlockResponse()
        response.blocks.add(block=node._engine.blocks.block(1), commit=node._engine.blocks.commit(1))
        node._fetched.put("iu", DeliverRequest(block_response=response))
        with pytest.raises(KoinonError, match="the node failed: impossible"):
            await task


async def test_damage_that_monitoring_meets_ends_the_node(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(home) as (_, _, task):

        def damaged(*_: object) -> int:
            raise Corrupt("the header at height 1 is missing on disk")

        monkeypatch.setattr(pruning, "demanded", damaged)
        with pytest.raises(Corrupt, match="the header at height 1 is missing"):
            await task


async def test_a_node_that_ended_is_driven_by_no_timer_that_is_left(home: Home) -> None:
    """One that began again with a new certificate said of its former self that it could not go on."""
    async with running(home) as (client, node, _):
        await register(client, "first")
    node.schedule(0, Wake(Alarm.HEARTBEAT, node.height() + 1))
    async with running(home) as (client, _, _):
        await register(client, "second")
    assert node._failure is None


async def test_a_node_ends_after_the_thread_that_makes_its_ledger(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next one would find half a ledger being written; and who told it to stop wants no next one."""
    begun, go_on, written = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        begun.set()
        go_on.wait(60)
        written.set()

    async def restore(_: Snapshots) -> bool:
        await asyncio.to_thread(write)
        return True

    async with running(home) as (_, node, task):
        monkeypatch.setattr(Snapshots, "restore", restore)
        monkeypatch.setattr(Snapshots, "interval_ended", lambda _: True)
        await until(begun.is_set)
        node.stop()
        ended, _ = await asyncio.wait([task], timeout=2)
        go_on.set()
        assert not ended
        assert await task is False
        assert written.is_set()


async def test_a_store_is_closed_after_the_last_thread_that_reads_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LevelDB that is closed under a reader ends the process. Calls are broken off a second after the node's end."""
    begun, closed, order = threading.Event(), threading.Event(), []
    close = LevelStore.close

    def read(_: Application, owner: str) -> list[KeyRecord]:
        begun.set()
        closed.wait(3)
        order.append("read")
        return []

    def note(store: LevelStore) -> None:
        order.append("closed")
        closed.set()
        close(store)

    monkeypatch.setattr(Application, "keys", read)
    monkeypatch.setattr(LevelStore, "close", note)
    async with running(home) as (client, node, task):
        asking = asyncio.create_task(client.members.keys("um"))
        await until(begun.is_set)
        node.stop()
        await task
        with suppress(KoinonError):  # unless the machine is slower than the thread
            await asking
    assert order == ["read", "closed"]


def _bug(*_: object) -> None:
    raise ZeroDivisionError("impossible")


async def test_an_index_that_was_lost_is_made_again(home: Home) -> None:
    async def subjects() -> list[str]:
        async with running(home) as (client, _, _):
            return [record.subject for record in await client.audit.list()]

    async with running(home) as (client, _, _):
        await register(client, "first")
    before = await subjects()
    assert "person:um/first" in before
    home.read_model.write_bytes(b"no database")
    assert await subjects() == before
    home.read_model.unlink()
    assert await subjects() == before
