"""What the machine gives the node: ports, time, disk."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

from koinon.display import duration
from node import listening
from node.config import NodeConfig
from node.diagnosis import CLOCK_MS, LOW_DISK_BYTES, SLOW_SYNC_MS
from node.doctor.dial import SHOWN_AT, TWICE, Answer, dial
from node.doctor.finding import Finding, ok, problem, warning

_FULL_BYTES = 100 * 1024**2  # less is gone within a day of heartbeats and one compaction
_WRITES = 5
_BLOCK_BYTES = 4096
_BEHIND_MS = 2_000


def ports(config: NodeConfig, *, running: bool, certificate: bytes) -> Iterator[Finding]:
    """Free before the start; ours after it. ``certificate`` is this node's, in DER."""
    check = "ports"
    ours = False  # did the node itself answer on a port of its own?
    for name, address in config.listening().items():
        where, number = f"{address} ({name})", listening.refusal(address)
        change = f"change listen.{name} in {config.home.config}"
        if not number:
            if running:
                yield warning(
                    check, f"a node uses this home, but nothing listens on {where}", "is it starting? see its log"
                )
            else:
                yield ok(check, f"{where} is free")
        elif number != errno.EADDRINUSE:
            yield problem(check, f"{where} cannot be bound: {os.strerror(number)}", change)
        else:
            shown = dial(listening.dialled(address), config.home) if name in SHOWN_AT else Answer(b"", "")
            if shown.certificate == certificate:
                ours = True
                yield (
                    ok(check, f"{where} is held by this home's node")
                    if running
                    else problem(check, f"{where} is held by a node that runs with a copy of this home", TWICE)
                )
            elif running and shown.certificate:
                yield problem(check, f"{where} is held by a node with another certificate", change)
            elif running and shown.reason:
                yield problem(
                    check,
                    f"what holds {where} does not answer as a node: {shown.reason}",
                    f"ss -tnap 'sport = :{address.port}' shows what it is: if it is the node, it has all connections "
                    f"that it takes, and docs/operator.md says how to bound them; else stop it, or {change}",
                )
            elif running and ours:
                yield ok(check, f"{where} is in use, as it should be while the node runs")
            elif running or ours:
                yield warning(check, f"{where} is in use, by whom cannot be told", "ss -ltnp shows it")
            else:
                yield problem(check, f"{where} is held by another process", f"stop it (ss -ltnp shows it), or {change}")


def disk(config: NodeConfig) -> Iterator[Finding]:
    """Space, the right to write, and how long a durable write takes."""
    check, place = "disk", config.home.path
    free = shutil.disk_usage(place).free
    room = "make room: a node whose disk is full stops rather than lose a decision"
    if free < _FULL_BYTES:
        yield problem(check, f"{free // 1024**2} MiB are free", room)
    elif free < LOW_DISK_BYTES:
        yield warning(check, f"{free // 1024**2} MiB are free", room)
    else:
        yield ok(check, f"{free / 1024**3:.1f} GiB are free")
    slowest = 0.0
    try:
        with tempfile.TemporaryFile(
            dir=config.home.ledger.parent if config.home.ledger.parent.exists() else place
        ) as file:
            for _ in range(_WRITES):
                began = time.perf_counter()
                file.write(bytes(_BLOCK_BYTES))
                file.flush()
                os.fsync(file.fileno())
                slowest = max(slowest, time.perf_counter() - began)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = room if full else "give the node's user the right to write there"
        yield problem(check, f"{place} cannot be written: {error.strerror}", hint)
        return
    slowest_ms = slowest * 1000
    if slowest_ms > SLOW_SYNC_MS:
        yield warning(
            check,
            f"a durable write takes up to {slowest_ms:.0f} ms",
            "use a faster disk, or keep other work away from this one: every vote waits for it",
        )
    else:
        yield ok(check, f"can be written; a durable write takes up to {slowest_ms:.1f} ms")


def clock(last_block_ms: int, ahead_ms: dict[str, int] | None) -> Iterator[Finding]:
    """Against the last block's time (Unix), and the clocks of others where the running node heard them.

    ``ahead_ms`` is by institution how far its clock is ahead of ours.
    """
    check, hint = "clock", "set it, and keep it set: run chrony or systemd-timesyncd"
    behind = last_block_ms - time.time_ns() // 1_000_000
    if behind > _BEHIND_MS:
        yield problem(check, f"this machine's clock is {duration(behind // 1000 * 1000)} behind the last block", hint)
        return
    if ahead_ms:
        widest = abs(max(ahead_ms.values(), key=abs))
        found = f"compared with {', '.join(sorted(ahead_ms))}: at most {widest / 1000:.1f} s apart"
        yield ok(check, found) if widest <= CLOCK_MS else warning(check, found, hint)
    elif last_block_ms:
        yield ok(check, "not behind the last block; more can be told while the node runs")
    else:
        yield ok(check, "nothing to compare it with yet")
