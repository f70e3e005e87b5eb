"""Who has to leave when too many connections wait of whom nobody knows who they are. Pure but for ``source``.

Refusing newcomers would let whoever came first shut everybody else out by doing nothing. So the oldest makes room: a
member's node proves itself within a few round trips, and dials again if it was in the way. The oldest *of the source
that has most*: one address crowds out itself alone, while others lose nothing. Where all come from one address (a test
network, a proxy) this is plain oldest-first.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Iterator


class Strangers:
    """A bounded number of connections in order of arrival. Whoever adds them ends those that must leave."""

    def __init__(self, most: int) -> None:
        """``most`` connections at a time, at least 1."""
        self._most = most
        self._sources: dict[socket.socket, str] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[socket.socket]:
        return iter(tuple(self._sources))

    def add(self, connection: socket.socket) -> socket.socket | None:
        """One more; the one that has to leave for it, no longer counted, or None."""
        self._sources[connection] = source(connection)
        if len(self._sources) <= self._most:
            return None
        # Of equals the source that was here first: the newcomer's own only if nobody else has as many.
        ((crowd, _),) = Counter(self._sources.values()).most_common(1)
        leaving = next(one for one, its in self._sources.items() if its == crowd)
        self.discard(leaving)
        return leaving

    def discard(self, connection: socket.socket) -> None:
        """It ended, or is no stranger any more; harmless if it is not among them."""
        self._sources.pop(connection, None)


def source(connection: socket.socket) -> str:
    """Whose connection it is, as far as its address tells: an IPv4 address, or the /64 that one IPv6 host may own."""
    try:
        peer = connection.getpeername()
        address = ipaddress.ip_address(peer[0])
    except (OSError, ValueError, IndexError):  # it ended already, or is no internet socket
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))
