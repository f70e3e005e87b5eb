"""Keys and certificate: there, readable by their owner only, and those that the members know."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from koinon import key_files
from koinon.errors import InvalidFile
from koinon.key_files import AskPassphrase, Kind
from koinon.v1.identity_pb2 import InstitutionDescriptor
from node import tls
from node.config import NodeConfig
from node.credentials import KINDS, NEXT, retired_identity, retired_key
from node.doctor.finding import Finding, ok, problem, refused, warning

_SOON_DAYS = 30
_BEHIND = "nothing: the genesis, or a ledger that is behind, is all that could be read here"
_CENTURY_DAYS = 36_500  # koinon init makes certificates without an end, which X.509 writes as the year 9999


def keys(config: NodeConfig, known: InstitutionDescriptor | None, ask: AskPassphrase | None) -> Iterator[Finding]:
    """``known`` is what the members know of this institution; None where that cannot be told."""
    for name, kind in KINDS.items():
        path, check = config.home.key(name), f"{name} key"
        try:
            encrypted = key_files.is_encrypted(path, kind)
            opened = not encrypted or ask is not None
            if not opened:
                public_key = key_files.public_key(path, kind)
            elif kind == "ed25519":
                public_key = key_files.load_signing_key(path, ask).public_key
            else:
                public_key = key_files.load_sealing_key(path, ask).public_key
            waiting = _waiting(config, name, kind)
        except InvalidFile as error:
            yield refused(check, error)
            continue
        named = getattr(known, f"{name}_key") if known is not None else b""
        if known is not None and not named:
            yield warning(
                check,
                f"the members know none for {config.institution}: it was revoked",
                f"koinon key rotate {name} --home {config.home.path}",
            )
        elif known is not None and named == waiting:
            yield warning(check, f"{path} was rotated, and the node has not taken up the new key", "start the node")
        elif known is not None and public_key != named and retired_key(config.home, name, named).exists():
            yield warning(check, f"{path} has replaced the key that the ledger names here", _BEHIND)
        elif known is not None and public_key != named:
            yield problem(
                check,
                f"{path} is not the key that the members know for {config.institution}",
                "restore the key from your backup, or use the genesis file made with this home's descriptor.json",
            )
        elif not encrypted:
            yield warning(check, f"{path} is kept without a passphrase", "do so on test networks only")
        else:
            yield ok(check, f"{path} is {'opened by the passphrase' if opened else 'encrypted, and was not opened'}")


def certificate(config: NodeConfig, known: InstitutionDescriptor | None) -> Iterator[Finding]:
    """An end that has passed is a warning only: what counts is that the bytes are those pinned on the ledger."""
    home, check = config.home, "certificate"
    try:
        identity = tls.read_identity(home.certificate, home.certificate_key)
        waiting = _waiting_certificate(config)
    except InvalidFile as error:
        yield refused(check, error)
        return
    der, left = tls.pem_to_der(identity.certificate), tls.days_left(identity.certificate, datetime.now(UTC))
    pinned = "pinned by the members" if known is not None else "it fits its key; the members do not know it yet"
    if known is not None and der != known.tls_certificate and known.tls_certificate == waiting:
        yield warning(check, f"{home.certificate} was rotated, and the node has not taken up the new one", "start it")
    elif known is not None and der != known.tls_certificate and retired_identity(home, known.tls_certificate).exists():
        yield warning(check, f"{home.certificate} has replaced the certificate that the ledger names here", _BEHIND)
    elif known is not None and der != known.tls_certificate:
        yield problem(
            check,
            f"{home.certificate} is not the certificate that the members pinned for {config.institution}",
            "restore it from your backup: nobody connects to another one",
        )
    elif left < _SOON_DAYS:
        yield warning(
            check,
            f"the certificate {'ended' if left < 0 else 'ends'} {abs(left)} days {'ago' if left < 0 else 'from now'}",
            "Koinon's nodes go by the pinned bytes and do not mind; other TLS clients may: plan a new one",
        )
    else:
        yield ok(check, f"{pinned}; {'without an end' if left > _CENTURY_DAYS else f'{left} days left'}")


def _waiting(config: NodeConfig, name: str, kind: Kind) -> bytes:
    path = config.home.key(f"{name}.{NEXT}")
    return key_files.public_key(path, kind) if path.exists() else b""


def _waiting_certificate(config: NodeConfig) -> bytes:
    path = config.home.certificate.parent / NEXT / config.home.certificate.name
    return tls.read_certificate(path) if path.exists() else b""
