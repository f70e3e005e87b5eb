"""``python -m testnet.simulation --seeds N --first-seed S``: many worlds, one line per failure."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from testnet.simulation.run import Report, run


def main() -> int:
    """Run the seeds; exit code 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m testnet.simulation", description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first (default 0)")
    parser.add_argument("--twice", action="store_true", help="run each seed twice and compare everything that happened")
    arguments = parser.parse_args()

    started = time.monotonic()
    reports: list[Report] = []
    failed: list[int] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        try:
            report = run(seed)
            if arguments.twice and run(seed) != report:
                raise AssertionError("two runs of this seed differ")
        except Exception:
            failed.append(seed)
            traceback.print_exc()
            print(f"replay: python -m testnet.simulation --seeds 1 --first-seed {seed}", file=sys.stderr)
        else:
            reports.append(report)
    print(
        summary(reports), f"{len(failed)} failed{f': {failed}' if failed else ''}; {time.monotonic() - started:.0f} s"
    )
    return 1 if failed else 0


def summary(reports: list[Report]) -> str:
    """What happened in all of them together: a fault that never occurs tests nothing."""
    totals = {
        name: sum(getattr(report, name) for report in reports)
        for name in ("steps", "height", "later_rounds", "crashes", "equivocations", "accused", "regained")
    }
    words = {"steps": "events", "height": "blocks", "later_rounds": "blocks decided in later rounds"}
    return f"{len(reports)} seeds passed: " + ", ".join(f"{v:,} {words.get(k, k)}" for k, v in totals.items()) + ";"


if __name__ == "__main__":
    sys.exit(main())
