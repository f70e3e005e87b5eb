"""A node stops before an upgrade that it does not know, and warns while there is time (``node.contracts.upgrades``)."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from node.abci import Finalized
from node.application import Application
from node.contracts import upgrades
from node.ledger.blocks import ParsedBlock


class UpgradeGuard:
    """Listens to the engine; told of each block after everyone else, since it may end the node."""

    def __init__(self, application: Application, log: FilteringBoundLogger) -> None:
        self._application = application
        self._log = log

    def start(self) -> None:
        """May this node go on where it stands? Raises Unavailable with rule ``upgrade-needed``."""
        self._application.check_protocol()
        self._warn()

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        """Raises Unavailable after the last block that this node can execute: the engine goes no further."""
        if any(record.kind == "upgrade.scheduled" for record in finalized.records):
            self._warn()
        self._application.check_protocol()

    def _warn(self) -> None:
        upgrade = self._application.protocol().next.scheduled
        if not upgrades.knows(upgrade.version, upgrade.features):
            self._log.warning(
                "upgrade needed", version=upgrade.version, from_height=upgrade.height, install=upgrade.install
            )
