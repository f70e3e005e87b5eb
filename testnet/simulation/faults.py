"""What goes wrong, and when: every fault is a process of its own on the world's timeline until the world heals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from testnet.simulation.checkers import Checkers
from testnet.simulation.clients import Clients
from testnet.simulation.nodes import Network, SimNode
from testnet.simulation.world import Weather, World

_WEATHERS = (
    Weather(),
    Weather(drop=0.1, duplicate=0.5),
    Weather(drop=0.3, mean_delay_ms=20),
    Weather(mean_delay_ms=60, duplicate=0.2),
    Weather(mean_delay_ms=120, drop=0.1),
    Weather(clog=0.01, clog_ms=3_000, duplicate=0.1),
    Weather(mean_delay_ms=30, clog=0.02, clog_ms=1_000, drop=0.15, capacity=10),
)


class Faults:
    """All faults of one run. Which of them occur, and how hard, is drawn once from the seed."""

    def __init__(
        self, world: World, network: Network, checkers: Checkers, clients: Clients, victim: SimNode | None
    ) -> None:
        self.counted: Counter[str] = Counter()
        self._world = world
        self._network = network
        self._checkers = checkers
        self._clients = clients
        self._nodes = list(network.nodes.values())
        self._attackers = [node for node in self._nodes if not node.correct]
        self._victim = victim  # of the loss of what is on its disk
        self._rng = rng = world.random("faults")
        self._active = True
        self._dead: Sequence[SimNode] = ()
        self._restarting: set[str] = set()
        twins = len(self._attackers) == 2 and len({node.institution for node in self._attackers}) == 1
        trapping = twins and rng.random() < 0.7
        processes: list[tuple[float, Callable[[], None], int, int]] = [
            # probability, what, and between how many milliseconds
            (
                1.0,
                self._client,
                20,
                rng.choice((60, 100, 200) if clients.trading or clients.membership else (100, 400, 1_500)),
            ),
            (0.9, self._change_weather, 1_000, 4_000),
            (0.0 if trapping else 0.7, self._partition, 800, 4_000),
            (0.7, self._crash_one, 300, rng.choice((1_000, 4_000))),
            (0.2, self._crash_all, 3_000, 8_000),
            (0.5, self._skew_clock, 1_000, 8_000),
            (0.4, self._pause, 1_000, 5_000),
            (0.3, self._slow_disk, 500, 4_000),
            (0.3, self._fill_disk, 1_500, 5_000),
            (1.0 if trapping else 0.0, self._trap, 3_000, 4_000),
        ]
        for probability, action, least_ms, most_ms in processes:
            if rng.random() < probability:
                self._repeat(action, least_ms, most_ms)
        for node in self._attackers:
            assert node.attacker is not None
            if node.attacker.period_ms:
                self._attack(node)
        if trapping:
            self._trap()
        if victim is not None:
            world.schedule(rng.randint(1_000, 4_500), self._lose)
        self._restart()

    def _repeat(self, action: Callable[[], None], least_ms: int, most_ms: int) -> None:
        def again() -> None:
            if self._active:
                action()
                self._repeat(action, least_ms, most_ms)

        self._world.schedule(self._rng.randint(least_ms, most_ms), again)

    def _attack(self, node: SimNode) -> None:
        """Attackers go on when everything else heals."""
        assert node.attacker is not None
        if node.up:
            node.attacker.act(node)
        period_ms = node.attacker.period_ms * (1 if self._active else 4)
        self._world.schedule(self._rng.randint(period_ms // 2, 2 * period_ms), lambda: self._attack(node))

    def heal(self, dead: Sequence[SimNode] = ()) -> None:
        """From now on messages arrive soon, clocks are right and all are up but ``dead``; attackers go on."""
        self._active = False
        self._world.clear()
        self._checkers.conduct.witnessing = True
        self._dead = dead
        for node in self._nodes:
            node.clock_skew_ms = 0
            node.disk.full = False
            node.disk.slow_ms = 0
            node.crash_after(10**12)
            if node in dead:
                node.stop()
        self._network.reconnect()

    # --- one of each

    def _client(self) -> None:
        node = self._rng.choice(self._nodes)
        match self._rng.randrange(10):
            case 0:
                self._clients.misbehave(node)
            case 1 | 2:
                self._clients.ask(node)
            case _:
                self._clients.act(node)

    def _change_weather(self) -> None:
        self._world.weather = self._rng.choice(_WEATHERS)

    def _partition(self) -> None:
        world, rng = self._world, self._rng
        names = [node.name for node in self._nodes]
        world.severed.clear()
        match rng.randint(0, 3):
            case 0:
                rng.shuffle(names)
                cut = rng.randint(0, len(names))
                world.part((names[:cut], names[cut:]))
            case 1:
                alone = rng.choice(names)
                world.part(([alone], [name for name in names if name != alone]))
            case 2:  # one way only: some hear whom they cannot answer
                world.severed.update((a, b) for a in names for b in names if a != b and rng.random() < 0.3)
            case _:
                self._network.reconnect()
        self.counted["partitions"] += bool(world.severed)

    def _trap(self) -> None:
        """What the locks are there for: one decides with the help of a twin, and is then cut off together with it.

        The others hold a quorum too, with the other twin, which knows nothing of the decision. Until then that twin is
        heard by nobody, since whoever contradicts itself in public does not vote for long.
        """
        self._world.severed.clear()
        self._network.reconnect()
        _, there = (node.name for node in self._attackers)
        self._world.severed.update((there, node.name) for node in self._nodes)
        self._world.schedule(self._rng.randint(300, 600), self._cut)

    def _cut(self) -> None:
        if not self._active:
            return
        self._world.severed.clear()
        correct = [node.name for node in self._nodes if node.correct]
        self._rng.shuffle(correct)
        informed = correct[: 2 * len(correct) // 3]
        ignorant = correct[len(informed) :]
        here, there = (node.name for node in self._attackers)
        self._world.part(([*informed, here], [*ignorant, there]))

        def spring(decider: SimNode) -> None:
            self._checkers.on_first_decision = None
            if self._active and decider.name in informed:
                self._world.severed.clear()
                rest = [name for name in correct if name != decider.name]
                self._world.part(([decider.name, here], [*rest, there]))

        self._checkers.on_first_decision = spring
        self.counted["partitions"] += 1

    def _crash_one(self) -> None:
        self._rng.choice(self._nodes).crash_after(self._rng.randint(0, 60))

    def _crash_all(self) -> None:
        for node in self._nodes:
            node.crash_after(self._rng.randint(0, 10))

    def _restart(self) -> None:
        """Whoever keeps services running does so for ever."""
        for node in self._nodes:
            if not node.up and node.invited and node.name not in self._restarting and node not in self._dead:
                self._restarting.add(node.name)
                self._world.schedule(self._rng.choice((10, 200, 1_500)), self._starter(node))
        self._world.schedule(self._rng.randint(100, 300), self._restart)

    def _starter(self, node: SimNode) -> Callable[[], None]:
        def start() -> None:
            self._restarting.discard(node.name)
            if not node.up and node not in self._dead:
                node.disk.full = False  # its operator made room
                node.start()

        return start

    def _skew_clock(self) -> None:
        self._rng.choice(self._nodes).clock_skew_ms = self._rng.randint(-3_000, 3_000)

    def _pause(self) -> None:
        self._rng.choice(self._nodes).pause(self._rng.choice((50, 400, 2_000)))
        self.counted["pauses"] += 1

    def _slow_disk(self) -> None:
        self._rng.choice(self._nodes).disk.slow_ms = self._rng.choice((0, 20, 100, 500))
        self.counted["slow disks"] += 1

    def _fill_disk(self) -> None:
        self._rng.choice(self._nodes).disk.full = True
        self.counted["full disks"] += 1

    def _lose(self) -> None:
        """The victim's machine dies; what it finds on its disk afterwards is not what was there."""
        victim = self._victim
        assert victim is not None
        if not self._active:
            return
        victim.stop()
        others = [len(node.committed) for node in self._nodes if node.correct and node is not victim]
        kept_elsewhere = max(others, default=0) >= len(victim.committed)  # else what was decided would be gone
        match self._rng.randrange(4) if kept_elsewhere else 0:
            case 0:
                victim.lose_signing_state()
            case 1:
                victim.lose_disk()
            case 2:
                victim.disk.rot_wal()
            case _:
                victim.disk.rot_store()
        self.counted["lost disks"] += 1
