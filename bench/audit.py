"""The read model on a million audit records: a filtered page, a count by dimension, and what a record costs the node.

No node makes a million records in a bench: they are made here, in the proportions of many small computations, and fed
to the read model as a node feeds it. Its index, the file and the questions are the ones of production.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

from koinon import trail
from koinon.v1.access_pb2 import AccessRequest, RequestAccess, Token
from koinon.v1.audit_pb2 import AuditRecord, RecordFilter
from koinon.v1.task_pb2 import SubmitTask, Task
from node.read_model import ReadModel

_SAMPLE = 10_000  # records made beforehand, to know what making them costs
_START_MS = 1_760_000_000_000
_STEP_MS = 20_000  # between records: a million are most of a year
_INSTITUTIONS = tuple(f"h{number:02}" for number in range(20))
_GROUPINGS = ("kind", "institution", "day", "person", "dataset")
_PURPOSES = tuple(f"study {number} of post-operative outcomes" for number in range(50))

# One computation, from the request to its end: kind, subject, state after, who acts.
_STORY = (
    ("access.requested", "request", "open", "analyst"),
    ("access.granted", "request", "granted", "analyst"),
    ("token.granted", "token", "active", "analyst"),
    ("task.submitted", "task", "submitted", "analyst"),
    ("token.used", "token", "active", "analyst"),
    ("task.accepted", "task", "submitted", "node"),
    ("task.accepted", "task", "submitted", "node"),
    ("task.accepted", "task", "submitted", "node"),
    ("task.running", "task", "running", "node"),
    ("task.reported", "task", "running", "node"),
    ("task.reported", "task", "running", "node"),
    ("task.reported", "task", "running", "node"),
    ("task.completed", "task", "completed", "node"),
    ("token.used_up", "token", "used_up", "node"),
)


class _Log:
    def __init__(self, size: int) -> None:
        self.size = size


class SyntheticLedger:
    """As much of node.application.Application as the read model asks: every record follows from its index."""

    chain_id = "bench"

    def __init__(self, size: int) -> None:
        self.audit_log = _Log(size)

    def record(self, index: int) -> AuditRecord:
        story, step = divmod(index, len(_STORY))
        kind, subject, outcome, actor = _STORY[step]
        identifier, person, dataset = _cast(story)
        if kind == "task.completed" and story % 40 == 0:
            kind, outcome = "task.failed", "failed"
        related = [f"dataset:{dataset}", f"person:{person}", f"request:{identifier}", f"token:{identifier}"]
        return AuditRecord(
            index=index,
            height=1 + index // 10,
            time_ms=_START_MS + index // 10 * 10 * _STEP_MS,
            transaction_id=bytes(32),
            kind=kind,
            actor=person if actor == "analyst" else _INSTITUTIONS[(story + step) % len(_INSTITUTIONS)],
            subject=f"{subject}:{identifier}",
            related=[item for item in related if not item.startswith(f"{subject}:")][: 3 if step else 2],
            from_state="" if step in (0, 2, 3) else "before",
            to_state=outcome,
        )

    def request(self, name: str) -> AccessRequest:
        return AccessRequest(id=name, requested=RequestAccess(dataset="h00.a.b", purposes=[_purpose(name)]))

    def token(self, name: str) -> Token:
        return Token(id=name, purposes=[_purpose(name)], dataset="h00.a.b", holder="h00/p0")

    def task(self, name: str) -> Task:
        submitted = SubmitTask(committee=_INSTITUTIONS[:3], purpose=_purpose(name))
        return Task(id=name, asker="h00/p0", submitted=submitted)


def _purpose(identifier: str) -> str:
    return _PURPOSES[int(identifier[:8], 16) % len(_PURPOSES)]


@lru_cache(maxsize=4)
def _cast(story: int) -> tuple[str, str, str]:
    """Who and what one computation is about: 300 people, 200 datasets, some much busier than others."""
    digest = hashlib.sha256(story.to_bytes(8, "big")).digest()
    person = min(digest[1], digest[2]) * 300 // 256
    dataset = min(digest[3], digest[4]) * 200 // 256
    publisher = _INSTITUTIONS[dataset % len(_INSTITUTIONS)]
    return (
        digest.hex()[:32],
        f"{_INSTITUTIONS[person % len(_INSTITUTIONS)]}/p{person}",
        f"{publisher}.c.t{dataset}",
    )


def measure(records: int, runs: int, say: Callable[[str], None]) -> dict[str, float]:
    """Keys ``audit.*``: the 99th percentile of the slowest filter, the slowest count, CPU per record."""
    ledger = SyntheticLedger(records)
    with tempfile.TemporaryDirectory(prefix="koinon-audit-") as directory:
        say(f"read model of {records:,} audit records")
        sample = range(0, records, max(1, records // _SAMPLE))
        started = time.process_time()
        for index in sample:
            ledger.record(index)
        made_s = (time.process_time() - started) * records / len(sample)
        started = time.process_time()
        model = ReadModel(Path(directory) / "read.sqlite", cast(Any, ledger))
        fed_s = time.process_time() - started - made_s
        say(f"{runs} pages and counts for each of {len(_filters(records))} filters")
        pages, counts = [], []
        for wanted in _filters(records):
            took = [
                _ms(partial(model.records, wanted, limit=50, newest_first=newest_first))
                for newest_first in (False, True)
                for _ in range(runs)
            ]
            pages.append(quantiles(took, n=100)[-1])
            counts += [median(_ms(model.counter(wanted, by)) for _ in range(3)) for by in _GROUPINGS]
        size = (Path(directory) / "read.sqlite").stat().st_size
        model.close()
    return {
        "audit.page_ms": max(pages),
        "audit.count_ms": max(counts),
        "audit.feed_us": fed_s / records * 1e6,
        "audit.bytes_per_record": size / records,
    }


def _filters(records: int) -> list[RecordFilter]:
    """From what fits everything to what fits nothing, and combinations in between."""
    identifier, person, dataset = _cast(records // len(_STORY) // 2)
    middle = _START_MS + records // 2 * _STEP_MS
    return [
        trail.ANYTHING,
        trail.make(f"task:{identifier}"),
        trail.make(f"dataset:{dataset}", kind="token."),
        trail.make(where={"institution": ["h01", "h02"], "outcome": "failed"}, since_ms=middle),
        trail.make(f"person:{person}", where={"purpose": _PURPOSES[0]}),
        trail.make(where={"institution": "h03", "kind": "task.*", "outcome": ["completed", "failed"]}),
        trail.make(kind="task.failed", where={"outcome": "completed"}),
    ]


def _ms(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000
