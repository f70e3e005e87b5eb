"""The smallest application that can show a divergence: it remembers every transaction, in order.

Its state commitment is a hash chain over everything it was told, so two nodes that executed different blocks, or
one block twice, never agree again. It refuses what was included before and what begins with ``unfit``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from koinon import merkle
from koinon.v1.consensus_pb2 import Validator
from koinon.v1.transaction_pb2 import Refusal, TransactionResult, TransactionStatus
from node.abci import AppHashes, AppInfo, DecidedBlock, Finalized
from node.store.kv import KeyValueStore

UNFIT = b"unfit"
_STANDING = b"m/application"
_SEEN = b"t/"


class ChainApplication:
    """An Application whose validators never change."""

    def __init__(self, store: KeyValueStore, validators: tuple[Validator, ...]) -> None:
        self._store = store
        self._validators = validators
        self._pending: tuple[int, AppHashes] | None = None
        data = store.get(_STANDING)
        if data is None:
            self._height = 0
            self._hashes = AppHashes(merkle.EMPTY_ROOT, bytes(32), merkle.EMPTY_ROOT, 0)
        else:
            self._height = int.from_bytes(data[:8], "big")
            self._hashes = AppHashes(data[8:40], data[40:72], data[72:104], int.from_bytes(data[104:], "big"))

    def info(self) -> AppInfo:
        return AppInfo(self._height, self._hashes, self._validators)

    def check_tx(self, envelope: bytes) -> Refusal | None:
        return Refusal(rule="replayed-transaction") if self._is_seen(envelope) else None

    def prepare_proposal(self, height: int, time_ms: int, candidates: Sequence[bytes], max_bytes: int) -> list[bytes]:
        return [envelope for envelope in candidates if not self._is_seen(envelope) and not envelope.startswith(UNFIT)]

    def process_proposal(self, height: int, time_ms: int, transactions: Sequence[bytes]) -> Refusal | None:
        if len(set(transactions)) < len(transactions) or any(map(self._is_seen, transactions)):
            return Refusal(rule="replayed-transaction")
        if any(envelope.startswith(UNFIT) for envelope in transactions):
            return Refusal(rule="malformed-transaction")
        return None

    def finalize_block(self, block: DecidedBlock) -> Finalized:
        results = tuple(
            TransactionResult(transaction_id=_digest(e), status=TransactionStatus.TRANSACTION_STATUS_COMMITTED)
            for e in block.transactions
        )
        told = [*block.transactions, *(item.SerializeToString(deterministic=True) for item in block.evidence)]
        state, audit = self._hashes.state_commitment, self._hashes.audit_root
        for item in told:
            state, audit = _digest(state + item), _digest(audit + state)
        hashes = AppHashes(
            merkle.root([result.SerializeToString(deterministic=True) for result in results]),
            state,
            audit,
            self._hashes.audit_size + len(told),
        )
        standing = b"".join(
            (
                block.height.to_bytes(8, "big"),
                hashes.results_root,
                hashes.state_commitment,
                hashes.audit_root,
                hashes.audit_size.to_bytes(8, "big"),
            )
        )
        self._pending = block.height, hashes
        writes = [(_SEEN + _digest(e), b"") for e in block.transactions]
        return Finalized(block.height, results, hashes, self._validators, (*writes, (_STANDING, standing)))

    def validator_key(self, institution: str, height: int) -> bytes | None:
        return next((item.public_key for item in self._validators if item.institution == institution), None)

    def commit(self) -> None:
        if self._pending is not None:
            self._height, self._hashes = self._pending

    def _is_seen(self, envelope: bytes) -> bool:
        return self._store.get(_SEEN + _digest(envelope)) is not None


class FoulApplication(ChainApplication):
    """What a faulty proposer has: at every third height it proposes what no correct one would."""

    def prepare_proposal(self, height: int, time_ms: int, candidates: Sequence[bytes], max_bytes: int) -> list[bytes]:
        if height % 3:
            return super().prepare_proposal(height, time_ms, candidates, max_bytes)
        return [*candidates, UNFIT]


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
