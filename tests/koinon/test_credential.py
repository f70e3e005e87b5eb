"""did:key, canonical JSON and credentials: the specifications' own vectors, and every way to forge a credential."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import credential, did, jcs
from koinon.credential import Document
from koinon.errors import Corrupt, InvalidFile, InvalidInput
from koinon.keys import SigningKey
from koinon.v1.audit_pb2 import Receipt
from node.receipts import Receipts
from node.store.memory import MemoryStore
from tests.contracts.consortium import genesis, key
from tests.node.recorded_ledger import RecordedLedger

# W3C vc-di-eddsa, appendix B.2 (TestVectors/eddsa-jcs-2022 of its repository)
SIGNED = Path(__file__).parents[1] / "vectors" / "eddsa_jcs" / "signed.json"
SECRET = "z3u2en7t5LR2WtQH5PfFqMqwVHBeXouLzo6haApm8XHqvjxq"  # published there
DID = "did:key:z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"
HASHES = (
    "66ab154f5c2890a140cb8388a22a160454f80575f6eae09e5a097cabe539a1db"
    "59b7cb6251b8991add1ce0bc83107e3db9dbbab5bd2c28f687db1a03abc92f19"
)
NOW_MS = 1_700_000_100_000


@pytest.fixture(scope="module")
def ledger() -> RecordedLedger:
    made = RecordedLedger(MemoryStore())
    made.decide()
    return made


@pytest.fixture(scope="module")
def receipts(ledger: RecordedLedger) -> dict[str, Receipt]:
    """For the registration of everyone at um, and of iu's operator."""
    made = Receipts(ledger.app, ledger.blocks, ledger.validators, ledger.genesis)
    return {
        record.subject.partition(":")[2]: made.record(record.index)
        for record in ledger.records()
        if record.kind == "person.registered"
    }


@pytest.fixture
def issued(receipts: dict[str, Receipt]) -> Document:
    return credential.issue(receipts["um/analyst"], receipts["um/operator"], key("um/operator"), genesis(), NOW_MS)


def test_the_vector_of_the_specification() -> None:
    signed = json.loads(SIGNED.read_text("utf-8"))
    unsigned = {name: value for name, value in signed.items() if name != "proof"}
    proof = {name: value for name, value in signed["proof"].items() if name != "proofValue"}
    hashes = hashlib.sha256(jcs.canonical(proof)).digest() + hashlib.sha256(jcs.canonical(unsigned)).digest()
    signer = SigningKey(did.from_multibase(SECRET)[2:])
    assert hashes.hex() == HASHES
    assert did.of_key(signer.public_key) == DID
    assert did.multibase(signer.sign(hashes)) == signed["proof"]["proofValue"]
    assert credential.verify_proof(signed) == DID
    unsigned["name"] = "Another"
    with pytest.raises(Corrupt, match="step 2: the signature"):
        credential.verify_proof({**unsigned, "proof": signed["proof"]})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # RFC 8785, 3.2.3: keys in the order of UTF-16 code units
        (
            {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7},
            '{"\\r":2,"1":4,"\x80":6,"ö":7,"€":1,"😀":5,"\ufb33":3}',
        ),
        ({"b": [True, None, {"a": -1}], "a": ""}, '{"a":"","b":[true,null,{"a":-1}]}'),
        ('\u20ac$\x0f\nA\'B"\\\\"/\x7f', '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f"'),  # 3.2.2.2
    ],
)
def test_canonical_json(value: Any, text: str) -> None:
    assert jcs.canonical(value).decode() == text


@pytest.mark.parametrize("value", [1.5, 2**53, float("nan"), {1: 2}, "\ud800", object(), b"x"])
def test_what_has_no_canonical_form_here_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        jcs.canonical(value)


def test_nesting_is_bounded() -> None:
    value: Any = []
    for _ in range(50_000):
        value = [value]
    with pytest.raises(InvalidInput, match="deep"):
        jcs.canonical(value)


@given(st.binary(max_size=64))
def test_base58_goes_both_ways(data: bytes) -> None:
    assert did.from_multibase(did.multibase(data)) == data


@given(st.text(max_size=60))
def test_a_foreign_identifier_is_refused_or_has_one_spelling(text: str) -> None:
    for candidate in (text, f"did:key:{text}", f"did:key:z6Mk{text}"):
        try:
            found = did.key_of(candidate)
        except InvalidInput:
            continue
        assert did.of_key(found) == candidate


def test_a_credential_says_what_the_ledger_says(issued: Document) -> None:
    proved = credential.verify(credential.parse(credential.render(issued)), genesis())
    assert (proved.person, proved.roles, proved.operator) == ("um/analyst", ("analyst",), "um/operator")
    assert proved.subject == did.of_key(key("um/analyst").public_key)
    assert proved.issuer == did.of_key(key("um/operator").public_key)


@pytest.mark.parametrize(
    ("person", "operator", "signer"),
    [
        ("um/analyst", "um/operator", "um/analyst"),  # not the operator's key
        ("um/analyst", "um/analyst", "um/analyst"),  # no operator
        ("um/analyst", "iu/operator", "iu/operator"),  # of another institution
    ],
)
def test_only_an_operator_of_the_institution_issues(
    receipts: dict[str, Receipt], person: str, operator: str, signer: str
) -> None:
    with pytest.raises(Corrupt, match="step 4"):
        credential.issue(receipts[person], receipts[operator], key(signer), genesis(), NOW_MS)


def _resigned(change: Callable[[Document], None]) -> Callable[[Document], Document]:
    """A change by the operator itself, who signs it."""

    def apply(issued: Document) -> Document:
        change(issued)
        unsigned = {name: value for name, value in issued.items() if name != "proof"}
        return credential.sign(unsigned, key("um/operator"), NOW_MS)

    return apply


def _set(*path: Any, to: Any) -> Callable[[Document], None]:
    def change(issued: Document) -> None:
        part: Any = issued
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = to

    return change


def _changed(change: Callable[[Document], None]) -> Callable[[Document], Document]:
    def apply(issued: Document) -> Document:
        change(issued)
        return issued

    return apply


@pytest.mark.parametrize(
    ("forge", "step"),
    [
        (_changed(_set("credentialSubject", "roles", to=["operator"])), 2),
        (_changed(_set("proof", "proofValue", to="z1111")), 2),
        (_changed(_set("proof", "cryptosuite", to="eddsa-rdfc-2022")), 2),
        (_changed(_set("proof", "proofPurpose", to="authentication")), 2),
        (_changed(_set("proof", "@context", to=[])), 2),
        (_changed(_set("proof", "verificationMethod", to="did:web:um.example#1")), 2),
        (_changed(_set("proof", to="no object")), 2),
        (_changed(_set("issuer", to=DID)), 2),
        (_changed(_set("type", to=["VerifiableCredential"])), 1),
        (_changed(_set("note", to="also")), 1),
        (_resigned(_set("issuer", to=DID)), 2),
        (_resigned(_set("credentialSubject", "roles", to=["operator"])), 4),
        (_resigned(_set("credentialSubject", "id", to=DID)), 4),
        (_resigned(_set("validFrom", to="2020-01-01T00:00:00Z")), 4),
        (_resigned(_set("evidence", to=[])), 3),
        (_resigned(_set("evidence", to="none")), 3),
        (_resigned(_set("evidence", 0, "of", to="issuer")), 3),
        (_resigned(_set("evidence", 0, "receipt", to="{}")), 3),
    ],
)
def test_a_forged_credential_is_refused_at_its_step(
    issued: Document, forge: Callable[[Document], Document], step: int
) -> None:
    with pytest.raises(Corrupt, match=f"^step {step}: ") as caught:
        credential.verify(forge(copy.deepcopy(issued)), genesis())
    assert caught.value.hint


def test_another_chain_s_evidence_is_refused(issued: Document) -> None:
    with pytest.raises(Corrupt, match="step 1: the receipt is not for the chain"):
        credential.verify(issued, genesis(("aa", "bb", "cc")))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":1,"a":2}', "null"])
def test_what_is_no_credential_is_an_invalid_file(text: str) -> None:
    with pytest.raises(InvalidFile):
        credential.parse(text)
