"""Transactions that were verified and are not decided yet: no signature is verified twice between peer, pool and block.

A gossiped envelope may be in a proposal before its turn comes on the pool's threads, and threads may be at it when the
proposal is judged; so every thread looks here before each single signature, and leaves what it found at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from koinon.envelope import InvalidTransaction, SignedTransaction, verify
from koinon.limits import MAX_POOL_BYTES, MAX_POOL_TRANSACTIONS


class VerifiedTransactions:
    """By envelope; the oldest are forgotten when there are more than fill a pool. Any thread may call."""

    def __init__(self, chain_id: str) -> None:
        self._chain_id = chain_id
        self._known: dict[bytes, SignedTransaction] = {}  # oldest first
        self._bytes = 0
        self._lock = Lock()  # of changes

    def get(self, envelope: bytes) -> SignedTransaction | None:
        """The transaction of an envelope that was verified and is not forgotten."""
        return self._known.get(envelope)

    def verify(self, envelope: bytes) -> SignedTransaction:
        """The transaction of an envelope that came from anywhere. Raises InvalidTransaction."""
        known = self._known.get(envelope)
        if known is None:
            known = verify(self._chain_id, envelope)
            self.remember(envelope, known)
        return known

    def verify_many(self, envelopes: Sequence[bytes]) -> list[SignedTransaction | InvalidTransaction]:
        """For each, in order, the transaction or why it is none.

        Made to be run on threads: libsodium, where nearly all the time goes, releases the interpreter's lock.
        """
        outcomes: list[SignedTransaction | InvalidTransaction] = []
        for data in envelopes:
            try:
                outcomes.append(self.verify(data))
            except InvalidTransaction as error:
                outcomes.append(error)
        return outcomes

    def remember(self, envelope: bytes, transaction: SignedTransaction) -> None:
        """Take in what ``koinon.envelope.verify`` made of an envelope."""
        with self._lock:
            if envelope in self._known:
                return
            self._known[envelope] = transaction
            self._bytes += len(envelope)
            while len(self._known) > MAX_POOL_TRANSACTIONS or self._bytes > MAX_POOL_BYTES:
                self._forget(next(iter(self._known)))

    def forget(self, envelope: bytes) -> None:
        """It was decided, or refused."""
        with self._lock:
            self._forget(envelope)

    def _forget(self, envelope: bytes) -> None:
        if self._known.pop(envelope, None) is not None:
            self._bytes -= len(envelope)
