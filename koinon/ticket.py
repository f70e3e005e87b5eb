"""Tickets: how a caller shows its key to a node, without a password and without a round trip.

A ticket is a signature over the chain, the node's TLS certificate and an expiry a few minutes ahead. It is
sent inside TLS with that pinned certificate. Who sees it can call that one node as its holder until it
expires, and nothing else: transactions are signed one by one.
"""

from __future__ import annotations

import hashlib

from google.protobuf.message import DecodeError

from koinon import canonical, keys
from koinon.errors import Unauthenticated
from koinon.keys import SigningKey
from koinon.limits import MAX_CLOCK_DRIFT_MS, MAX_TICKET_MS
from koinon.v1.services_pb2 import Ticket

METADATA_KEY = "koinon-ticket-bin"  # gRPC metadata; "-bin" carries bytes
PERSON_KEY = "koinon-person"
"""Beside it: who the caller takes itself for. A profile with another's key would act as that other, unnoticed."""

_MAX_BYTES = 128  # key, signature and expiry take 111


def make(chain_id: str, node_certificate: bytes, signing_key: SigningKey, expires_at_ms: int) -> bytes:
    """A serialised Ticket for the node with this TLS certificate (DER)."""
    return Ticket(
        public_key=signing_key.public_key,
        expires_at_ms=expires_at_ms,
        signature=signing_key.sign(_signed_bytes(chain_id, node_certificate, expires_at_ms)),
    ).SerializeToString(deterministic=True)


def verify(chain_id: str, node_certificate: bytes, data: bytes, now_ms: int) -> bytes:
    """The key that holds this ticket, which came from anywhere; whose key it is, the ledger knows.

    Raises Unauthenticated.
    """
    if len(data) > _MAX_BYTES:
        raise _refused("the ticket is too long")
    try:
        ticket = Ticket.FromString(data)
    except DecodeError:
        raise _refused("the ticket is not one") from None
    if ticket.expires_at_ms <= now_ms:
        raise Unauthenticated(
            f"the ticket expired {(now_ms - ticket.expires_at_ms) // 1000} s ago",
            rule="ticket-expired",
            hint="make a new one; if it is new, compare the clocks of this machine and of the node",
        )
    if ticket.expires_at_ms > now_ms + MAX_TICKET_MS + MAX_CLOCK_DRIFT_MS:
        raise Unauthenticated(
            f"the ticket would be good for more than {MAX_TICKET_MS // 60_000} minutes",
            rule="ticket-too-long",
            hint="ask for less; if it is less, compare the clocks of this machine and of the node",
        )
    signed = _signed_bytes(chain_id, node_certificate, ticket.expires_at_ms)
    if not keys.verify(ticket.public_key, signed, ticket.signature):
        raise _refused("the ticket is not signed by its key for this node and chain")
    return ticket.public_key


def _signed_bytes(chain_id: str, node_certificate: bytes, expires_at_ms: int) -> bytes:
    return canonical.ticket_bytes(chain_id, hashlib.sha256(node_certificate).digest(), expires_at_ms)


def _refused(message: str) -> Unauthenticated:
    return Unauthenticated(
        message, rule="bad-ticket", hint="check that the profile's key, node certificate and genesis belong together"
    )
