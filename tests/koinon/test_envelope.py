"""Envelopes: what verifies, what does not, and under which rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import canonical, envelope, keys
from koinon.envelope import InvalidTransaction
from koinon.keys import SigningKey
from koinon.limits import MAX_ENVELOPE_BYTES, MAX_OPERATIONS
from koinon.rules import RULES
from koinon.v1.access_pb2 import RequestAccess
from koinon.v1.transaction_pb2 import Envelope, Operation, TransactionBody

CHAIN = "ercp-0011223344556677"
KEY = SigningKey(bytes(range(32)))
NONCE = bytes(range(16))
OPERATION = Operation(request_access=RequestAccess(dataset="um.ercp.indo_rct", uses=3))
GOOD = envelope.sign(CHAIN, [OPERATION], KEY, 1_000, NONCE)


def signed(body: bytes, key: SigningKey = KEY, chain: str = CHAIN) -> bytes:
    """An envelope around any body, with a signature that fits."""
    signature = key.sign(canonical.transaction_bytes(chain, body))
    return Envelope(body=body, public_key=key.public_key, signature=signature).SerializeToString(deterministic=True)


def body_with(**fields: object) -> bytes:
    body = TransactionBody(chain_id=CHAIN, nonce=NONCE, expires_at_ms=1_000, operations=[OPERATION])
    for name, value in fields.items():
        body.ClearField(name)  # type: ignore[arg-type]
        body.MergeFrom(TransactionBody(**{name: value}))  # type: ignore[arg-type]
    return body.SerializeToString(deterministic=True)


def rule_of(data: bytes, chain: str = CHAIN) -> str:
    with pytest.raises(InvalidTransaction) as caught:
        envelope.verify(chain, data)
    refusal = caught.value.refusal
    assert refusal.rule in RULES
    assert refusal.message
    assert refusal.hint
    return refusal.rule


def test_what_was_signed_verifies() -> None:
    transaction = envelope.verify(CHAIN, GOOD)
    assert transaction.sender_key == KEY.public_key
    assert transaction.body.operations == [OPERATION]
    assert transaction.body.chain_id == CHAIN
    assert transaction.body.expires_at_ms == 1_000
    assert transaction.body.nonce == NONCE
    assert transaction.id == envelope.identify(GOOD)
    assert transaction.id == canonical.transaction_id(KEY.public_key, Envelope.FromString(GOOD).body)


def test_the_id_does_not_depend_on_the_signature() -> None:
    other = Envelope.FromString(GOOD)
    other.signature = bytes(64)
    assert envelope.identify(other.SerializeToString()) == envelope.identify(GOOD)


def test_another_chain_is_named() -> None:
    assert rule_of(GOOD, "ercp-ffffffffffffffff") == "wrong-chain"


def test_a_body_that_names_this_chain_but_was_signed_for_another_is_refused() -> None:
    assert rule_of(signed(body_with(), chain="ercp-ffffffffffffffff")) == "bad-signature"


def test_a_body_that_names_two_chains_is_refused() -> None:
    """Protobuf lets the last occurrence of a field win; the bytes compared are the first."""
    assert rule_of(signed(body_with() + TransactionBody(chain_id="other").SerializeToString())) == (
        "malformed-transaction"
    )


def test_another_key_does_not_verify() -> None:
    parts = Envelope.FromString(GOOD)
    parts.public_key = SigningKey(bytes(32)).public_key
    assert rule_of(parts.SerializeToString()) == "bad-signature"


def small_order_keys() -> list[bytes]:
    return [bytes(32), bytes([1]) + bytes(31), bytes.fromhex("ecffff" + "ff" * 28 + "7f")]


@pytest.mark.parametrize("key", small_order_keys())
def test_a_key_of_small_order_signs_nothing(key: bytes) -> None:
    """With such a key a signature of zeros would verify over many messages."""
    for signature in (bytes(64), key + bytes(32)):
        parts = Envelope(body=Envelope.FromString(GOOD).body, public_key=key, signature=signature)
        assert rule_of(parts.SerializeToString()) == "bad-signature"


def test_a_signature_has_one_form_only() -> None:
    """S and S + L verify alike in lax implementations: two forms of one transaction."""
    order = 2**252 + 27742317777372353535851937790883648493
    parts = Envelope.FromString(GOOD)
    s = int.from_bytes(parts.signature[32:], "little") + order
    parts.signature = parts.signature[:32] + s.to_bytes(32, "little")
    assert rule_of(parts.SerializeToString()) == "bad-signature"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("nothing", b""),
        ("noise", b"\xff" * 40),
        ("cut short", GOOD[:-1]),
        ("trailing byte", GOOD + b"\x00"),
        ("unknown field", GOOD + b"\x22\x01x"),
        ("a field twice", GOOD + GOOD),
        ("fields in another order", GOOD[-66:] + GOOD[:-66]),
        ("short key", Envelope(body=b"x", public_key=bytes(31), signature=bytes(64)).SerializeToString()),
        ("long key", Envelope(body=b"x", public_key=bytes(33), signature=bytes(64)).SerializeToString()),
        ("short signature", Envelope(body=b"x", public_key=bytes(32), signature=bytes(63)).SerializeToString()),
        ("no signature", Envelope(body=b"x", public_key=bytes(32)).SerializeToString()),
        ("body is noise", signed(body_with() + b"\xff\xff")),
        ("body with an unknown field", signed(body_with() + b"\xfa\x07\x01x")),
        ("operation with an unknown field", signed(body_with() + b"\x22\x03\xfa\x07\x00")),
        ("length in a longer form", signed(body_with() + b"\x22\x80\x00")),
        ("empty operation", signed(body_with(operations=[Operation()]))),
        ("no operations", signed(body_with(operations=[]))),
        ("no nonce", signed(body_with(nonce=b""))),
        ("long nonce", signed(body_with(nonce=bytes(17)))),
        ("no expiry", signed(body_with(expires_at_ms=0))),
        ("expiry before 1970", signed(body_with(expires_at_ms=-1))),
    ],
)
def test_malformed(name: str, data: bytes) -> None:
    assert rule_of(data) == "malformed-transaction", name


def test_oversized() -> None:
    largest = Operation(request_access=RequestAccess(purposes=["x" * MAX_ENVELOPE_BYTES]))
    assert rule_of(envelope.sign(CHAIN, [largest], KEY, 1_000, NONCE)) == "oversized-transaction"
    operations = [OPERATION] * MAX_OPERATIONS
    envelope.verify(CHAIN, envelope.sign(CHAIN, operations, KEY, 1_000, NONCE))
    assert rule_of(envelope.sign(CHAIN, [*operations, OPERATION], KEY, 1_000, NONCE)) == "oversized-transaction"


def test_nothing_is_parsed_before_its_signature_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(_data: bytes) -> TransactionBody:
        raise AssertionError("an unsigned body was parsed")

    monkeypatch.setattr(envelope, "_parse_body", parsed)
    parts = Envelope.FromString(GOOD)
    parts.signature = parts.signature[:-1] + bytes([parts.signature[-1] ^ 1])
    assert rule_of(parts.SerializeToString()) == "bad-signature"


@given(position=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
def test_no_bit_can_change(position: int, bit: int) -> None:
    data = bytearray(GOOD)
    data[position] ^= 1 << bit
    rule_of(bytes(data))


@given(data=st.binary(max_size=300))
def test_noise_raises_the_one_error(data: bytes) -> None:
    rule_of(data)
    rule_of(signed(body_with()[:23] + data))


# --- keys ----------------------------------------------------------------------------------------------


def test_ed25519_is_that_of_rfc_8032() -> None:
    """Section 7.1, test 2."""
    key = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public_key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = key.sign(b"\x72")
    assert signature.hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert keys.verify(key.public_key, b"\x72", signature)


@pytest.mark.parametrize(
    "change",
    [
        lambda key, message, signature: (key, message + b"x", signature),
        lambda key, message, signature: (key[:-1], message, signature),
        lambda key, message, signature: (key + b"x", message, signature),
        lambda key, message, signature: (key, message, signature[:-1]),
        lambda key, message, signature: (key, signature[63:] + message, signature[:63]),
        lambda key, message, signature: (bytes(32), message, signature),
        lambda key, message, signature: (b"", b"", b""),
    ],
)
def test_anything_else_does_not_verify(change: Callable[..., tuple[bytes, bytes, bytes]]) -> None:
    assert not keys.verify(*change(KEY.public_key, b"message", KEY.sign(b"message")))
