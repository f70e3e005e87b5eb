"""AuditService and EventService: the trail of records, its proofs, and what is new in it.

Who reads what: regulators and operators see every record. Others see the records they caused and those
that concern them: about themselves, or about a request, token or task of theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from grpc import aio

from koinon.errors import Exhausted, InvalidInput, NotFound, PermissionRefused, Unauthenticated, Unavailable
from koinon.limits import MAX_SUBSCRIPTIONS, RECEIPT_WAIT_MS
from koinon.receipt import TOKEN_ENDS
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.audit_pb2 import AuditRecord, Receipt
from koinon.v1.identity_pb2 import Role
from koinon.v1.transaction_pb2 import Envelope
from node.application import Application
from node.auth import Caller, caller
from node.changes import Changes
from node.read_model import ReadModel
from node.receipts import Receipts
from node.rpc.bounds import page_size

Context = aio.ServicerContext[Any, Any]

_TURN = 256  # records looked at before the loop, and consensus with it, gets its turn


class Trail:
    """The audit log as one caller may see it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def may_see(self, who: Caller, record: AuditRecord) -> bool:
        if who.is_any(Role.ROLE_REGULATOR, Role.ROLE_OPERATOR):
            return True
        return record.actor == who.person or any(
            self._is_of(who.person, subject) for subject in (record.subject, *record.related)
        )

    def may_see_transaction(self, who: Caller, envelope: bytes) -> bool:
        """``envelope`` is from a block."""
        if who.is_any(Role.ROLE_REGULATOR, Role.ROLE_OPERATOR):
            return True
        try:
            return self._application.sender(Envelope.FromString(envelope).public_key).id == who.person
        except Unauthenticated:  # revoked since, or never known
            return False

    def record(self, index: int) -> AuditRecord:
        """Raises NotFound."""
        record = self._application.record(index)
        if record is None:
            raise NotFound(
                f"the audit log has no record {index}",
                hint=f"its last one is {self._application.audit_log.size - 1}; koinon audit list shows them",
            )
        return record

    def records_from(self, index: int) -> Iterator[AuditRecord]:
        """Every record from ``index`` to the present end."""
        while index < self._application.audit_log.size:
            yield self.record(index)
            index += 1

    def _is_of(self, person: str, subject: str) -> bool:
        kind, _, name = subject.partition(":")
        try:
            match kind:
                case "person":
                    return name == person
                case "request":
                    return self._application.request(name).requester == person
                case "token":
                    return self._application.token(name).holder == person
                case "task":
                    return self._application.task(name).asker == person
        except NotFound:
            pass
        return False


class AuditService(services_pb2_grpc.AuditServiceServicer):
    """Lists, and proofs that need no trust in this node."""

    def __init__(
        self,
        application: Application,
        read_model: ReadModel,
        receipts: Receipts,
        changes: Changes,
    ) -> None:
        self._application = application
        self._trail = Trail(application)
        self._read_model = read_model
        self._receipts = receipts
        self._changes = changes

    async def ListRecords(
        self, request: services_pb2.ListRecordsRequest, context: Context
    ) -> services_pb2.ListRecordsResponse:
        who = caller()
        records, next_index = self._read_model.records(
            subject=request.subject,
            actor=request.actor,
            kind=request.kind,
            from_index=request.from_index,
            since_ms=request.since_ms,
            until_ms=request.until_ms,
            limit=page_size(request.page_size),
        )
        return services_pb2.ListRecordsResponse(
            records=[record for record in records if self._trail.may_see(who, record)], next_index=next_index
        )

    async def GetReceipt(
        self, request: services_pb2.GetReceiptRequest, context: Context
    ) -> services_pb2.GetReceiptResponse:
        match request.WhichOneof("subject"):
            case "transaction_id":
                receipt = await self._of_transaction(request.transaction_id)
            case "token_id":
                receipt = await self._of_token(request.token_id)
            case _:
                record = self._trail.record(request.index)
                await self._check(record)
                receipt = self._receipts.record(record.index)
        return services_pb2.GetReceiptResponse(receipt=receipt)

    async def GetSignedHeader(
        self, request: services_pb2.GetSignedHeaderRequest, context: Context
    ) -> services_pb2.GetSignedHeaderResponse:
        newest = self._application.info().height
        height = request.height or newest
        if not 1 <= height <= newest:
            raise NotFound(f"there is no block {height} yet", hint=f"the newest one is {newest}")
        return services_pb2.GetSignedHeaderResponse(header=self._receipts.signed_header(height))

    async def GetConsistencyProof(
        self, request: services_pb2.GetConsistencyProofRequest, context: Context
    ) -> services_pb2.GetConsistencyProofResponse:
        log = self._application.audit_log
        if not 0 < request.first_size <= request.second_size <= log.size:
            raise InvalidInput(
                f"there is no proof from {request.first_size} to {request.second_size} records",
                hint=f"sizes ascend, from 1 to at most {log.size}",
            )
        return services_pb2.GetConsistencyProofResponse(
            path=log.consistency_proof(request.first_size, request.second_size),
            first_root=log.root_at(request.first_size),
            second_root=log.root_at(request.second_size),
        )

    async def _of_transaction(self, transaction_id: bytes) -> Receipt:
        """Raises NotFound, PermissionRefused or Unavailable."""
        info = self._application.transaction(transaction_id)
        if info is None:
            raise NotFound(
                f"no block holds a transaction {transaction_id.hex()}",
                hint="koinon status --transaction ID tells whether it waits for one",
            )
        await self._wait_for_header(info.height)
        # Every transaction of the block is looked at: on a thread, for it reads nothing but the store.
        receipt = await asyncio.to_thread(self._receipts.transaction, transaction_id)
        if not self._trail.may_see_transaction(caller(), receipt.transaction.envelope):
            raise PermissionRefused(
                f"{caller().person} did not sign transaction {transaction_id.hex()}",
                hint="regulators and operators get receipts for all",
            )
        return receipt

    async def _of_token(self, token_id: str) -> Receipt:
        """Raises NotFound, PermissionRefused or Unavailable."""
        subject = f"token:{self._application.token(token_id).id}"
        records = [
            record
            for kind in ("token.granted", *TOKEN_ENDS)
            for record in self._read_model.records(subject=subject, kind=kind, limit=1)[0]
        ]
        await self._check(*records)
        return self._receipts.token(records[0].index, records[1].index if len(records) > 1 else None)

    async def _check(self, *records: AuditRecord) -> None:
        """May the caller see these? Then waits for a header over them. Raises PermissionRefused, Unavailable."""
        for record in records:
            if not self._trail.may_see(caller(), record):
                raise PermissionRefused(
                    f"record {record.index} does not concern {caller().person}",
                    hint="regulators and operators see every record",
                )
        await self._wait_for_header(max(record.height for record in records))

    async def _wait_for_header(self, height: int) -> None:
        """What block h did is under the header of block h + 1. Raises Unavailable."""
        if not await self._changes.until(lambda: self._application.info().height > height, RECEIPT_WAIT_MS):
            raise Unavailable(
                f"the block after {height}, which proves it, is not decided yet",
                hint="koinon status shows why blocks are slow; then ask again",
            )


class EventService(services_pb2_grpc.EventServiceServicer):
    """New records as they come. The log itself is the queue: a slow reader costs no memory."""

    def __init__(self, application: Application, changes: Changes) -> None:
        self._trail = Trail(application)
        self._changes = changes
        self._open = 0

    async def Subscribe(
        self, request: services_pb2.SubscribeRequest, context: Context
    ) -> AsyncIterator[services_pb2.SubscribeResponse]:
        if self._open >= MAX_SUBSCRIPTIONS:
            raise Exhausted(
                f"this node already serves {MAX_SUBSCRIPTIONS} subscriptions", hint="close some, or ask another node"
            )
        who = caller()
        index = request.from_index
        self._open += 1
        try:
            while True:
                for record in self._trail.records_from(index):
                    index = record.index + 1
                    if index % _TURN == 0:  # a filter that nothing passes would hold it up for the whole log
                        await asyncio.sleep(0)
                    if _matches(record, request) and self._trail.may_see(who, record):
                        yield services_pb2.SubscribeResponse(record=record)
                await self._changes.next()
        finally:
            self._open -= 1


def _matches(record: AuditRecord, wanted: services_pb2.SubscribeRequest) -> bool:
    kind_fits = record.kind.startswith(wanted.kind) if wanted.kind.endswith(".") else wanted.kind in ("", record.kind)
    return kind_fits and wanted.subject in ("", record.subject, *record.related)
