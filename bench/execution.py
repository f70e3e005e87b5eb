"""What a transaction costs one node, without network and consensus, as its store grows.

Processor time, not the clock's: it means the same on a busy machine. The store is LevelDB on disk, with the read model
beside it, filled by transactions like those of the throughput run; those are executed without verifying signatures,
which takes what it takes whatever the store holds. What is measured is verified.

Two parts: the ledger's own thread, and what LevelDB does on another one, which merges tables when it likes. That is
told of everything since the size before: it comes in bursts, so that a few blocks see all of one or nothing.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

from bench.ledger import small_dataset
from koinon import canonical, envelope, genesis, key_files, profile
from koinon.envelope import SignedTransaction
from koinon.keys import SIGNATURE_BYTES
from koinon.limits import MAX_EXPIRY_MS, NONCE_BYTES
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_COMMITTED, Envelope, Operation, TransactionBody
from node.abci import DecidedBlock
from node.application import Application
from node.read_model import ReadModel
from node.serve import collect_seldom
from node.store.leveldb import LevelStore
from testnet.network import Testnet

_BLOCK = 1_000  # transactions
_BLOCK_MS = 400
_MEASURED = 10  # blocks at every size


def measure(sizes: Sequence[int], say: Callable[[str], None]) -> dict[str, float]:
    """Microseconds per transaction with so many in the store, ascending.

    Keys ``ledger.execution_us_<size>``: verification, admission, check of the proposal, execution, one synced write,
    index: all that a validator does. ``ledger.merging_us_<size>``: of other threads, meanwhile and while it was filled.
    ``ledger.execution_<part>_us``: where the first of these goes, at the largest size.
    """
    collect_seldom()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="koinon-execution-") as directory, closing(_Node(Path(directory))) as node:
        for size in sizes:
            say(f"a store with {size:,} transactions")
            begun, merged_s = node.transactions, _other_threads_s()
            while node.transactions < size:
                node.fill()
            parts = _Parts()
            for _ in range(_MEASURED):
                node.timed(parts)
            figures |= {f"ledger.execution_{name}_us": us for name, us in parts.us.items()}
            figures[f"ledger.execution_us_{size}"] = sum(parts.us.values())
            merged_s = _other_threads_s() - merged_s
            figures[f"ledger.merging_us_{size}"] = merged_s / (node.transactions - begun) * 1e6
    return figures


def _other_threads_s() -> float:
    """Processor time of all threads but this one."""
    return time.process_time() - time.thread_time()


class _Node:
    """An institution's ledger, whose operator publishes without end."""

    def __init__(self, directory: Path) -> None:
        network = Testnet.create(directory / "net")  # for its genesis and keys: no node runs
        chosen = profile.load(network.profile(f"{network.institutions[0]}-operator"))
        initial = genesis.load(chosen.genesis)
        self._institution = network.institutions[0]
        self._key = key_files.load_signing_key(chosen.key_file)
        self._chain_id = genesis.chain_id(initial)
        self._store = LevelStore(directory / "ledger")
        self._application = Application(self._store, initial)
        self._read_model = ReadModel(directory / "read.sqlite", self._application)
        self._voters = tuple(item.institution for item in self._application.info().validators)
        self._numbers = count()
        self.transactions = 0

    def close(self) -> None:
        self._read_model.close()
        self._store.close()

    def fill(self) -> None:
        """One block of transactions that pass for verified."""
        block = []
        for body in self._bodies():
            data = Envelope(
                body=body.SerializeToString(deterministic=True),
                public_key=self._key.public_key,
                signature=os.urandom(SIGNATURE_BYTES),
            )
            transaction_id = canonical.transaction_id(self._key.public_key, data.body)
            block.append(data.SerializeToString(deterministic=True))
            self._application.verified.remember(
                block[-1], SignedTransaction(transaction_id, self._key.public_key, body)
            )
        self._decide(block, _Parts())

    def timed(self, parts: _Parts) -> None:
        """One block of transactions that were signed."""
        block = [
            envelope.sign(self._chain_id, body.operations, self._key, body.expires_at_ms, body.nonce)
            for body in self._bodies()
        ]
        application = self._application
        parts.begin()
        verified = application.verified.verify_many(block)
        parts.ended("verify")
        for transaction in verified:
            assert isinstance(transaction, SignedTransaction)
            assert application.check_verified(transaction) is None
        height, time_ms = application.info().height + 1, application.time_ms + _BLOCK_MS
        assert application.process_proposal(height, time_ms, block) is None
        parts.ended("admit")
        self._decide(block, parts)

    def _bodies(self) -> list[TransactionBody]:
        return [
            TransactionBody(
                chain_id=self._chain_id,
                nonce=os.urandom(NONCE_BYTES),
                expires_at_ms=self._application.time_ms + MAX_EXPIRY_MS,
                operations=[Operation(publish_dataset=small_dataset(f"{self._institution}.bench.t{number}"))],
            )
            for number, _ in zip(self._numbers, range(_BLOCK), strict=False)
        ]

    def _decide(self, block: Sequence[bytes], parts: _Parts) -> None:
        application = self._application
        height, time_ms = application.info().height + 1, application.time_ms + _BLOCK_MS
        decided = DecidedBlock(
            height, time_ms, canonical.ZERO_HASH, self._voters[0], tuple(block), signers=self._voters
        )
        finalized = application.finalize_block(decided)
        parts.ended("execute")
        self._store.write(finalized.writes, sync=True)
        application.commit()
        parts.ended("write")
        self._read_model.follow()
        parts.ended("index")
        assert all(result.status == TRANSACTION_STATUS_COMMITTED for result in finalized.results)
        self.transactions += len(block)


class _Parts:
    """Processor time of this thread by part, for each transaction, over the blocks measured."""

    def __init__(self) -> None:
        self.us: dict[str, float] = {}
        self._since_s = 0.0

    def begin(self) -> None:
        self._since_s = time.thread_time()

    def ended(self, part: str) -> None:
        now_s = time.thread_time()
        self.us[part] = self.us.get(part, 0.0) + (now_s - self._since_s) / (_MEASURED * _BLOCK) * 1e6
        self._since_s = now_s
