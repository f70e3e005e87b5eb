"""Key files: what they keep, and what makes them be refused."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon import key_files, keys
from koinon.errors import InvalidFile, InvalidInput
from koinon.keys import SealingKey, SigningKey
from koinon.rules import RULES

SIGNING = SigningKey(bytes(range(32)))
SEALING = SealingKey(bytes(range(32)))


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(key_files.ENVIRONMENT, raising=False)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id at its lowest cost."""
    monkeypatch.setattr(key_files, "_PASSES", 1)
    monkeypatch.setattr(key_files, "_MEMORY_BYTES", 8192)


def refused(load: Callable[[], object]) -> InvalidFile:
    with pytest.raises(InvalidFile) as caught:
        load()
    assert caught.value.rule in RULES
    assert caught.value.hint
    assert bytes(range(32)).hex() not in caught.value.message
    return caught.value


def test_an_encrypted_key_opens_with_its_passphrase_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys" / "node.key"
    key_files.save(path, SIGNING, "correct horse")
    text = path.read_text()
    assert base64.b64encode(SIGNING.secret).decode() not in text
    assert json.loads(text)["protection"] == "argon2id+secretbox"
    assert path.stat().st_mode & 0o777 == 0o600
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return "correct horse"

    assert key_files.load_signing_key(path, ask).secret == SIGNING.secret
    assert prompts == [f"Passphrase of {path}"]
    assert "does not open" in refused(lambda: key_files.load_signing_key(path, lambda _: "wrong horse")).message
    assert key_files.ENVIRONMENT in refused(lambda: key_files.load_signing_key(path)).hint
    monkeypatch.setenv(key_files.ENVIRONMENT, "correct horse")
    assert key_files.load_signing_key(path).secret == SIGNING.secret


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("passphrase", [None, "secret", "ümläut"])
def test_both_kinds_come_back(tmp_path: Path, passphrase: str | None) -> None:
    key_files.save(tmp_path / "node.key", SIGNING, passphrase)
    key_files.save(tmp_path / "sealing.key", SEALING, passphrase)
    assert key_files.load_signing_key(tmp_path / "node.key", lambda _: passphrase or "").secret == SIGNING.secret
    assert key_files.load_sealing_key(tmp_path / "sealing.key", lambda _: passphrase or "").secret == SEALING.secret
    assert key_files.public_key(tmp_path / "node.key", "ed25519") == SIGNING.public_key
    assert "ed25519" in refused(lambda: key_files.load_sealing_key(tmp_path / "node.key")).message
    assert "x25519" in refused(lambda: key_files.load_signing_key(tmp_path / "sealing.key")).message


def test_an_unencrypted_file_says_what_it_is_for(tmp_path: Path) -> None:
    key_files.save(tmp_path / "node.key", SIGNING, None)
    assert json.loads((tmp_path / "node.key").read_text())["protection"] == "none: test networks only"


def test_an_empty_passphrase_is_refused(tmp_path: Path) -> None:
    refused(lambda: key_files.save(tmp_path / "node.key", SIGNING, ""))
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key_files.save(path, SIGNING, None)
    before = path.read_bytes()
    assert refused(lambda: key_files.save(path, SigningKey.generate(), None)).rule == "already-exists"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["node.key"], "nothing half-made is left"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    key_files.save(path, SIGNING, None)
    path.chmod(mode)
    assert refused(lambda: key_files.load_signing_key(path)).hint == f"run: chmod 600 {path}"


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    refused(lambda: key_files.load_signing_key(tmp_path / "absent.key"))
    refused(lambda: key_files.load_signing_key(tmp_path))


def other(public: bytes) -> str:
    return base64.b64encode(bytes([public[0] ^ 1]) + public[1:]).decode()


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(
    "change",
    [
        {"public_key": other(SIGNING.public_key)},
        {"public_key": "AA=="},
        {"public_key": "not base64"},
        {"public_key": None},
        {"kind": "rsa"},
        {"protection": "none"},
        {"protection": "none: test networks only"},
        {"format": "koinon-key/2"},
        {"passes": 0},
        {"passes": 1000},
        {"passes": "3"},
        {"memory_bytes": 2**40},
        {"memory_bytes": 1},
        {"memory_bytes": 8192.5},
        {"passes": True},
        {"salt": "AA=="},
        {"secret": "AA=="},
        {"secret": None},
        {"comment": "hello"},
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "node.key"
    key_files.save(path, SIGNING, "secret")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(lambda: key_files.load_signing_key(path, lambda _: "secret"))


@settings(max_examples=50)
@given(data=st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_any_other_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(data)
    path.chmod(0o600)
    refused(lambda: key_files.load_signing_key(path, lambda _: "secret"))


def test_a_huge_or_deep_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    for text in ("[" * 4000, "x" * 5_000_000):
        path.write_text(text)
        path.chmod(0o600)
        refused(lambda: key_files.load_signing_key(path))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused(lambda: key_files.save(tmp_path / "node.key", SIGNING, None))


# --- sealing -------------------------------------------------------------------------------------------


def test_only_the_holder_opens_what_was_sealed() -> None:
    sealed = keys.seal(SEALING.public_key, b"shares")
    assert SEALING.open(sealed) == b"shares"
    assert keys.seal(SEALING.public_key, b"shares") != sealed, "a sealed box shows not even that two are equal"
    with pytest.raises(InvalidInput):
        SealingKey.generate().open(sealed)


@pytest.mark.parametrize("sealed", [b"", bytes(47), bytes(48), bytes(100)])
def test_what_was_not_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(InvalidInput):
        SEALING.open(sealed)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32)])
def test_sealing_to_what_is_no_key_is_refused(key: bytes) -> None:
    with pytest.raises(InvalidInput):
        keys.seal(key, b"shares")


def test_a_key_shows_its_public_half_only() -> None:
    for key in (SIGNING, SEALING):
        assert key.secret.hex() not in repr(key)
        assert str(key.secret) not in repr(key)
        assert key.public_key.hex() in repr(key)
    assert SigningKey.generate().public_key != SigningKey.generate().public_key
