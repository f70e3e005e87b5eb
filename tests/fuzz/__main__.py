"""Coverage-guided fuzzing: ``make fuzz SECONDS=60 [TARGET=name]``.

Each target runs in a process of its own under libFuzzer (atheris), from its seeds and its corpus. What fails is left in
``fuzz-findings/<target>/``; put it into ``tests/fuzz/corpus/<target>/`` with the mend, and the tests keep it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ModuleNotFoundError:
    sys.exit(
        "error: atheris, which fuzzes, is not built for this Python\nhint: make clean && make PYTHON=python3.12 fuzz"
    )

with atheris.instrument_imports(include=["koinon", "mpc", "node"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FINDINGS = Path("fuzz-findings")


def main() -> int:
    """Fuzz the targets asked for, one after another; returns how many failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads outside bytes.")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="all when none is named")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=int, default=60, help="per target (default: 60)")
    budget.add_argument("--runs", type=int, help="inputs per target, in place of a time")
    options = parser.parse_args()
    limit = f"-runs={options.runs}" if options.runs else f"-max_total_time={options.seconds}"
    failed = [name for name in options.targets or TARGETS if not _survives(name, limit)]
    for name in failed:
        sys.stderr.write(f"{name}: failed; the input is in {FINDINGS / name}\n")
    return len(failed)


def _survives(name: str, limit: str) -> bool:
    """Fuzz one target in a child: libFuzzer ends its process."""
    sys.stderr.write(f"--- {name}\n")
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    target = TARGETS[name]
    findings = FINDINGS / name
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for number, seed in enumerate(target.seeds()):
            (Path(scratch) / f"seed-{number}").write_bytes(seed)
        sources = [scratch, *([str(CORPUS / name)] if (CORPUS / name).is_dir() else [])]
        arguments = [sys.argv[0], limit, "-verbosity=0", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]
        atheris.Setup([*arguments, f"-artifact_prefix={findings}/", *sources], target)
        atheris.Fuzz()
    raise SystemExit("libFuzzer returned")


if __name__ == "__main__":
    sys.exit(main())
