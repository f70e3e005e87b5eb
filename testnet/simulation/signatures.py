"""Ed25519 at a price that thousands of worlds can pay: every signature is real, none is verified twice.

Verifying is two thirds of a simulation's cost, and nearly all of it repeats: each of seven nodes verifies what the
others verified. Whether a signature holds is a pure function of key, message and signature, so the answers
are remembered across nodes, and a signature made by libsodium in this process is known to hold. Code paths of the
nodes are the production ones; only libsodium's last call is answered from memory. Some seeds run without any of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nacl.bindings import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError

from koinon import envelope, keys

_SIGNATURE_BYTES = 64
_SECRET_BYTES = 32  # of libsodium's secret key; its other half is the public key


@contextmanager
def remembered() -> Iterator[None]:
    """Within this, verification of a signature made or verified before costs a look into a table."""
    really_open, really_sign = crypto_sign_open, crypto_sign
    known: dict[tuple[bytes, bytes], bool] = {}

    def open_signed(signed: bytes, public_key: bytes) -> bytes:
        found = known.get((signed, public_key))
        if found is None:
            try:
                really_open(signed, public_key)
                found = True
            except BadSignatureError:
                found = False
            known[signed, public_key] = found
        if not found:
            raise BadSignatureError("Signature was forged or corrupt")
        return signed[_SIGNATURE_BYTES:]

    def sign(message: bytes, secret_key: bytes) -> bytes:
        signed = really_sign(message, secret_key)
        known[signed, secret_key[_SECRET_BYTES:]] = True
        return signed

    replaced: list[tuple[Any, str, Any]] = [
        (keys, "crypto_sign_open", open_signed),
        (keys, "crypto_sign", sign),
        (envelope, "crypto_sign_open", open_signed),
    ]
    before = [getattr(module, name) for module, name, _ in replaced]
    for module, name, function in replaced:
        setattr(module, name, function)
    try:
        yield
    finally:
        for (module, name, _), function in zip(replaced, before, strict=True):
            setattr(module, name, function)
