"""Signed transactions: make one, and verify one that came from anywhere.

Verification, in this order; nothing is parsed before the signature over it was verified, except the
three fields of the envelope itself:

1. the size is within bounds;
2. the envelope parses, and serialises to the same bytes again, so that nobody can attach anything to it;
3. the body names this chain (a comparison of bytes: protobuf writes field 1 first);
4. the signature is the key's over the chain id and exactly the body's bytes;
5. the body parses, with nothing in it that this version does not know: two versions that would
   understand a transaction differently must not both execute it;
6. nonce, expiry and operations are within bounds.

Whether the sender may do what it asks is for the contracts to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError
from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from koinon import canonical
from koinon.errors import InvalidInput
from koinon.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKey
from koinon.limits import MAX_ENVELOPE_BYTES, MAX_OPERATIONS, NONCE_BYTES
from koinon.v1.transaction_pb2 import Envelope, Operation, Refusal, TransactionBody


class InvalidTransaction(InvalidInput):
    """The bytes are no transaction of this chain; the one error of this module."""

    default_rule = "malformed-transaction"

    @property
    def refusal(self) -> Refusal:
        return Refusal(rule=self.rule, message=self.message, hint=self.hint)


class SignedTransaction(NamedTuple):
    """A transaction whose signature and form were verified."""

    id: bytes  # canonical.transaction_id
    sender_key: bytes  # Ed25519; whose it is, the ledger knows
    body: TransactionBody


def sign(
    chain_id: str,
    operations: Iterable[Operation],
    signing_key: SigningKey,
    expires_at_ms: int,
    nonce: bytes,
    max_fee: int = 0,
) -> bytes:
    """A serialised Envelope with these operations; ``nonce`` is 16 random bytes, ``expires_at_ms`` a block time.

    ``max_fee`` is what the signer agrees to pay in fees, in points.
    """
    body = TransactionBody(
        chain_id=chain_id, nonce=nonce, expires_at_ms=expires_at_ms, operations=operations, max_fee=max_fee
    ).SerializeToString(deterministic=True)
    return Envelope(
        body=body,
        public_key=signing_key.public_key,
        signature=signing_key.sign(canonical.transaction_bytes(chain_id, body)),
    ).SerializeToString(deterministic=True)


def identify(data: bytes) -> bytes:
    """The transaction id of a serialised Envelope, *unverified*: to look it up, never to trust it.

    Raises InvalidTransaction.
    """
    envelope = _parse(data)
    return canonical.transaction_id(envelope.public_key, envelope.body)


def verify(chain_id: str, data: bytes) -> SignedTransaction:
    """Verify a serialised Envelope that came from anywhere. Raises InvalidTransaction."""
    envelope = _parse(data)
    body = envelope.body
    sender_key = envelope.public_key
    if not body.startswith(_chain_field(chain_id)):
        raise InvalidTransaction(
            f"the transaction is not for the chain {chain_id}",
            rule="wrong-chain",
            hint="sign it with a profile whose genesis file is this network's",
        )
    try:
        crypto_sign_open(envelope.signature + canonical.transaction_bytes(chain_id, body), sender_key)
    except CryptoError:
        raise InvalidTransaction(
            f"the signature is not that of the key {sender_key.hex()[:16]}… over this transaction",
            rule="bad-signature",
            hint="sign the transaction again, with the key that belongs to the person",
        ) from None
    return SignedTransaction(canonical.transaction_id(sender_key, body), sender_key, _parse_body(body))


@lru_cache(maxsize=4)
def _chain_field(chain_id: str) -> bytes:
    """How a serialised TransactionBody for this chain begins: tag of field 1, length, text."""
    name = chain_id.encode("utf-8")
    return b"\x0a" + bytes([len(name)]) + name  # names are shorter than 128 bytes: a one-byte length


def _parse(data: bytes) -> Envelope:
    """The outer message, its bounds checked. Raises InvalidTransaction."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise InvalidTransaction(
            f"the transaction takes {len(data)} bytes, more than {MAX_ENVELOPE_BYTES}",
            rule="oversized-transaction",
            hint="split its operations over several transactions, or shorten descriptions and codelists",
        )
    try:
        envelope = Envelope.FromString(data)
    except DecodeError:
        raise _malformed("the bytes are not an envelope") from None
    if len(envelope.public_key) != PUBLIC_KEY_BYTES or len(envelope.signature) != SIGNATURE_BYTES:
        raise _malformed(f"a key has {PUBLIC_KEY_BYTES} bytes and a signature {SIGNATURE_BYTES}")
    envelope.DiscardUnknownFields()
    if envelope.SerializeToString(deterministic=True) != data:
        raise _malformed("the envelope carries more than body, key and signature, or is not in canonical form")
    return envelope


def _parse_body(data: bytes) -> TransactionBody:
    """The signed body, its bounds checked. Raises InvalidTransaction."""
    try:
        body = TransactionBody.FromString(data)
    except DecodeError:
        raise _malformed("the signed bytes are not a transaction body") from None
    body.DiscardUnknownFields()
    if body.ByteSize() != len(data):
        raise _malformed("the body holds fields that this version does not know")
    if len(body.nonce) != NONCE_BYTES:
        raise _malformed(f"the nonce has {len(body.nonce)} bytes, not {NONCE_BYTES}")
    if body.expires_at_ms <= 0:
        raise _malformed("the transaction has no expiry")
    operations = body.operations[:]  # a list: iterating over the field itself ends with an exception, which is dear
    count = len(operations)
    if count == 0:
        raise _malformed("the transaction has no operations")
    if count > MAX_OPERATIONS:
        raise InvalidTransaction(
            f"the transaction has {count} operations, more than {MAX_OPERATIONS}",
            rule="oversized-transaction",
            hint="split them over several transactions",
        )
    for operation in operations:
        if operation.WhichOneof("operation") is None:
            raise _malformed("an operation is empty")
    return body


def _malformed(message: str) -> InvalidTransaction:
    return InvalidTransaction(message, hint="make it with a Koinon client of the network's version")
