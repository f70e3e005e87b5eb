"""The audit trail: read it by any dimension, take proofs from it, follow it live.

What a regulator reads is recorded on the ledger before its node answers. The client does so by itself when the node
asks for it: one record for each question, or stream opened, with the ``purpose`` given here. It takes one block.
"""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, Unpack

import koinon.receipt as receipts
from koinon import case as cases
from koinon import trail
from koinon.aio.session import DEFAULT_LIMIT, Page, Session, collect, paged, single
from koinon.canonical import HASH_BYTES
from koinon.errors import Exhausted, InvalidInput, NotFound, Refused, Unavailable
from koinon.light_client import TrustedHeader
from koinon.limits import MAX_CASE_RECORDS, MAX_FILTER_VALUES, MAX_PROVED_RECORDS
from koinon.trail import Words
from koinon.v1.audit_pb2 import (
    READING_KIND_CASE,
    READING_KIND_LIST,
    READING_KIND_RECEIPT,
    READING_KIND_STATS,
    READING_KIND_WATCH,
    AuditRecord,
    CaseFile,
    ProvedRecords,
    ReadingKind,
    Receipt,
    RecordFilter,
    RecordProof,
    RecordReading,
)
from koinon.v1.services_pb2 import (
    CountRecordsRequest,
    CountRecordsResponse,
    GetReceiptRequest,
    ListRecordsRequest,
    ListTokensRequest,
    ProveRecordsRequest,
    SubscribeRequest,
    SubscribeResponse,
)
from koinon.v1.transaction_pb2 import Operation

T = TypeVar("T")
OnBroken = Callable[[Unavailable | None], None]
"""Hears why a stream broke, and None when it goes on."""

PATIENCE_S = 60.0
"""How long a broken stream is tried to be opened again: the restart of a node, and of its machine."""
_AGAIN_FIRST_S = 0.2
_AGAIN_MAX_S = 2.0
_UNRECORDED = "unrecorded-reading"


@dataclass(slots=True)
class _Reading:
    """Something to be read, and the id of its record once the node has asked for one."""

    session: Session
    recorded: RecordReading
    id: str = ""

    async def ask(self, call: Callable[[str], Awaitable[T]]) -> T:
        """Call, with a record of the reading if the node wants one first."""
        try:
            return await call(self.id)
        except Refused as error:
            if error.rule != _UNRECORDED or self.id:
                raise
        await self.record()
        return await call(self.id)

    async def record(self) -> None:
        info = await self.session.submit(Operation(record_reading=self.recorded))
        self.id = info.created[0]


class Audit:
    """``client.audit``. Words that name records are those of koinon.trail."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(
        self,
        subject: str = "",
        *,
        limit: int = DEFAULT_LIMIT,
        newest_first: bool = False,
        purpose: str = "",
        **words: Unpack[Words],
    ) -> builtins.list[AuditRecord]:
        """Records that concern a subject (``dataset:um.ercp.indo_rct``), by an actor, of a kind …; in order.

        ``where`` names further dimensions: ``{"outcome": ["failed", "expired"], "institution": "um"}``.
        """
        reading = self._reading(READING_KIND_LIST, trail.make(subject, **words), purpose)
        return await self._list(reading, limit, newest_first)

    async def pages(
        self, subject: str = "", *, limit: int = DEFAULT_LIMIT, purpose: str = "", **words: Unpack[Words]
    ) -> AsyncIterator[Sequence[AuditRecord]]:
        """The records that ``list`` gives, ascending, a page at a time: for more of them than memory holds."""
        reading = self._reading(READING_KIND_LIST, trail.make(subject, **words), purpose)
        async for found in paged(self._fetch(reading), limit):
            yield found

    async def stats(
        self, by: str, subject: str = "", *, limit: int = 50, purpose: str = "", **words: Unpack[Words]
    ) -> CountRecordsResponse:
        """How many records there are, by a dimension: kind, day, outcome … For operators and regulators."""
        wanted = trail.make(subject, **words)
        connection = self._session.connection

        async def count(reading_id: str) -> CountRecordsResponse:
            request = CountRecordsRequest(filter=wanted, by=by, limit=limit, reading_id=reading_id)
            return await connection.call(connection.audit.CountRecords, request)

        return await self._reading(READING_KIND_STATS, wanted, purpose).ask(count)

    async def prove(
        self, subject: str = "", *, limit: int = DEFAULT_LIMIT, purpose: str = "", **words: Unpack[Words]
    ) -> ProvedRecords:
        """The records that ``list`` gives, ascending, each with its receipt: all under one head, and verified."""
        reading = self._reading(READING_KIND_LIST, trail.make(subject, **words), purpose)
        records = await self._list(reading, limit)
        return await self._prove([(reading, [record.index for record in records])])

    async def case(self, subject: str, *, purpose: str = "") -> CaseFile:
        """The case file of a subject: every record that concerns it, with receipts, verified (koinon.case).

        For a task also what concerns the tokens and requests it used. The id of a task, token, request … may be a
        unique beginning. Raises NotFound, InvalidInput, Exhausted.
        """
        subject = await self._whole(subject, purpose)
        first = self._reading(READING_KIND_CASE, trail.make(subject), purpose)
        records = await self._list(first, MAX_CASE_RECORDS + 1)
        if all(record.kind == "audit.read" for record in records):  # at least this one is there, of a regulator
            raise NotFound(f"no record concerns {subject!a}", hint="koinon audit list shows what there is")
        scope = cases.scope(subject, records)
        found: dict[int, _Reading] = dict.fromkeys((record.index for record in records), first)
        for wanted in _further(subject, scope):
            reading = self._reading(READING_KIND_CASE, wanted, purpose)
            for record in await self._list(reading, MAX_CASE_RECORDS + 1):
                found.setdefault(record.index, reading)
        if len(found) > MAX_CASE_RECORDS:
            raise Exhausted(
                f"more than {MAX_CASE_RECORDS} records concern {subject!a}",
                hint="koinon audit export writes as many as there are, for a span of time at once",
            )
        groups: dict[int, tuple[_Reading, builtins.list[int]]] = {}
        for index in sorted(found):
            groups.setdefault(id(found[index]), (found[index], []))[1].append(index)
        gathered = CaseFile(subject=subject, scope=scope, proved=await self._prove(builtins.list(groups.values())))
        cases.verify(gathered, self._session.genesis)
        return gathered

    async def _whole(self, subject: str, purpose: str) -> str:
        """The subject that a beginning of its id means; others as they are."""
        wanted = trail.beginning(subject)
        if wanted == subject:
            return subject
        records = await self._list(self._reading(READING_KIND_LIST, trail.make(wanted), purpose), DEFAULT_LIMIT)
        named = {name for record in records for name in (record.subject, *record.related) if name.startswith(subject)}
        kind, _, name = subject.partition(":")
        return single(sorted(named), kind, name)

    async def missing(self, case: CaseFile, *, purpose: str = "") -> builtins.list[AuditRecord]:
        """What this profile's node knows of a case, up to the same head, and the case leaves out: nothing, if all is
        well.

        ``case`` is verified already; a record that comes back refutes that it is complete.
        """
        known = {item.index for item in case.proved.records}
        found: dict[int, AuditRecord] = {}
        for wanted in (trail.make(case.subject), *_further(case.subject, case.scope)):
            wanted.until_index = case.proved.tree_size
            reading = self._reading(READING_KIND_CASE, wanted, purpose)
            found |= {record.index: record for record in await self._list(reading, MAX_CASE_RECORDS + 1)}
        return [found[index] for index in sorted(found) if index not in known]

    async def receipt(self, of: int | str, *, purpose: str = "") -> Receipt:
        """Proof of what the ledger holds; verify it before believing it.

        ``of`` is the index of an audit record; or ``tx:ID``, for a transaction and its result; or ``token:ID``, for the
        grant of a token and, if it ended, its end; or ``task:ID``, for its asker's word that it received the result.
        Ids of tokens and tasks may be unique beginnings. Raises NotFound, PermissionRefused, Unavailable.
        """
        connection = self._session.connection
        if str(of).startswith("task:"):
            of = await self._received(str(of), purpose)
        request, wanted = await self._receipt_request(str(of))

        async def get(reading_id: str) -> Receipt:
            request.reading_id = reading_id
            return (await connection.call(connection.audit.GetReceipt, request)).receipt

        return await self._reading(READING_KIND_RECEIPT, wanted, purpose).ask(get)

    async def _received(self, subject: str, purpose: str) -> int:
        """Index of the record that a task's result was received. Raises NotFound."""
        task = await self._whole(subject, purpose)
        for record in await self.list(task, kind="task.received", purpose=purpose):
            return record.index
        raise NotFound(
            f"nobody confirmed to have received the result of {task}", hint="koinon task show tells how far it is"
        )

    async def _receipt_request(self, of: str) -> tuple[GetReceiptRequest, RecordFilter]:
        """What to ask for, and which records that reads."""
        kind, _, name = of.rpartition(":")
        if kind == "token":
            connection = self._session.connection
            tokens = await connection.call(connection.access.ListTokens, ListTokensRequest(id_prefix=name, page_size=2))
            token_id = single(tokens.tokens if name else [], "token", name).id
            return GetReceiptRequest(token_id=token_id), trail.make(f"token:{token_id}")
        if kind == "tx" and len(name) == 2 * HASH_BYTES:
            with suppress(ValueError):
                transaction_id = bytes.fromhex(name)
                return GetReceiptRequest(transaction_id=transaction_id), trail.make(f"transaction:{name.lower()}")
        if not kind and name.isascii() and name.isdigit() and int(name) < 2**64 - 1:
            index = int(name)
            return GetReceiptRequest(index=index), RecordFilter(from_index=index, until_index=index + 1)
        raise InvalidInput(
            f"there is no receipt for {of!a}",
            hint="give the index of a record, tx: and 64 hex digits, or token: or task: and its id",
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
        return await self._session.headers.header(height)

    async def watch(
        self,
        subject: str = "",
        *,
        new_only: bool = False,
        purpose: str = "",
        patience_s: float = PATIENCE_S,
        on_broken: OnBroken | None = None,
        **words: Unpack[Words],
    ) -> AsyncIterator[AuditRecord]:
        """Every record that fits, from an index on, and then as they are committed; ends only at ``until_index``.

        ``new_only`` begins with the next record. To go on where a stream ended: ``from_index`` one above its last.
        A stream that breaks, as the node's restart breaks it, is opened again after its last record, which
        ``on_broken`` hears of; none is lost, and none comes twice. Raises Unavailable once that fails for
        ``patience_s``, and at once where no stream could be opened to begin with.
        """
        reading = self._reading(READING_KIND_WATCH, trail.make(subject, **words), purpose)
        rest, unheard_since, pause_s = RecordFilter(), 0.0, _AGAIN_FIRST_S
        rest.CopyFrom(reading.recorded.filter)
        opened = False
        while True:
            try:
                async for response in self._subscribe(reading, rest, new_only):
                    if unheard_since and on_broken is not None:
                        on_broken(None)
                    opened, new_only, unheard_since, pause_s = True, False, 0.0, _AGAIN_FIRST_S
                    rest.from_index = response.next_index
                    if response.HasField("record"):
                        yield response.record
                return
            except Unavailable as error:
                now = time.monotonic()
                if not opened or (unheard_since and now + pause_s > unheard_since + patience_s):
                    raise
                if not unheard_since and on_broken is not None:
                    on_broken(error)
                unheard_since = unheard_since or now
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _AGAIN_MAX_S)

    async def _subscribe(
        self, reading: _Reading, rest: RecordFilter, new_only: bool
    ) -> AsyncIterator[SubscribeResponse]:
        """What is left of a reading, with a record of it if the node wants one first."""
        connection = self._session.connection

        def stream() -> AsyncIterator[SubscribeResponse]:
            request = SubscribeRequest(filter=rest, new_only=new_only, reading_id=reading.id)
            return connection.stream(lambda: connection.events.Subscribe(request, metadata=connection.metadata()))

        try:
            async for response in stream():
                yield response
            return
        except Refused as error:
            if error.rule != _UNRECORDED:
                raise
        await reading.record()
        async for response in stream():
            yield response

    # --- what the methods share

    def _reading(self, kind: ReadingKind.ValueType, wanted: RecordFilter, purpose: str) -> _Reading:
        return _Reading(self._session, RecordReading(kind=kind, filter=wanted, purpose=purpose))

    async def _list(self, reading: _Reading, limit: int, newest_first: bool = False) -> builtins.list[AuditRecord]:
        return await collect(self._fetch(reading, newest_first), limit)

    def _fetch(self, reading: _Reading, newest_first: bool = False) -> Page[AuditRecord]:
        """Fetches pages of a reading's records. A cursor is a place in the log: new records disturb no page."""
        connection = self._session.connection

        async def page(size: int, token: str) -> tuple[Sequence[AuditRecord], str]:
            rest = RecordFilter()
            rest.CopyFrom(reading.recorded.filter)
            if token and newest_first:
                rest.until_index = int(token)
            elif token:
                rest.from_index = int(token)

            async def fetch(reading_id: str) -> tuple[Sequence[AuditRecord], str]:
                request = ListRecordsRequest(
                    filter=rest, page_size=size, newest_first=newest_first, reading_id=reading_id
                )
                response = await connection.call(connection.audit.ListRecords, request)
                return response.records, str(response.next_index or "")

            return await reading.ask(fetch)

        return page

    async def _prove(self, groups: Sequence[tuple[_Reading, Sequence[int]]]) -> ProvedRecords:
        """The receipts of records, each under the reading that found it; one head for all."""
        connection = self._session.connection
        newest = max((indices[-1] for _, indices in groups if indices), default=None)
        if newest is None:
            raise NotFound("there are no such records", hint="koinon audit list shows what there is")
        proved: ProvedRecords | None = None
        parts = [
            (reading, indices[start : start + MAX_PROVED_RECORDS])
            for reading, indices in groups
            for start in range(0, len(indices), MAX_PROVED_RECORDS)
        ]
        parts.sort(key=lambda part: -part[1][-1])  # the newest record first: its head covers all
        items: builtins.list[RecordProof] = []
        for reading, indices in parts:
            height = proved.head.commit.height if proved else 0

            async def fetch(reading_id: str, indices: Sequence[int] = indices, height: int = height) -> ProvedRecords:
                request = ProveRecordsRequest(indices=indices, height=height, reading_id=reading_id)
                return (await connection.call(connection.audit.ProveRecords, request)).proved

            answer = await reading.ask(fetch)
            items += answer.records
            proved = proved or answer
        assert proved is not None
        del proved.records[:]
        proved.records.extend(sorted(items, key=lambda item: item.index))
        receipts.verify_records(proved, self._session.genesis)
        return proved


def _further(subject: str, scope: Sequence[str]) -> builtins.list[RecordFilter]:
    """Filters for what a scope holds beside its subject."""
    by_kind: dict[str, builtins.list[str]] = {}
    for name in scope:
        if name != subject:
            kind, _, value = name.partition(":")
            by_kind.setdefault(kind, []).append(value)
    return [
        trail.make(where={kind: values[start : start + MAX_FILTER_VALUES]})
        for kind, values in sorted(by_kind.items())
        for start in range(0, len(values), MAX_FILTER_VALUES)
    ]
