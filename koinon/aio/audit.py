"""The audit trail: read it, take proofs from it, follow it live."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import koinon.receipt as receipts
from koinon.aio.session import DEFAULT_LIMIT, Session, collect
from koinon.v1.audit_pb2 import AuditRecord, Receipt
from koinon.v1.services_pb2 import GetReceiptRequest, ListRecordsRequest, SubscribeRequest


class Audit:
    """``client.audit``."""

    def __init__(self, session: Session) -> None:
        self._session = session

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

    async def receipt(self, index: int) -> Receipt:
        """Proof that the ledger holds the record at this index; verify it before believing it. Raises NotFound."""
        connection = self._session.connection
        return (await connection.call(connection.audit.GetReceipt, GetReceiptRequest(index=index))).receipt

    async def verify(self, receipt: Receipt | Path | str) -> receipts.VerifiedRecord:
        """Verify a receipt, or the file of one, against this profile's genesis; asks no node. Raises InvalidFile."""
        if not isinstance(receipt, Receipt):
            receipt = receipts.load(Path(receipt))
        return receipts.verify(receipt, self._session.genesis)

    async def watch(self, subject: str = "", *, kind: str = "", from_index: int = 0) -> AsyncIterator[AuditRecord]:
        """Every record that matches, from an index on, and then as they are committed; never ends by itself."""
        connection = self._session.connection
        request = SubscribeRequest(from_index=from_index, kind=kind, subject=subject)
        responses = connection.stream(lambda: connection.events.Subscribe(request, metadata=connection.metadata()))
        async for response in responses:
            yield response.record
