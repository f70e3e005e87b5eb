"""Ports of this machine: may we bind them, and how does one reach what listens there."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

from node.config import Address

_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - read, not bound


def refusal(address: Address) -> int:
    """The errno with which the system refuses to let us listen here; 0 when it would.

    A name that cannot be resolved is none of this machine's: EADDRNOTAVAIL.
    """
    host = address.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, address.port))
            probe.listen()  # without it Linux lets two probes bind
        except socket.gaierror:
            return errno.EADDRNOTAVAIL
        except OSError as error:
            return error.errno or errno.EIO
    return 0


def dialled(address: Address) -> Address:
    """Where a program on this machine reaches what is bound to ``address``, which may mean every interface."""
    return replace(address, host=_ANY.get(address.host, address.host))
