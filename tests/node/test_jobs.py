"""Tasks from submission to report, with real workers; and every way in which one may end."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from koinon.v1.access_pb2 import RevokeToken
from koinon.v1.catalog_pb2 import TASK_OPERATION_COUNT
from koinon.v1.identity_pb2 import KEY_PURPOSE_NODE, RotateKey
from koinon.v1.task_pb2 import (
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_EXPIRED,
    TASK_STATUS_FAILED,
    CancelTask,
    Task,
)
from koinon.v1.transaction_pb2 import Envelope
from mpc.plan import Source, compile_plan, task_for
from mpc.session import PREAMBLE_BYTES, parse_preamble
from node.jobs import in_turn
from tests.contracts.consortium import MEMBERS, key
from tests.node.task_network import SQL, TABLE, TaskNetwork

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TaskNetwork]:
    async with TaskNetwork(tmp_path_factory.mktemp("network")) as running:
        yield running


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_is_left(network: TaskNetwork) -> AsyncIterator[None]:
    """Whatever happened in a test, no worker outlives its task."""
    yield
    await network.watch(lambda: not network.workers())


@pytest.mark.parametrize("owners", [MEMBERS, MEMBERS[1:], ("iu", "um"), ("um",)], ids=len)
async def test_a_query_opens_what_its_cleartext_twin_opens(network: TaskNetwork, owners: tuple[str, ...]) -> None:
    plan = network.plan(SQL, owners)
    task = await network.ended(network.ask(plan))
    assert task.status == TASK_STATUS_COMPLETED, task.reason
    assert len(task.parties) == max(3, len(owners))
    assert network.open(plan, task) == network.expected(plan)


async def test_tasks_run_side_by_side(network: TaskNetwork) -> None:
    plan = network.plan()
    asked = [network.ask(plan) for _ in range(3)]
    for task in [await network.ended(task_id) for task_id in asked]:
        assert task.status == TASK_STATUS_COMPLETED, task.reason
        assert network.open(plan, task) == network.expected(plan)


async def test_neither_traffic_nor_logs_hold_a_value(network: TaskNetwork) -> None:
    for tap in network.taps.values():
        tap.streams.clear()
    plan = network.plan()
    with capture_logs() as logs:
        task = await network.ended(network.ask(plan))
    assert task.status == TASK_STATUS_COMPLETED, task.reason
    values = {value for source in network.inputs(plan) for group in source for value in group if value > 10**6}
    assert len(values) > 10
    streams = [stream for tap in network.taps.values() for stream in tap.streams]
    meetings = 0
    for there, back in streams:
        assert parse_preamble(bytes(there[:PREAMBLE_BYTES])) == task.id
        for data in (bytes(there[PREAMBLE_BYTES:]), bytes(back)):
            assert_all_is_tls(data)
            for value in values:
                assert str(value).encode() not in data
                assert value.to_bytes(8, "big").lstrip(b"\0") not in data
        meetings += len(back) > 10_000
    assert meetings == 6  # every pair of four once
    text = repr(logs)
    assert "task computed" in text
    assert not any(str(value) in text for value in values)


def assert_all_is_tls(data: bytes) -> None:
    """Records of TLS 1.2's outer form, as TLS 1.3 has them, and not one byte else."""
    position = 0
    while position < len(data):
        kind, version = data[position], data[position + 1 : position + 3]
        assert kind in (20, 21, 22, 23)
        assert version in (b"\x03\x01", b"\x03\x03")
        position += 5 + int.from_bytes(data[position + 3 : position + 5], "big")
    assert position == len(data)


async def test_a_killed_worker_fails_the_task_for_all(network: TaskNetwork) -> None:
    async with network.running(network.plan()) as task_id:
        os.kill(network.workers()[0], signal.SIGKILL)
        task = await network.ended(task_id)
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "worker-crashed")
    assert network.consortium.app.token(network.tokens[f"um.{TABLE}"]).uses_left == uses_left(network)


def uses_left(network: TaskNetwork) -> int:
    """100, less what tasks that ran took."""
    ran = [record for record in network.consortium.records() if record.kind == "task.running"]
    return 100 - sum(f"token:{network.tokens[f'um.{TABLE}']}" in record.related for record in ran)


async def test_a_stopped_worker_fails_the_task_by_its_deadline(network: TaskNetwork) -> None:
    """It neither answers nor goes away; block time passes."""
    async with network.running(network.plan()) as task_id:
        os.kill(network.workers()[0], signal.SIGSTOP)
    network.decide(after_ms=network.consortium.app.parameters().run_window_ms)
    task = await network.ended(task_id)
    assert (task.status, task.rule) == (TASK_STATUS_EXPIRED, "run-deadline")


async def test_a_nursery_that_dies_is_replaced(network: TaskNetwork) -> None:
    service = network.services["um"]
    nursery = service._pool._nursery
    assert nursery is not None
    nursery.kill()
    await nursery.wait()
    plan = network.plan()
    task = await network.ended(network.ask(plan))
    assert task.status == TASK_STATUS_COMPLETED, task.reason


async def test_cancellation_ends_the_workers(network: TaskNetwork) -> None:
    async with network.running(network.plan()) as task_id:
        network.do("um/analyst", CancelTask(task_id=task_id, reason="never mind"))
        assert network.task(task_id).status == TASK_STATUS_CANCELLED
        await network.watch(lambda: not network.workers())


async def test_a_node_that_restarts_fails_what_it_was_in_the_middle_of(network: TaskNetwork) -> None:
    async with network.running(network.plan()) as task_id:
        await network.halt("iu")
        await network.begin("iu")
        task = await network.ended(task_id)
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "node-restarted")


async def test_a_node_whose_acceptance_is_decided_after_its_restart_says_that_it_restarted(
    network: TaskNetwork,
) -> None:
    """It went on with a certificate that the others do not know, or blamed itself for accepting twice."""

    def acceptances() -> int:
        return sum(Envelope.FromString(data).public_key == key("iu").public_key for data in network._pending)

    with network.undecided():
        task_id = network.ask(network.plan())
        await network.watch(lambda: acceptances() == 1)
        gossiped = list(network._pending)
        await network.halt("iu")
        network._pending = gossiped
        await network.begin("iu")
        await network.watch(lambda: acceptances() == 2)
    task = await network.ended(task_id)
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "node-restarted")


async def test_a_node_that_is_away_is_waited_for(network: TaskNetwork) -> None:
    await network.halt("iu")
    plan = network.plan()
    task_id = network.ask(plan)
    await network.until(lambda: sum(part.accepted for part in network.task(task_id).parties) == 3)
    await network.begin("iu")
    task = await network.ended(task_id)
    assert task.status == TASK_STATUS_COMPLETED, task.reason
    assert network.open(plan, task) == network.expected(plan)


async def test_a_node_that_stays_away_lets_the_task_expire(network: TaskNetwork) -> None:
    await network.halt("iu")
    task_id = network.ask(network.plan())
    await network.until(lambda: sum(part.accepted for part in network.task(task_id).parties) == 3)
    network.decide(after_ms=network.consortium.app.parameters().accept_window_ms)
    task = await network.ended(task_id)
    assert (task.status, task.rule) == (TASK_STATUS_EXPIRED, "accept-deadline")
    assert "iu" in task.reason
    await network.begin("iu")


async def test_a_report_that_was_not_heard_is_made_again_after_a_restart(network: TaskNetwork) -> None:
    plan = network.plan()
    async with network.running(plan) as task_id:
        pass
    with network.undecided():
        await network.watch(network.stored("uk", task_id).exists)
        await network.halt("uk")
    await network.begin("uk")
    task = await network.ended(task_id)
    assert task.status == TASK_STATUS_COMPLETED, task.reason
    assert network.open(plan, task) == network.expected(plan)


async def test_another_plan_than_the_one_compiled_is_refused(network: TaskNetwork) -> None:
    task = await network.ended(network.ask(network.plan(), plan_hash=bytes(32)))
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "plan-mismatch")


async def test_sources_on_the_ledger_are_those_of_the_plan(network: TaskNetwork) -> None:
    """Consensus checks what the asker says its query uses; each party, that the query uses nothing else."""
    task = task_for(network.plan(), "test")
    task.result_key = network.result_key.public_key
    for source in task.sources:
        source.operations[:] = [TASK_OPERATION_COUNT]
    ended = await network.ended(network.do("um/analyst", task))
    assert (ended.status, ended.rule) == (TASK_STATUS_FAILED, "plan-mismatch")


async def test_the_asker_does_not_choose_who_computes(network: TaskNetwork) -> None:
    """Case comes before uk, and can be reached: only an asker who wants uk to compute would pass it over."""
    app = network.consortium.app
    name = f"um.{TABLE}"
    sources = [Source(app.dataset(name), app.token(network.tokens[name]))]
    plan = compile_plan(SQL, sources, ["iu", "uk", "um"], asker="um", min_committee=3, max_committee=7)
    assert list(plan.committee) == ["iu", "uk", "um"]
    task = await network.ended(network.ask(plan))
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "committee")
    assert "case, iu, um" in task.reason


async def test_the_asker_s_own_rows_cannot_be_made_to_count(network: TaskNetwork) -> None:
    """The owners compile for the institution that asked: um's own node cannot say that another one did."""
    app = network.consortium.app
    sources = [Source(app.dataset(f"{name}.{TABLE}"), app.token(network.tokens[f"{name}.{TABLE}"])) for name in MEMBERS]
    plan = compile_plan(SQL, sources, MEMBERS, asker="iu", min_committee=3, max_committee=7)
    task = await network.ended(network.ask(plan))
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "plan-mismatch")


async def test_no_output_is_given_out_before_the_task_completed(network: TaskNetwork) -> None:
    """What an asker opens is on record as completed."""
    async with network.running(network.plan()) as task_id:
        pass
    with network.undecided():
        await network.watch(network.stored("uk", task_id).exists)
        assert network.services["uk"].output(task_id) is None
    task = await network.ended(task_id)
    assert task.status == TASK_STATUS_COMPLETED, task.reason
    assert network.services["uk"].output(task_id) is not None


async def test_content_that_changed_is_refused(network: TaskNetwork) -> None:
    (file,) = (network.directory / "case" / "datasets").glob("*/content")
    original = file.read_bytes()
    file.write_bytes(original.replace(b"31", b"32"))
    task = await network.ended(network.ask(network.plan()))
    file.write_bytes(original)
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "dataset-changed")


async def test_outputs_are_found_by_well_formed_ids_only(network: TaskNetwork) -> None:
    for task_id in ("", "x", "../../um/outputs/a", "0" * 32, "0" * 31 + "/", "\0" * 32):
        assert network.services["um"].output(task_id) is None


async def test_a_node_key_that_is_exchanged_meanwhile_costs_no_task(network: TaskNetwork) -> None:
    """The ledger names the new key some moments before the node has read it. For the tests behind this it stays."""
    new = key("iu, another")
    async with network.running(network.plan()) as task_id:
        network.do("iu/operator", RotateKey(purpose=KEY_PURPOSE_NODE, key=new.public_key))
    await network.until(lambda: network.stored("iu", task_id).exists())
    network.services["iu"].node_key = new
    task = await network.ended(task_id)
    assert task.status == TASK_STATUS_COMPLETED, task.reason
    assert len(network.outputs(task)) == len(task.parties)


async def test_a_token_revoked_meanwhile_ends_the_task(network: TaskNetwork) -> None:
    token_id = network.tokens[f"um.{TABLE}"]
    async with network.running(network.plan()) as task_id:
        network.do("um/operator", RevokeToken(token_id=token_id, reason="withdrawn consent"))
        task = network.task(task_id)
    assert (task.status, task.rule) == (TASK_STATUS_FAILED, "token-revoked")


def submitted(asker: str, number: int) -> Task:
    return Task(id=f"{number:032x}", asker=asker, submitted_at_ms=number)


async def test_one_institution_takes_no_more_than_half_of_the_places_and_one_person_not_all_of_these() -> None:
    """A hundred open tasks of one analyst leave room for whoever comes after it: its colleagues, and others."""
    flood = [submitted("um/analyst", number) for number in range(100)]
    friends = [submitted("um/friend", number) for number in range(100, 200)]
    assert in_turn(flood, (), 8) == flood[:3]
    running = [*flood[:3], friends[0]]
    assert in_turn([*flood, *friends], (), 8) == running
    other = submitted("iu/analyst", 200)
    assert in_turn([*flood, *friends, other], [task.id for task in running], 8) == [other]
    assert in_turn([*flood[1:], *friends], [task.id for task in running[1:]], 8) == [flood[3]]


@pytest.mark.parametrize(("concurrent", "fills"), [(8, 4), (4, 3), (2, 2), (1, 1)])
async def test_institutions_together_leave_a_place_until_there_are_too_many_of_them(
    concurrent: int, fills: int
) -> None:
    """Each has at most half of what those before it left."""
    names = [f"h{number}" for number in range(fills)]
    floods = [[submitted(f"{name}/p{n % 9}", 100 * k + n) for n in range(100)] for k, name in enumerate(names)]
    for together in range(fills):
        taken = in_turn([task for flood in floods[:together] for task in flood], (), concurrent)
        assert len(taken) < concurrent
        late = submitted("um/analyst", 10**6)
        waiting = [*(task for flood in floods[:together] for task in flood), late]
        assert in_turn(waiting, [task.id for task in taken], concurrent) == [late]
    assert len(in_turn([task for flood in floods for task in flood], (), concurrent)) == concurrent


async def test_places_are_given_in_the_ledger_s_order_and_no_more_than_there_are() -> None:
    tasks = [submitted(f"h{number % 3}/analyst", number) for number in range(9)]
    assert in_turn(tasks[::-1], (), 4) == tasks[:3]  # and a place is left for whoever comes from elsewhere
    assert in_turn(tasks, [task.id for task in tasks[:4]], 4) == []
    assert in_turn(tasks, (), 1) == tasks[:1]
    assert in_turn(tasks, ["of a task that is over and not yet gone"], 2) == tasks[:1]
