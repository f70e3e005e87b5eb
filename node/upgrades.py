"""Which versions of the ledger's protocol this node knows, and that it stops before one that it does not.

Members schedule an upgrade for a height (``node.contracts.actions``). A node that does not know the version must not
execute a single block of it: it would leave the ledger that the others share. So it commits the last block before,
stops, and says what to install; with that installed it goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable

from structlog.typing import FilteringBoundLogger

from koinon.errors import Unavailable
from koinon.v1.governance_pb2 import Protocol, ScheduleUpgrade
from node.abci import Finalized
from node.application import Application
from node.ledger.blocks import ParsedBlock

KNOWN_VERSION = 1
"""The latest version of the ledger's protocol that this code executes; it executes all before, too."""

KNOWN_FEATURES: frozenset[str] = frozenset()
"""Flags that an upgrade may turn on."""


class UpgradeGuard:
    """Listens to the engine; tell it of each block after everyone else."""

    def __init__(self, application: Application, log: FilteringBoundLogger) -> None:
        self._application = application
        self._log = log

    def check(self) -> None:
        """May this node go on? Raises Unavailable with rule ``upgrade-needed``."""
        protocol = self._application.protocol()
        if not _knows(protocol.version, protocol.features):
            raise Unavailable(
                f"from height {self._application.info().height + 1} on the ledger follows version {protocol.version} "
                f"of its protocol{_flags(protocol)}; this node knows version {KNOWN_VERSION}",
                rule="upgrade-needed",
                hint=self._install(protocol.version),
            )

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        """Raises Unavailable after the last block that this node can execute: the engine goes no further."""
        if any(record.kind == "upgrade.scheduled" for record in finalized.records):
            self.warn()
        self.check()

    def warn(self) -> None:
        """Tell the log of an upgrade that this node could not follow."""
        upgrade = self._application.protocol().next.scheduled
        if not _knows(upgrade.version, upgrade.features):
            self._log.warning(
                "upgrade needed", version=upgrade.version, from_height=upgrade.height, install=upgrade.install
            )

    def _install(self, version: int) -> str:
        scheduled: ScheduleUpgrade = self._application.upgrade(version).scheduled
        return f"install {scheduled.install}, then start the node again: it goes on from here"


def _knows(version: int, features: Iterable[str]) -> bool:
    return version <= KNOWN_VERSION and KNOWN_FEATURES.issuperset(features)


def _flags(protocol: Protocol) -> str:
    return f" with {', '.join(protocol.features)}" if protocol.features else ""
