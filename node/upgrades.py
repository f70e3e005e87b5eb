"""A node stops before an upgrade that it does not know, and warns while there is time (``node.contracts.upgrades``).

It rests for a little while first: who lacks the last block before gets it, and stops likewise.
"""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from koinon.errors import Unavailable
from node.abci import Finalized
from node.application import Application
from node.contracts import upgrades
from node.ledger.blocks import ParsedBlock


class UpgradeGuard:
    """Listens to the engine; ``stop_before`` is called when the next block is of a version that is not known here."""

    def __init__(
        self, application: Application, log: FilteringBoundLogger, stop_before: Callable[[Unavailable], None]
    ) -> None:
        self._application = application
        self._stop_before = stop_before
        self._log = log

    def start(self) -> None:
        """May this node go on where it stands? Raises Unavailable with rule ``upgrade-needed``."""
        self._application.check_protocol()
        self._warn()

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        if "upgrade.scheduled" in finalized.kinds:
            self._warn()
        try:
            self._application.check_protocol()
        except Unavailable as error:
            self._stop_before(error)

    def _warn(self) -> None:
        upgrade = self._application.protocol().next.scheduled
        if not upgrades.knows(upgrade.version, upgrade.features):
            self._log.warning(
                "upgrade needed", version=upgrade.version, from_height=upgrade.height, install=upgrade.install
            )
