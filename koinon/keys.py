"""Keys and signatures: Ed25519 (RFC 8032) to sign, X25519 sealed boxes (NaCl) to receive results.

libsodium's verification is the one every node uses, so all agree on every signature: it refuses
non-canonical encodings and keys of small order. Keys on disk are koinon.key_files.
"""

from __future__ import annotations

from nacl.bindings import (
    crypto_box_keypair,
    crypto_box_seal,
    crypto_box_seal_open,
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_keypair,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from koinon.errors import InvalidInput

PUBLIC_KEY_BYTES = 32
SECRET_BYTES = 32
SIGNATURE_BYTES = 64


class SigningKey:
    """An Ed25519 key pair."""

    __slots__ = ("_secret_key", "public_key", "secret")

    def __init__(self, secret: bytes) -> None:
        """From the 32 secret bytes (RFC 8032's private key, libsodium's seed)."""
        self.secret = secret
        self.public_key: bytes
        self.public_key, self._secret_key = crypto_sign_seed_keypair(secret)

    @classmethod
    def generate(cls) -> SigningKey:
        _, secret_key = crypto_sign_keypair()
        return cls(secret_key[:SECRET_BYTES])

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``, which must be built by koinon.canonical."""
        return crypto_sign(message, self._secret_key)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey(public_key={self.public_key.hex()})"


class SealingKey:
    """An X25519 key pair, to which anyone can seal and only its holder can open."""

    __slots__ = ("public_key", "secret")

    def __init__(self, secret: bytes) -> None:
        """From the 32 secret bytes."""
        self.secret = secret
        self.public_key: bytes = crypto_scalarmult_base(secret)

    @classmethod
    def generate(cls) -> SealingKey:
        _, secret = crypto_box_keypair()
        return cls(secret)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed to this key; nothing says by whom. Raises InvalidInput."""
        try:
            return crypto_box_seal_open(sealed, self.public_key, self.secret)
        except (CryptoError, TypeError, ValueError) as error:
            raise InvalidInput(
                "the sealed bytes do not open with this key",
                rule="wrong-key",
                hint="they were sealed to another key, or damaged on the way",
            ) from error

    def __repr__(self) -> str:
        return f"SealingKey(public_key={self.public_key.hex()})"


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is ``public_key``'s over ``message``; all three may come from anyone."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except CryptoError:
        return False
    return True


def seal(public_key: bytes, message: bytes) -> bytes:
    """Seal ``message`` to the holder of an X25519 key (48 bytes longer). Raises InvalidInput."""
    try:
        return crypto_box_seal(message, public_key)
    except (CryptoError, TypeError, ValueError) as error:
        raise InvalidInput(
            "the key to seal to is not an X25519 public key",
            rule="wrong-key",
            hint="ask its holder for the 32-byte public key",
        ) from error
