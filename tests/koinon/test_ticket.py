"""Tickets: good for one key, one node, one chain, a short while."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import ticket
from koinon.errors import Unauthenticated
from koinon.keys import SigningKey
from koinon.limits import MAX_CLOCK_DRIFT_MS, MAX_TICKET_MS
from koinon.rules import RULES
from koinon.v1.services_pb2 import Ticket

CHAIN = "ercp-0011223344556677"
CERTIFICATE = b"certificate of um, DER"
KEY = SigningKey(bytes(range(32)))
NOW = 1_763_000_000_000
GOOD = ticket.make(CHAIN, CERTIFICATE, KEY, NOW + MAX_TICKET_MS)


def rule_of(data: bytes, *, chain: str = CHAIN, certificate: bytes = CERTIFICATE, now_ms: int = NOW) -> str:
    with pytest.raises(Unauthenticated) as caught:
        ticket.verify(chain, certificate, data, now_ms)
    assert caught.value.rule in RULES
    assert caught.value.hint
    return caught.value.rule


def test_a_ticket_shows_its_key() -> None:
    assert ticket.verify(CHAIN, CERTIFICATE, GOOD, NOW) == KEY.public_key
    assert ticket.verify(CHAIN, CERTIFICATE, GOOD, NOW + MAX_TICKET_MS - 1) == KEY.public_key


def test_it_is_good_for_one_chain_and_one_node() -> None:
    assert rule_of(GOOD, chain="ercp-ffffffffffffffff") == "bad-ticket"
    assert rule_of(GOOD, certificate=b"certificate of iu, DER") == "bad-ticket"


def test_it_expires() -> None:
    assert rule_of(GOOD, now_ms=NOW + MAX_TICKET_MS) == "ticket-expired"
    assert rule_of(ticket.make(CHAIN, CERTIFICATE, KEY, -(2**63)), now_ms=NOW) == "ticket-expired"


def test_it_may_not_be_made_for_long() -> None:
    """A little more than the limit passes, for clocks differ."""
    longest = NOW + MAX_TICKET_MS + MAX_CLOCK_DRIFT_MS
    ticket.verify(CHAIN, CERTIFICATE, ticket.make(CHAIN, CERTIFICATE, KEY, longest), NOW)
    assert rule_of(ticket.make(CHAIN, CERTIFICATE, KEY, longest + 1)) == "ticket-too-long"
    assert rule_of(ticket.make(CHAIN, CERTIFICATE, KEY, 2**63 - 1)) == "ticket-too-long"


def test_another_key_cannot_take_it_over() -> None:
    parts = Ticket.FromString(GOOD)
    parts.public_key = SigningKey(bytes(32)).public_key
    assert rule_of(parts.SerializeToString()) == "bad-ticket"
    parts.public_key = b""
    assert rule_of(parts.SerializeToString()) == "bad-ticket"


@given(position=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
def test_no_bit_can_change(position: int, bit: int) -> None:
    data = bytearray(GOOD)
    data[position] ^= 1 << bit
    rule_of(bytes(data))


@given(data=st.binary(max_size=200))
def test_noise_raises_the_one_error(data: bytes) -> None:
    rule_of(data)
