"""Who leaves when too many wait: never one whose source has few, never the newcomer alone."""

from __future__ import annotations

import socket

import pytest

from mpc import strangers
from mpc.strangers import Strangers


class Connection:
    """What ``source`` asks of a socket."""

    def __init__(self, address: str) -> None:
        self.address = address

    def getpeername(self) -> tuple[str, int]:
        return self.address, 1


def from_(address: str) -> socket.socket:
    return Connection(address)  # type: ignore[return-value]


def test_the_oldest_makes_room() -> None:
    waiting = Strangers(3)
    first, second, third, fourth = (from_("127.0.0.1") for _ in range(4))
    assert [waiting.add(one) for one in (first, second, third)] == [None] * 3
    assert waiting.add(fourth) is first
    waiting.discard(second)
    waiting.discard(first)
    assert list(waiting) == [third, fourth]


def test_a_crowd_from_one_address_crowds_out_itself_alone() -> None:
    waiting = Strangers(8)
    member = from_("10.0.0.1")
    waiting.add(member)
    crowd = [from_("192.0.2.7") for _ in range(100)]
    left = [leaving for one in crowd if (leaving := waiting.add(one)) is not None]
    assert left == crowd[: len(left)]
    late = from_("10.0.0.2")
    assert waiting.add(late) in crowd
    assert {member, late} <= set(waiting)
    assert len(waiting) == 8


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_host_is_one_source(address: str, expected: str) -> None:
    assert strangers.source(from_(address)) == expected
