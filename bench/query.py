"""Latency and traffic of a joint query: the demo's, over the demo's data, at four institutions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import koinon
from koinon import Terms, descriptor
from testnet.data import descriptor_path, table_path
from testnet.network import Testnet
from testnet.story import OPERATIONS, PURPOSE, SQL, TABLE

WARM_UP = 3


def measure(network: Testnet, runs: int, say: Callable[[str], None]) -> dict[str, float]:
    """Keys ``query.*`` of the report."""
    with ExitStack() as stack:
        about = descriptor.parse(descriptor_path().read_text(encoding="utf-8"))
        for name in network.institutions:
            operator = stack.enter_context(koinon.connect(network.profile(f"{name}-operator")))
            operator.catalog.publish(table_path(name), TABLE, descriptor=about, terms=Terms(access="auto"))
        analyst = stack.enter_context(koinon.connect(network.profile("analyst")))
        analyst.access.request(TABLE, purpose=PURPOSE, operations=OPERATIONS, uses=WARM_UP + runs)
        sql = SQL.format(table=TABLE)
        for _ in range(WARM_UP):
            analyst.query(sql)
        say(f"{runs} joint queries over {len(network.institutions)} institutions")
        seconds, wire = [], []
        for _ in range(runs):
            before = _loopback_bytes()
            seconds.append(analyst.query(sql).seconds)
            wire.append(_loopback_bytes() - before)
    return {"query.p50_ms": median(seconds) * 1000, "query.wire_bytes": median(wire)}


def _loopback_bytes() -> int:
    """Bytes that went over the loopback interface so far: every message of every node, headers and TLS included."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    raise RuntimeError("this machine has no loopback interface")
