"""Whose keys does ``koinon key rotate`` exchange? Those of one institution, in its own home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from koinon.cli import main
from testnet.network import Testnet


@pytest.mark.parametrize("purpose", ["validator", "node", "sealing", "tls"])
def test_another_institutions_home_is_refused_before_a_key_is_made(tmp_path: Path, purpose: str) -> None:
    network = Testnet.create(tmp_path / "net", ("um", "iu"))
    assert "is the home of iu, and the profile is one of um" in refused(
        network.profile("um-operator"), network, purpose
    )


def test_a_home_of_another_network_is_refused(tmp_path: Path) -> None:
    """A rehearsal's new key must not become the one that the consortium counts."""
    real, rehearsal = (Testnet.create(tmp_path / name, ("um", "iu")) for name in ("real", "rehearsal"))
    assert "belong to different networks" in refused(real.profile("iu-operator"), rehearsal, "validator")


def test_what_root_would_make_in_another_users_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger would name a key that the node cannot read, and the validator be silent."""
    network = Testnet.create(tmp_path / "net", ("um", "iu"))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    said = refused(network.profile("iu-operator"), network, "validator", "[permission]", 4)
    assert f"hint: run this as that user: sudo -u '#{os.getuid()}' koinon key rotate" in said


def test_what_root_would_make_beside_another_users_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns the key could not read the one that counts from then on."""
    network = Testnet.create(tmp_path / "net", ("um",))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    people = network.home("um").people
    before = sorted(people.iterdir())
    result = CliRunner().invoke(main, ["--profile", str(network.profile("um-operator")), "key", "rotate"])
    assert (result.exit_code, "[permission]" in result.stderr) == (4, True)
    assert sorted(people.iterdir()) == before


def refused(
    profile: Path, network: Testnet, purpose: str, rule: str = "[wrong-institution]", exit_code: int = 2
) -> str:
    """What is said; no key is waiting in the home of iu afterwards."""
    home = network.home("iu").path
    result = CliRunner().invoke(main, ["--profile", str(profile), "key", "rotate", purpose, "--home", str(home)])
    assert result.exit_code == exit_code, result.output
    assert rule in result.stderr
    assert not list(home.glob("keys/*.next.key"))
    assert not (home / "tls" / "next").exists()
    return result.stderr
