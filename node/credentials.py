"""An institution's secrets: the keys in use, those that wait to replace them, and which of them the ledger names.

::

    HOME/keys/{validator,node,sealing}.key          in use
    HOME/keys/{validator,node,sealing}.next.key     made by `koinon key rotate`, and named by the ledger next
    HOME/keys/retired/<kind>-<key>.key              was in use
    HOME/tls/…, HOME/tls/next/…, HOME/tls/retired/… the same for certificate.pem and key.pem

A home belongs to an institution when the ledger names one of its keys of each kind. A ledger that is behind names one
that the home has retired meanwhile; so that is no reason to refuse.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from koinon import files, key_files
from koinon import genesis as genesis_file
from koinon.errors import InvalidFile
from koinon.key_files import AskPassphrase, Kind
from koinon.keys import SealingKey, SigningKey
from koinon.v1.identity_pb2 import Genesis, Institution, InstitutionDescriptor
from node import tls
from node.config import Home, NodeConfig

KINDS: dict[str, Kind] = {"validator": "ed25519", "node": "ed25519", "sealing": "x25519"}
"""The key files of a home."""

NEXT, RETIRED = "next", "retired"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything secret that a node holds; never logged, never sent."""

    validator: SigningKey  # consensus votes
    node: SigningKey  # the node's own transactions
    sealing: SealingKey
    identity: tls.Identity
    next_validator: SigningKey | None = None  # at the heights for which the ledger names it
    ask: AskPassphrase | None = field(default=None, repr=False)  # asked once; opens what is made later


def load(config: NodeConfig, genesis: Genesis, ask: AskPassphrase | None) -> Credentials:
    """Read keys and certificate of a home that is a founder's, or of somebody who hopes to be admitted.

    Args:
        ask: asks a person for a passphrase that the environment does not give; None where nobody is there.

    Raises:
        InvalidFile: a file is missing or damaged, a passphrase is wrong, or the home was made for another institution.
    """
    _check_institution(config, genesis)
    if _waiting(config.home.certificate).exists() and not _waiting(config.home.certificate_key).exists():
        _replace_certificate(config.home)  # what an interruption left half done
    return _read(config.home, ask_once(ask) if ask is not None else None)


def settle(config: NodeConfig, credentials: Credentials, member: Institution | None) -> Credentials:
    """Take into use what the ledger names by now, as far as it waits in the home; ``member`` is None for a stranger.

    Raises InvalidFile where the ledger names a key that the home never had.
    """
    if member is None:
        return credentials
    home, descriptor = config.home, member.descriptor
    for kind, form in KINDS.items():
        named = getattr(descriptor, f"{kind}_key")
        if not named or named == key_files.public_key(home.key(kind), form):
            continue  # none is named where it was revoked
        waiting = home.key(f"{kind}.{NEXT}")
        if waiting.exists() and key_files.public_key(waiting, form) == named:
            _replace_key(home, kind, form)
        elif not retired_key(home, kind, named).exists():
            raise _wrong(f"{home.key(kind)} is not what the ledger names for {config.institution}", config.institution)
    named, present = descriptor.tls_certificate, tls.read_certificate(home.certificate)
    if named != present:
        waiting = _waiting(home.certificate)
        if waiting.exists() and tls.read_certificate(waiting) == named:
            _replace_certificate(home)
        elif not retired_identity(home, named).exists() and member.former_tls_certificate != present:
            raise _wrong(
                f"{home.certificate} is not what the ledger names for {config.institution}", config.institution
            )
    return _read(home, credentials.ask)


def former_validator(home: Home, public_key: bytes, ask: AskPassphrase | None) -> SigningKey | None:
    """A validator key that was replaced, where the ledger still counts it for a height. Raises InvalidFile."""
    path = retired_key(home, "validator", public_key)
    return key_files.load_signing_key(path, ask) if path.exists() else None


def waiting_validator(home: Home, public_key: bytes, ask: AskPassphrase | None) -> SigningKey | None:
    """The validator key that waits in the home, if it is this one. Raises InvalidFile."""
    path = home.key(f"validator.{NEXT}")
    if not path.exists() or key_files.public_key(path, "ed25519") != public_key:
        return None
    return key_files.load_signing_key(path, ask)


def make_next(home: Home, kind: str, passphrase: str | None) -> bytes:
    """Make the key that is to replace one in use, ``validator``, ``node`` or ``sealing``; its public half.

    One that waits already is taken: it may be on the ledger. Raises InvalidFile or Exhausted.
    """
    path = home.key(f"{kind}.{NEXT}")
    if not path.exists():
        key = SealingKey.generate() if KINDS[kind] == "x25519" else SigningKey.generate()
        key_files.save(path, key, passphrase)
    return key_files.public_key(path, KINDS[kind])


def make_next_certificate(home: Home, institution: str) -> bytes:
    """The same for the certificate; returns it in DER."""
    path = _waiting(home.certificate)
    if not path.exists():
        identity = tls.create_identity(institution)
        _waiting(home.certificate_key).unlink(missing_ok=True)
        files.write_new(_waiting(home.certificate_key), identity.key.decode("ascii"), "TLS key", private=True)
        files.write_new(path, identity.certificate.decode("ascii"), "TLS certificate")
    return tls.read_certificate(path)


def retired_key(home: Home, kind: str, public_key: bytes) -> Path:
    """Where a key file is kept that was in use; a ledger that is behind may still name it."""
    return home.key(kind).parent / RETIRED / f"{kind}-{public_key.hex()[:16]}.key"


def retired_identity(home: Home, certificate: bytes) -> Path:
    """The directory of a certificate (DER) and its key that were in use."""
    return home.certificate.parent / RETIRED / tls.fingerprint(certificate).hex()[:16]


def ask_once(ask: AskPassphrase) -> AskPassphrase:
    """One passphrase opens all keys of a home: they were made together."""
    answers: list[str] = []

    def answer(prompt: str) -> str:
        if not answers:
            answers.append(ask(prompt))
        return answers[0]

    return answer


def _read(home: Home, ask: AskPassphrase | None) -> Credentials:
    waiting = home.key(f"validator.{NEXT}")
    identity = tls.read_identity(home.certificate, home.certificate_key)
    return Credentials(
        key_files.load_signing_key(home.key("validator"), ask),
        key_files.load_signing_key(home.key("node"), ask),
        key_files.load_sealing_key(home.key("sealing"), ask),
        identity,
        key_files.load_signing_key(waiting, ask) if waiting.exists() else None,
        ask,
    )


def _check_institution(config: NodeConfig, genesis: Genesis) -> None:
    """Founders are in the genesis; who hopes to be admitted has a descriptor of its own."""
    founders = [descriptor.id for descriptor in genesis.institutions]
    if config.institution in founders:
        return
    if config.home.descriptor.exists():
        made_for: InstitutionDescriptor = genesis_file.load_descriptor(config.home.descriptor)
        if made_for.id == config.institution:
            return
    raise InvalidFile(
        f"{config.institution} is not in the genesis, whose members are {', '.join(founders)}",
        rule="wrong-institution",
        hint="check `institution` in config.toml; a home that hopes to be admitted has a descriptor.json of that name",
    )


def _replace_key(home: Home, kind: str, form: Kind) -> None:
    present = home.key(kind)
    retired = retired_key(home, kind, key_files.public_key(present, form))
    _put_in_place(home.key(f"{kind}.{NEXT}"), present, retired)


def _replace_certificate(home: Home) -> None:
    retired = retired_identity(home, tls.read_certificate(home.certificate))
    for path in (home.certificate_key, home.certificate):  # the certificate last: it says what is in use
        if _waiting(path).exists():
            _put_in_place(_waiting(path), path, retired / path.name)


def _put_in_place(waiting: Path, present: Path, retired: Path) -> None:
    """At no moment is there no file in use. Raises InvalidFile."""
    try:
        retired.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.link(present, retired)
        waiting.replace(present)
    except OSError as error:
        raise InvalidFile(
            f"{present} cannot be replaced by {waiting}: {error.strerror}",
            rule="disk-read-only",
            hint="the node needs to write in its home",
        ) from None


def _waiting(path: Path) -> Path:
    return path.parent / NEXT / path.name


def _wrong(message: str, institution: str) -> InvalidFile:
    return InvalidFile(
        message,
        rule="wrong-institution",
        hint=f"use the home made by koinon init for {institution}, and the genesis file made with its descriptor",
    )
