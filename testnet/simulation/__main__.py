"""``python -m testnet.simulation --seeds N --first-seed S``: many worlds; a failure prints how to replay it."""

from __future__ import annotations

import sys
import time
import traceback

import click

from testnet.simulation.checkers import Violation
from testnet.simulation.run import Report, run


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=200, show_default=True, help="How many.")
@click.option("--first-seed", type=int, default=0, show_default=True, help="The first one.")
@click.option("--twice", is_flag=True, help="Run each seed twice and compare everything that happened.")
def main(seeds: int, first_seed: int, twice: bool) -> None:
    """Simulate consensus under faults, one world per seed."""
    started = time.monotonic()
    reports: list[Report] = []
    failed: list[int] = []
    for seed in range(first_seed, first_seed + seeds):
        try:
            reports.append(run(seed))
            if twice and run(seed) != reports[-1]:
                raise Violation("two runs of this seed differ")
        except Exception:  # noqa: BLE001 - any error of any node is a finding; the other seeds still run
            failed.append(seed)
            click.echo(traceback.format_exc(), err=True)
            click.echo(f"replay: python -m testnet.simulation --seeds 1 --first-seed {seed}", err=True)
    click.echo(f"{len(reports)} seeds in {time.monotonic() - started:.0f} s: {summary(reports)}")
    if failed:
        click.echo(f"{len(failed)} failed: {failed}", err=True)
        sys.exit(1)


def summary(reports: list[Report]) -> str:
    """What happened in all of them together: a fault that never occurs tests nothing."""
    return ", ".join(f"{sum(getattr(r, name) for r in reports):,} {words}" for name, words in COUNTED.items())


COUNTED = {
    "steps": "events",
    "height": "blocks",
    "later_rounds": "decided after round 0",
    "crashes": "crashes",
    "regained": "signing states lost and outlived",
    "equivocations": "equivocations",
    "accused": "of them on the ledger",
}


if __name__ == "__main__":
    main()
