"""The whole path through the real command and four real nodes: publish, find, ask, compute, revoke, prove."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import koinon
from koinon.aio import Progress, tasks
from koinon.cli import main
from koinon.errors import Refused
from koinon.v1.task_pb2 import TaskStatus
from testnet.data import PATIENTS, descriptor_path, table_path
from testnet.network import Testnet
from tests.cli.people import People

TABLE = "ercp.indo_rct"
SQL = (
    "SELECT rx, COUNT(*) AS n, SUM(CASE WHEN outcome = '1_yes' THEN 1 ELSE 0 END) AS pep, AVG(age) AS age "
    f"FROM {TABLE} GROUP BY rx"
)


class Consortium(People):
    """People of four institutions that published one table each."""

    def token(self, institution: str, status: str = "active") -> str:
        tokens = self.data("analyst", "access", "list", "--mine", "--dataset", f"{institution}.{TABLE}")["tokens"]
        return str(next(token["id"] for token in tokens if token["status"] == status))


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Four institutions; each has published its table, and the analyst holds a token of every one."""
    with Testnet.create(tmp_path_factory.mktemp("consortium"), tuple(PATIENTS)) as network:
        four = Consortium(network)
        for institution in PATIENTS:
            access = "review" if institution == "uk" else "auto"
            arguments = ["--name", TABLE, "--descriptor", str(descriptor_path()), "--access", access]
            said = four.ok(f"{institution}-operator", "catalog", "publish", str(table_path(institution)), *arguments)
            assert said == f"published {institution}.{TABLE}, version 1\n"
        made = four.data("analyst", "access", "request", TABLE, "--purpose", "reproduce the trial", "--uses", "20")
        (waiting,) = [request for request in made if request["status"] == "open"]
        assert waiting["requested"]["dataset"] == f"uk.{TABLE}"
        four.ok("uk-operator", "access", "grant", waiting["id"][:12])
        yield four


def test_the_network_is_seen(consortium: Consortium) -> None:
    status = consortium.data("analyst", "status")
    assert status["faults_tolerated"] == 1
    assert [validator["institution"] for validator in status["validators"]] == sorted(PATIENTS)
    members = consortium.data("analyst", "member", "list")
    assert "um/analyst" in [person["id"] for person in members["people"]]


def test_only_metadata_is_found(consortium: Consortium) -> None:
    found = consortium.data("analyst", "catalog", "search", "pancreatitis")
    assert sorted(dataset["publisher"] for dataset in found) == sorted(PATIENTS)
    case = consortium.data("analyst", "catalog", "show", f"case.{TABLE}")["published"]
    assert (case["row_count"], case["row_count_step"]) == (0, 10)
    assert {c["name"]: c["codelist"] for c in case["columns"]}["rx"] == ["0_placebo", "1_indomethacin"]


def test_the_query_gives_the_paper_s_numbers(consortium: Consortium) -> None:
    rows = list(csv.DictReader(io.StringIO(consortium.ok("analyst", "query", SQL, "--format", "csv"))))
    assert [(row["rx"], row["n"], row["pep"]) for row in rows] == [
        ("0_placebo", "307", "52"),
        ("1_indomethacin", "295", "27"),
    ]
    (task, *_) = consortium.data("analyst", "task", "list", "--mine")
    assert task["status"] == "completed"
    assert all(party["output_digest"] for party in task["parties"])
    assert consortium.data("analyst", "task", "show", task["id"][:8]) == task


def test_that_the_result_was_received_is_on_the_ledger_and_proved_offline(
    consortium: Consortium, tmp_path: Path
) -> None:
    (task, *_) = consortium.data("analyst", "task", "list", "--mine", "--status", "completed")
    assert int(task["received_at_ms"]) >= int(task["ended_at_ms"])
    assert task["submitted"]["purpose"] == "reproduce the trial"
    found = consortium.data("regulator", "audit", "list", "--kind", "task.received", "--about", "reproduce the trial")
    assert f"task:{task['id']}" in [record["subject"] for record in found]
    file, genesis = tmp_path / "received.json", str(consortium.network.dir / "genesis.json")
    consortium.ok("analyst", "audit", "receipt", f"task:{task['id'][:10]}", "--out", str(file))
    proved = json.loads(CliRunner().invoke(main, ["audit", "verify", str(file), "--genesis", genesis, "--json"]).stdout)
    assert proved["record"]["kind"] == "task.received"
    assert proved["record"]["detail"] == ", ".join(party["output_digest"] for party in task["parties"])


def test_the_sdk_gives_the_same_as_a_data_frame(consortium: Consortium) -> None:
    with koinon.connect(consortium.network.profile("analyst")) as client:
        result = client.query(SQL)
        assert result.to_pandas()["n"].tolist() == [307, 295]
        assert "0_placebo" in result._repr_html_()
        assert result.suppressed_groups == 0
        with pytest.raises(Refused) as caught:
            client.query(SQL.replace(TABLE, f"case.{TABLE}"))
        assert caught.value.rule == "minimum-cohort"


async def test_a_query_abandoned_while_nothing_is_decided_never_runs(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_CANCEL_S", 1.0)
    hanging = [consortium.network.pid(institution) for institution in ("iu", "uk")]

    def stall(progress: Progress) -> None:
        if progress.stage == "submitting":
            for node in hanging:
                os.kill(node, signal.SIGSTOP)

    async with await koinon.aio.connect(consortium.network.profile("analyst")) as client:
        before = {token.id: token.uses_left for token in await client.access.tokens()}
        try:
            query = asyncio.create_task(client.query(SQL, on_progress=stall))
            async with asyncio.timeout(60):
                while not (await client.status()).pending_transactions:
                    await asyncio.sleep(0.05)
            query.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await query
        finally:
            for node in hanging:
                os.kill(node, signal.SIGCONT)
        task_id = str(caught.value.__cause__).split()[1]
        async with asyncio.timeout(60):
            while (await client.status()).pending_transactions:
                await asyncio.sleep(0.05)
        task = await client.tasks.wait(task_id)
        assert task.status == TaskStatus.TASK_STATUS_CANCELLED
        assert {token.id: token.uses_left for token in await client.access.tokens()} == before


def test_a_dry_run_leaves_no_trace(consortium: Consortium) -> None:
    before = len(consortium.data("analyst", "task", "list"))
    plan = consortium.ok("analyst", "query", SQL, "--dry-run")
    assert "any 1 of them together learn nothing" in plan
    assert len(consortium.data("analyst", "task", "list")) == before


@pytest.mark.parametrize(
    ("who", "code", "rule", "arguments"),
    [
        ("analyst", 4, "minimum-cohort", ["query", SQL.replace(TABLE, f"case.{TABLE}")]),
        ("analyst", 2, "unsupported-query", ["query", f"SELECT age FROM {TABLE}"]),
        ("analyst", 2, "unsupported-query", ["query", f"DROP TABLE {TABLE}"]),
        ("analyst", 3, "not-found", ["query", "SELECT COUNT(*) FROM ercp.absent"]),
        ("analyst", 3, "unknown-column", ["query", f"SELECT AVG(weight) FROM {TABLE}"]),
        ("analyst", 4, "no-codelist", ["query", f"SELECT age, COUNT(*) FROM {TABLE} GROUP BY age"]),
        ("um-operator", 4, "token-missing", ["query", SQL]),
        ("analyst", 3, "not-found", ["catalog", "show", "um.ercp.absent"]),
        ("analyst", 2, "invalid-name", ["catalog", "show", "indo_rct"]),
        ("analyst", 4, "permission", ["catalog", "publish", str(table_path("um")), "--name", "a.b", "--title", "T"]),
        ("analyst", 4, "permission", ["catalog", "withdraw", TABLE, "--reason", "r"]),
        ("iu-operator", 4, "permission", ["catalog", "withdraw", f"um.{TABLE}", "--reason", "r"]),
        ("analyst", 3, "not-found", ["access", "request", "mars.ercp.indo_rct", "--purpose", "p"]),
        ("analyst", 3, "not-found", ["access", "request", f"um.{TABLE}", "--purpose", "p", "--columns", "weight"]),
        ("analyst", 4, "policy", ["access", "request", f"um.{TABLE}", "--purpose", "p", "--uses", "5000"]),
        ("um-operator", 3, "not-found", ["access", "grant", "ffffffffffffffff"]),
        ("analyst", 3, "not-found", ["task", "show", "ffffffffffffffff"]),
        ("regulator", 3, "not-found", ["audit", "receipt", "999999"]),
        ("analyst", 4, "permission", ["member", "register", "um/eve", "ab" * 32, "--roles", "operator"]),
    ],
)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    consortium: Consortium, who: str, code: int, rule: str, arguments: list[str]
) -> None:
    consortium.refused(who, code, rule, *arguments)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a,b\n1,2\n1,2,3\n", "3"),
        (b"a,b\n\xff\xfe,2\n", "UTF-8"),
        (b"a,a\n1,2\n", "a"),
        (b"a,b\n", "row"),
        (b"a b,c\n1,2\n", "a b"),
    ],
)
def test_bad_files_are_refused_by_name(consortium: Consortium, tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    result = consortium.run("um-operator", "catalog", "publish", str(file), "--name", "c.bad", "--title", "T")
    assert result.exit_code == 2, result.stderr
    assert says in result.stderr.splitlines()[-2]
    consortium.refused("um-operator", 3, "not-found", "catalog", "show", "um.c.bad")


def test_a_profile_of_another_person_s_key_is_refused(consortium: Consortium, tmp_path: Path) -> None:
    key = tmp_path / "eve.key"
    CliRunner().invoke(main, ["key", "make", str(key), "--no-passphrase"])
    text = consortium.network.profile("analyst").read_text()
    directory = consortium.network.profile("analyst").parent
    stolen = directory / "eve.toml"
    stolen.write_text("\n".join(f'key_file = "{key}"' if "key_file" in line else line for line in text.splitlines()))
    result = CliRunner().invoke(main, ["status", "--profile", str(stolen)])
    stolen.unlink()
    assert result.exit_code == 5
    assert "[unknown-key]" in result.stderr


def test_a_new_person_joins_and_leaves(consortium: Consortium, tmp_path: Path) -> None:
    key = tmp_path / "ada.key"
    public_key = CliRunner().invoke(main, ["key", "make", str(key), "--no-passphrase"]).stdout.strip()
    consortium.ok("um-operator", "member", "register", "um/ada", public_key, "--roles", "analyst")
    text = consortium.network.profile("analyst").read_text().replace("um/analyst", "um/ada")
    profile = consortium.network.profile("analyst").parent / "ada.toml"
    profile.write_text("\n".join(f'key_file = "{key}"' if "key_file" in line else line for line in text.splitlines()))
    assert "um.ercp" in consortium.ok("ada", "catalog", "search", "ERCP")
    consortium.ok("um-operator", "member", "revoke", "um/ada", "--reason", "left")
    assert consortium.run("ada", "catalog", "search").exit_code == 5


def test_a_narrowed_grant_and_a_denial(consortium: Consortium) -> None:
    (request,) = consortium.data("analyst", "access", "request", f"uk.{TABLE}", "--purpose", "less")
    token = consortium.data("uk-operator", "access", "grant", request["id"], "--operations", "count", "--uses", "1")
    assert (token["operations"], token["uses_left"]) == (["count"], 1)
    (request,) = consortium.data("analyst", "access", "request", f"uk.{TABLE}", "--purpose", "more")
    consortium.refused("um-operator", 4, "permission", "access", "deny", request["id"], "--reason", "not mine")
    denied = consortium.data("uk-operator", "access", "deny", request["id"], "--reason", "no ethics approval")
    assert (denied["status"], denied["reason"]) == ("denied", "no ethics approval")


def test_receipts_verify_offline_and_forgeries_do_not(consortium: Consortium, tmp_path: Path) -> None:
    records = consortium.data("regulator", "audit", "list", f"um.{TABLE}")
    assert records[0]["kind"] == "dataset.published"
    file, genesis = tmp_path / "receipt.json", consortium.network.dir / "genesis.json"
    consortium.ok("regulator", "audit", "receipt", str(records[0]["index"]), "--out", str(file))
    offline = CliRunner(env={"KOINON_PROFILE": ""})
    arguments = ["audit", "verify", str(file), "--genesis", str(genesis)]
    proved = offline.invoke(main, arguments)
    assert proved.exit_code == 0, proved.stderr
    assert "dataset.published" in proved.stdout
    assert json.loads(offline.invoke(main, [*arguments, "--json"]).stdout)["record"] == records[0]
    receipt = json.loads(file.read_text())
    receipt["path"] = receipt["path"][::-1]
    file.write_text(json.dumps(receipt))
    forged = offline.invoke(main, arguments)
    assert forged.exit_code == 8
    assert "[invalid-receipt]" in forged.stderr


def test_a_revoked_token_refuses_the_next_query_and_the_trail_tells(consortium: Consortium, tmp_path: Path) -> None:
    token = consortium.token("um")
    consortium.ok("um-operator", "access", "revoke", token[:10], "--reason", "the study is over")
    error = consortium.refused("analyst", 4, "token-revoked", "query", SQL)
    assert token in error
    trail = consortium.data("regulator", "audit", "list", f"um.{TABLE}", "--kind", "token.")
    assert (trail[-1]["kind"], trail[-1]["subject"]) == ("token.revoked", f"token:{token}")
    file, genesis = tmp_path / "token.json", str(consortium.network.dir / "genesis.json")
    consortium.ok("analyst", "audit", "receipt", f"token:{token[:10]}", "--out", str(file))
    proved = json.loads(CliRunner().invoke(main, ["audit", "verify", str(file), "--genesis", genesis, "--json"]).stdout)
    assert (proved["granted"]["subject"], proved["end"]["kind"]) == (f"token:{token}", "token.revoked")
    assert "no receipt for" in consortium.refused("analyst", 2, "invalid-input", "audit", "receipt", "token")
    assert consortium.data("analyst", "audit", "head")["height"] > trail[-1]["height"]
    consortium.ok("analyst", "access", "request", f"um.{TABLE}", "--purpose", "reproduce the trial")
    assert "rows from 4 datasets" in consortium.run("analyst", "query", SQL).stderr


def test_a_withdrawn_dataset_cannot_be_used(consortium: Consortium, tmp_path: Path) -> None:
    file = tmp_path / "small.csv"
    file.write_text("x\n" + "".join(f"{number}\n" for number in range(50)))
    arguments = ["--name", "c.small", "--title", "Small", "--access", "auto"]
    consortium.ok("um-operator", "catalog", "publish", str(file), *arguments)
    consortium.ok("analyst", "access", "request", "um.c.small", "--purpose", "p")
    assert consortium.ok("analyst", "query", "SELECT SUM(x) AS s FROM um.c.small", "--format", "csv") == "s\n1225\n"
    consortium.ok("um-operator", "catalog", "withdraw", "c.small", "--reason", "wrong file")
    consortium.refused("analyst", 4, "dataset-withdrawn", "query", "SELECT SUM(x) AS s FROM um.c.small")
    assert consortium.data("analyst", "catalog", "search", "Small") == []


def test_a_file_changed_behind_the_node_s_back_fails_the_task_by_name(consortium: Consortium, tmp_path: Path) -> None:
    file = tmp_path / "changed.csv"
    file.write_text("x\n" + "1\n" * 50)
    arguments = ["--name", "c.changed", "--title", "Changed", "--access", "auto"]
    consortium.ok("um-operator", "catalog", "publish", str(file), *arguments)
    consortium.ok("analyst", "access", "request", "um.c.changed", "--purpose", "p")
    entry = consortium.data("analyst", "catalog", "show", "um.c.changed")["published"]
    content = consortium.network.home("um").path / "datasets" / entry["commitment"] / "content"
    content.write_text("x\n" + "2\n" * 50)
    consortium.refused("analyst", 4, "dataset-changed", "query", "SELECT SUM(x) AS s FROM um.c.changed")
    (token,) = consortium.data("analyst", "access", "list", "--mine", "--dataset", "um.c.changed")["tokens"]
    assert token["uses_left"] == token["uses_granted"]


def test_a_regulator_reads_by_any_dimension_and_that_is_recorded(consortium: Consortium, tmp_path: Path) -> None:
    ask = ["--where", "institution=iu", "--outcome", "published", "--purpose", "complaint 7"]
    (published, *_) = consortium.data("regulator", "audit", "list", *ask, "--receipts", str(tmp_path / "proofs"))
    assert (published["kind"], published["actor"]) == ("dataset.published", "iu/operator")
    proof = tmp_path / "proofs" / f"record-{published['index']}.json"
    assert "dataset.published" in consortium.ok("analyst", "audit", "verify", str(proof))
    readings = consortium.data("iu-operator", "audit", "list", "--kind", "audit.read", "--newest", "--limit", "1")
    assert readings[0]["actor"] == "um/regulator"
    assert readings[0]["related"] == ["institution:iu"]
    assert readings[0]["detail"] == "list institution=iu outcome=published: complaint 7"
    newest = consortium.data("um-operator", "audit", "list", "--newest", "--limit", "3")
    assert [record["index"] for record in newest] == sorted((record["index"] for record in newest), reverse=True)


def test_records_are_counted(consortium: Consortium) -> None:
    by_kind = consortium.data("regulator", "audit", "stats", "--kind", "dataset.")
    counted = {group["value"]: group["records"] for group in by_kind["groups"]}
    listed = consortium.data("um-operator", "audit", "list", "--kind", "dataset.")
    assert counted["dataset.published"] == sum(record["kind"] == "dataset.published" for record in listed)
    assert by_kind["records"] == len(listed)
    assert "institution" in consortium.ok("um-operator", "audit", "stats", "--by", "institution").lower()
    consortium.refused("analyst", 4, "permission", "audit", "stats")


def test_a_case_is_gathered_verified_and_read_by_others(consortium: Consortium, tmp_path: Path) -> None:
    consortium.ok("analyst", "query", SQL)
    task = consortium.data("analyst", "task", "list", "--mine")[0]["id"]
    file, genesis = tmp_path / "case.json", str(consortium.network.dir / "genesis.json")
    consortium.ok("regulator", "audit", "case", f"task:{task}", "--out", str(file))
    offline = CliRunner(env={"KOINON_PROFILE": ""})
    proved = json.loads(offline.invoke(main, ["audit", "verify", str(file), "--genesis", genesis, "--json"]).stdout)
    assert proved["kind"] == "case"
    assert {subject.partition(":")[0] for subject in proved["scope"]} >= {"task", "token"}
    assert "no other" in consortium.ok("iu-operator", "audit", "verify", str(file), "--compare")
    prov = json.loads(consortium.ok("regulator", "audit", "case", f"task:{task}", "--format", "prov"))
    assert f"k:task/{task}" in prov["entity"]
    page = consortium.ok("regulator", "audit", "case", f"um.{TABLE}", "--format", "html")
    assert page.startswith("<!doctype html>")
    case = json.loads(file.read_text())
    del case["proved"]["records"][1]
    file.write_text(json.dumps(case))
    result = consortium.run("iu-operator", "audit", "verify", str(file), "--compare")
    assert result.exit_code == 8
    consortium.refused("regulator", 3, "not-found", "audit", "case", "task:" + "0" * 32)


def test_an_export_is_for_other_programs(consortium: Consortium, tmp_path: Path) -> None:
    file = tmp_path / "trail.csv"
    consortium.ok("um-operator", "audit", "export", f"um.{TABLE}", "--format", "csv", "--out", str(file))
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    lines = consortium.ok("um-operator", "audit", "export", f"um.{TABLE}").splitlines()
    assert [int(row["index"]) for row in rows] == [json.loads(line)["index"] for line in lines]
    assert rows[0]["kind"] == "dataset.published"
    assert "activity" in json.loads(consortium.ok("um-operator", "audit", "export", "--format", "prov"))


def test_a_stream_is_recorded_once_and_goes_on_where_it_ended(consortium: Consortium) -> None:
    with koinon.connect(consortium.network.profile("regulator")) as regulator:
        stream = regulator.audit.watch("person:um/watched", new_only=True, purpose="a tip")
        with koinon.connect(consortium.network.profile("um-operator")) as operator:
            waiting = regulator.audit.list("person:um/watched")
            operator.members.register("um/watched", bytes(range(32)), ["analyst"])
        assert waiting[-1].kind == "audit.read"
        seen = regulator.audit.watch("person:um/watched", purpose="a tip")
        kinds = [next(seen).kind for _ in range(len(waiting) + 1)]
        assert "audit.read" in kinds
        later = regulator.audit.watch("person:um/watched", kind="person.registered", from_index=waiting[-1].index)
        assert next(later).kind == "person.registered"
        del stream


def test_a_membership_is_a_credential(consortium: Consortium, tmp_path: Path) -> None:
    file, genesis = tmp_path / "membership.json", str(consortium.network.dir / "genesis.json")
    consortium.ok("um-operator", "member", "credential", "um/analyst", "--out", str(file))
    offline = CliRunner(env={"KOINON_PROFILE": ""})
    proved = json.loads(offline.invoke(main, ["audit", "verify", str(file), "--genesis", genesis, "--json"]).stdout)
    assert (proved["person"], proved["roles"], proved["operator"]) == ("um/analyst", ["analyst"], "um/operator")
    assert consortium.ok("analyst", "member", "did", "um/analyst").strip() == proved["subject"]
    assert consortium.ok("analyst", "member", "did", "um").startswith("did:key:z6Mk")
    file.write_text(file.read_text().replace('"analyst"', '"operator"', 1))
    assert offline.invoke(main, ["audit", "verify", str(file), "--genesis", genesis]).exit_code == 8
    consortium.refused("iu-operator", 8, "invalid-credential", "member", "credential", "um/analyst")
