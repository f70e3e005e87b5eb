"""The audit trail: read it, take proofs from it, follow it live."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import koinon.receipt as receipts
from koinon.aio.session import DEFAULT_LIMIT, Session, collect, single
from koinon.canonical import HASH_BYTES
from koinon.errors import InvalidInput
from koinon.light_client import LightClient, TrustedHeader
from koinon.v1.audit_pb2 import AuditRecord, Receipt, SignedHeader
from koinon.v1.services_pb2 import (
    GetReceiptRequest,
    GetSignedHeaderRequest,
    ListRecordsRequest,
    ListTokensRequest,
    SubscribeRequest,
)


class Audit:
    """``client.audit``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._light_client = LightClient(session.genesis)

    async def list(
        self,
        subject: str = "",
        *,
        actor: str = "",
        kind: str = "",
        from_index: int = 0,
        since_ms: int = 0,
        until_ms: int = 0,
        limit: int = DEFAULT_LIMIT,
    ) -> builtins.list[AuditRecord]:
        """Records that concern a subject (``dataset:um.ercp.indo_rct``), by an actor, of a kind; ascending.

        ``kind`` is exact, or a family ending in a dot: ``token.``. Times are block times in ms.
        """
        connection = self._session.connection

        async def page(size: int, token: str) -> tuple[Sequence[AuditRecord], str]:
            request = ListRecordsRequest(
                subject=subject,
                actor=actor,
                kind=kind,
                from_index=int(token) if token else from_index,
                page_size=size,
                since_ms=since_ms,
                until_ms=until_ms,
            )
            response = await connection.call(connection.audit.ListRecords, request)
            return response.records, str(response.next_index or "")

        return await collect(page, limit)

    async def receipt(self, of: int | str) -> Receipt:
        """Proof of what the ledger holds; verify it before believing it.

        ``of`` is the index of an audit record; or ``tx:ID``, for a transaction and its result; or ``token:ID``, for the
        grant of a token and, if it ended, its end. A token's id may be a unique beginning.
        Raises NotFound, PermissionRefused, Unavailable.
        """
        connection = self._session.connection
        request = await self._receipt_request(str(of))
        return (await connection.call(connection.audit.GetReceipt, request)).receipt

    async def _receipt_request(self, of: str) -> GetReceiptRequest:
        kind, _, name = of.rpartition(":")
        if kind == "token":
            connection = self._session.connection
            tokens = await connection.call(connection.access.ListTokens, ListTokensRequest(id_prefix=name, page_size=2))
            return GetReceiptRequest(token_id=single(tokens.tokens if name else [], "token", name).id)
        if kind == "tx" and len(name) == 2 * HASH_BYTES:
            with suppress(ValueError):
                return GetReceiptRequest(transaction_id=bytes.fromhex(name))
        if not kind and name.isascii() and name.isdigit() and int(name) < 2**64:
            return GetReceiptRequest(index=int(name))
        raise InvalidInput(
            f"there is no receipt for {of!a}",
            hint="give the index of a record, tx: and 64 hex digits, or token: and its id",
        )

    async def verify(self, receipt: Receipt | Path | str) -> receipts.Verified:
        """Verify a receipt, or the file of one, against this profile's genesis; asks no node. Raises InvalidFile."""
        if not isinstance(receipt, Receipt):
            receipt = receipts.load(Path(receipt))
        return receipts.verify(receipt, self._session.genesis)

    async def header(self, height: int = 0) -> TrustedHeader:
        """The header of a height (0: the newest), verified from this profile's genesis on and not believed before.

        Follows changes of validators, with as few headers as it takes; remembers what it has verified.
        Raises UntrustedHeader, NotFound, Unavailable.
        """
        newest = await self._signed_header(0) if height == 0 else None
        driver = self._light_client.verify(newest.commit.height if newest else height)
        try:
            wanted = next(driver)
            while True:
                known = newest if newest and newest.commit.height == wanted else None
                wanted = driver.send(known or await self._signed_header(wanted))
        except StopIteration as end:
            found: TrustedHeader = end.value
            return found

    async def _signed_header(self, height: int) -> SignedHeader:
        connection = self._session.connection
        return (await connection.call(connection.audit.GetSignedHeader, GetSignedHeaderRequest(height=height))).header

    async def watch(self, subject: str = "", *, kind: str = "", from_index: int = 0) -> AsyncIterator[AuditRecord]:
        """Every record that matches, from an index on, and then as they are committed; never ends by itself."""
        connection = self._session.connection
        request = SubscribeRequest(from_index=from_index, kind=kind, subject=subject)
        responses = connection.stream(lambda: connection.events.Subscribe(request, metadata=connection.metadata()))
        async for response in responses:
            yield response.record
