"""Which fault strikes whom and when: drawn from one integer."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """As the table calls it."""

    KILL = "kill -9"
    KILL_ALL = "kill -9 of all"
    STOP = "SIGSTOP"
    WIPE = "wiped data"
    CLOCK = "clock an hour wrong"
    CERTIFICATE = "replaced certificate"
    DISK = "disk full"
    CUT_OFF = "cut off"  # hears nobody, and is heard by nobody
    DEAF = "deaf"  # is heard, and hears nobody
    HALVES = "cut in halves"
    LATENCY = "100 ms away"  # every packet to and from it


ELSEWHERE = (Kind.CLOCK, Kind.CERTIFICATE)
"""Beside kills, stops and wiped data, in turn; these need nothing but a process."""

ON_A_LAN = (Kind.CUT_OFF, Kind.DISK, Kind.LATENCY, Kind.DEAF, Kind.CLOCK, Kind.HALVES, Kind.CERTIFICATE)
"""The same where each node has a network and a disk of its own (testnet.faults.lan)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to whom; the times follow one another."""

    kind: Kind
    victim: str  # empty: all
    after_s: float  # of calm before
    away_s: float  # dead, stopped, cut off …
    again_s: float | None = None  # killed once more, this long after its start


def plan(seed: int, kills: int, institutions: Sequence[str], *, lan: bool = False) -> Iterator[Fault]:
    """``kills`` times kill -9, every 20th of all nodes, and other faults between them; short runs see them early."""
    rng = random.Random(seed)  # noqa: S311 - draws faults, not secrets
    others = ON_A_LAN if lan else ELSEWHERE

    def fault(kind: Kind, away_s: float, again_s: float | None = None) -> Fault:
        return Fault(kind, rng.choice(institutions), rng.uniform(0.1, 1.5), away_s, again_s)

    for number in range(1, kills + 1):
        if number % 20 == 3:
            yield Fault(Kind.KILL_ALL, "", rng.uniform(0.1, 1.5), 0.0)
        else:
            yield fault(Kind.KILL, rng.uniform(0.0, 3.0), rng.uniform(0.0, 2.5) if rng.random() < 0.25 else None)
        if number % 10 == 2:
            yield fault(Kind.STOP, rng.uniform(1.0, 6.0))
        if number % 30 == 15:
            yield fault(Kind.WIPE, rng.uniform(0.0, 2.0))
        if lan or number % 10 == 4:
            yield fault(others[number // (1 if lan else 10) % len(others)], rng.uniform(2.0, 6.0))
