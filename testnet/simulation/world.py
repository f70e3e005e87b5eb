"""Virtual time, the network between nodes, and the record of everything that happened."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random


@dataclass
class Weather:
    """How the network treats messages now. Delays in milliseconds; the rest are probabilities."""

    min_delay_ms: int = 1
    max_delay_ms: int = 10
    slow_delay_ms: int = 10  # of the few that are very late
    slow: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0


class World:
    """One timeline. Everything random comes from ``rng``; everything that happens is in ``digest``."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311 - repeatable on purpose
        self.now_ms = 1_700_000_000_000
        self.weather = Weather()
        self.severed: set[tuple[str, str]] = set()  # directed: (from, to)
        self.steps = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._record = hashlib.sha256()

    def note(self, *what: object) -> None:
        """Put something that happened on record, so that two runs can be compared."""
        self._record.update(f"{self.now_ms} {what}\n".encode())

    @property
    def digest(self) -> str:
        return self._record.hexdigest()

    def schedule(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_ms + max(delay_ms, 0), self._sequence, action))

    def run(self, duration_ms: int, until: Callable[[], bool] = lambda: False) -> bool:
        """Let this much time pass, or less if ``until`` comes true, which is what is returned."""
        if until():
            return True
        end_ms = self.now_ms + duration_ms
        while self._queue and self._queue[0][0] <= end_ms:
            self.now_ms, _, action = heapq.heappop(self._queue)
            self.steps += 1
            action()
            if until():
                return True
        self.now_ms = end_ms
        return until()

    def carry(self, sender: str, receiver: str, deliver: Callable[[], None]) -> None:
        """Take a message from one node to another, as the weather and the partitions allow."""
        weather, rng = self.weather, self.rng
        copies = 2 if rng.random() < weather.duplicate else 1
        for _ in range(copies):
            if rng.random() < weather.drop:
                continue
            if rng.random() < weather.slow:
                delay_ms = rng.randint(weather.max_delay_ms, weather.slow_delay_ms)
            else:
                delay_ms = rng.randint(weather.min_delay_ms, weather.max_delay_ms)
            self.schedule(delay_ms, lambda: self._arrive(sender, receiver, deliver))

    def _arrive(self, sender: str, receiver: str, deliver: Callable[[], None]) -> None:
        if (sender, receiver) not in self.severed:
            deliver()

    def part(self, groups: Iterable[Iterable[str]]) -> None:
        """Sever all links between these groups, both ways."""
        sides = [list(group) for group in groups]
        for side in sides:
            for other in sides:
                if side is not other:
                    self.severed.update((a, b) for a in side for b in other)
