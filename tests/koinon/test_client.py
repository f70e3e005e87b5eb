"""The SDK against a scripted node: what it sends, what it believes, and how it fails."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

import koinon
from koinon import profile, rpc, submission
from koinon.client import Client
from koinon.descriptor import ColumnNote, Descriptor, Terms
from koinon.envelope import identify
from koinon.errors import (
    BY_STATUS,
    DeadlineExceeded,
    Exhausted,
    InvalidFile,
    InvalidInput,
    KoinonError,
    NotFound,
    PermissionRefused,
    Refused,
    StatusUnknown,
    Unauthenticated,
    Unavailable,
    UnsupportedQuery,
)
from koinon.keys import SigningKey
from koinon.limits import DEFAULT_EXPIRY_MS
from koinon.rpc import NEVER_SENT, typed_error
from koinon.v1 import services_pb2 as services
from koinon.v1.access_pb2 import AccessRequest, RequestAccess, Token, TokenStatus
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.catalog_pb2 import AccessPolicy, Column, ColumnType, Dataset, PublishDataset, TaskOperation
from koinon.v1.transaction_pb2 import Refusal, TransactionBody, TransactionStatus
from tests.koinon.fake_node import FakeNode, committed, rejected
from tests.koinon.header_chain import HeaderChain, validators


def dataset(name: str) -> Dataset:
    operations = [TaskOperation.TASK_OPERATION_COUNT, TaskOperation.TASK_OPERATION_AVG]
    return Dataset(published=PublishDataset(name=name, policy=AccessPolicy(operations=operations)), version=1)


def streamed(index: int) -> services.SubscribeResponse:
    return services.SubscribeResponse(record=AuditRecord(index=index), next_index=index + 1)


# --- reading


def test_every_call_carries_a_fresh_ticket_over_the_pinned_certificate(node: FakeNode, client: Client) -> None:
    node.answers["NodeService/GetStatus"] = services.GetStatusResponse(institution="um", height=3)
    assert client.status().height == 3  # the fake node refuses anything but a valid ticket


def test_pages_are_followed_to_the_limit(node: FakeNode, client: Client) -> None:
    def search(request: services.SearchDatasetsRequest) -> services.SearchDatasetsResponse:
        first = int(request.page_token or 0)
        found = [dataset(f"um.c.t{number}") for number in range(first, first + 3)]
        return services.SearchDatasetsResponse(datasets=found, next_page_token=str(first + 3))

    node.answers["CatalogService/SearchDatasets"] = search
    found = client.catalog.search(limit=7)
    assert [one.published.name for one in found] == [f"um.c.t{number}" for number in range(7)]


def test_an_empty_page_is_not_the_end_but_a_repeated_one_is(node: FakeNode, client: Client) -> None:
    def records(request: services.ListRecordsRequest) -> services.ListRecordsResponse:
        if request.filter.from_index < 5:
            return services.ListRecordsResponse(next_index=5)
        return services.ListRecordsResponse(records=[AuditRecord(index=5)], next_index=5)

    node.answers["AuditService/ListRecords"] = records
    assert [record.index for record in client.audit.list()] == [5]


@pytest.mark.parametrize("height", [0, 100])
def test_a_header_is_verified_with_a_node_that_began_from_a_snapshot(
    node: FakeNode, client: Client, height: int
) -> None:
    """All keys changed three times before it began: nobody vouches over that, and the headers between are not there."""
    sets = [validators(um=1)] * 13 + [validators(um_2=1)] * 20 + [validators(um_3=1)] * 20 + [validators(um_4=1)]
    chain = HeaderChain(sets, genesis=node.genesis)
    ends, began, newest = [13, 33, 53], 80, 100

    def answer(request: services.GetSignedHeaderRequest) -> services.GetSignedHeaderResponse:
        wanted = request.height or newest
        if wanted not in ends and wanted < began:
            raise Unavailable(f"this node does not keep the header of block {wanted}")
        changes = [chain.at(end) for end in ends if end < wanted] if request.with_way else []
        return services.GetSignedHeaderResponse(header=chain.at(wanted), validator_changes=changes)

    node.answers["AuditService/GetSignedHeader"] = answer
    found = client.audit.header(height)
    assert found.header == chain.header(newest)
    with pytest.raises(Unavailable):
        client.audit.header(60)


def test_watch_gives_records_as_they_come(node: FakeNode, client: Client) -> None:
    more = threading.Event()

    def subscribe(request: services.SubscribeRequest) -> Any:
        yield streamed(request.filter.from_index)
        more.wait(10)
        yield streamed(request.filter.from_index + 1)

    node.answers["EventService/Subscribe"] = subscribe
    records = client.audit.watch(from_index=4)
    assert next(records).index == 4
    more.set()
    assert [record.index for record in records] == [5]


def test_a_stream_that_breaks_goes_on_after_its_last_record(node: FakeNode, client: Client) -> None:
    asked: list[services.SubscribeRequest] = []
    heard: list[str] = []

    def subscribe(request: services.SubscribeRequest) -> Any:
        asked.append(request)
        match len(asked):
            case 1:  # nothing came yet, and still no record between the two streams may be missed
                yield services.SubscribeResponse(next_index=7)
                raise Unavailable("stopping")
            case 2:
                raise Unavailable("not yet")
            case 3:
                yield services.SubscribeResponse(next_index=7)
                yield streamed(8)
                raise Unavailable("stopping again")
            case _:
                yield services.SubscribeResponse(next_index=9)
                yield streamed(11)

    node.answers["EventService/Subscribe"] = subscribe
    records = client.audit.watch(
        kind="task.", new_only=True, on_broken=lambda error: heard.append(error.message if error else "on")
    )
    assert [record.index for record in records] == [8, 11]
    assert [(request.new_only, request.filter.from_index) for request in asked] == [
        (True, 0),
        (False, 7),
        (False, 7),
        (False, 9),
    ]
    assert heard == ["stopping", "on", "stopping again", "on"]


def test_a_stream_that_stays_broken_ends_and_one_that_never_was_does_not_wait(node: FakeNode, client: Client) -> None:
    opened, asked = iter([True]), 0

    def subscribe(_: services.SubscribeRequest) -> Any:
        nonlocal asked
        asked += 1
        if next(opened, False):
            yield services.SubscribeResponse(next_index=3)
        raise Unavailable("down for good")

    node.answers["EventService/Subscribe"] = subscribe
    with pytest.raises(Unavailable, match="down for good"):
        next(client.audit.watch(patience_s=0.5))
    assert asked > 1
    asked = 0
    with pytest.raises(Unavailable, match="down for good"):
        next(client.audit.watch(patience_s=60))
    assert asked == 1


def test_what_a_broken_stream_asks_anew_is_recorded_anew_once_the_reading_is_over(
    node: FakeNode, client: Client
) -> None:
    readings: list[str] = []

    def subscribe(request: services.SubscribeRequest) -> Any:
        readings.append(request.reading_id)
        if len(readings) in (1, 3):
            raise Refused("say it first", rule="unrecorded-reading")
        yield streamed(len(readings))
        if len(readings) == 2:
            raise Unavailable("gone for an hour")

    node.answers["EventService/Subscribe"] = subscribe
    assert [record.index for record in client.audit.watch(purpose="a tip")] == [2, 4]
    assert readings[0] == ""
    assert all(readings[1:])
    assert len(node.received) == 2


async def test_streams_and_uploads_have_their_turns_like_calls(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "MAX_STREAMS", 1)
    file = tmp_path / "t.csv"
    file.write_text("a\n1\n")
    node.answers["DatasetService/StageDataset"] = lambda parts: (list(parts), STAGED)[1]
    node.answers["EventService/Subscribe"] = lambda _: iter([streamed(1), streamed(2)])
    async with await koinon.aio.connect(node.profile) as client:
        records = client.audit.watch()
        assert (await anext(records)).index == 1
        asked = [asyncio.create_task(call) for call in (client.audit.list(), client.catalog.stage(file, "c.t"))]
        node.answers["AuditService/ListRecords"] = services.ListRecordsResponse()
        await asyncio.wait(asked, timeout=0.2)
        assert not any(call.done() for call in asked)
        assert [record.index async for record in records] == [2]
        await asyncio.gather(*asked)


async def test_the_awaitable_twin_has_the_same_surface(node: FakeNode) -> None:
    node.answers["NodeService/GetStatus"] = services.GetStatusResponse(height=3)
    async with await koinon.aio.connect(node.profile) as twin:
        assert (await twin.status()).height == 3
        with_blocking = await asyncio.to_thread(koinon.connect, node.profile)
        for part in ("catalog", "access", "tasks", "audit", "members"):
            offered = {name for name in dir(getattr(twin, part)) if not name.startswith("_")}
            assert offered == {name for name in dir(getattr(with_blocking, part)) if not name.startswith("_")}
        assert {n for n in dir(twin) if not n.startswith("_")} == {
            n for n in dir(with_blocking) if not n.startswith("_")
        }
        await asyncio.to_thread(with_blocking.close)


def test_a_callback_that_calls_the_client_is_told_so(node: FakeNode, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a\n1\n")
    node.answers["DatasetService/StageDataset"] = lambda parts: (list(parts), STAGED)[1]
    heard: list[KoinonError] = []

    def call_back(sent: int, size: int) -> None:
        try:
            client.status()
        except KoinonError as error:
            heard.append(error)

    client.catalog.stage(file, "c.t", on_progress=call_back)
    assert "a callback cannot call" in heard[0].message


# --- errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotFound("no", hint="look"), NotFound),
        (UnsupportedQuery("no JOIN", hint="leave it out"), UnsupportedQuery),
        (PermissionRefused("no"), PermissionRefused),
        (Refused("too few", rule="minimum-cohort"), Refused),
        (Unauthenticated("who?"), Unauthenticated),
        (Exhausted("full", rule="pool-full"), Exhausted),
    ],
)
def test_a_node_s_error_arrives_as_the_class_it_was(
    node: FakeNode, client: Client, error: KoinonError, expected: type[KoinonError]
) -> None:
    node.answers["NodeService/GetStatus"] = error
    with pytest.raises(KoinonError) as caught:
        client.status()
    assert type(caught.value) is expected
    assert (caught.value.message, caught.value.rule, caught.value.hint) == (error.message, error.rule, error.hint)


def test_every_status_has_its_class_and_survives_the_wire() -> None:
    for status, cls in BY_STATUS.items():
        assert hasattr(grpc.StatusCode, status)
        assert type(typed_error(cls, "m", cls.default_rule, "h")) is cls
        assert type(typed_error(cls, "m", "a rule of a later version", "h")) is cls


def test_a_node_whose_name_nobody_knows_was_never_reached(node: FakeNode) -> None:
    text = node.profile.read_text(encoding="utf-8").replace(f"127.0.0.1:{node.port}", "node.invalid:7400")
    node.profile.write_text(text, encoding="utf-8")
    with (
        koinon.connect(node.profile) as client,
        pytest.raises(Unavailable, match=r"no node answers at node\.invalid:7400") as caught,
    ):
        client.status()
    assert caught.value.rule == NEVER_SENT


async def test_who_got_no_answer_is_told_more_than_to_ask_again(node: FakeNode) -> None:
    connection = rpc.Connection(profile.load(node.profile), SigningKey.generate(), node.chain_id)
    nothing = grpc.aio.Metadata()
    late = connection.error(grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, nothing, nothing))
    await connection.close()
    assert "its log" in late.hint


async def test_a_node_that_took_the_connection_and_says_nothing_is_not_called_down(node: FakeNode) -> None:
    """Until our time for TLS is up, which is gRPC's 20 seconds; these are its words then."""
    connection = rpc.Connection(profile.load(node.profile), SigningKey.generate(), node.chain_id)
    words = "failed to connect to all addresses; last error: UNAVAILABLE: Handshake read failed (Endpoint closing)"
    nothing = grpc.aio.Metadata()
    error = connection.error(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, words))
    await connection.close()
    assert "says nothing" in error.message
    assert error.rule == NEVER_SENT


def test_a_closed_client_says_so(node: FakeNode, client: Client) -> None:
    client.close()
    client.close()
    for use in (client.status, lambda: next(client.audit.watch())):
        with pytest.raises(InvalidInput, match="the client is closed"):
            use()


def test_a_call_during_which_the_client_is_closed_says_so(node: FakeNode, client: Client) -> None:
    """It was a CancelledError, as if the caller itself had been cancelled."""
    asked, ends = threading.Event(), threading.Event()

    def late(request: services.GetStatusRequest) -> services.GetStatusResponse:
        asked.set()
        ends.wait(60)
        return services.GetStatusResponse()

    node.answers["NodeService/GetStatus"] = late
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(client.status)
        assert asked.wait(60)
        client.close()
        with pytest.raises(InvalidInput, match="closed during the call"):
            call.result(60)
        ends.set()


def test_a_process_forked_from_a_client_s_is_told_that_it_cannot_call(node: FakeNode) -> None:
    """It waited for ever, in a pool of worker processes for instance."""
    program = f"""
import os, koinon, koinon.errors
client = koinon.connect({str(node.profile)!r})
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for use in (client.status, lambda: koinon.connect({str(node.profile)!r})):
    try:
        use()
    except koinon.errors.InvalidInput as error:
        os.write(2, str(error).encode())
os._exit(7)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 7
    assert ended.stderr.count("this process was forked") == 2


def test_a_node_that_is_full_of_connections_is_not_called_down(node: FakeNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as full, ThreadPoolExecutor(1) as thread:
        text = node.profile.read_text(encoding="utf-8").replace(str(node.port), str(full.getsockname()[1]))
        node.profile.write_text(text, encoding="utf-8")

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    full.accept()[0].close()

        thread.submit(hang_up)
        with koinon.connect(node.profile) as client, pytest.raises(Unavailable, match="hangs up before") as caught:
            client.status()
        full.shutdown(socket.SHUT_RDWR)
    assert caught.value.rule == NEVER_SENT
    assert "all the connections that it takes" in caught.value.hint


def test_a_node_that_is_down_is_named_with_what_to_do(node: FakeNode, client: Client) -> None:
    node.close()
    with pytest.raises(Unavailable, match=f"no node answers at 127.0.0.1:{node.port}") as caught:
        client.status()
    assert caught.value.rule == "node-down"
    assert "koinon node run" in caught.value.hint


HANGING_UP = (  # what gRPC was seen to say
    "connection idle",
    "Stream removed (GOAWAY received; Error code: 2; Debug Text: connection idle)",
)


@pytest.mark.parametrize("words", HANGING_UP)
def test_a_node_that_hangs_up_on_an_idle_connection_in_that_moment_is_asked_once_more(
    node: FakeNode, client: Client, words: str
) -> None:
    asked: list[object] = []

    def answer(request: object) -> object:
        asked.append(request)
        return services.GetStatusResponse(height=7) if len(asked) == 2 else Unavailable(words)

    node.answers["NodeService/GetStatus"] = answer
    assert client.status().height == 7
    with pytest.raises(Unavailable):  # whoever says so again and again is not asked for ever
        client.status()
    assert len(asked) == 4


@pytest.mark.parametrize("words", HANGING_UP)
def test_a_stream_is_asked_for_once_more_too_until_something_came(node: FakeNode, client: Client, words: str) -> None:
    asked: list[int] = []

    def subscribe(request: services.SubscribeRequest) -> Any:
        asked.append(request.filter.from_index)
        if len(asked) in (2, 3):
            yield streamed(request.filter.from_index)
        if len(asked) != 4:
            raise Unavailable(words)

    node.answers["EventService/Subscribe"] = subscribe
    assert [record.index for record in client.audit.watch(from_index=4)] == [4, 5]
    assert asked == [4, 4, 5, 6]  # what gave a record is gone on with after it
    with pytest.raises(Unavailable):  # whoever says so again and again is not asked for ever
        next(client.audit.watch(from_index=9))
    assert asked == [4, 4, 5, 6, 9, 9]


def test_another_certificate_is_refused_before_anything_is_sent(node: FakeNode, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    impostor = FakeNode(other)
    text = node.profile.read_text().replace(f":{node.port}", f":{impostor.port}")
    node.profile.write_text(text)
    with koinon.connect(node.profile) as client, pytest.raises(Unauthenticated) as caught:
        client.status()
    impostor.close()
    assert caught.value.rule == "wrong-certificate"


def test_a_profile_of_another_chain_is_refused(node: FakeNode, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    FakeNode(other).close()
    (tmp_path / "genesis.json").unlink()
    (other / "genesis.json").rename(tmp_path / "genesis.json")
    with koinon.connect(node.profile) as client, pytest.raises(Unauthenticated, match="for this node and chain"):
        client.status()


# --- writing


def test_a_write_waits_until_it_is_committed(node: FakeNode, client: Client) -> None:
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])
    client.access.revoke("ab", "finished")
    (body,) = node.received
    assert body.operations[0].revoke_token.token_id == "ab" * 16
    assert body.chain_id == node.chain_id


def test_a_refused_write_raises_the_rule(node: FakeNode, client: Client) -> None:
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])
    node.decide = rejected("permission", "um/analyst may not", "ask an operator")
    with pytest.raises(PermissionRefused, match="um/analyst may not") as caught:
        client.access.revoke("ab", "finished")
    assert caught.value.hint == "ask an operator"


@pytest.mark.parametrize(("rule", "expected"), [("token-expired", Refused), ("not-found", NotFound)])
def test_the_rule_of_a_refusal_chooses_the_class(rule: str, expected: type[KoinonError]) -> None:
    assert type(submission.refusal_error(Refusal(rule=rule, message="m"))) is expected


def at_ledger_time(node: FakeNode, time_ms: int, proved_ms: int, signer: str = "um") -> None:
    """The node refuses what expired before ``time_ms``, and sends a header of another time as the newest."""

    def decide(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        on_time = body.expires_at_ms > time_ms
        return (committed if on_time else rejected("transaction-expired", "too late"))(transaction_id, body)

    chain = HeaderChain([validators(um=1)], genesis=node.genesis)
    header = chain.header(100)
    header.time_ms = proved_ms
    signed = chain.sign(header, validators(**{signer: 1}))
    node.decide = decide
    node.answers["AuditService/GetSignedHeader"] = services.GetSignedHeaderResponse(header=signed)
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])


def test_a_ledger_whose_time_is_ahead_takes_writes(node: FakeNode, client: Client) -> None:
    ahead_ms = time.time_ns() // 1_000_000 + 3_600_000
    at_ledger_time(node, ahead_ms, ahead_ms)
    client.access.revoke("ab", "finished")
    first, second = node.received
    assert first.expires_at_ms <= ahead_ms
    assert second.expires_at_ms == ahead_ms + DEFAULT_EXPIRY_MS
    assert first.operations == second.operations


@pytest.mark.parametrize(("proved_after_ms", "signer"), [(-1, "um"), (3_600_000, "um_2")])
def test_a_node_s_word_that_a_write_expired_is_no_reason_to_sign_it_again(
    node: FakeNode, client: Client, proved_after_ms: int, signer: str
) -> None:
    """It could hand in both; unless the members who decide signed a time after which the first counts no more."""
    now_ms = time.time_ns() // 1_000_000
    at_ledger_time(node, now_ms + 3_600_000, now_ms + proved_after_ms, signer)
    with pytest.raises(Refused, match="too late"):
        client.access.revoke("ab", "finished")
    assert len(node.received) == 1


def test_a_lost_answer_is_asked_for_again_and_the_transaction_counts_once(node: FakeNode, client: Client) -> None:
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])
    lost = [Unavailable("the node restarts")]

    def submit(request: services.SubmitRequest) -> Any:
        infos = [node._submit(data) for data in request.envelopes]
        return lost.pop() if lost else services.SubmitResponse(transactions=infos)

    node.answers["TransactionService/Submit"] = submit
    client.access.revoke("ab", "finished")
    assert node.submissions == 2
    assert len(node.received) == 1


def test_a_replay_is_answered_by_what_became_of_the_first(node: FakeNode, client: Client) -> None:
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])

    def submit(request: services.SubmitRequest) -> Any:
        info = node._submit(request.envelopes[0])
        refusal = Refusal(rule="replayed-transaction", message="seen before")
        status = TransactionStatus.TRANSACTION_STATUS_REJECTED
        again = services.TransactionInfo(transaction_id=info.transaction_id, status=status, refusal=refusal)
        return services.SubmitResponse(transactions=[again])

    node.answers["TransactionService/Submit"] = submit
    client.access.revoke("ab", "finished")


def test_a_node_that_vanishes_after_it_took_a_transaction_is_asked_again(node: FakeNode, client: Client) -> None:
    """It may start again within itself, when it changes its certificate."""
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])
    vanishes = iter([True])

    def submit(request: services.SubmitRequest) -> Any:
        pending = TransactionStatus.TRANSACTION_STATUS_PENDING
        name = node._submit(request.envelopes[0]).transaction_id
        return services.SubmitResponse(transactions=[services.TransactionInfo(transaction_id=name, status=pending)])

    def get(request: services.GetTransactionsRequest) -> Any:
        if next(vanishes, False):
            raise Unavailable("nobody answers", rule=NEVER_SENT)
        return services.GetTransactionsResponse(transactions=[node._status(name) for name in request.transaction_ids])

    node.answers["TransactionService/Submit"] = submit
    node.answers["TransactionService/GetTransactions"] = get
    client.access.revoke("ab", "finished")


def test_a_replay_whose_result_the_node_lost_is_not_called_rejected(node: FakeNode, client: Client) -> None:
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])

    def submit(request: services.SubmitRequest) -> Any:
        refusal = Refusal(rule="replayed-transaction", message="seen before")
        status = TransactionStatus.TRANSACTION_STATUS_REJECTED
        name = identify(request.envelopes[0])
        again = services.TransactionInfo(transaction_id=name, status=status, refusal=refusal)
        return services.SubmitResponse(transactions=[again])

    def unknown(request: services.GetTransactionsRequest) -> Any:
        status = TransactionStatus.TRANSACTION_STATUS_UNKNOWN
        found = [services.TransactionInfo(transaction_id=name, status=status) for name in request.transaction_ids]
        return services.GetTransactionsResponse(transactions=found)

    node.answers["TransactionService/Submit"] = submit
    node.answers["TransactionService/GetTransactions"] = unknown
    with pytest.raises(StatusUnknown, match="joined by a snapshot") as caught:
        client.access.revoke("ab", "finished")
    assert "another member's node" in caught.value.hint


def test_no_decision_in_time_says_so_and_the_same_envelope_can_go_again(
    node: FakeNode,
) -> None:
    client = koinon.connect(node.profile, write_timeout_s=0)
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])

    def pending(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        return services.TransactionInfo(
            transaction_id=transaction_id, status=TransactionStatus.TRANSACTION_STATUS_PENDING
        )

    node.decide = pending
    with pytest.raises(StatusUnknown) as caught:
        client.access.revoke("ab", "finished")
    unknown = caught.value
    assert f"koinon status --transaction {unknown.transaction_id.hex()}" in unknown.hint
    info = client.transaction(unknown.transaction_id.hex())
    assert info.status == TransactionStatus.TRANSACTION_STATUS_PENDING
    node._decided[unknown.transaction_id].status = TransactionStatus.TRANSACTION_STATUS_COMMITTED
    assert client.resend(unknown).status == TransactionStatus.TRANSACTION_STATUS_COMMITTED
    assert len(node.received) == 1


def test_a_node_that_hangs_is_not_waited_for_longer_than_was_said(node: FakeNode) -> None:
    ends = threading.Event()
    node.answers["TransactionService/Submit"] = lambda request: ends.wait(60)
    node.answers["QueryService/PlanQuery"] = lambda request: ends.wait(60)
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])
    begun = time.monotonic()
    with koinon.connect(node.profile, write_timeout_s=0.2) as client:
        with pytest.raises(StatusUnknown):
            client.access.revoke("ab", "finished")
        with pytest.raises(DeadlineExceeded, match="did not answer in time"):
            client.query("SELECT COUNT(*) AS n FROM c.t", timeout_s=0.2)
    took_s = time.monotonic() - begun
    ends.set()
    assert took_s < rpc.CALL_S


def test_a_write_that_was_never_sent_fails_at_once(node: FakeNode, client: Client) -> None:
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id="ab" * 16)])
    client.access.tokens()
    node.close()
    with pytest.raises(Unavailable) as caught:
        client.access.revoke("ab", "finished")
    assert not isinstance(caught.value, StatusUnknown)
    assert caught.value.rule == "node-down"


def test_an_answer_about_another_transaction_is_not_believed(node: FakeNode, client: Client) -> None:
    node.answers["TransactionService/GetTransactions"] = services.GetTransactionsResponse(
        transactions=[services.TransactionInfo(transaction_id=b"x" * 32)]
    )
    with pytest.raises(KoinonError, match="another transaction"):
        client.transaction("00" * 32)


# --- access


def test_a_table_without_institution_asks_every_publisher_in_one_transaction(node: FakeNode, client: Client) -> None:
    names = ["um.ercp.indo_rct", "iu.ercp.indo_rct", "iu.ercp.other"]
    node.answers["CatalogService/SearchDatasets"] = services.SearchDatasetsResponse(datasets=map(dataset, names))
    node.answers["AccessService/ListRequests"] = lambda request: services.ListRequestsResponse(
        requests=[AccessRequest(id=request.id_prefix, requested=RequestAccess(dataset="x"))]
    )
    made = client.access.request("ercp.indo_rct", purpose="reproduce", operations=["avg", "count"], days=2, uses=3)
    (body,) = node.received
    asked = [operation.request_access for operation in body.operations]
    assert [one.dataset for one in asked] == ["iu.ercp.indo_rct", "um.ercp.indo_rct"]
    assert [TaskOperation.Name(o) for o in asked[0].operations] == ["TASK_OPERATION_COUNT", "TASK_OPERATION_AVG"]
    assert (asked[0].duration_ms, asked[0].uses, list(asked[0].purposes)) == (172_800_000, 3, ["reproduce"])
    assert [one.id for one in made] == [f"{1:032x}", f"{2:032x}"]


def test_without_operations_the_policy_s_are_asked_for(node: FakeNode, client: Client) -> None:
    node.answers["CatalogService/GetDataset"] = services.GetDatasetResponse(dataset=dataset("um.c.t"))
    node.answers["AccessService/ListRequests"] = services.ListRequestsResponse(requests=[AccessRequest(id="1")])
    client.access.request("um.c.t", purpose="p")
    assert list(node.received[0].operations[0].request_access.operations) == [1, 3]


@pytest.mark.parametrize(("found", "error"), [([], NotFound), (["ab01", "ab02"], InvalidInput)])
def test_a_beginning_of_an_id_must_fit_exactly_one(
    node: FakeNode, client: Client, found: list[str], error: type[KoinonError]
) -> None:
    node.answers["AccessService/ListTokens"] = services.ListTokensResponse(tokens=[Token(id=one) for one in found])
    with pytest.raises(error):
        client.access.revoke("ab", "finished")
    assert not node.received


def test_words_are_checked_before_anything_is_sent(node: FakeNode, client: Client) -> None:
    with pytest.raises(InvalidInput, match="'median' is no operation") as caught:
        client.access.request("um.c.t", purpose="p", operations=["median"])
    assert "group_by" in caught.value.hint
    with pytest.raises(InvalidInput, match="status of a token"):
        client.access.tokens(status="gone")


def test_status_words_become_numbers(node: FakeNode, client: Client) -> None:
    def tokens(request: services.ListTokensRequest) -> services.ListTokensResponse:
        assert request.status == TokenStatus.TOKEN_STATUS_USED_UP
        return services.ListTokensResponse()

    node.answers["AccessService/ListTokens"] = tokens
    assert client.access.tokens(status="used-up") == []


# --- publishing


STAGED = services.StageDatasetResponse(
    columns=[
        Column(name="rx", type=ColumnType.COLUMN_TYPE_TEXT),
        Column(name="age", type=ColumnType.COLUMN_TYPE_INTEGER, nullable=True),
    ],
    row_count=164,
    commitment=b"c" * 32,
    proposed_codelists=[services.CodelistProposal(column="rx", codes=["0", "1"], smallest_count=80)],
)


def test_a_file_is_streamed_whole_and_only_confirmed_values_are_published(
    node: FakeNode, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"rx,age\n" + b"0,60\n" * 200_000)
    parts: list[services.StageDatasetRequest] = []
    sent: list[tuple[int, int]] = []

    def stage(requests: Any) -> services.StageDatasetResponse:
        parts.extend(requests)
        return STAGED

    node.answers["DatasetService/StageDataset"] = stage
    node.answers["CatalogService/GetDataset"] = services.GetDatasetResponse(dataset=dataset("um.ercp.indo_rct"))
    client.catalog.publish(
        file,
        "ercp.indo_rct",
        descriptor=Descriptor(title="Trial", columns={"age": ColumnNote(unit="a")}),
        terms=Terms(access="auto", operations=("sum", "count"), min_cohort=12),
        on_progress=lambda done, size: sent.append((done, size)),
    )
    assert (parts[0].header.name, parts[0].header.format) == ("um.ercp.indo_rct", "csv")
    assert b"".join(part.chunk for part in parts[1:]) == file.read_bytes()
    assert sent[-1] == (file.stat().st_size, file.stat().st_size)
    entry = node.received[0].operations[0].publish_dataset
    assert [list(column.codelist) for column in entry.columns] == [[], []]
    assert (entry.columns[1].unit, entry.columns[1].nullable) == ("a", True)
    assert (entry.row_count, entry.row_count_step, entry.commitment) == (160, 10, b"c" * 32)
    assert (list(entry.policy.operations), entry.policy.min_cohort) == ([1, 2], 12)
    client.catalog.publish(file, "ercp.indo_rct", descriptor=Descriptor(title="Trial"), codelists=["rx"])
    assert list(node.received[1].operations[0].publish_dataset.columns[0].codelist) == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, "cannot read"),
        ("empty.csv", b"", "is empty"),
        ("table.xlsx", b"x", "neither .csv nor .parquet"),
    ],
)
def test_a_file_that_cannot_be_published_is_refused_before_anything_is_sent(
    client: Client, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidFile, match=says):
        client.catalog.publish(file, "c.t", descriptor=Descriptor(title="T"))


def test_what_the_node_refuses_of_a_file_arrives_typed(node: FakeNode, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"a,a\n1,2\n")
    node.answers["DatasetService/StageDataset"] = InvalidFile("two columns are called a", hint="rename one")
    with pytest.raises(InvalidFile, match="two columns") as caught:
        client.catalog.publish(file, "c.t", descriptor=Descriptor(title="T"))
    assert caught.value.hint == "rename one"
