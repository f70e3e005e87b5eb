"""Transactions on their way to a block.

An envelope enters once: its signature is verified on a thread (libsodium releases the interpreter's
lock), unless a block brought it first; then the application checks it. What entered here is told to every
peer; what a peer told is not told again, because the members form a full mesh. The pool promises nothing:
it is memory, and a client that hears neither COMMITTED nor REJECTED sends the same envelope again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from koinon.envelope import InvalidTransaction, SignedTransaction
from koinon.limits import (
    GOSSIP_DELAY_MS,
    MAX_GOSSIP_BYTES,
    MAX_POOL_BACKLOG,
    MAX_POOL_BACKLOG_BYTES,
    MAX_POOL_BYTES,
    MAX_POOL_PER_INSTITUTION,
    MAX_POOL_TRANSACTIONS,
    MAX_REFUSALS_REMEMBERED,
)
from koinon.v1.services_pb2 import TransactionInfo
from koinon.v1.transaction_pb2 import Refusal, TransactionStatus
from node.verified import VerifiedTransactions

PENDING = TransactionStatus.TRANSACTION_STATUS_PENDING
REJECTED = TransactionStatus.TRANSACTION_STATUS_REJECTED


class _Entry(NamedTuple):
    envelope: bytes
    transaction: SignedTransaction
    institution: str  # the sender's


class Pool:
    """Bounded, first in first out. Everything but verification happens on one event loop."""

    def __init__(
        self,
        verified: VerifiedTransactions,
        check: Callable[[SignedTransaction], Refusal | None],
        institution_of: Callable[[bytes], str],
        announce: Callable[[list[bytes]], None],
        on_entered: Callable[[], None],
    ) -> None:
        """
        Args:
            verified: shared with whoever judges proposals; what enters here stays in it until it is decided.
            check: the application's opinion of a transaction whose signature was verified.
            institution_of: whose the key of a transaction is that passed ``check``.
            announce: tells the peers; called with batches of at most MAX_GOSSIP_BYTES.
            on_entered: the pool may have something new to propose.
        """
        self._verified = verified
        self._check = check
        self._institution_of = institution_of
        self._announce = announce
        self._on_entered = on_entered
        self._entries: dict[bytes, _Entry] = {}  # by transaction id, in order of arrival
        self._bytes = 0
        self._by_institution: Counter[str] = Counter()
        self._bytes_by_institution: Counter[str] = Counter()
        self._expiries: list[tuple[int, bytes]] = []  # heap of (expires_at_ms, transaction id), also of some that left
        self._refused: OrderedDict[bytes, Refusal] = OrderedDict()
        self.refusals: Counter[str] = Counter()  # by rule, since the start: for people
        self._unannounced: list[bytes] = []
        self._backlog: OrderedDict[bytes, None] = OrderedDict()  # heard from peers, oldest first
        self._backlog_bytes = 0
        self._backlog_task: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="verify")

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Forget everything; nothing may be called after."""
        if self._backlog_task is not None:
            self._backlog_task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- in

    async def submit(self, envelopes: Sequence[bytes]) -> list[TransactionInfo]:
        """Take envelopes from a client; for each, in order, PENDING or REJECTED with the reason."""
        outcomes = await self._verify(envelopes)
        infos = []
        for data, outcome in zip(envelopes, outcomes, strict=True):
            if isinstance(outcome, InvalidTransaction):
                self.refusals[outcome.refusal.rule] += 1
                infos.append(TransactionInfo(status=REJECTED, refusal=outcome.refusal))
                continue
            refusal = self._enter(data, outcome, announce=True)
            infos.append(
                TransactionInfo(transaction_id=outcome.id, status=REJECTED, refusal=refusal)
                if refusal
                else TransactionInfo(transaction_id=outcome.id, status=PENDING)
            )
        self._on_entered()
        return infos

    def receive(self, envelopes: Iterable[bytes]) -> None:
        """Take what a peer told, when there is time: the oldest are forgotten when too many wait."""
        for data in envelopes:
            if data in self._backlog:
                continue
            self._backlog[data] = None
            self._backlog_bytes += len(data)
            while len(self._backlog) > MAX_POOL_BACKLOG or self._backlog_bytes > MAX_POOL_BACKLOG_BYTES:
                self._take_oldest()
        if self._backlog and self._backlog_task is None:
            self._backlog_task = asyncio.create_task(self._work_off(), name="pool backlog")

    async def _work_off(self) -> None:
        try:
            while self._backlog:
                batch = [self._take_oldest() for _ in range(min(len(self._backlog), _BATCH))]
                for data, outcome in zip(batch, await self._verify(batch), strict=True):
                    if isinstance(outcome, SignedTransaction):
                        self._enter(data, outcome, announce=False)
                self._on_entered()
        finally:
            self._backlog_task = None

    def _take_oldest(self) -> bytes:
        data, _ = self._backlog.popitem(last=False)
        self._backlog_bytes -= len(data)
        return data

    async def _verify(self, envelopes: Sequence[bytes]) -> list[SignedTransaction | InvalidTransaction]:
        if sum(self._verified.get(data) is None for data in envelopes) <= 2:  # cheaper than to a thread and back
            return self._verified.verify_many(envelopes)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._verified.verify_many, envelopes)

    def _enter(self, data: bytes, transaction: SignedTransaction, *, announce: bool) -> Refusal | None:
        if transaction.id in self._entries:
            return None
        refusal = self._full(len(data)) or self._check(transaction)
        institution = "" if refusal else self._institution_of(transaction.sender_key)
        refusal = refusal or self._full_of(institution, len(data))
        if refusal is not None:
            self._reject(data, transaction.id, refusal)
            return refusal
        self._refused.pop(transaction.id, None)
        self._entries[transaction.id] = _Entry(data, transaction, institution)
        self._bytes += len(data)
        self._by_institution[institution] += 1
        self._bytes_by_institution[institution] += len(data)
        heapq.heappush(self._expiries, (transaction.body.expires_at_ms, transaction.id))
        if announce:
            if not self._unannounced:
                asyncio.get_running_loop().call_later(GOSSIP_DELAY_MS / 1000, self._tell)
            self._unannounced.append(data)
        return None

    def _full(self, size: int) -> Refusal | None:
        if len(self._entries) >= MAX_POOL_TRANSACTIONS or self._bytes + size > MAX_POOL_BYTES:
            return Refusal(
                rule="pool-full",
                message=f"this node already holds {len(self._entries)} undecided transactions",
                hint="send it again in a few seconds",
            )
        return None

    def _full_of(self, institution: str, size: int) -> Refusal | None:
        """Keys cost nothing, so what counts is whose they are."""
        count, size = self._by_institution[institution], self._bytes_by_institution[institution] + size
        if count < MAX_POOL_PER_INSTITUTION and size <= _BYTES_PER_INSTITUTION:
            return None
        return Refusal(
            rule="pool-full",
            message=f"{institution} already has {count} undecided transactions here",
            hint="wait until some are decided",
        )

    def _tell(self) -> None:
        batch: list[bytes] = []
        size = 0
        for data in self._unannounced:
            if batch and size + len(data) > MAX_GOSSIP_BYTES:
                self._announce(batch)
                batch, size = [], 0
            batch.append(data)
            size += len(data)
        if batch:
            self._announce(batch)
        self._unannounced = []

    # --- out

    def reap(self, max_bytes: int, max_count: int) -> list[bytes]:
        """The oldest envelopes within these bounds, in order of arrival; they stay until committed.

        What no block may hold any more leaves: a key that is revoked would keep thousands in front of everyone else's
        until they expire.
        """
        chosen: list[bytes] = []
        size = 0
        for transaction_id, (envelope, transaction, _) in list(self._entries.items()):
            if len(chosen) == max_count or size + len(envelope) > max_bytes:
                break
            if refusal := self._check(transaction):
                self._drop(transaction_id)
                self._reject(envelope, transaction_id, refusal)
            else:
                chosen.append(envelope)
                size += len(envelope)
        return chosen

    def committed(self, envelopes: Iterable[bytes], transaction_ids: Iterable[bytes], time_ms: int) -> None:
        """Drop what a block decided, and what its time made too old; ``envelopes`` are the block's."""
        for data in envelopes:
            if data in self._backlog:
                del self._backlog[data]
                self._backlog_bytes -= len(data)
        for transaction_id in transaction_ids:
            self._drop(transaction_id)
        if len(self._expiries) > 2 * len(self._entries) + _STALE_EXPIRIES:  # ten minutes of load would stay in memory
            self._expiries = [(entry.transaction.body.expires_at_ms, item) for item, entry in self._entries.items()]
            heapq.heapify(self._expiries)
        while self._expiries and self._expiries[0][0] <= time_ms:
            _, transaction_id = heapq.heappop(self._expiries)
            if self._drop(transaction_id):
                self._refuse(
                    transaction_id,
                    Refusal(
                        rule="transaction-expired",
                        message="block time passed the transaction's expiry before a block took it",
                        hint="sign it again; if this repeats, koinon status shows why blocks are slow",
                    ),
                )

    def status(self, transaction_id: bytes) -> TransactionInfo | None:
        """PENDING, or REJECTED by this pool; None when the pool knows nothing."""
        if transaction_id in self._entries:
            return TransactionInfo(transaction_id=transaction_id, status=PENDING)
        if refusal := self._refused.get(transaction_id):
            return TransactionInfo(transaction_id=transaction_id, status=REJECTED, refusal=refusal)
        return None

    def _drop(self, transaction_id: bytes) -> bool:
        entry = self._entries.pop(transaction_id, None)
        if entry is None:
            return False
        self._bytes -= len(entry.envelope)
        self._by_institution[entry.institution] -= 1
        self._bytes_by_institution[entry.institution] -= len(entry.envelope)
        return True

    def _reject(self, data: bytes, transaction_id: bytes, refusal: Refusal) -> None:
        """The application does not let it in, or there is no room."""
        self._verified.forget(data)
        if refusal.rule != "replayed-transaction":  # whatever became of it, this pool did not reject it
            self._refuse(transaction_id, refusal)

    def _refuse(self, transaction_id: bytes, refusal: Refusal) -> None:
        self.refusals[refusal.rule] += 1
        self._refused[transaction_id] = refusal
        self._refused.move_to_end(transaction_id)
        while len(self._refused) > MAX_REFUSALS_REMEMBERED:
            self._refused.popitem(last=False)


_BYTES_PER_INSTITUTION = MAX_POOL_BYTES * MAX_POOL_PER_INSTITUTION // MAX_POOL_TRANSACTIONS  # as of the transactions
_STALE_EXPIRIES = 10_000  # of transactions that left, kept at most beside as many as there are entries
_BATCH = 512  # envelopes of one peer's backlog verified before the loop looks at something else
