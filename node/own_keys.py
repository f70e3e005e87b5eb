"""The keys that this node signs with, as the ledger names others for its institution over time.

What is to be used next waits in the home (koinon key rotate); the ledger says when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from structlog.typing import FilteringBoundLogger

from koinon.errors import KoinonError
from koinon.keys import SigningKey
from koinon.v1.identity_pb2 import Institution
from node import credentials as credential_files
from node.application import Application
from node.config import NodeConfig
from node.credentials import Credentials
from node.ledger.blocks import ChainState


class OwnKeys:
    """Credentials that follow the ledger."""

    def __init__(
        self, config: NodeConfig, credentials: Credentials, application: Application, log: FilteringBoundLogger
    ) -> None:
        """Takes up at once what the ledger already names. Raises as ``credentials.settle``."""
        self._config = config
        self._application = application
        self._log = log
        self.credentials = credential_files.settle(config, credentials, self.member())
        self.needs_restart = False  # TLS shows another certificate only after one
        self._taking = asyncio.Lock()  # blocks come faster than files are exchanged

    def member(self) -> Institution | None:
        """What the ledger says of this institution; None before it knows of it."""
        own = self._config.institution
        return next((item for item in self._application.institutions() if item.descriptor.id == own), None)

    def waiting(self, chain: ChainState) -> Iterator[SigningKey]:
        """Validator keys that the ledger names for heights to come, beside the one in use."""
        credentials = self.credentials
        if credentials.next_validator is not None:
            yield credentials.next_validator
        own = chain.validators.member(self._config.institution)
        if own is not None and own.public_key != credentials.validator.public_key:
            former = credential_files.former_validator(self._config.home, own.public_key, credentials.ask)
            if former is not None:
                yield former

    def named_next(self) -> SigningKey | None:
        """The new validator key is needed two blocks from now, which others may decide before a thread has read it."""
        member = self.member()
        if member is None or not member.descriptor.validator_key:
            return None
        try:
            named = member.descriptor.validator_key
            return credential_files.waiting_validator(self._config.home, named, self.credentials.ask)
        except KoinonError as error:
            self._say_failed(error)
            return None

    async def take_up(self) -> bool:
        """Use the keys that the ledger names now; False, and the reason in the log, where that fails."""
        async with self._taking:
            member, before = self.member(), self.credentials
            try:
                self.credentials = await asyncio.to_thread(credential_files.settle, self._config, before, member)
            except KoinonError as error:
                self._say_failed(error)
                return False
        self._log.info("keys taken up", validator=self.credentials.validator.public_key.hex())
        self.needs_restart = self.needs_restart or self.credentials.identity != before.identity
        return True

    def _say_failed(self, error: KoinonError) -> None:
        self._log.error("keys not taken up", rule=error.rule, reason=error.message, hint=error.hint)
