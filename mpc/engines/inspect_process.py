"""Inspection in a process of its own: ``python -m mpc.engines.inspect_process PATH FORMAT MEMORY_MB``.

A file from outside meets a large parser here, so the process gives up what it does not need before it opens the file:
it cannot write files, dump core, or use more memory and time than allowed. It prints one JSON object:
``{"inspection": …}``, or ``{"error": …, "rule": …, "hint": …}`` in words that hold no data value.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from koinon.errors import Exhausted, KoinonError
from mpc.engines.duckdb_engine import DuckDBEngine

CPU_SECONDS = 900
_OVERHEAD_BYTES = 3 * 1024**3  # address space of the interpreter, DuckDB's code and its allocator's reserve


def main(arguments: list[str]) -> int:
    path, file_format, memory_mb = arguments
    _limit(int(memory_mb))
    sys.stdout.write(json.dumps(_report(path, file_format, int(memory_mb))))
    return 0


def _report(path: str, file_format: str, memory_mb: int) -> dict[str, Any]:
    try:
        return {"inspection": DuckDBEngine(memory_mb=memory_mb).inspect(path, file_format).to_json()}
    except MemoryError:
        error: KoinonError = Exhausted("the file needs more memory than allowed", rule="memory-limit")
    except KoinonError as refusal:
        error = refusal
    return {"error": error.message, "rule": error.rule, "hint": error.hint}


def _limit(memory_mb: int) -> None:
    for what, limit in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, memory_mb * 1024**2 + _OVERHEAD_BYTES),
    ):
        resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
