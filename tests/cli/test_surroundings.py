"""What the command was started with: closed streams, old encodings, other bytes, no home, any umask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from koinon import profile
from koinon.v1 import services_pb2 as services
from koinon.v1.catalog_pb2 import Dataset, PublishDataset
from tests.cli.conftest import Run
from tests.koinon.fake_node import FakeNode

TITLE = "Größe ☃"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which $koinon is the command."""
    koinon = f"{sys.executable} -c 'from koinon.cli import main; main()'"
    return subprocess.run(
        ["bash", "-c", command.replace("$koinon", koinon)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def found(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog of one dataset, whose title few encodings have."""
    monkeypatch.setenv(profile.ENVIRONMENT, str(node.profile))
    dataset = Dataset(published=PublishDataset(name="um.c.t", title=TITLE))
    node.answers["CatalogService/SearchDatasets"] = services.SearchDatasetsResponse(datasets=[dataset])


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_bug(closed: str) -> None:
    done = shell(f"$koinon catalog search {closed}")
    assert (done.returncode, done.stderr) == (0, "1 dataset\n" if "2>&-" not in closed else "")
    assert bool(done.stdout) is (">&-" not in closed.replace("2>&-", ""))


def test_no_file_gets_the_descriptor_of_a_closed_stream() -> None:
    """Else a line that a library prints is in the middle of a ledger."""
    code = "import os; from koinon.cli.app import _open_streams; _open_streams(); os._exit(os.open('/dev/null', 0) > 2)"
    assert shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-').returncode == 1


@pytest.mark.usefixtures("found")
def test_what_an_encoding_lacks_is_escaped() -> None:
    done = shell("$koinon catalog search", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"Gr\xf6\xdfe \u2603" in done.stdout


@pytest.mark.usefixtures("found")
def test_other_bytes_than_utf_8_are_refused_as_such() -> None:
    done = shell(r"$koinon catalog search $'\xff'")
    assert done.returncode == 2
    assert done.stderr == "error: '\\udcff' is not UTF-8 text [invalid-input]\nhint: write it in UTF-8\n"


@pytest.mark.parametrize("wanted", ["~nobody-of-this-name/x.toml", "of-that-name", "/no/such/file"])
def test_a_profile_is_not_there_also_where_nobody_has_a_home(
    run: Run, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", nobody)
    result = run("--profile", wanted, "status")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: there is no profile '{wanted}' [unknown-profile]\nhint: give the path")
    assert result.stderr.endswith("the name of one in ~/.config/koinon/profiles\n")


# --- koinon init


def make(run: Run, home: Path, *options: str) -> str:
    """Make a home; what went wrong."""
    result = run("init", "--institution", "um", "--title", TITLE, "--no-passphrase", "--home", str(home), *options)
    assert result.exit_code in (0, 2)
    return result.stderr if result.exit_code else ""


def test_a_home_is_its_owners_alone_whatever_the_umask(run: Run, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert make(run, tmp_path / "a" / "home") == ""
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "home").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("host", "written"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("0.0.0.0", "0.0.0.0"), ("::", "[::]")]
)
def test_an_address_may_be_of_either_kind(run: Run, tmp_path: Path, host: str, written: str) -> None:
    assert make(run, tmp_path / "home", "--host", "um.example", "--listen", host) == ""
    assert f'rpc = "{written}:7400"' in (tmp_path / "home" / "config.toml").read_text("utf-8")


@pytest.mark.parametrize("option", ["--host", "--listen"])
@pytest.mark.parametrize("host", ['a"b', "a b", "um:example", "[::1", "x" * 300])
def test_what_is_no_host_is_refused_before_keys_are_made(run: Run, tmp_path: Path, option: str, host: str) -> None:
    said = make(run, tmp_path / "home", option, host)
    assert said.startswith(f"error: --ports '7400,7401,7402' with {option} {host!r} are not three addresses [")
    assert not (tmp_path / "home").exists()
