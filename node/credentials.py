"""An institution's secrets, checked against what the genesis says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koinon import key_files
from koinon.errors import InvalidFile
from koinon.key_files import AskPassphrase
from koinon.keys import SealingKey, SigningKey
from koinon.v1.identity_pb2 import Genesis, InstitutionDescriptor
from node import tls
from node.config import NodeConfig


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything secret that a node holds; never logged, never sent."""

    validator: SigningKey  # consensus votes
    node: SigningKey  # the node's own transactions
    sealing: SealingKey
    identity: tls.Identity


def load(config: NodeConfig, genesis: Genesis, ask: AskPassphrase | None) -> Credentials:
    """Read keys and certificate of a home, and make sure that they are this member's.

    Args:
        ask: asks a person for a passphrase that the environment does not give; None where nobody is there.

    Raises:
        InvalidFile: a file is missing or damaged, a passphrase is wrong, the institution is not in the genesis,
            or a key or the certificate is not the one that the genesis names for it.
    """
    home = config.home
    descriptor = _descriptor(config.institution, genesis)
    if ask is not None:
        ask = ask_once(ask)
    validator = key_files.load_signing_key(home.key("validator"), ask)
    node = key_files.load_signing_key(home.key("node"), ask)
    sealing = key_files.load_sealing_key(home.key("sealing"), ask)
    identity = tls.Identity(_read(home.certificate), _read(home.certificate_key))
    if not tls.fits_key(identity):
        raise _wrong(f"{home.certificate} does not belong to {home.certificate_key}", config.institution)
    for path, ours, theirs in (
        (home.key("validator"), validator.public_key, descriptor.validator_key),
        (home.key("node"), node.public_key, descriptor.node_key),
        (home.key("sealing"), sealing.public_key, descriptor.sealing_key),
        (home.certificate, tls.pem_to_der(identity.certificate), descriptor.tls_certificate),
    ):
        if ours != theirs:
            raise _wrong(f"{path} is not what the genesis names for {config.institution}", config.institution)
    return Credentials(validator, node, sealing, identity)


def _descriptor(institution: str, genesis: Genesis) -> InstitutionDescriptor:
    for descriptor in genesis.institutions:
        if descriptor.id == institution:
            return descriptor
    members = ", ".join(descriptor.id for descriptor in genesis.institutions)
    raise InvalidFile(
        f"{institution} is not in the genesis, whose members are {members}",
        rule="wrong-institution",
        hint="check `institution` in config.toml, and that genesis.json is the one made with your descriptor",
    )


def ask_once(ask: AskPassphrase) -> AskPassphrase:
    """One passphrase opens all keys of a home: they were made together."""
    answers: list[str] = []

    def answer(prompt: str) -> str:
        if not answers:
            answers.append(ask(prompt))
        return answers[0]

    return answer


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidFile(f"{path} cannot be read: {error.strerror}", hint="restore it from your backup") from None


def _wrong(message: str, institution: str) -> InvalidFile:
    return InvalidFile(
        message,
        rule="wrong-institution",
        hint=f"use the home made by koinon init for {institution}, and the genesis file made with its descriptor",
    )
