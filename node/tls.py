"""TLS identities, pinned on the ledger.

A node has one self-signed ECDSA P-256 certificate (gRPC's TLS does not take Ed25519). What makes it
trusted is that its bytes stand on the ledger, under the institution's name: no authority signs it and
its dates mean nothing. It is therefore made without an end (RFC 5280, 4.1.2.5: 99991231235959Z), so
that no TLS stack turns a date into an outage.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from koinon.errors import InvalidFile
from koinon.files import unread
from koinon.limits import MAX_CERTIFICATE_BYTES
from koinon.names import tls_name

_FROM = datetime(2020, 1, 1, tzinfo=UTC)  # long past: a peer whose clock is late is no reason to refuse
_NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_RESTORE = "restore it from your backup"


@dataclass(frozen=True, slots=True)
class Identity:
    """Certificate and private key, both PEM."""

    certificate: bytes
    key: bytes


def create_identity(institution: str) -> Identity:
    """Make a key and the self-signed certificate for it, named ``koinon.names.tls_name(institution)``; see ``root``."""
    key = ec.generate_private_key(ec.SECP256R1())
    number = x509.random_serial_number()
    certificate = _signed(institution, f"{number:x}", number, key.public_key(), (_FROM, _NO_END), key)
    return Identity(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def fingerprint(der: bytes) -> bytes:
    """SHA-256 of a certificate's DER bytes: what names it here and on the ledger."""
    return hashlib.sha256(der).digest()


def read_identity(certificate: Path, key: Path) -> Identity:
    """Two PEM files of a home. Raises InvalidFile, naming the file: damaged, open to others, or not of one pair."""
    identity = Identity(_read(certificate), _read(key))
    if mode := key.stat().st_mode & 0o077:
        raise InvalidFile(
            f"{key} can be read by others (mode 0{0o600 | mode:o})",
            rule="invalid-key-file",
            hint=f"run: chmod 600 {key}",
        )
    try:
        private = serialization.load_pem_private_key(identity.key, password=None)
    except Exception as error:  # whatever a parser makes of damaged bytes
        raise InvalidFile(f"{key} holds no private key in PEM", rule="invalid-key-file", hint=_RESTORE) from error
    if _parse(certificate, identity.certificate).public_key() != private.public_key():
        raise InvalidFile(
            f"{certificate} does not belong to {key}", rule="wrong-institution", hint="restore both from one backup"
        )
    return identity


def read_certificate(path: Path) -> bytes:
    """DER of a home's PEM file. Raises InvalidFile, naming the file."""
    return _parse(path, _read(path)).public_bytes(serialization.Encoding.DER)


def _parse(path: Path, pem: bytes) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificate(pem)
        found.public_key()  # read only now
    except Exception as error:  # whatever a parser makes of damaged bytes
        raise InvalidFile(f"{path} holds no certificate in PEM", hint=_RESTORE) from error
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        hint = _RESTORE if isinstance(error, FileNotFoundError) else unread(error)
        raise InvalidFile(f"{path} cannot be read: {error.strerror}", hint=hint) from None


def pem_to_der(pem: bytes) -> bytes:
    """DER of the first certificate in ``pem``. Raises InvalidFile."""
    try:
        der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    except Exception as error:  # whatever a parser makes of bytes from anyone
        raise InvalidFile("not a PEM certificate", hint="koinon init makes one in HOME/tls") from error
    return der


def root(der: bytes, institution: str) -> bytes:
    """PEM of a member's certificate on the ledger, to be let in by TLS. Raises InvalidFile.

    It comes from the member, who may wish others ill. gRPC's TLS takes all roots or none, and finds one by its subject:
    bytes that it cannot read would close everybody's port, and another member's name would shut that member out. So it
    must be what ``create_identity`` makes for this institution, byte by byte but for number, key, dates and signature.
    """
    try:
        found = x509.load_der_x509_certificate(der)
        number, dates = found.serial_number, (found.not_valid_before_utc, found.not_valid_after_utc)
        key, signer = found.public_key(), ec.generate_private_key(ec.SECP256R1())
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("another kind of key")
        made = [_signed(institution, text, number, key, dates, signer) for text in (f"{number:x}", "")]
        if found.tbs_certificate_bytes not in [each.tbs_certificate_bytes for each in made]:
            raise ValueError("another form, or name")
        found.verify_directly_issued_by(found)
        if len(der) > MAX_CERTIFICATE_BYTES or not der.endswith(b"\x00" + found.signature):  # whole bytes, no bits left
            raise ValueError("more than a certificate")
        return found.public_bytes(serialization.Encoding.PEM)
    except Exception as error:  # whatever a parser makes of bytes from anyone
        raise InvalidFile(
            f"the TLS certificate is not one for {institution}", hint="koinon init and koinon key rotate tls make one"
        ) from error


def _signed(
    institution: str,
    text: str,
    number: int,
    key: ec.EllipticCurvePublicKey,
    dates: tuple[datetime, datetime],
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """A certificate in its one form; ``text`` is its number in the subject, by which TLS tells two of one member apart.

    Those made by earlier versions have none there.
    """
    name = [x509.NameAttribute(x509.NameOID.COMMON_NAME, institution)]
    if text:
        name.append(x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, text))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(name))
        .issuer_name(x509.Name(name))
        .public_key(key)
        .serial_number(number)
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(tls_name(institution))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )


def days_left(certificate: bytes, now: datetime) -> int:
    """Whole days until the PEM certificate's end, negative after it: worth a warning, never a refusal."""
    return (x509.load_pem_x509_certificate(certificate).not_valid_after_utc - now).days
