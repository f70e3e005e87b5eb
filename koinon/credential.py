"""Memberships and roles as W3C Verifiable Credentials 2.0, for those who know no ledger.

An operator signs what the ledger says of a person of its institution: the roles, and since when. The proof is a Data
Integrity proof of cryptosuite eddsa-jcs-2022 (W3C vc-di-eddsa, section 3.3); issuer and subject are ``did:key``. The
evidence, two receipts, says why to believe it: the records that registered the person and the operator.

Verification, in this order:

1. The document is a credential of this form, and nothing in it is unknown.
2. The proof is the issuer's, over exactly this document.
3. Both receipts hold, for the chain of a genesis you trust (koinon.receipt).
4. They register the subject with just these roles and key, and the issuer as operator of the subject's institution.

Steps 1 and 2 are any verifier's; 3 and 4 need the genesis. **What it does not prove**: that a role still stands. A
key may have been replaced or revoked since: ask for a new credential, and look at the evidence's time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from koinon import did, jcs, json_form, keys, receipt
from koinon import genesis as genesis_file
from koinon.errors import Corrupt, InvalidFile, InvalidInput
from koinon.keys import SigningKey
from koinon.limits import MAX_RECEIPT_BYTES
from koinon.receipt import VerifiedRecord
from koinon.v1.audit_pb2 import AuditRecord, Receipt
from koinon.v1.identity_pb2 import Genesis

CONTEXT = "https://www.w3.org/ns/credentials/v2"
SUITE = "eddsa-jcs-2022"
_TYPES = ["VerifiableCredential", "KoinonMembership"]
_VOCABULARY = "urn:koinon:v1#"  # a name space, not a place: nothing is fetched from it
_TERMS = {"@vocab": _VOCABULARY}
_FIELDS = {"@context", "type", "issuer", "validFrom", "credentialSubject", "evidence", "proof"}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class VerifiedMembership:
    """What a credential proved: on the ledger at ``time_ms`` the person had these roles and this key."""

    person: str
    roles: tuple[str, ...]
    subject: str  # did:key
    issuer: str  # did:key
    operator: str
    chain_id: str
    registered_at_ms: int
    time_ms: int  # of the older head of the evidence: later changes are not known


def issue(person: Receipt, operator: Receipt, key: SigningKey, genesis: Genesis, created_at_ms: int) -> Document:
    """A signed credential for the person that ``person`` registers, by the operator whose key this is.

    Raises Corrupt or InvalidInput when the receipts do not say what ``verify`` asks of them.
    """
    record, _ = _registration(person, genesis)
    name, roles, public_key = _registered(record)
    document: Document = {
        "@context": [CONTEXT, _TERMS],
        "type": _TYPES,
        "issuer": did.of_key(key.public_key),
        "validFrom": _time(record.time_ms),
        "credentialSubject": {
            "id": did.of_key(public_key),
            "person": name,
            "institution": name.partition("/")[0],
            "roles": list(roles),
            "chain": genesis_file.chain_id(genesis),
        },
        "evidence": [_evidence("subject", person), _evidence("issuer", operator)],
    }
    signed = sign(document, key, created_at_ms)
    verify(signed, genesis)
    return signed


def sign(document: Document, key: SigningKey, created_at_ms: int) -> Document:
    """The document with a Data Integrity proof by this key's did:key. Raises InvalidInput."""
    proof = {
        "type": "DataIntegrityProof",
        "cryptosuite": SUITE,
        "created": _time(created_at_ms),
        "verificationMethod": did.verification_method(did.of_key(key.public_key)),
        "proofPurpose": "assertionMethod",
        "@context": document["@context"],
    }
    value = did.multibase(key.sign(_hash(document, proof)))
    return {**document, "proof": {**proof, "proofValue": value}}


def verify_proof(document: Document) -> str:
    """Step 2: the did:key that signed a document from anywhere. Raises Corrupt."""
    try:
        proof = dict(document["proof"])
        signature = did.from_multibase(str(proof.pop("proofValue")))
        method = str(proof["verificationMethod"])
        signer = method.partition("#")[0]
        public_key = did.key_of(signer)
        unsigned = {name: value for name, value in document.items() if name != "proof"}
        digest = _hash(unsigned, proof)
    except (KeyError, TypeError, ValueError, InvalidInput) as error:
        raise _failed(2, f"the proof is not of this form ({error})") from None
    expected = ("DataIntegrityProof", SUITE, "assertionMethod", did.verification_method(signer))
    if (proof.get("type"), proof.get("cryptosuite"), proof.get("proofPurpose"), method) != expected:
        raise _failed(2, f"the proof is no {SUITE} proof of a did:key")
    if proof.get("@context", unsigned.get("@context")) != unsigned.get("@context"):
        raise _failed(2, "the proof was made for another context")
    if not keys.verify(public_key, digest, signature):
        raise _failed(2, "the signature does not fit the key and the document")
    return signer


def verify(document: Document, genesis: Genesis) -> VerifiedMembership:
    """Prove a credential from anywhere, trusting a valid genesis alone. Raises Corrupt, naming the step that failed."""
    # 1. of this form
    if set(document) != _FIELDS or document["type"] != _TYPES or document["@context"] != [CONTEXT, _TERMS]:
        raise _failed(1, "it is no membership of this version")
    # 2. signed
    issuer = verify_proof(document)
    if document["issuer"] != issuer:
        raise _failed(2, "it is signed with another key than the issuer's")
    # 3. receipts
    by_role = _receipts(document["evidence"])
    subject, subject_at = _registration(by_role["subject"], genesis)
    operator, operator_at = _registration(by_role["issuer"], genesis)
    # 4. which say so
    name, roles, public_key = _registered(subject)
    expected = {
        "id": did.of_key(public_key),
        "person": name,
        "institution": name.partition("/")[0],
        "roles": list(roles),
        "chain": genesis_file.chain_id(genesis),
    }
    if document["credentialSubject"] != expected or document["validFrom"] != _time(subject.time_ms):
        raise _failed(4, "the subject is not what the evidence says")
    operator_name, operator_roles, operator_key = _registered(operator)
    if did.of_key(operator_key) != issuer or "operator" not in operator_roles:
        raise _failed(4, "the evidence does not name the issuer as an operator")
    if operator_name.partition("/")[0] != expected["institution"]:
        raise _failed(4, f"{operator_name} is no operator of {expected['institution']}")
    return VerifiedMembership(
        person=name,
        roles=roles,
        subject=did.of_key(public_key),
        issuer=issuer,
        operator=operator_name,
        chain_id=genesis_file.chain_id(genesis),
        registered_at_ms=subject.time_ms,
        time_ms=min(subject_at, operator_at),
    )


def parse(text: str) -> Document:
    """The document of a JSON text from anywhere, unverified. Raises InvalidFile."""
    document = json_form.load(text, "credential")
    if not isinstance(document, dict):
        raise InvalidFile("the credential is not a JSON object", hint="use a credential as Koinon wrote it")
    return document


def render(document: Document) -> str:
    """The document as a file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _hash(document: Document, proof: Document) -> bytes:
    """What is signed: the proof's options, then the document (vc-di-eddsa, 3.3.4)."""
    return hashlib.sha256(jcs.canonical(proof)).digest() + hashlib.sha256(jcs.canonical(document)).digest()


def _evidence(role: str, proof: Receipt) -> Document:
    return {"type": ["KoinonReceipt"], "of": role, "receipt": receipt.render(proof)}


def _receipts(evidence: Any) -> dict[str, Receipt]:
    """Step 3, before the receipts are verified: one for each."""
    try:
        found = {str(item["of"]): receipt.parse(str(item["receipt"])[:MAX_RECEIPT_BYTES]) for item in evidence}
    except (KeyError, TypeError) as error:
        raise _failed(3, f"the evidence is not of this form ({error})") from None
    except InvalidFile as error:
        raise _failed(3, error.message) from None
    if set(found) != {"subject", "issuer"} or len(evidence) != len(found):
        raise _failed(3, "the evidence is not a receipt for the subject and one for the issuer")
    return found


def _registration(proof: Receipt, genesis: Genesis) -> tuple[AuditRecord, int]:
    """Step 3: a verified record of a registration, and the time of its head."""
    proved = receipt.verify(proof, genesis)
    if not isinstance(proved, VerifiedRecord) or proved.record.kind != "person.registered":
        raise _failed(3, "a receipt is not for the registration of a person")
    return proved.record, proved.proof.time_ms


def _registered(record: AuditRecord) -> tuple[str, tuple[str, ...], bytes]:
    """Person, roles and key, as ``person.registered`` tells them (node.contracts.identity)."""
    roles, separator, key = record.detail.partition("; key ")
    try:
        public_key = bytes.fromhex(key)
    except ValueError:
        public_key = b""
    if not separator or len(public_key) != keys.PUBLIC_KEY_BYTES:
        raise _failed(4, "the record does not tell roles and key")
    return record.subject.removeprefix("person:"), tuple(roles.split(", ")), public_key


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _failed(step: int, problem: str) -> Corrupt:
    return Corrupt(
        f"step {step}: {problem}",
        rule="invalid-credential",
        hint="the credential proves nothing: ask its issuer for a new one",
    )
