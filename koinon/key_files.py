"""Secret keys on disk: encrypted with a passphrase (Argon2id, then NaCl's secretbox), readable by their owner only.

::

    {"format": "koinon-key/1", "kind": "ed25519", "public_key": BASE64, "protection": "argon2id+secretbox",
     "passes": 3, "memory_bytes": 67108864, "salt": BASE64, "secret": BASE64}

Keys of test networks may be kept without a passphrase; the file says so: ``"protection": "none: test networks only"``.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.utils import random

from koinon.errors import InvalidFile
from koinon.files import read_text, write_new
from koinon.keys import SECRET_BYTES, SealingKey, SigningKey
from koinon.limits import MAX_KEY_FILE_BYTES, MAX_KEY_MEMORY_BYTES, MAX_KEY_PASSES

ENVIRONMENT = "KOINON_PASSPHRASE"
FORMAT = "koinon-key/1"

Kind = Literal["ed25519", "x25519"]
AskPassphrase = Callable[[str], str]
"""Given a prompt, returns what a person typed."""

_ENCRYPTED = "argon2id+secretbox"
_PLAIN = "none: test networks only"
# RFC 9106, section 4, second recommended option: 3 passes over 64 MiB (libsodium has one lane).
_PASSES = 3
_MEMORY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _KeyFile:
    """The checked contents of a key file, still encrypted."""

    kind: Kind
    public_key: bytes
    encrypted: bool
    passes: int
    memory_bytes: int
    salt: bytes
    secret: bytes


def save(path: Path, key: SigningKey | SealingKey, passphrase: str | None) -> None:
    """Write a key to a new file, mode 0600; ``None`` keeps it unencrypted, for test networks only.

    Raises InvalidFile or Exhausted.
    """
    table: dict[str, Any] = {
        "format": FORMAT,
        "kind": "ed25519" if isinstance(key, SigningKey) else "x25519",
        "public_key": _text(key.public_key),
    }
    if passphrase is None:
        table |= {"protection": _PLAIN, "secret": _text(key.secret)}
    elif not passphrase:
        raise InvalidFile(
            "an empty passphrase protects nothing",
            rule="invalid-key-file",
            hint=f"type one, or set {ENVIRONMENT}",
        )
    else:
        salt = random(argon2id.SALTBYTES)
        box = _box(passphrase, salt, _PASSES, _MEMORY_BYTES)
        table |= {
            "protection": _ENCRYPTED,
            "passes": _PASSES,
            "memory_bytes": _MEMORY_BYTES,
            "salt": _text(salt),
            "secret": _text(bytes(box.encrypt(key.secret))),
        }
    write_new(path, json.dumps(table, indent=2) + "\n", "key file", private=True)


def load_signing_key(path: Path, ask: AskPassphrase | None = None) -> SigningKey:
    """The Ed25519 key in a file. The passphrase comes from KOINON_PASSPHRASE, else from ``ask``. Raises InvalidFile."""
    file = _read(path, "ed25519")
    key = SigningKey(_secret(path, file, ask))
    _check_public_key(path, file, key.public_key)
    return key


def load_sealing_key(path: Path, ask: AskPassphrase | None = None) -> SealingKey:
    """The X25519 key in a file; otherwise as ``load_signing_key``. Raises InvalidFile."""
    file = _read(path, "x25519")
    key = SealingKey(_secret(path, file, ask))
    _check_public_key(path, file, key.public_key)
    return key


def public_key(path: Path, kind: Kind) -> bytes:
    """What the file says is its public key; nothing is decrypted, so nothing is proved. Raises InvalidFile."""
    return _read(path, kind).public_key


def is_encrypted(path: Path, kind: Kind) -> bool:
    """Does the key take a passphrase? Raises InvalidFile."""
    return _read(path, kind).encrypted


def _read(path: Path, kind: Kind) -> _KeyFile:
    text = read_text(path, "key file", MAX_KEY_FILE_BYTES)
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}", hint="check the path") from error
    if mode & 0o077:
        raise _invalid(path, f"can be read by others (mode {mode:04o})", hint=f"run: chmod 600 {path}")
    try:
        table = json.loads(text)
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise ValueError("it is of another format")
        file = _parse(table)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _invalid(path, "is damaged", hint="restore it from your backup") from error
    if file.kind != kind:
        raise _invalid(path, f"holds an {file.kind} key, not {kind}", hint="check which key the profile names")
    return file


def _parse(table: dict[str, Any]) -> _KeyFile:
    """Raises ValueError, KeyError or TypeError."""
    kind, protection = table["kind"], table["protection"]
    if kind not in ("ed25519", "x25519") or protection not in (_ENCRYPTED, _PLAIN):
        raise ValueError("unknown kind or protection")
    encrypted = protection == _ENCRYPTED
    expected = {"format", "kind", "public_key", "protection", "secret"}
    if set(table) != (expected | {"passes", "memory_bytes", "salt"} if encrypted else expected):
        raise ValueError("keys missing or unknown")
    passes, memory_bytes = (table["passes"], table["memory_bytes"]) if encrypted else (0, 0)
    if type(passes) is not int or type(memory_bytes) is not int:  # a bool is an int to isinstance
        raise TypeError("the cost of the passphrase is no number")
    if encrypted and not (1 <= passes <= MAX_KEY_PASSES and 8192 <= memory_bytes <= MAX_KEY_MEMORY_BYTES):
        raise ValueError("the cost of the passphrase is out of bounds")
    file = _KeyFile(
        kind=kind,
        public_key=_bytes(table["public_key"]),
        encrypted=encrypted,
        passes=passes,
        memory_bytes=memory_bytes,
        salt=_bytes(table["salt"]) if encrypted else b"",
        secret=_bytes(table["secret"]),
    )
    overhead = SecretBox.NONCE_SIZE + SecretBox.MACBYTES if encrypted else 0
    if len(file.secret) != SECRET_BYTES + overhead or (encrypted and len(file.salt) != argon2id.SALTBYTES):
        raise ValueError("wrong length")
    return file


def _secret(path: Path, file: _KeyFile, ask: AskPassphrase | None) -> bytes:
    if not file.encrypted:
        return file.secret
    passphrase = os.environ.get(ENVIRONMENT, "")
    if not passphrase and ask is not None:
        passphrase = ask(f"Passphrase of {path}")
    if not passphrase:
        raise _invalid(path, "is encrypted", hint=f"set {ENVIRONMENT}, or run the command in a terminal to be asked")
    try:
        return _box(passphrase, file.salt, file.passes, file.memory_bytes).decrypt(file.secret)
    except CryptoError as error:
        raise _invalid(
            path,
            "does not open with this passphrase",
            hint=f"check {ENVIRONMENT} or type it again; a lost passphrase cannot be recovered",
        ) from error


def _check_public_key(path: Path, file: _KeyFile, derived: bytes) -> None:
    if file.public_key != derived:
        raise _invalid(path, "states another public key than its own", hint="restore it from your backup")


def _box(passphrase: str, salt: bytes, passes: int, memory_bytes: int) -> SecretBox:
    return SecretBox(
        argon2id.kdf(SecretBox.KEY_SIZE, passphrase.encode("utf-8"), salt, opslimit=passes, memlimit=memory_bytes)
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _invalid(path: Path, problem: str, *, hint: str) -> InvalidFile:
    return InvalidFile(f"the key file {path} {problem}", rule="invalid-key-file", hint=hint)
