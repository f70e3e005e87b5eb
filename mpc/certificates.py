"""Certificates that live for one task, and TLS contexts that trust nothing else.

A worker's certificate is self-signed and goes on the ledger with its institution's AcceptTask; that is what makes it
trustworthy, so it carries neither a telling name nor useful dates. Its key exists in memory only, the node's and the
worker's.
"""

from __future__ import annotations

import datetime as dt
import os
import ssl
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)  # trust comes from the ledger: clocks must not matter
_UNTIL = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


def ephemeral() -> tuple[bytes, bytes]:
    """A fresh ECDSA P-256 key and its self-signed certificate: (certificate as DER, key as PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "koinon-worker")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.DER), pem


def context(*, server: bool, certificate: bytes, key_pem: bytes, trusted: Sequence[bytes]) -> ssl.SSLContext:
    """A TLS 1.3 context that shows ``certificate`` and admits the ``trusted`` ones (DER) and no other.

    Raises ssl.SSLError or ValueError if one of them is no certificate.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False  # parties are told apart by their certificates, compared byte by byte
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # match the certificate itself: they all bear the same name
    if server:
        made.num_tickets = 0  # every connection shows its certificate
    made.load_verify_locations(cadata=b"".join(trusted))
    memory = os.memfd_create("certificate", os.MFD_CLOEXEC)  # OpenSSL wants a file; no disk need see the key
    try:
        os.write(memory, ssl.DER_cert_to_PEM_cert(certificate).encode("ascii") + key_pem)
        made.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
    return made
