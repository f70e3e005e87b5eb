"""TransactionService: envelopes in, what became of them out."""

from __future__ import annotations

from typing import Any

from grpc import aio

from koinon.canonical import HASH_BYTES
from koinon.errors import InvalidInput
from koinon.limits import MAX_SUBMIT_ENVELOPES
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.services_pb2 import TransactionInfo
from koinon.v1.transaction_pb2 import TransactionStatus
from node.application import Application
from node.changes import Changes
from node.pool import PENDING, Pool
from node.rpc.bounds import wait_ms

Context = aio.ServicerContext[Any, Any]

_FINAL = (TransactionStatus.TRANSACTION_STATUS_COMMITTED, TransactionStatus.TRANSACTION_STATUS_REJECTED)


class TransactionService(services_pb2_grpc.TransactionServiceServicer):
    """Anyone with a ticket may hand in anyone's envelopes: what counts is the signature on each."""

    def __init__(self, pool: Pool, application: Application, changes: Changes) -> None:
        self._pool = pool
        self._application = application
        self._changes = changes

    async def Submit(self, request: services_pb2.SubmitRequest, context: Context) -> services_pb2.SubmitResponse:
        if len(request.envelopes) > MAX_SUBMIT_ENVELOPES:
            raise InvalidInput(
                f"{len(request.envelopes)} envelopes in one call", hint=f"send at most {MAX_SUBMIT_ENVELOPES} at a time"
            )
        infos = await self._pool.submit(request.envelopes[:])
        return services_pb2.SubmitResponse(transactions=infos)

    async def GetTransactions(
        self, request: services_pb2.GetTransactionsRequest, context: Context
    ) -> services_pb2.GetTransactionsResponse:
        ids = request.transaction_ids[:]
        if len(ids) > MAX_SUBMIT_ENVELOPES or any(len(item) != HASH_BYTES for item in ids):
            raise InvalidInput(
                "these are not transaction ids",
                hint=f"ask for at most {MAX_SUBMIT_ENVELOPES} ids of {HASH_BYTES} bytes",
            )
        final: dict[bytes, TransactionInfo] = {}

        def all_final() -> bool:
            for transaction_id in ids:
                if transaction_id not in final and (info := self._status(transaction_id)).status in _FINAL:
                    final[transaction_id] = info
            return len(final) == len(set(ids))

        await self._changes.until(all_final, wait_ms(request.wait_ms))
        return services_pb2.GetTransactionsResponse(
            transactions=[final.get(transaction_id) or self._status(transaction_id) for transaction_id in ids]
        )

    def _status(self, transaction_id: bytes) -> TransactionInfo:
        """What waits in the pool is not decided here; but a pool may have refused what others decided."""
        known = self._pool.status(transaction_id)
        if known is not None and known.status == PENDING:
            return known  # without asking the store: waiters ask after every block
        return (
            self._application.transaction(transaction_id)
            or known
            or TransactionInfo(transaction_id=transaction_id, status=TransactionStatus.TRANSACTION_STATUS_UNKNOWN)
        )
