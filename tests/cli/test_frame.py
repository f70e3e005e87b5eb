"""The frame of every command: common options, errors and exit codes, other packages, hostile text."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

import click
import pytest

from koinon.cli import app, main, output
from koinon.errors import BY_STATUS, Refused
from koinon.v1 import services_pb2 as services
from koinon.v1.access_pb2 import AccessRequest, RequestAccess, Token
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.catalog_pb2 import AccessPolicy, Column, ColumnType, Dataset, PublishDataset
from koinon.v1.task_pb2 import SubmitTask, Task, TaskParty
from tests.cli.conftest import Run
from tests.koinon.fake_node import FakeNode
from tests.waiting import eventually

HOSTILE = "\x1b]0;owned\x07\x1b[31m\u202e\nerror: forged [bold red]markup[/]"
COMMANDS = {
    "init",
    "genesis",
    "node",
    "testnet",
    "demo",
    "status",
    "catalog",
    "access",
    "query",
    "task",
    "audit",
    "catalog.publish",
    "catalog.search",
    "catalog.show",
    "catalog.withdraw",
    "access.request",
    "access.list",
    "access.grant",
    "access.deny",
    "access.revoke",
    "task.list",
    "task.show",
    "task.cancel",
    "audit.list",
    "audit.receipt",
    "audit.verify",
}


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from every_command(child, (*path, name))


def hostile_dataset() -> Dataset:
    columns = [Column(name=HOSTILE, type=ColumnType.COLUMN_TYPE_TEXT, codelist=[HOSTILE], description=HOSTILE)]
    published = PublishDataset(
        name="um.c.t", title=HOSTILE, description=HOSTILE, keywords=[HOSTILE], columns=columns, policy=AccessPolicy()
    )
    return Dataset(published=published, publisher=HOSTILE, released_at_ms=2**62, version=2)


# --- the frame


def test_the_commands_of_the_issue_are_there() -> None:
    assert {".".join(path) for path in every_command(main)} >= COMMANDS


def test_every_command_takes_the_common_options_and_has_help(run: Run) -> None:
    for path in every_command(main):
        result = run(*path, "--help")
        assert result.exit_code == 0, path
        assert "--profile" in result.stdout, path
        assert "--json" in result.stdout, path
        assert not result.stderr


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"koinon {metadata.version('koinon')}\n"


@pytest.mark.parametrize("where", ["before", "after", "between"])
def test_common_options_work_before_and_after_the_subcommand(run: Run, node: FakeNode, where: str) -> None:
    node.answers["CatalogService/SearchDatasets"] = services.SearchDatasetsResponse(datasets=[hostile_dataset()])
    common = ("--profile", str(node.profile), "--json")
    arguments = {
        "before": (*common, "catalog", "search"),
        "between": ("catalog", *common, "search"),
        "after": ("catalog", "search", *common),
    }[where]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)[0]["published"]["title"] == HOSTILE


@pytest.mark.parametrize("arguments", [["frobnicate"], ["query"], ["status", "--frob"], ["catalog", "show"]])
def test_wrong_usage_is_one_line_with_a_hint(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert not result.stdout
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert error.endswith("[invalid-input]")
    assert hint.endswith("--help")


def test_every_class_of_error_has_its_exit_code(ask: Run, node: FakeNode) -> None:
    for cls in BY_STATUS.values():
        node.answers["NodeService/GetStatus"] = cls("what\nhappened", rule="some-rule", hint="do this")
        result = ask("status")
        assert result.exit_code == cls.exit_code
        assert result.stderr == "error: what\\x0ahappened [some-rule]\nhint: do this\n"


def test_a_bug_is_one_line_too(ask: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koinon.cli.status.plain", lambda message: 1 / 0)
    node.answers["NodeService/GetStatus"] = services.GetStatusResponse()
    result = ask("status", "--json")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 2)
    assert "ZeroDivisionError" in result.stderr


def test_without_the_node_extra_its_commands_say_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name = "node"

        def load(self) -> list[click.Command]:
            raise ModuleNotFoundError("No module named 'plyvel'")

    monkeypatch.setattr(metadata, "entry_points", lambda group, name="": [Broken()])
    assert re.search(r"^  init +needs: pip install 'koinon\[node\]'$", run("--help").stdout, re.MULTILINE)
    result = run("init", "--institution", "um")
    assert result.exit_code == 6
    assert "plyvel" in result.stderr
    assert result.stderr.endswith("hint: needs: pip install 'koinon[node]'\n")


def test_other_packages_may_bring_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def hello() -> None:
        click.echo(app.invocation().json)

    class Plugin:
        name = "more"

        def load(self) -> list[click.Command]:
            return [hello]

    monkeypatch.setattr(metadata, "entry_points", lambda group, name="": [Plugin()])
    assert run("hello", "--json").stdout == "True\n"


def test_importing_a_part_of_koinon_loads_no_client() -> None:
    code = "import sys, koinon.canonical; assert not {'grpc', 'rich', 'koinon.client'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_reader_that_has_enough_is_no_error(ask: Run, node: FakeNode) -> None:
    node.answers["AuditService/ListRecords"] = services.ListRecordsResponse(
        records=[AuditRecord(index=index, detail="x" * 200) for index in range(500)]
    )
    command = f"{sys.executable} -c 'from koinon.cli import main; main()' audit list --json | head -c 10"
    done = subprocess.run(
        ["bash", "-c", command], env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert len(done.stdout) == 10


# --- hostile text


@pytest.mark.parametrize(
    "arguments",
    [
        ["catalog", "search"],
        ["catalog", "show", "um.c.t"],
        ["access", "list"],
        ["task", "show", "00"],
        ["task", "list"],
        ["audit", "list"],
        ["member", "list"],
    ],
)
def test_text_from_the_ledger_never_acts_on_the_terminal(
    ask: Run, node: FakeNode, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    task = Task(id=HOSTILE, reason=HOSTILE, rule=HOSTILE, asker=HOSTILE, submitted=SubmitTask(sql=HOSTILE))
    task.parties.append(TaskParty(institution=HOSTILE))
    request = AccessRequest(id=HOSTILE, requested=RequestAccess(dataset=HOSTILE, purposes=[HOSTILE]), requester=HOSTILE)
    record = AuditRecord(kind=HOSTILE, actor=HOSTILE, subject=HOSTILE, detail=HOSTILE)
    institution = services.ListInstitutionsResponse()
    institution.institutions.add().descriptor.title = HOSTILE
    people = services.ListPeopleResponse()
    people.people.add().id = HOSTILE
    node.answers |= {
        "CatalogService/SearchDatasets": services.SearchDatasetsResponse(datasets=[hostile_dataset()]),
        "CatalogService/GetDataset": services.GetDatasetResponse(dataset=hostile_dataset()),
        "AccessService/ListRequests": services.ListRequestsResponse(requests=[request]),
        "AccessService/ListTokens": services.ListTokensResponse(tokens=[Token(dataset=HOSTILE, holder=HOSTILE)]),
        "TaskService/GetTask": services.GetTaskResponse(task=task),
        "TaskService/ListTasks": services.ListTasksResponse(tasks=[task]),
        "AuditService/ListRecords": services.ListRecordsResponse(records=[record]),
        "MemberService/ListInstitutions": institution,
        "MemberService/ListPeople": people,
    }
    result = ask(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "owned" in result.stdout
    assert "\x1b]" not in result.stdout
    assert "\x1b[31mowned" not in result.stdout
    assert "\u202e" not in result.stdout
    assert "[bold red]markup[/]" in result.stdout
    assert not any(line.startswith("error: forged") for line in result.stdout.splitlines())
    assert result.stdout.isascii() or "│" in result.stdout or "─" in result.stdout
    as_json = ask(*arguments, "--json")
    assert as_json.stdout.isascii()
    assert json.loads(as_json.stdout)


def test_an_error_s_text_is_one_harmless_line(ask: Run, node: FakeNode) -> None:
    node.answers["NodeService/GetStatus"] = Refused(HOSTILE, rule="refused", hint=HOSTILE)
    result = ask("status")
    assert len(result.stderr.splitlines()) == 2
    assert "\x1b" not in result.stderr


def test_lists_of_commands_show_whole_sentences(run: Run) -> None:
    shown = " ".join(run("--help").stdout.split())
    assert "Say why nothing is decided, and what to do; or that all is well." in shown
    assert "..." not in run("catalog", "--help").stdout.replace("[ARGS]...", "")


@pytest.mark.parametrize("group", [[], ["catalog"], ["points", "union"]])
def test_a_group_alone_shows_its_help(run: Run, group: list[str]) -> None:
    result = run(*group)
    assert result.exit_code == 2
    assert result.stderr == run(*group, "--help").stdout
    assert not result.stdout


def test_data_go_to_stdout_also_while_a_terminal_shows_that_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(output, "_PATIENCE_S", 0.0)
    with output.working("exporting"):
        eventually(lambda: "exporting" in terminal.getvalue(), "a line on the terminal")
        output.show_text("a record\n")
    assert capsys.readouterr().out == "a record\n"
    assert "a record" not in terminal.getvalue()
