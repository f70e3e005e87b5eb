"""``python -m testnet.simulation --seeds N --first-seed S``: many worlds; a failure prints how to replay it."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import click

from testnet.simulation.checkers import Violation
from testnet.simulation.run import Report, run

_PROGRESS_S = 60.0


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=200, show_default=True, help="How many.")
@click.option("--first-seed", type=int, default=0, show_default=True, help="The first one.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--twice", is_flag=True, help="Run each seed twice and compare everything that happened.")
def main(seeds: int, first_seed: int, jobs: int, twice: bool) -> None:
    """Simulate the ledger under faults and attacks, one world per seed."""
    started = shown = time.monotonic()
    total, failed = Tally(), list[int]()
    for outcome in outcomes(range(first_seed, first_seed + seeds), jobs, twice):
        if isinstance(outcome, Report):
            total.add(outcome)
        else:
            seed, trace = outcome
            failed.append(seed)
            click.echo(trace, err=True)
            click.echo(f"replay: make sim SEEDS=1 FIRST_SEED={seed}", err=True)
        if time.monotonic() - shown > _PROGRESS_S:
            shown = time.monotonic()
            click.echo(f"{total.seeds + len(failed):,} of {seeds:,} after {shown - started:.0f} s", err=True)
    click.echo(f"{total.seeds:,} seeds in {time.monotonic() - started:.0f} s ({time.process_time():.0f} s of CPU here)")
    click.echo(total.table())
    if failed:
        click.echo(f"{len(failed)} failed: {failed}", err=True)
        sys.exit(1)


def outcomes(seeds: Iterable[int], jobs: int, twice: bool) -> Iterator[Report | tuple[int, str]]:
    """The report of each seed, or its number and the traceback; in the order of the seeds."""
    if jobs == 1:
        yield from (attempt(seed, twice) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as workers:
        chosen = list(seeds)
        yield from workers.map(attempt, chosen, [twice] * len(chosen), chunksize=4)


def attempt(seed: int, twice: bool) -> Report | tuple[int, str]:
    try:
        report = run(seed)
        if twice and run(seed) != report:
            raise Violation("two runs of this seed differ")
    except Exception:  # noqa: BLE001 - any error of any node is a finding; the other seeds still run
        return seed, traceback.format_exc()
    return report


class Tally:
    """What happened in all of them together: a fault that never occurs tests nothing."""

    def __init__(self) -> None:
        self.seeds = 0
        self._counts: Counter[str] = Counter()
        self._attackers: Counter[str] = Counter()

    def add(self, report: Report) -> None:
        self.seeds += 1
        self._attackers.update(report.attackers)
        self._counts.update({name: getattr(report, name) for name in COUNTED})

    def table(self) -> str:
        rows = [f"{self._counts[name]:>12,}  {words}" for name, words in COUNTED.items()]
        rows.append("attackers: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(self._attackers.items())))
        return "\n".join(rows)


COUNTED = {
    "steps": "events",
    "height": "blocks",
    "later_rounds": "of them decided after round 0",
    "transactions": "transactions in blocks",
    "committed": "transactions whose outcome a client was told",
    "set_changes": "changes of validators",
    "partitions": "partitions",
    "crashes": "crashes",
    "pauses": "pauses",
    "slow_disks": "times a disk became slow",
    "full_disks": "times a disk was full",
    "lost_disks": "disks lost or damaged",
    "repairs": "times an operator did what the error's hint said",
    "regained": "signing states lost and outlived",
    "left_dead": "nodes that stayed dead when the others healed",
    "equivocations": "equivocations",
    "accused": "of them on the ledger",
    "admitted": "institutions admitted",
    "excluded": "suspended, removed or gone",
    "empowered": "times power was taken up or changed",
    "restored": "ledgers made from snapshots",
    "pruned": "blocks dropped to their headers",
    "indexed": "records in indexes for searches, the same as made anew",
    "voted_again": "times an operator let a node vote again",
    "paid": "escrows settled",
    "refunded": "escrows refunded",
    "disputes": "disputes decided",
}


if __name__ == "__main__":
    main()
