"""Four real nodes on loopback: what holds while they run, when one dies, and who is kept out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import koinon
from koinon import genesis, key_files, profile, receipt, rpc, ticket
from koinon.cli import main
from koinon.errors import NotFound, PermissionRefused, Unavailable
from koinon.keys import SigningKey
from koinon.limits import MAX_ENVELOPE_BYTES, MAX_SUBMIT_ENVELOPES
from koinon.names import tls_name
from koinon.rpc import HINT_KEY, RULE_KEY
from koinon.v1 import peer_pb2, peer_pb2_grpc, services_pb2, services_pb2_grpc
from node import tls
from testnet.cli import _watched
from testnet.faults.run import WRONG_CLOCK
from testnet.network import Testnet, free_ports
from testnet.probe import NodeState
from tests.waiting import eventually


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testnet]:
    with Testnet.create(tmp_path_factory.mktemp("net")) as running:
        yield running


def operator(network: Testnet, institution: str) -> koinon.Client:
    return koinon.connect(network.profile(f"{institution}-operator"))


def register(client: koinon.Client, institution: str, name: str) -> None:
    client.members.register(f"{institution}/{name}", SigningKey.generate().public_key, ["analyst"])


def names(client: koinon.Client) -> set[str]:
    return {person.id for person in client.members.people()}


# --- while all is well


def test_every_node_decides_and_sees_the_others(network: Testnet) -> None:
    states = network.wait_ready()
    assert [state.institution for state in states] == ["case", "iu", "uk", "um"]
    assert [state.problem for state in states] == [""] * 4
    assert all(state.ready and state.peers == 3 and state.height >= 1 for state in states)
    assert sorted(path.stem for path in (network.dir / "profiles").iterdir()) == [
        "analyst",
        "case-operator",
        "iu-operator",
        "regulator",
        "uk-operator",
        "um-operator",
    ]


def test_what_one_node_is_told_every_node_knows(network: Testnet) -> None:
    with operator(network, "um") as um, operator(network, "case") as case:
        register(um, "um", "somebody")
        eventually(lambda: "um/somebody" in names(case), "case knows what um decided")
        assert um.status().faults_tolerated == 1


def test_a_receipt_from_a_node_proves_a_record_without_it(network: Testnet) -> None:
    with koinon.connect(network.profile("regulator")) as regulator:
        record = regulator.audit.list(kind="person.registered")[-1]
        proof = receipt.parse(receipt.render(regulator.audit.receipt(record.index)))
    verified = receipt.verify(proof, genesis.load(network.dir / "genesis.json"))
    assert isinstance(verified, receipt.VerifiedRecord)
    assert verified.record == record
    assert len(verified.proof.signers) >= 3


def test_a_receipt_for_a_transaction_and_the_newest_header_need_no_trust_in_the_node(network: Testnet) -> None:
    with operator(network, "um") as um:
        register(um, "um", "proved")
    with koinon.connect(network.profile("regulator")) as regulator:
        record = regulator.audit.list("person:um/proved", kind="person.registered")[-1]
        proof = regulator.audit.receipt(f"tx:{record.transaction_id.hex()}")
        verified = regulator.audit.verify(proof)
        head = regulator.audit.header()
        assert regulator.audit.header(1).height == 1
    assert isinstance(verified, receipt.VerifiedTransaction)
    assert verified.transaction.id == record.transaction_id
    assert verified.height == record.height
    assert head.height > record.height
    assert len(head.signers) >= 3
    with koinon.connect(network.profile("analyst")) as analyst, pytest.raises(PermissionRefused, match="did not sign"):
        analyst.audit.receipt(f"tx:{record.transaction_id.hex()}")


def test_an_analyst_sees_the_records_that_concern_it_and_no_others(network: Testnet) -> None:
    with koinon.connect(network.profile("analyst")) as analyst:
        seen = analyst.audit.list()
        about_others = {record.subject for record in seen if record.kind != "audit.read"} - {"person:um/analyst"}
        assert not about_others
        assert all(not record.related for record in seen if record.kind == "audit.read")  # who reads about everybody
        with pytest.raises(PermissionRefused, match="record 0 does not concern um/analyst"):
            analyst.audit.receipt(0)


def test_what_does_not_exist_is_named(network: Testnet) -> None:
    with koinon.connect(network.profile("analyst")) as analyst:
        with pytest.raises(NotFound, match=r"um\.no\.such"):
            analyst.catalog.show("um.no.such")
        with pytest.raises(NotFound, match=r"no\.such"):
            analyst.plan("SELECT COUNT(*) AS n FROM no.such")


@pytest.mark.parametrize(
    ("stub", "method", "asked"),
    [
        (services_pb2_grpc.AccessServiceStub, "ListTokens", services_pb2.ListTokensRequest(page_token="x")),
        (services_pb2_grpc.AccessServiceStub, "ListRequests", services_pb2.ListRequestsRequest(page_size=501)),
        (services_pb2_grpc.TaskServiceStub, "GetTask", services_pb2.GetTaskRequest(id="", wait_ms=30_001)),
        (
            services_pb2_grpc.TransactionServiceStub,
            "GetTransactions",
            services_pb2.GetTransactionsRequest(transaction_ids=[b"short"]),
        ),
        (
            services_pb2_grpc.TransactionServiceStub,
            "Submit",
            services_pb2.SubmitRequest(envelopes=[b""] * (MAX_SUBMIT_ENVELOPES + 1)),
        ),
        (services_pb2_grpc.AuditServiceStub, "GetConsistencyProof", services_pb2.GetConsistencyProofRequest()),
    ],
)
def test_a_request_out_of_bounds_is_refused(network: Testnet, stub: type, method: str, asked: object) -> None:
    with pytest.raises(CallRefused, match=r"INVALID_ARGUMENT invalid-input|NOT_FOUND not-found"):
        _call(network, stub, method, asked)


def test_envelopes_that_are_none_are_rejected_one_by_one(network: Testnet) -> None:
    request = services_pb2.SubmitRequest(envelopes=[b"", b"\xff" * 100, bytes(MAX_ENVELOPE_BYTES + 1)])
    answer = _call(network, services_pb2_grpc.TransactionServiceStub, "Submit", request)
    assert isinstance(answer, services_pb2.SubmitResponse)
    rules = [info.refusal.rule for info in answer.transactions]
    assert rules == ["malformed-transaction", "malformed-transaction", "oversized-transaction"]


def test_an_operator_brings_files_to_its_own_node_only(network: Testnet) -> None:
    table = network.dir / "table.csv"
    table.write_text("age\n" + "".join(f"{age}\n" for age in range(30, 60)), encoding="utf-8")
    with operator(network, "um") as um:
        published = um.catalog.publish(table, "some.ages", descriptor=koinon.Descriptor(title="Ages"))
        assert um.catalog.show("um.some.ages") == published
    refused = pytest.raises(PermissionRefused, match="um/analyst may not bring files to this node")
    with koinon.connect(network.profile("analyst")) as analyst, refused:
        analyst.catalog.publish(table, "some.ages", descriptor=koinon.Descriptor(title="Ages"))


# --- when a node dies


def test_who_watches_misses_nothing_while_its_node_restarts(network: Testnet) -> None:
    """The node is killed while records go on to be made by others; each comes once, in order."""
    heard: list[object] = []
    with operator(network, "case") as case, operator(network, "um") as um:
        begins = case.audit.list(newest_first=True, limit=1)[0].index + 1
        watched = case.audit.watch(
            "institution:um", kind="person.registered", from_index=begins, on_broken=heard.append
        )
        register(um, "um", "watched0")
        seen = [next(watched)]
        network.kill("case")
        register(um, "um", "watched1")
        network.restart("case")
        seen.append(next(watched))
        register(um, "um", "watched2")
        seen.append(next(watched))
    assert [record.subject for record in seen] == [f"person:um/watched{number}" for number in range(3)]
    assert len(heard) == 2
    assert heard[1] is None


def test_who_watches_notices_a_node_that_says_nothing(network: Testnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that hangs, or a line that is cut, closes no connection."""
    monkeypatch.setattr(rpc, "RPC_KEEPALIVE_MS", 1_000)
    monkeypatch.setattr(rpc, "RPC_KEEPALIVE_ANSWER_MS", 4_000)
    hanging, heard = network.pid("iu"), []

    def wake(error: Unavailable | None) -> None:
        heard.append(error)
        if error is not None:
            os.kill(hanging, signal.SIGCONT)

    with operator(network, "iu") as iu, operator(network, "um") as um:
        begins = iu.audit.list(newest_first=True, limit=1)[0].index + 1
        watched = iu.audit.watch("institution:um", kind="person.registered", from_index=begins, on_broken=wake)
        register(um, "um", "heard")
        assert next(watched).subject == "person:um/heard"
        os.kill(hanging, signal.SIGSTOP)
        register(um, "um", "unheard")
        assert next(watched).subject == "person:um/unheard"
    assert heard  # more than once, where the machine itself hung for as long
    assert heard[-1] is None


def test_a_killed_node_is_not_missed_and_catches_up(network: Testnet) -> None:
    with operator(network, "um") as um:
        network.kill("case")
        assert not next(state for state in network.status() if state.institution == "case").pid
        for number in range(12):
            register(um, "um", f"while-down-{number}")
        network.restart("case")
        network.wait_ready()
        with operator(network, "case") as case:
            eventually(lambda: case.status().height >= um.status().height, "case catches up")
            assert names(case) == names(um)
            register(case, "case", "back-again")
        eventually(lambda: "case/back-again" in names(um), "case decides with the others")


def test_the_ledger_of_a_stopped_node_replays_offline(network: Testnet, tmp_path: Path) -> None:
    out, genesis_file = tmp_path / "ledger.archive", str(network.dir / "genesis.json")
    home = str(network.home("iu").path)
    running = CliRunner().invoke(main, ["ledger", "verify", home])
    assert (running.exit_code, "[store-locked]" in running.stderr) == (6, True)
    network.stop("iu")
    try:
        of_home = CliRunner().invoke(main, ["ledger", "verify", home, "--genesis", genesis_file, "--json"])
        exported = CliRunner().invoke(main, ["ledger", "export", home, "--out", str(out)])
    finally:
        network.restart("iu")
    of_archive = CliRunner().invoke(main, ["ledger", "verify", str(out), "--genesis", genesis_file, "--json"])
    assert (of_home.exit_code, exported.exit_code, of_archive.exit_code) == (0, 0, 0), of_home.stderr
    assert json.loads(of_home.stdout) == json.loads(of_archive.stdout)
    assert json.loads(of_home.stdout)["transactions"] > 0
    network.wait_ready()


def test_with_two_of_four_down_nothing_is_decided_and_nothing_is_lost(network: Testnet) -> None:
    with operator(network, "um") as um, ThreadPoolExecutor(1) as thread:
        network.kill("case")
        network.kill("uk")
        height = um.status().height
        waiting = thread.submit(register, um, "um", "during-standstill")
        eventually(lambda: um.status().pending_transactions == 1, "the transaction waits in the pool")
        with pytest.raises(TimeoutError):
            waiting.result(1)
        assert um.status().height <= height + 1  # a block may have been on its way
        network.restart("case")
        network.restart("uk")
        waiting.result(60)
        assert "um/during-standstill" in names(um)
    network.wait_ready()


def test_a_ledger_whose_clocks_were_ahead_takes_writes_once_they_are_right(tmp_path: Path) -> None:
    network = Testnet.create(tmp_path / "net", ["a"])
    log = network.home("a").log / "node.log"
    network.start(environment={"KOINON_CLOCK_OFFSET_S": "3600"}, import_first=WRONG_CLOCK)
    try:
        eventually(lambda: log.exists() and '"height": 2,' in log.read_text(), "the first block by the nodes' clocks")
        network.kill("a")
        with network, operator(network, "a") as client:
            assert client.status().block_time_ms > time.time_ns() // 1_000_000 + 3_000_000
            register(client, "a", "late")
            assert "a/late" in names(client)
    finally:
        network.stop()


def test_ports_that_one_process_was_given_are_given_to_no_other() -> None:
    ports = free_ports(3)
    code = f"from testnet import network; network._PORTS = {ports}; network.free_ports(1)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert "fewer than 1 ports are free" in done.stderr


# --- when a node moves


def test_a_node_that_moved_is_dialled_where_the_ledger_says(network: Testnet) -> None:
    config = network.home("case").config
    (port,) = free_ports(1)
    old = next(item for item in genesis.load(network.dir / "genesis.json").institutions if item.id == "case")
    with operator(network, "case") as case:
        moved = case.members.move(peer_address=f"127.0.0.1:{port}").descriptor
    assert (moved.rpc_address, moved.mpc_address) == (old.rpc_address, old.mpc_address)
    network.stop("case")
    config.write_text(config.read_text().replace(old.peer_address, moved.peer_address), encoding="utf-8")
    network.restart("case")
    network.wait_ready()
    with operator(network, "um") as um:
        register(um, "um", "after-the-move")


# --- who is kept out


def test_who_waits_long_for_nodes_is_told_without_a_terminal_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ""

    def told() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return said.endswith("\n")

    def wait_ready(on_change: Callable[[list[NodeState]], None]) -> list[NodeState]:
        eventually(told, "a line on stderr", 10)
        return []

    monkeypatch.setattr("testnet.cli._PATIENCE_S", 0)
    _watched(cast(Testnet, SimpleNamespace(institutions=["um"], wait_ready=wait_ready)))
    assert said == "still waiting: starting nodes\n"


def test_an_interrupt_while_a_node_starts_leaves_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "60"])
        signal.raise_signal(signal.SIGINT)  # it runs, and nobody knows
        return process

    network = Testnet.create(tmp_path / "net", ["a"])
    monkeypatch.setattr("testnet.network.subprocess", SimpleNamespace(Popen=interrupted, DEVNULL=subprocess.DEVNULL))
    with pytest.raises(KeyboardInterrupt):
        network.start()
    assert network.pid("a")
    network.stop()
    assert not network.pid("a")


def _channel(network: Testnet, institution: str = "um", port: str = "rpc") -> grpc.Channel:
    chosen = profile.load(network.profile(f"{institution}-operator"))
    address = chosen.rpc_address
    if port == "peer":
        address = next(
            item.peer_address
            for item in genesis.load(network.dir / "genesis.json").institutions
            if item.id == institution
        )
    credentials = grpc.ssl_channel_credentials(chosen.node_certificate.encode())
    return grpc.secure_channel(address, credentials, (("grpc.ssl_target_name_override", tls_name(institution)),))


def _ticket(network: Testnet, key: SigningKey, chain: str = "") -> bytes:
    pem = network.home("um").certificate.read_bytes()
    chain = chain or genesis.chain_id(genesis.load(network.dir / "genesis.json"))
    return ticket.make(chain, tls.pem_to_der(pem), key, time.time_ns() // 1_000_000 + 60_000)


def _operator_key(network: Testnet) -> SigningKey:
    return key_files.load_signing_key(network.home("um").people / "operator.key")


class CallRefused(Exception):
    """Status and rule of a call that the node refused."""


def _call(network: Testnet, stub: type, method: str, request: object, proof: bytes | None = None) -> object:
    """One call, by default with the ticket of um's operator. Raises CallRefused."""
    proof = _ticket(network, _operator_key(network)) if proof is None else proof
    metadata = ((ticket.METADATA_KEY, proof),) if proof else ()
    with _channel(network) as channel:
        try:
            return getattr(stub(channel), method)(request, timeout=60, metadata=metadata)
        except grpc.RpcError as error:
            trailers: Any = dict(cast(Any, error.trailing_metadata()))
            assert trailers[HINT_KEY], "every refusal says what to do"
            raise CallRefused(f"{error.code().name} {trailers[RULE_KEY].decode()}") from None


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda network: b"", "bad-ticket"),
        (lambda network: b"\xff\xff", "bad-ticket"),
        (lambda network: b"\x0a\x03abc", "ticket-expired"),
        (lambda network: _ticket(network, SigningKey.generate()), "unknown-key"),
        (lambda network: _ticket(network, _operator_key(network), "other-0123456789abcdef"), "bad-ticket"),
    ],
    ids=["none", "garbage", "half", "stranger", "other chain"],
)
def test_a_call_without_a_members_ticket_is_refused(
    network: Testnet, make: Callable[[Testnet], bytes], rule: str
) -> None:
    with pytest.raises(CallRefused, match=f"UNAUTHENTICATED {rule}"):
        _call(network, services_pb2_grpc.NodeServiceStub, "GetStatus", services_pb2.GetStatusRequest(), make(network))


def test_the_peer_port_speaks_to_nobody_without_a_members_certificate(network: Testnet) -> None:
    with _channel(network, port="peer") as channel:
        hello = peer_pb2.DeliverRequest(hello=peer_pb2.Hello(institution="iu"))
        with pytest.raises(grpc.RpcError) as refused:
            peer_pb2_grpc.PeerServiceStub(channel).Deliver(iter([hello]), timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_health_and_reflection_answer_without_a_ticket(network: Testnet) -> None:
    with _channel(network) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "koinon.v1.TransactionService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=60)))
        listed = {item.name for item in answer.list_services_response.service}
        assert {"koinon.v1.NodeService", "koinon.v1.AuditService", "grpc.health.v1.Health"} <= listed


# --- logs


def test_logs_are_json_lines_and_hold_no_payload(network: Testnet) -> None:
    secret = key_files.load_signing_key(network.home("um").people / "operator.key").secret
    for institution in network.institutions:
        log = Path(network.home(institution).log / "node.log").read_text(encoding="utf-8")
        events = [json.loads(line) for line in log.splitlines()]
        assert {"node started", "peer connected", "block"} <= {event["event"] for event in events}
        assert secret.hex() not in log
        assert "while-down" not in log
