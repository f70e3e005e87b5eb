"""What goes wrong, and when: every fault is a process of its own on the world's timeline until the world heals."""

from __future__ import annotations

from collections.abc import Callable

from koinon.v1 import peer_pb2
from testnet.simulation.checkers import Checkers
from testnet.simulation.nodes import Network, SimNode
from testnet.simulation.world import Weather, World


class Faults:
    """All faults of one run. Which of them occur, and how hard, is drawn once from the seed."""

    def __init__(
        self, world: World, network: Network, checkers: Checkers, faulty: str | None, victim: SimNode | None
    ) -> None:
        self._world = world
        self._network = network
        self._checkers = checkers
        self._nodes = list(network.nodes.values())
        self._faulty = faulty
        self._victim = victim  # of the loss of its signing state
        self._active = True
        self._restarting: set[str] = set()
        self._submitted = 0
        rng = world.rng
        processes: list[tuple[float, Callable[[], None], int, int]] = [
            # probability, what, and between how many milliseconds
            (1.0, self._submit, 20, rng.choice((100, 400, 2_000))),
            (1.0, self._restart, 100, 300),
            (0.9, self._change_weather, 1_000, 5_000),
            (0.7, self._partition, 1_000, 6_000),
            (0.7, self._crash_one, 300, rng.choice((1_000, 4_000))),
            (0.2, self._crash_all, 4_000, 12_000),
            (0.5, self._skew_clock, 1_000, 10_000),
            (1.0 if faulty else 0.0, self._deform, 20, 300),
            (0.6 if faulty else 0.0, self._trap, 1_000, 4_000),
        ]
        for probability, action, least_ms, most_ms in processes:
            if rng.random() < probability:
                self._repeat(action, least_ms, most_ms)
        if victim is not None:
            world.schedule(rng.randint(1_000, 4_500), self._lose)

    def _repeat(self, action: Callable[[], None], least_ms: int, most_ms: int) -> None:
        def again() -> None:
            if self._active:
                action()
                self._repeat(action, least_ms, most_ms)

        self._world.schedule(self._world.rng.randint(least_ms, most_ms), again)

    def heal(self) -> None:
        """From now on messages arrive soon, clocks are right and everyone is up; the faulty member stays faulty."""
        self._active = False
        self._world.severed.clear()
        self._world.weather = Weather()
        for node in self._nodes:
            node.clock_skew_ms = 0
            node.crash_after(10**12)
            if not node.up:
                node.start()

    def submit_to(self, node: SimNode) -> bytes:
        """A client's transaction, unlike all others."""
        self._submitted += 1
        envelope = b"transaction %d" % self._submitted
        node.submit(envelope)
        return envelope

    # --- one of each

    def _submit(self) -> None:
        self.submit_to(self._world.rng.choice(self._nodes))

    def _change_weather(self) -> None:
        rng = self._world.rng
        self._world.weather = rng.choice(
            (
                Weather(),
                Weather(drop=rng.uniform(0, 0.3), duplicate=rng.uniform(0, 0.3)),
                Weather(max_delay_ms=rng.choice((50, 150, 400))),
                Weather(max_delay_ms=30, slow=0.1, slow_delay_ms=1_500, duplicate=0.1),
                Weather(max_delay_ms=100, slow=0.05, slow_delay_ms=4_000, drop=0.15, duplicate=0.1),
            )
        )

    def _partition(self) -> None:
        world, rng = self._world, self._world.rng
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

    def _trap(self) -> None:
        """What the locks are there for: one decides with the help of a twin, and is then cut off together with it.

        The others hold a quorum too, with the other twin, which knows nothing of the decision.
        """
        rng = self._world.rng
        correct = [node.name for node in self._nodes if node.correct]
        rng.shuffle(correct)
        informed = correct[: 2 * len(correct) // 3]
        ignorant = correct[len(informed) :]
        here, there = (node.name for node in self._nodes if not node.correct)
        self._world.severed.clear()
        self._world.part(([*informed, here], [*ignorant, there]))

        def spring(decider: SimNode) -> None:
            self._checkers.on_first_decision = None
            if self._active and decider.name in informed:
                self._world.severed.clear()
                rest = [name for name in correct if name != decider.name]
                self._world.part(([decider.name, here], [*rest, there]))

        self._checkers.on_first_decision = spring

    def _crash_one(self) -> None:
        self._world.rng.choice(self._nodes).crash_after(self._world.rng.randint(0, 60))

    def _crash_all(self) -> None:
        for node in self._nodes:
            node.crash_after(self._world.rng.randint(0, 10))

    def _restart(self) -> None:
        for node in self._nodes:
            if not node.up and node.name not in self._restarting:
                self._restarting.add(node.name)
                self._world.schedule(self._world.rng.choice((10, 200, 2_000)), self._starter(node))

    def _starter(self, node: SimNode) -> Callable[[], None]:
        def start() -> None:
            self._restarting.discard(node.name)
            if not node.up:
                node.start()

        return start

    def _skew_clock(self) -> None:
        self._world.rng.choice(self._nodes).clock_skew_ms = self._world.rng.randint(-3_000, 3_000)

    def _lose(self) -> None:
        if self._victim is not None:
            self._victim.stop()
            if self._world.rng.random() < 0.5:
                self._victim.lose_signing_state()
            else:
                self._victim.lose_disk()

    def _deform(self) -> None:
        """The faulty member replays, deforms and makes up messages."""
        rng, overheard = self._world.rng, self._network.overheard
        target = rng.choice(self._nodes)
        if self._faulty is None or not overheard:
            return
        data = bytearray(rng.choice(overheard))
        match rng.randint(0, 3):
            case 0:
                pass  # a replay, under its own name
            case 1:
                for _ in range(rng.randint(1, 4)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            case 2:
                message = peer_pb2.DeliverRequest.FromString(bytes(data))
                for vote in message.votes.votes:
                    vote.institution = rng.choice(self._network.institutions)
                    vote.round += rng.choice((0, 1, 7, 1_000_000))
                    vote.height += rng.choice((0, 0, 1, 2))
                if message.HasField("proposal"):
                    message.proposal.round += rng.choice((0, 1, 2, 100))
                data = bytearray(message.SerializeToString())
            case _:
                data = bytearray(self._made_up().SerializeToString())
        self._world.note("deformed", target.name, bytes(data).hex())
        target.deliver(self._faulty, bytes(data))

    def _made_up(self) -> peer_pb2.DeliverRequest:
        rng = self._world.rng
        height, round_ = rng.choice((0, 1, 5, 2**40, 2**64 - 1)), rng.choice((0, 2**32 - 1))
        return rng.choice(
            (
                peer_pb2.DeliverRequest(round_status=peer_pb2.RoundStatus(height=height, round=round_)),
                peer_pb2.DeliverRequest(block_request=peer_pb2.BlockRequest(from_height=height, count=2**32 - 1)),
                peer_pb2.DeliverRequest(hello=peer_pb2.Hello(height=height)),
                peer_pb2.DeliverRequest(),
            )
        )
