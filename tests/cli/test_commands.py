"""Each command against a scripted node: what it sends, and what it says."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from koinon import profile, submission
from koinon.display import plain
from koinon.errors import InvalidFile, Refused, Unavailable
from koinon.limits import MAX_CASE_RECORDS
from koinon.v1 import services_pb2 as services
from koinon.v1.access_pb2 import AccessRequest, Token
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.catalog_pb2 import Dataset, PublishDataset
from koinon.v1.demand_pb2 import Demand
from koinon.v1.dispute_pb2 import Dispute
from koinon.v1.identity_pb2 import Institution, InstitutionDescriptor
from koinon.v1.task_pb2 import Task, TaskStatus
from koinon.v1.transaction_pb2 import Refusal, TransactionBody, TransactionStatus
from tests.cli.conftest import Run
from tests.koinon.fake_node import FakeNode, committed, rejected
from tests.koinon.test_client import STAGED
from tests.koinon.test_query import SQL, Consortium


def test_status_shows_what_the_network_tolerates(ask: Run, node: FakeNode) -> None:
    node.answers["NodeService/GetStatus"] = services.GetStatusResponse(
        institution="um", height=41, faults_tolerated=1, peers=[services.PeerStatus(institution="iu", connected=True)]
    )
    result = ask("status")
    assert "height 42, round 0" in result.stdout
    assert "goes on with 1 faulty" in result.stdout
    assert json.loads(ask("status", "--json").stdout)["height"] == 41


def test_status_of_a_transaction(ask: Run, node: FakeNode) -> None:
    refusal = Refusal(rule="token-expired", message="the token is over", hint="ask again")
    rejected_status = TransactionStatus.TRANSACTION_STATUS_REJECTED
    info = services.TransactionInfo(transaction_id=b"t" * 32, status=rejected_status, refusal=refusal)
    node.answers["TransactionService/GetTransactions"] = services.GetTransactionsResponse(transactions=[info])
    result = ask("status", "--transaction", (b"t" * 32).hex())
    assert "rejected: final, without effect" in result.stdout
    assert result.stderr == "error: the token is over [token-expired]\nhint: ask again\n"
    assert ask("status", "--transaction", "xyz").exit_code == 2


def publishing(node: FakeNode) -> None:
    node.answers["DatasetService/StageDataset"] = lambda parts: (list(parts), STAGED)[1]
    node.answers["GovernanceService/GetConstitution"] = services.GetConstitutionResponse()
    published = PublishDataset(name="um.ercp.indo_rct")
    node.answers["CatalogService/GetDataset"] = services.GetDatasetResponse(
        dataset=Dataset(published=published, version=1)
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "um.csv"
    file.write_text("rx,age\n0,60\n")
    return file


def test_publish_shows_what_was_found_and_publishes_only_what_was_confirmed(
    ask: Run, node: FakeNode, table: Path, tmp_path: Path
) -> None:
    publishing(node)
    descriptor = tmp_path / "d.toml"
    descriptor.write_text('title = "From the file"\nkeywords = ["ercp"]\n[columns.age]\nunit = "a"\n')
    arguments = ["catalog", "publish", str(table), "--name", "ercp.indo_rct", "--descriptor", str(descriptor)]
    result = ask(*arguments, "--access", "auto", "--min-cohort", "7", "--title", "From the option")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "published um.ercp.indo_rct, version 1\n"
    assert "not published (2 values, the rarest in 80 rows)" in result.stderr
    assert "164 rows in the file; the catalog will say 160-169" in result.stderr
    entry = node.received[0].operations[0].publish_dataset
    assert (entry.title, list(entry.keywords), entry.columns[1].unit) == ("From the option", ["ercp"], "a")
    assert (entry.policy.mode, entry.policy.min_cohort, list(entry.policy.operations)) == (1, 7, [1, 2, 3, 4, 5])
    assert not entry.columns[0].codelist
    assert ask(*arguments, "--codelist", "rx", "--operations", "count,group_by").exit_code == 0
    entry = node.received[1].operations[0].publish_dataset
    assert list(entry.columns[0].codelist) == ["0", "1"]
    assert list(entry.policy.operations) == [1, 5]


@pytest.mark.parametrize(
    ("change", "rule", "says"),
    [
        ({"file": "absent.csv"}, "invalid-file", "No such file"),
        ({"file": "folder.csv"}, "invalid-file", "Is a directory"),
        ({"file": "empty.csv"}, "invalid-file", "is empty"),
        ({"file": "um.txt"}, "invalid-file", "neither .csv nor .parquet"),
        ({"--name": "indo_rct"}, "invalid-name", "not a table name"),
        ({"--name": "ERCP.Indo"}, "invalid-name", "not a table name"),
        ({"--title": ""}, "invalid-input", "needs a title"),
        ({"--codelist": "sex"}, "not-found", "no column 'sex'"),
        ({"--codelist": "age"}, "invalid-input", "too many different values"),
        ({"--operations": "median"}, "invalid-input", "no operation"),
        ({"--min-cohort": "0"}, "invalid-input", "--min-cohort"),
        ({"--descriptor": "absent.toml"}, "invalid-file", "cannot be read"),
        ({"--access": "open"}, "invalid-input", "'open'"),
    ],
)
def test_a_wrong_publication_changes_nothing(
    ask: Run, node: FakeNode, table: Path, tmp_path: Path, change: dict[str, str], rule: str, says: str
) -> None:
    publishing(node)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "um.txt").write_text("x")
    options = {"--name": "ercp.indo_rct", "--title": "T"} | {k: v for k, v in change.items() if k != "file"}
    result = ask("catalog", "publish", str(tmp_path / change.get("file", "um.csv")), *sum(options.items(), ()))
    assert result.exit_code in (2, 3)
    assert f"[{rule}]" in result.stderr
    assert says in result.stderr
    assert not node.received


def test_what_the_node_finds_wrong_with_a_file_is_shown(ask: Run, node: FakeNode, table: Path) -> None:
    node.answers["DatasetService/StageDataset"] = InvalidFile("line 3 has 4 values, the header 5", hint="correct it")
    result = ask("catalog", "publish", str(table), "--name", "c.t", "--title", "T")
    assert result.exit_code == 2
    assert result.stderr.endswith("error: line 3 has 4 values, the header 5 [invalid-file]\nhint: correct it\n")
    assert not node.received


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["access", "grant", "ab", "--uses", "2", "--operations", "count"], {"uses": 2, "operations": ["count"]}),
        (["access", "deny", "ab", "--reason", "no ethics approval"], {"reason": "no ethics approval"}),
        (["access", "revoke", "cd", "--reason", "over"], {"token_id": "cd" * 16, "reason": "over"}),
        (["access", "counter", "ab", "--uses", "3", "--operations", "count", "--price", "free"], {"note": ""}),
        (["access", "accept", "ab", "--offer", "2"], {"request_id": "ab" * 16, "offer": 2}),
        (["access", "withdraw", "ab"], {"request_id": "ab" * 16}),
        (
            ["catalog", "verify", "iu.c.t", "--outcome", "contested", "--method", "by eye", "--evidence", "/dev/null"],
            {"dataset": "iu.c.t", "outcome": "contested", "evidence_digest": hashlib.sha256().hexdigest()},
        ),
        (["catalog", "unverify", "iu.c.t", "--version", "2", "--reason", "wrong"], {"version": 2, "reason": "wrong"}),
        (
            ["demand", "post", "Ages", "--purpose", "to learn", "--columns", "b,a", "--themes", "HEAL", "--days", "1"],
            {"columns": ["a", "b"], "themes": ["HEAL"], "duration_ms": 86_400_000, "budget": 0},
        ),
        (["demand", "withdraw", "12"], {"demand_id": "12" * 16}),
        (
            ["dispute", "open", "--token", "cd", "--claim", "wrong", "--seek", "revocation,refund"],
            {"respondent": "iu", "remedies": ["refund", "revocation"], "token_id": "cd" * 16},
        ),
        (["dispute", "answer", "34", "--statement", "true", "--concede"], {"concede": True, "statement": "true"}),
        (["dispute", "rule", "34", "--order", "refund", "--reason", "seen"], {"remedies": ["refund"]}),
        (["dispute", "rule", "34", "--reason", "seen"], {"remedies": []}),
        (["dispute", "withdraw", "34"], {"dispute_id": "34" * 16}),
        (["task", "cancel", "ef", "--reason", "mistake"], {"task_id": "ef" * 16}),
        (["catalog", "withdraw", "c.t", "--reason", "wrong file"], {"name": "um.c.t", "reason": "wrong file"}),
        (["member", "register", "um/ada", "ab" * 32, "--roles", "analyst"], {}),
        (["member", "revoke", "um/ada", "--reason", "left"], {"person_id": "um/ada"}),
        (["member", "move", "--peer", "new:1"], {"peer_address": "new:1", "rpc_address": "a:1", "mpc_address": "a:3"}),
    ],
)
def test_decisions_are_one_signed_transaction(
    ask: Run, node: FakeNode, arguments: list[str], expected: dict[str, Any]
) -> None:
    people = services.ListPeopleResponse()
    people.people.add().id = "um/ada"
    own = InstitutionDescriptor(id="um", rpc_address="a:1", peer_address="a:2", mpc_address="a:3")
    institutions = services.ListInstitutionsResponse(institutions=[Institution(descriptor=own)])
    node.answers |= {
        "AccessService/ListRequests": services.ListRequestsResponse(
            requests=[AccessRequest(id="ab" * 16, token_id="cd" * 16)]
        ),
        "AccessService/ListTokens": services.ListTokensResponse(
            tokens=[Token(id="cd" * 16, holder="um/analyst", dataset="iu.c.t")]
        ),
        "DemandService/ListDemands": services.ListDemandsResponse(demands=[Demand(id="12" * 16)]),
        "DisputeService/ListDisputes": services.ListDisputesResponse(disputes=[Dispute(id="34" * 16)]),
        "TaskService/GetTask": services.GetTaskResponse(task=Task(id="ef" * 16)),
        "CatalogService/GetDataset": services.GetDatasetResponse(dataset=Dataset()),
        "MemberService/ListPeople": people,
        "MemberService/ListInstitutions": institutions,
    }
    result = ask(*arguments)
    assert result.exit_code == 0, result.stderr
    ((operation,),) = [body.operations for body in node.received]
    sent = plain(getattr(operation, operation.WhichOneof("operation") or ""))
    assert sent.items() >= expected.items()
    node.decide = rejected("permission", "um/analyst may not", "ask an operator")
    refused = ask(*arguments)
    assert refused.exit_code == 4
    assert refused.stderr == "error: um/analyst may not [permission]\nhint: ask an operator\n"


@pytest.mark.parametrize("arguments", [[], ["--peer", "nowhere"], ["--rpc", "a:99999"]])
def test_a_move_to_nowhere_is_refused(ask: Run, node: FakeNode, arguments: list[str]) -> None:
    result = ask("member", "move", *arguments)
    assert result.exit_code == 2
    assert "hint:" in result.stderr
    assert not node.received


def test_query_formats(ask: Run, node: FakeNode) -> None:
    outputs = {}
    for name in ("table", "csv", "json"):
        node.received.clear()
        Consortium(node)
        result = ask("query", SQL, "--format", name)
        assert result.exit_code == 0, result.stderr
        outputs[name] = result.stdout
    assert "45.270001" in outputs["table"]
    assert outputs["csv"] == "rx,n,mean,years\n1_indo,295,45.270001,13355\n,307,,-4\n"
    assert json.loads(outputs["json"])["rows"][0] == {"rx": "1_indo", "n": 295, "mean": "45.270001", "years": 13355}


def test_query_reads_stdin_and_dry_run_submits_nothing(ask: Run, node: FakeNode) -> None:
    consortium = Consortium(node)
    result = ask("query", "-", "--dry-run", stdin=SQL)
    assert result.exit_code == 0, result.stderr
    assert "any 1 of them together learn nothing" in result.stdout
    assert consortium.plan.steps[0].description in result.stdout
    assert not node.received
    assert json.loads(ask("query", SQL, "--dry-run", "--json").stdout)["plan"]["min_cohort"] == 10


def started(node: FakeNode, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own, which can be interrupted."""
    command = [sys.executable, "-c", "from koinon.cli import main; main()", *arguments]
    environment = os.environ | {profile.ENVIRONMENT: str(node.profile)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_interrupted_query_cancels_its_task(node: FakeNode) -> None:
    consortium = Consortium(node)
    consortium.statuses = [TaskStatus.TASK_STATUS_RUNNING]
    following, cancelled = threading.Event(), threading.Event()

    def follow(request: services.GetTaskRequest) -> services.GetTaskResponse:
        following.set()
        cancelled.wait(1)  # a long poll
        return services.GetTaskResponse(task=consortium.task())

    def decide(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        if body.operations[0].HasField("cancel_task"):
            cancelled.set()
        return committed(transaction_id, body)

    node.answers["TaskService/GetTask"] = follow
    node.decide = decide
    process = started(node, "query", SQL)
    assert following.wait(60)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert cancelled.is_set()
    assert process.returncode == 130
    assert stderr.strip() == "interrupted"


def test_an_interrupted_write_says_that_it_may_still_be_decided(node: FakeNode) -> None:
    following, interrupted = threading.Event(), threading.Event()
    pending = TransactionStatus.TRANSACTION_STATUS_PENDING

    def decide(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        return services.TransactionInfo(transaction_id=transaction_id, status=pending)

    def poll(request: services.GetTransactionsRequest) -> services.GetTransactionsResponse:
        following.set()
        interrupted.wait(1)  # a long poll
        infos = [services.TransactionInfo(transaction_id=name, status=pending) for name in request.transaction_ids]
        return services.GetTransactionsResponse(transactions=infos)

    node.decide = decide
    node.answers["TransactionService/GetTransactions"] = poll
    process = started(node, "member", "revoke", "um/someone", "--reason", "left", "--json")
    assert following.wait(60)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    interrupted.set()
    (transaction_id,) = node._decided
    first, error, hint = stderr.strip().splitlines()
    assert process.returncode == 130
    assert stdout == ""
    assert first == "interrupted"
    assert (
        error == f"error: transaction {transaction_id.hex()} was sent, and not yet decided when waiting for it ended "
        "[status-unknown]"
    )
    assert hint.startswith(f"hint: koinon status --transaction {transaction_id.hex()} tells what became of it; it can")


def test_a_write_that_waits_long_says_so_once_beside_its_data(
    ask: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "_UNDECIDED_S", 0)
    polls: list[services.GetTransactionsRequest] = []

    def decide(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        info = committed(transaction_id, body)
        info.status = TransactionStatus.TRANSACTION_STATUS_PENDING
        return info

    def poll(request: services.GetTransactionsRequest) -> services.GetTransactionsResponse:
        polls.append(request)
        (info,) = node._decided.values()
        if len(polls) == 3:
            info.status = TransactionStatus.TRANSACTION_STATUS_COMMITTED
        return services.GetTransactionsResponse(transactions=[info])

    node.decide = decide
    node.answers["TransactionService/GetTransactions"] = poll
    node.answers["MemberService/ListPeople"] = people = services.ListPeopleResponse()
    people.people.add().id = "um/ada"
    result = ask("member", "revoke", "um/ada", "--reason", "left", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "the ledger has not decided yet; koinon why-stalled tells why\n"
    assert json.loads(result.stdout)


def test_a_refused_query_names_the_rule(ask: Run, node: FakeNode) -> None:
    node.answers["QueryService/PlanQuery"] = Refused("only 3 rows", rule="minimum-cohort", hint="ask more institutions")
    result = ask("query", SQL)
    assert result.exit_code == 4
    assert result.stderr == "error: only 3 rows [minimum-cohort]\nhint: ask more institutions\n"


@pytest.mark.parametrize(
    ("subject", "asked"),
    [
        ("um.ercp.indo_rct", "dataset:um.ercp.indo_rct"),
        ("um/analyst", "person:um/analyst"),
        ("um", "institution:um"),
        ("task:00", "task:00*"),
        ("", ""),
    ],
)
def test_audit_subjects_are_written_as_usual(ask: Run, node: FakeNode, subject: str, asked: str) -> None:
    heard: list[services.ListRecordsRequest] = []

    def answer(request: services.ListRecordsRequest) -> services.ListRecordsResponse:
        heard.append(request)
        return services.ListRecordsResponse()

    node.answers["AuditService/ListRecords"] = answer
    assert ask("audit", "list", subject, "--since", "2026-11-21", "--until", "2026-11-21T12:30").exit_code == 0
    wanted = heard[0].filter
    assert [f"{item.dimension}:{value}" for item in wanted.dimensions for value in item.values] == [asked][
        : bool(asked)
    ]
    assert wanted.until_ms - wanted.since_ms == 12.5 * 3_600_000


@pytest.mark.parametrize("arguments", [["audit", "list", "ab" * 16], ["audit", "list", "--since", "yesterday"]])
def test_audit_refuses_what_it_does_not_understand(ask: Run, arguments: list[str]) -> None:
    result = ask(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_a_key_is_made_once_and_shows_its_public_half(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "ada.key"
    assert run("key", "make", str(file)).exit_code == 2  # no passphrase, nobody to ask
    assert not file.exists()
    made = run("key", "make", str(file), "--no-passphrase")
    assert len(bytes.fromhex(made.stdout.strip())) == 32
    assert run("key", "make", str(file)).stdout == made.stdout


# --- profiles


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["status"], 3, "no profile was given"),
        (["status", "--profile", "absent.toml"], 3, "no profile 'absent.toml'"),
        (["audit", "verify", "absent.json", "--genesis", "absent.json"], 2, "genesis file"),
        (["audit", "verify", "absent.json"], 3, "--genesis FILE"),
    ],
)
def test_missing_files_are_named(run: Run, arguments: list[str], code: int, says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert says in result.stderr


def test_a_node_that_is_down_is_one_line(ask: Run, node: FakeNode) -> None:
    node.close()
    result = ask("status")
    assert result.exit_code == 6
    assert f"no node answers at 127.0.0.1:{node.port} [node-down]" in result.stderr
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize("spoil", ["key", "genesis", "certificate"])
def test_a_spoilt_file_of_the_profile_is_named(ask: Run, node: FakeNode, tmp_path: Path, spoil: str) -> None:
    file = {"key": "analyst.key", "genesis": "genesis.json", "certificate": "certificate.pem"}[spoil]
    path = tmp_path / file
    path.write_text("{}")
    result = ask("status")
    assert result.exit_code == 2
    assert file in result.stderr
    assert len(result.stderr.splitlines()) == 2


def exported(node: FakeNode, count: int) -> None:
    """The audit log has so many records; they come in pages."""

    def page(request: services.ListRecordsRequest) -> services.ListRecordsResponse:
        first = request.filter.from_index
        last = min(first + request.page_size, count)
        records = [AuditRecord(index=index, kind="task.failed", related=["task:x"]) for index in range(first, last)]
        return services.ListRecordsResponse(records=records, next_index=last if last < count else 0)

    node.answers["AuditService/ListRecords"] = page


@pytest.mark.parametrize(
    ("form", "beginning", "lines"),
    [("jsonl", '{"index": 0, ', 1_203), ("csv", "index,height,", 1_204), ("prov", "{\n", None)],
)
def test_an_export_is_written_as_it_comes(
    ask: Run, node: FakeNode, tmp_path: Path, form: str, beginning: str, lines: int | None
) -> None:
    exported(node, 1_203)
    out = tmp_path / "out"
    result = ask("audit", "export", "--format", form, "--out", str(out))
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{out}\n", "1203 records\n")
    text = out.read_text()
    assert text.startswith(beginning)
    assert lines is None or len(text.splitlines()) == lines
    assert ask("audit", "export", "--format", form).stdout == text
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_an_export_that_ends_at_its_limit_says_so(ask: Run, node: FakeNode) -> None:
    exported(node, 1_203)
    assert "there may be more" in ask("audit", "export", "--limit", "600").stderr
    assert "there may be more" not in ask("audit", "export", "--limit", "1204").stderr


def test_an_export_that_breaks_leaves_no_file_and_one_that_exists_stays(
    ask: Run, node: FakeNode, tmp_path: Path
) -> None:
    exported(node, 1_203)
    whole = node.answers["AuditService/ListRecords"]
    first = services.ListRecordsRequest().filter.from_index

    def breaks(request: services.ListRecordsRequest) -> Any:
        return whole(request) if request.filter.from_index == first else Unavailable("gone")

    node.answers["AuditService/ListRecords"] = breaks
    out = tmp_path / "out.jsonl"
    assert ask("audit", "export", "--out", str(out)).exit_code == 6
    assert not [path for path in tmp_path.iterdir() if "out.jsonl" in path.name]
    node.answers["AuditService/ListRecords"] = whole
    out.write_text("mine")
    result = ask("audit", "export", "--out", str(out))
    assert result.exit_code == 2
    assert "[already-exists]" in result.stderr
    assert out.read_text() == "mine"


def test_provenance_is_one_document_and_bounded(
    ask: Run, node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(node, 7)
    monkeypatch.setattr("koinon.cli.case.MAX_CASE_RECORDS", 6)
    out = tmp_path / "trail.json"
    result = ask("audit", "export", "--format", "prov", "--out", str(out))
    assert result.exit_code == 7
    assert "--since" in result.stderr
    assert not out.exists()
    assert f"more than {MAX_CASE_RECORDS}" in " ".join(ask("audit", "export", "--help").stdout.split())


def test_a_watch_says_that_its_stream_broke_and_ends_with_what_it_saw(ask: Run, node: FakeNode) -> None:
    streams = iter([3, 5])

    def subscribe(_: services.SubscribeRequest) -> Any:
        if (index := next(streams, None)) is None:
            raise Refused("no more", rule="wrong-role")
        yield services.SubscribeResponse(record=AuditRecord(index=index), next_index=index + 1)
        raise Unavailable("the node stops")

    node.answers["EventService/Subscribe"] = subscribe
    result = ask("audit", "watch", "--json")
    assert result.exit_code == 4
    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == [3, 5]
    said = result.stderr.splitlines()
    assert said[0] == "the node stops: connecting again, for 60 s at most"
    assert said[1] == "the connection is there again: going on after record 3"
    assert said[3] == "the last one was 5: koinon audit watch --from 6 goes on after it"
