"""Receipts for transactions and tokens: the committed vectors, good and bad, each bad one for its own reason."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon import genesis, receipt
from koinon.cli import proofs
from koinon.errors import Corrupt
from koinon.receipt import VerifiedRecord, VerifiedToken, VerifiedTransaction
from koinon.v1.audit_pb2 import Receipt
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_COMMITTED, TRANSACTION_STATUS_REJECTED
from tests.koinon.verdict import verdict
from tests.vectors import make_receipt_kinds as vectors

FILES = vectors.DIRECTORY
EXPECTED: dict[str, str] = json.loads((FILES / "expected.json").read_text())
GENESIS = genesis.load(FILES / "genesis.json")
FROZEN = "8ce99f706f44fd06aa99d602ca57a75f1f757e9af76ad25c33eedc894ca143f1"


def verified(name: str) -> receipt.Verified:
    return receipt.verify(receipt.load(FILES / f"{name}.json"), GENESIS)


def test_the_vectors_are_frozen() -> None:
    assert vectors.digest() == FROZEN


def test_the_generator_still_makes_the_vectors() -> None:
    made = vectors.files()
    assert sorted(made) == sorted(file.name for file in FILES.iterdir())
    for name, text in made.items():
        assert (FILES / name).read_text("utf-8") == text, name


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_verifies_or_fails_where_it_should(name: str) -> None:
    assert verdict(FILES / name, GENESIS) == EXPECTED[name]


def test_a_receipt_with_the_kind_record_proves_what_one_without_proves() -> None:
    named = receipt.load(FILES / "good-record.json")
    unnamed = Receipt()
    unnamed.CopyFrom(named)
    unnamed.ClearField("kind")
    assert receipt.verify(named, GENESIS) == receipt.verify(unnamed, GENESIS)
    assert isinstance(receipt.verify(named, GENESIS), VerifiedRecord)


def test_a_transaction_is_told_with_what_became_of_it() -> None:
    committed, rejected = verified("good-transaction-in-the-middle"), verified("good-transaction-rejected")
    assert isinstance(committed, VerifiedTransaction)
    assert isinstance(rejected, VerifiedTransaction)
    assert (committed.height, committed.proof.height) == (9, 10)
    assert committed.result.status == TRANSACTION_STATUS_COMMITTED
    assert committed.transaction.body.operations[0].withdraw_dataset.name == "um.ercp.t92"
    assert rejected.result.status == TRANSACTION_STATUS_REJECTED
    assert rejected.result.refusal.rule == "not-found"
    assert ("Refusal", "there is no dataset um.ercp.t71 [not-found]") in proofs.as_facts(rejected)


def test_a_token_is_told_with_its_end_and_never_without_a_warning() -> None:
    revoked, open_ = verified("good-token-revoked"), verified("good-token-end-not-shown")
    assert isinstance(revoked, VerifiedToken)
    assert isinstance(open_, VerifiedToken)
    assert revoked.token_id == open_.token_id == "a" * 32
    assert revoked.end is not None
    assert revoked.end.kind == "token.revoked"
    assert open_.end is None
    assert "no receipt proves" in dict(proofs.as_facts(open_))["Ended"]


@pytest.mark.parametrize("name", [name for name, said in EXPECTED.items() if said == "holds"])
def test_every_proof_can_be_told(name: str) -> None:
    proved = verified(name.removesuffix(".json"))
    assert json.loads(json.dumps(proofs.as_json(proved)))["verified"] is True
    assert dict(proofs.as_facts(proved))["Signed by"] == ", ".join(proved.proof.signers)


FLIPPED = [
    receipt.load(FILES / f"good-{name}.json").SerializeToString()
    for name in ("transaction-in-the-middle", "token-revoked")
]


@settings(max_examples=300)
@given(data=st.sampled_from(FLIPPED), position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_proves_nothing_else(data: bytes, position: int, bit: int) -> None:
    """At most it drops a signature more than needed, or the end of a token, as whoever shows a receipt may."""
    changed = bytearray(data)
    changed[position % len(data)] ^= 1 << bit
    try:
        proved = receipt.verify(Receipt.FromString(bytes(changed)), GENESIS)
    except (DecodeError, Corrupt):
        return
    honest = receipt.verify(Receipt.FromString(data), GENESIS)
    if isinstance(proved, VerifiedToken) and isinstance(honest, VerifiedToken) and proved.end is None:
        honest = replace(honest, end=None)
    assert set(proved.proof.signers) <= set(honest.proof.signers)
    assert replace(proved, proof=replace(proved.proof, signers=honest.proof.signers)) == honest
