"""Virtual time, the network between nodes, and the record of everything that happened."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

START_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Weather:
    """How the network treats messages now. Times in milliseconds; the rest are probabilities, but for ``capacity``."""

    min_delay_ms: int = 1
    mean_delay_ms: int = 4  # beyond the least: exponentially distributed, so that messages overtake one another
    drop: float = 0.0
    duplicate: float = 0.0
    clog: float = 0.0  # that a message finds its path clogged from now on
    clog_ms: int = 0  # for how long at most: all messages of the path wait
    capacity: int = 1_000  # messages under way on one path; more are lost


class World:
    """One timeline. Everything random comes from the seed; everything that happens is in ``digest``."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_ms = START_MS
        self.weather = Weather()
        self.severed: set[tuple[str, str]] = set()  # directed: (from, to)
        self.steps = 0
        self._rng = self.random("network")
        self._clogged: dict[tuple[str, str], int] = {}  # until when
        self._under_way: Counter[tuple[str, str]] = Counter()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._record = hashlib.sha256()

    def random(self, purpose: str) -> Random:
        """A source of its own for each purpose: one more fault changes no client's mind."""
        return Random(f"{self.seed} {purpose}")  # noqa: S311 - repeatable on purpose

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

    def carry(self, sender: str, receiver: str, data: bytes, deliver: Callable[[], None], after_ms: int = 0) -> None:
        """Take a message from one node to another, as the weather and the partitions allow."""
        weather, rng, path = self.weather, self._rng, (sender, receiver)
        self._record.update(b"%d %b %b" % (self.now_ms, repr(path).encode(), data))
        for _ in range(2 if weather.duplicate and rng.random() < weather.duplicate else 1):
            if weather.drop and rng.random() < weather.drop:
                continue
            if self._under_way[path] >= weather.capacity:
                continue
            if weather.clog and rng.random() < weather.clog:
                self._clogged[path] = self.now_ms + rng.randint(0, weather.clog_ms)
            delay_ms = after_ms + weather.min_delay_ms
            if weather.mean_delay_ms:
                delay_ms += min(int(rng.expovariate(1 / weather.mean_delay_ms)), 20 * weather.mean_delay_ms)
            if self._clogged:
                delay_ms = max(delay_ms, self._clogged.get(path, 0) - self.now_ms)
            self._under_way[path] += 1
            self.schedule(delay_ms, lambda: self._arrive(path, deliver))

    def _arrive(self, path: tuple[str, str], deliver: Callable[[], None]) -> None:
        self._under_way[path] -= 1
        if path not in self.severed:
            deliver()

    def clear(self) -> None:
        """From now on every message arrives, and soon."""
        self.weather = Weather()
        self.severed.clear()
        self._clogged.clear()

    def part(self, groups: Iterable[Iterable[str]]) -> None:
        """Sever all links between these groups, both ways."""
        sides = [list(group) for group in groups]
        for side in sides:
            for other in sides:
                if side is not other:
                    self.severed.update((a, b) for a in side for b in other)
