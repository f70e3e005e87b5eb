"""Write-ahead log and store as they are, with the time taken by what makes data durable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from node.abci import Write
from node.store.kv import KeyValueStore
from node.store.wal import WriteAheadLog

Observe = Callable[[float], None]
"""Told of every synced write that succeeded: how many seconds it took."""


class TimedWal:
    """A WriteAheadLog whose syncs are timed."""

    def __init__(self, wal: WriteAheadLog, observe: Observe) -> None:
        self._wal = wal
        self._observe = observe
        self.append = wal.append
        self.records = wal.records
        self.close = wal.close

    def sync(self) -> None:
        began = time.perf_counter()
        self._wal.sync()
        self._observe(time.perf_counter() - began)

    def reset(self, records: Iterable[bytes] = ()) -> None:
        self._wal.reset(records)


class TimedStore:
    """A KeyValueStore whose synced writes are timed."""

    def __init__(self, store: KeyValueStore, observe: Observe) -> None:
        self._store = store
        self._observe = observe
        self.get = store.get
        self.close = store.close

    def scan(self, prefix: bytes, *, start: bytes = b"", reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._store.scan(prefix, start=start, reverse=reverse)

    def write(self, writes: Iterable[Write], *, sync: bool) -> None:
        began = time.perf_counter()
        self._store.write(writes, sync=sync)
        if sync:
            self._observe(time.perf_counter() - began)
