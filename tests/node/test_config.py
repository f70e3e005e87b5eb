"""A home's configuration: what is written is read, and every mistake is named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from koinon.errors import InvalidFile
from node import config
from node.config import Address, Home, JobLimits, LedgerLimits, NodeConfig

GOOD = """
institution = "um"
[jobs]
memory_mb = 1024
concurrent = 8
[ledger]
snapshot_blocks = 1000
keep_blocks = 0
[log]
level = "info"
[listen]
rpc = "127.0.0.1:7400"
peer = "[::1]:7401"
mpc = "um.example.org:7402"
metrics = ""
"""
RPC, PEER, MPC = (Address("127.0.0.1", port) for port in (7400, 7401, 7402))
USUAL = config.render(NodeConfig(Home(Path()), "um", RPC, PEER, MPC))  # as `koinon init` writes it
KEYS = [line.partition("    #")[0] for line in USUAL.splitlines() if " = " in line.partition("#")[0]]


def load(home: Path, text: str) -> NodeConfig:
    (home / "config.toml").write_text(text, encoding="utf-8")
    return config.load(home)


def test_what_is_rendered_loads_as_itself(tmp_path: Path) -> None:
    settings = NodeConfig(
        Home(tmp_path),
        "um",
        Address("127.0.0.1", 1),
        Address("[::1]", 65535),
        Address("um.example.org", 7402),
        metrics=Address("127.0.0.1", 7403),
        log_level="debug",
        jobs=JobLimits(memory_mb=64, concurrent=64),
    )
    assert load(tmp_path, config.render(settings)) == settings


def test_the_order_of_tables_is_free(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert (loaded.log_level, loaded.jobs, loaded.ledger) == ("info", JobLimits(), LedgerLimits())
    assert loaded.peer == Address("[::1]", 7401)
    assert loaded.metrics is None


def test_a_file_that_was_cut_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = load(tmp_path, USUAL)
    last = USUAL.rindex('"') + 1
    for end in range(last):
        with pytest.raises(InvalidFile) as refused:
            load(tmp_path, USUAL[:end])
        assert refused.value.rule == "invalid-config"
        assert str(tmp_path / "config.toml") in refused.value.message
    assert USUAL[last:] == "\n"
    assert load(tmp_path, USUAL[:last]) == whole  # nothing of what it says was lost


@pytest.mark.parametrize("line", KEYS)
def test_a_missing_key_is_named_with_the_line_to_add(tmp_path: Path, line: str) -> None:
    key = line.partition(" = ")[0]
    with pytest.raises(InvalidFile, match=f"{key} is missing") as refused:
        load(tmp_path, "".join(text for text in USUAL.splitlines(keepends=True) if not text.startswith(f"{key} = ")))
    assert line.replace('"um"', '"…"') in refused.value.hint
    assert "may have been cut" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "address"),
    [("", None), ("7403", Address("127.0.0.1", 7403)), ("[::1]:7403", Address("[::1]", 7403))],
)
def test_metrics_are_off_on_loopback_or_where_they_are_put(tmp_path: Path, text: str, address: Address | None) -> None:
    assert load(tmp_path, GOOD.replace('metrics = ""', f'metrics = "{text}"')).metrics == address


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("institution = um", "not TOML"),
        ("institution = " + "[" * 2_000, "not TOML"),
        (GOOD.replace('um"', 'UM"'), "institution: 'UM' is not an institution id"),
        (GOOD.replace("institution", "instituton"), "unknown key instituton"),
        (GOOD.replace("rpc =", "rcp ="), "unknown key listen.rcp"),
        (GOOD.replace('rpc = "127.0.0.1:7400"', ""), "listen.rpc is missing"),
        (GOOD.replace("7400", "0"), "listen.rpc: '127.0.0.1:0' is not HOST:PORT"),
        (GOOD.replace("7400", "65536"), "is not HOST:PORT"),
        (GOOD.replace("[::1]:7401", ":::7401"), "listen.peer: ':::7401' is not HOST:PORT"),
        (GOOD.replace('"127.0.0.1:7400"', "7400"), "listen.rpc is not text"),
        (GOOD.replace('metrics = ""', "metrics = 7403"), "listen.metrics is not text"),
        (GOOD.replace('metrics = ""', 'metrics = "70000"'), "listen.metrics: '127.0.0.1:70000' is not HOST:PORT"),
        (
            GOOD.replace('metrics = ""', 'metrics = "127.0.0.1:7400"'),
            "listen.rpc and listen.metrics are both 127.0.0.1:7400",
        ),
        (GOOD.replace("[::1]:7401", "127.0.0.1:7400"), "listen.rpc and listen.peer are both 127.0.0.1:7400"),
        (GOOD.replace('"info"', '"loud"'), "log.level is 'loud'"),
        (GOOD.replace("memory_mb = 1024", "memory_mb = 1"), "jobs.memory_mb is 1"),
        (GOOD.replace("concurrent = 8", "concurrent = true"), "jobs.concurrent is True"),
        (GOOD.replace("[jobs]", "[jobs]\nthreads = 1"), "unknown key jobs.threads"),
        ('listen = 1\ninstitution = "um"', "listen is not a table"),
    ],
)
def test_a_mistake_is_named_with_file_and_remedy(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(InvalidFile) as refused:
        load(tmp_path, text)
    assert named in refused.value.message
    assert str(tmp_path / "config.toml") in refused.value.message
    assert refused.value.hint
    assert refused.value.rule == "invalid-config"


def test_who_mistypes_a_home_is_told_to_check_the_path_before_making_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="is not the home of a node") as refused:
        config.load(tmp_path)
    assert refused.value.hint == f"check the path; for a new node, koinon init --home {tmp_path} makes one"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidFile, match="not TOML"):
        config.load(tmp_path)
