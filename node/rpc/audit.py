"""AuditService: the trail of records by any dimension, counted, and proofs of it. Who sees what: node.rpc.trail."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from grpc import aio

from koinon import trail
from koinon.errors import InvalidInput, NotFound, PermissionRefused, Unavailable
from koinon.limits import MAX_PROVED_RECORDS, RECEIPT_WAIT_MS
from koinon.receipt import TOKEN_ENDS
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.audit_pb2 import AuditRecord, Receipt
from koinon.v1.identity_pb2 import Role
from node.application import Application
from node.auth import caller, require
from node.changes import Changes
from node.read_model import ReadModel
from node.receipts import Receipts
from node.rpc.aside import Aside
from node.rpc.bounds import group_limit, page_size
from node.rpc.trail import Trail

Context = aio.ServicerContext[Any, Any]


class AuditService(services_pb2_grpc.AuditServiceServicer):
    """Lists, and proofs that need no trust in this node."""

    def __init__(
        self,
        application: Application,
        read_model: ReadModel,
        visible: Trail,
        receipts: Receipts,
        changes: Changes,
    ) -> None:
        self._application = application
        self._trail = visible
        self._read_model = read_model
        self._receipts = receipts
        self._changes = changes
        self._aside = Aside()

    async def ListRecords(
        self, request: services_pb2.ListRecordsRequest, context: Context
    ) -> services_pb2.ListRecordsResponse:
        who = caller()
        trail.check(request.filter)
        self._trail.admit(who, request.filter, request.reading_id)
        records, next_index = self._read_model.records(
            request.filter, limit=page_size(request.page_size), newest_first=request.newest_first
        )
        return services_pb2.ListRecordsResponse(
            records=[record for record in records if self._trail.may_see(who, record)], next_index=next_index
        )

    async def CountRecords(
        self, request: services_pb2.CountRecordsRequest, context: Context
    ) -> services_pb2.CountRecordsResponse:
        who = require(Role.ROLE_REGULATOR, Role.ROLE_OPERATOR, what="count records that concern others")
        trail.check(request.filter)
        self._trail.admit(who, request.filter, request.reading_id)
        limit = group_limit(request.limit)
        counts = await self._aside.read(self._read_model.counter(request.filter, request.by))
        groups = sorted(counts.groups.items(), key=_by_day if request.by == "day" else _by_size)
        return services_pb2.CountRecordsResponse(
            records=counts.records,
            groups=[services_pb2.RecordGroup(value=value, records=count) for value, count in groups[:limit]],
            values=len(groups),
        )

    async def ProveRecords(
        self, request: services_pb2.ProveRecordsRequest, context: Context
    ) -> services_pb2.ProveRecordsResponse:
        indices = list(request.indices)
        if not 1 <= len(indices) <= MAX_PROVED_RECORDS or indices != sorted(set(indices)):
            raise InvalidInput(
                f"{len(indices)} records are to be proved, or they are not in ascending order",
                hint=f"ask for 1 to {MAX_PROVED_RECORDS}, ascending, each once",
            )
        await self._check([self._trail.record(index) for index in indices], request.reading_id)
        return services_pb2.ProveRecordsResponse(proved=self._receipts.records(indices, request.height))

    async def GetReceipt(
        self, request: services_pb2.GetReceiptRequest, context: Context
    ) -> services_pb2.GetReceiptResponse:
        match request.WhichOneof("subject"):
            case "transaction_id":
                receipt = await self._of_transaction(request.transaction_id, request.reading_id)
            case "token_id":
                receipt = await self._of_token(request.token_id, request.reading_id)
            case _:
                record = self._trail.record(request.index)
                await self._check([record], request.reading_id)
                receipt = self._receipts.record(record.index)
        return services_pb2.GetReceiptResponse(receipt=receipt)

    async def GetSignedHeader(
        self, request: services_pb2.GetSignedHeaderRequest, context: Context
    ) -> services_pb2.GetSignedHeaderResponse:
        newest = self._application.info().height
        height = request.height or newest
        if not 1 <= height <= newest:
            raise NotFound(f"there is no block {height} yet", hint=f"the newest one is {newest}")
        return services_pb2.GetSignedHeaderResponse(
            header=self._receipts.signed_header(height),
            validator_changes=self._receipts.way(height) if request.with_way else (),
        )

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

    async def _of_transaction(self, transaction_id: bytes, reading_id: str) -> Receipt:
        """Raises NotFound, PermissionRefused, Refused or Unavailable."""
        self._trail.admit(caller(), trail.make(f"transaction:{transaction_id.hex()}"), reading_id)
        info = self._application.transaction(transaction_id)
        if info is None:
            raise NotFound(
                f"no block holds a transaction {transaction_id.hex()}",
                hint="koinon status --transaction ID tells whether it waits for one",
            )
        await self._wait_for_header(info.height)
        # Every transaction of the block is looked at: on a thread, for it reads nothing but the store.
        receipt = await self._aside.read(partial(self._receipts.transaction, transaction_id))
        if not self._trail.may_see_transaction(caller(), receipt.transaction.envelope):
            raise PermissionRefused(
                f"{caller().person} did not sign transaction {transaction_id.hex()}",
                hint="regulators and operators get receipts for all",
            )
        return receipt

    async def _of_token(self, token_id: str, reading_id: str) -> Receipt:
        """Raises NotFound, PermissionRefused, Refused or Unavailable."""
        subject = f"token:{self._application.token(token_id).id}"
        records = [
            record
            for kind in ("token.granted", *TOKEN_ENDS)
            for record in self._read_model.records(trail.make(subject, kind=kind), limit=1)[0]
        ]
        if not records:  # the block was committed this moment: people are shown it after consensus went on
            raise Unavailable(f"the records of {subject} are not indexed yet", hint="ask again")
        await self._check(records, reading_id)
        return self._receipts.token(records[0].index, records[1].index if len(records) > 1 else None)

    async def _check(self, records: Sequence[AuditRecord], reading_id: str) -> None:
        """May the caller see these? Waits for a header over them. Raises PermissionRefused, Refused, Unavailable."""
        self._trail.admit_records(caller(), records, reading_id)
        await self._wait_for_header(max(record.height for record in records))

    async def _wait_for_header(self, height: int) -> None:
        """What block h did is under the header of block h + 1. Raises Unavailable."""
        if not await self._changes.until(lambda: self._application.info().height > height, RECEIPT_WAIT_MS):
            raise Unavailable(
                f"the block after {height}, which proves it, is not decided yet",
                hint="koinon status shows why blocks are slow; then ask again",
            )


def _by_day(group: tuple[str, int]) -> str:
    return group[0]


def _by_size(group: tuple[str, int]) -> tuple[int, str]:
    return -group[1], group[0]
