"""Who answers at an address: one TLS handshake, as a member's node would make it."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from node.config import Address, Home

SHOWN_AT = ("rpc", "peer")
"""The ports of a node at which it shows its certificate to whoever connects."""

TWICE = "stop one of the two for good: with one key they would sign votes that contradict each other. Change no port"
"""What to do where another process already shows this home's certificate, from this home or from a copy."""

_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The certificate (DER) that was shown, and accepted ours; else empty, with the reason."""

    certificate: bytes
    reason: str


def dial(address: Address, home: Home) -> Answer:
    """Connect, show the home's certificate, and read one byte: whom the peer does not know, it hangs up on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the caller compares the bytes with the pinned ones, which is stricter
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(home.certificate, home.certificate_key)
    except (OSError, ssl.SSLError) as error:
        return Answer(b"", f"our own certificate cannot be used: {error}")
    try:
        with (
            socket.create_connection((address.host.strip("[]"), address.port), timeout=_PATIENCE_S) as plain,
            context.wrap_socket(plain) as secure,
        ):
            shown = secure.getpeercert(binary_form=True) or b""
            if not secure.recv(1):
                return Answer(shown, "it hung up on us")
            return Answer(shown, "")
    except TimeoutError:
        return Answer(b"", f"no answer within {_PATIENCE_S:.0f} s")
    except ssl.SSLError as error:
        return Answer(b"", f"TLS fails: {(error.reason or str(error)).lower().replace('_', ' ')}")
    except OSError as error:
        return Answer(b"", (error.strerror or str(error)).lower())
