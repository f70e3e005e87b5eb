"""Receipts: the committed vectors, good and bad, each bad one for its own reason."""

from __future__ import annotations

import hashlib
import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon import genesis, receipt
from koinon.errors import Corrupt, InvalidFile
from koinon.receipt import VerifiedRecord
from koinon.v1.audit_pb2 import Receipt
from tests.koinon.verdict import verdict

VECTORS = Path(__file__).parent.parent / "vectors"
FILES = VECTORS / "receipts"
EXPECTED: dict[str, str] = json.loads((FILES / "expected.json").read_text())
GENESIS = genesis.load(FILES / "genesis.json")
FROZEN = "762066234c281d981f5023c7f03bc78940f478886039bef5fc6e71e099604184"


def test_the_vectors_are_frozen() -> None:
    digest = hashlib.sha256()
    for file in sorted(FILES.iterdir()):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    assert digest.hexdigest() == FROZEN


def test_the_generator_still_makes_the_vectors() -> None:
    generator: dict[str, Any] = runpy.run_path(str(VECTORS / "make_receipts.py"))
    made: dict[str, str] = generator["files"]()
    assert sorted(made) == sorted(file.name for file in FILES.iterdir())
    for name, text in made.items():
        assert (FILES / name).read_text("utf-8") == text, name


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_verifies_or_fails_where_it_should(name: str) -> None:
    assert verdict(FILES / name, GENESIS) == EXPECTED[name]


def test_a_verified_record_says_what_proved_it() -> None:
    verified = receipt.verify(receipt.load(FILES / "good-after-two-changes.json"), GENESIS)
    assert isinstance(verified, VerifiedRecord)
    assert verified.record.index == 31
    assert verified.record.subject == "dataset:um.ercp.indo_rct"
    assert verified.proof.chain_id == genesis.chain_id(GENESIS)
    assert verified.tree_size == 52
    assert verified.proof.height == 25
    assert verified.proof.signers == ("iu", "osu", "uk", "um")
    assert verified.proof.validator_changes == 2
    assert len(verified.proof.block_hash) == 32


def test_another_genesis_is_not_enough() -> None:
    other = genesis.load(FILES / "genesis.json")
    other.time_ms += 1
    with pytest.raises(Corrupt) as caught:
        receipt.verify(receipt.load(FILES / "good-first-block.json"), other)
    assert "genesis" in caught.value.hint


def test_what_is_written_is_read(tmp_path: Path) -> None:
    original = receipt.load(FILES / "good-after-one-change.json")
    receipt.save(tmp_path / "receipt.json", original)
    assert receipt.load(tmp_path / "receipt.json") == original
    assert (tmp_path / "receipt.json").read_bytes() == (FILES / "good-after-one-change.json").read_bytes()


GOOD = receipt.load(FILES / "good-after-one-change.json").SerializeToString()


@settings(max_examples=300)
@given(position=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_proves_nothing_else(position: int, bit: int) -> None:
    """At most it drops a signature more than needed."""
    data = bytearray(GOOD)
    data[position] ^= 1 << bit
    try:
        verified = receipt.verify(Receipt.FromString(bytes(data)), GENESIS)
    except (DecodeError, Corrupt):
        return
    honest = receipt.verify(Receipt.FromString(GOOD), GENESIS)
    signers, all_signers = set(verified.proof.signers), set(honest.proof.signers)
    assert signers <= all_signers
    assert replace(verified, proof=replace(verified.proof, signers=honest.proof.signers)) == honest


@given(text=st.text(max_size=100))
def test_noise_is_refused(text: str) -> None:
    with pytest.raises(InvalidFile):
        receipt.parse(text)


def test_verification_needs_the_base_install_only() -> None:
    """No node, no network, none of the packages that only nodes have."""
    absent = "cryptography duckdb gmpy2 mpc mpyc node numpy plyvel sqlglot structlog"
    program = f"""
import sys, socket
FORBIDDEN = {absent.split()}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
def refuse(*_arguments, **_options):
    raise RuntimeError("no network")
socket.socket = refuse
from pathlib import Path
from koinon import genesis, receipt
files = Path({str(FILES)!r})
verified = receipt.verify(receipt.load(files / "good-first-block.json"), genesis.load(files / "genesis.json"))
print(verified.record.kind)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "dataset.published", result.stderr
