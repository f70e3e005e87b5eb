"""``did:key`` identifiers of Ed25519 keys (W3C did:key method v0.9): the key itself, in another notation.

``did:key:`` and then, in base58 with a leading ``z`` (multibase), two bytes 0xed 0x01 (multicodec ed25519-pub) and the
key. Nothing is looked up: whoever has the identifier has the key.
"""

from __future__ import annotations

from koinon.errors import InvalidInput
from koinon.keys import PUBLIC_KEY_BYTES

_PREFIX = "did:key:"
_ED25519 = b"\xed\x01"
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}
_MAX_MULTIBASE = 128  # characters: signatures, the longest, take 88


def of_key(public_key: bytes) -> str:
    """The identifier of a 32-byte Ed25519 key."""
    return _PREFIX + multibase(_ED25519 + public_key)


def key_of(did: str) -> bytes:
    """The Ed25519 key that an identifier from anywhere means. Raises InvalidInput."""
    data = from_multibase(did.removeprefix(_PREFIX)) if did.startswith(_PREFIX) else b""
    key = data.removeprefix(_ED25519)
    if len(data) != len(_ED25519) + PUBLIC_KEY_BYTES or len(key) != PUBLIC_KEY_BYTES:
        raise InvalidInput(f"{did[:100]!a} is no did:key of an Ed25519 key", hint="it begins with did:key:z6Mk")
    return key


def verification_method(did: str) -> str:
    """The URL of the only key in the identifier's document."""
    return f"{did}#{did.removeprefix(_PREFIX)}"


def multibase(data: bytes) -> str:
    """Bytes in base58btc with its multibase letter."""
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "z" + _ALPHABET[0] * zeros + digits


def from_multibase(text: str) -> bytes:
    """The bytes of a text from anywhere; its one spelling. Raises InvalidInput."""
    if not text.startswith("z") or len(text) > _MAX_MULTIBASE or any(letter not in _DIGITS for letter in text[1:]):
        raise InvalidInput("a text is not base58 with a leading z", hint="copy it whole")
    number = 0
    for letter in text[1:]:
        number = number * 58 + _DIGITS[letter]
    digits = text[1:].lstrip(_ALPHABET[0])
    return bytes(len(text) - 1 - len(digits)) + number.to_bytes((number.bit_length() + 7) // 8, "big")
