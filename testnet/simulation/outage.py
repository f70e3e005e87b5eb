"""So many lose their signing state at once that no block can show any height safe: their operators must decide.

Only where nobody attacks: who forgot what it signed, and who lies about it, are together more than any ledger bears.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from testnet.simulation.nodes import Network, SimNode
from testnet.simulation.world import World

_WHEN_MS = (500, 6_000)
_STILL_MS = 4_000  # longer than a heartbeat, a round, and anything under way on the network
_LOOKS = 4  # for each node, at most


class Outage:
    """Of one run."""

    def __init__(self, world: World, network: Network, powers: Mapping[str, int]) -> None:
        """``powers`` by node's name: more than a third of them lose their logs, and nothing else."""
        self._world = world
        self._network = network
        self._powers = powers
        self._rng: Random = world.random("outage")
        world.schedule(self._rng.randint(*_WHEN_MS), self._strike)

    def _strike(self) -> None:
        """Machines come back without what was not backed up; whoever keeps services running starts them again."""
        names, lost = self._rng.sample(sorted(self._powers), len(self._powers)), 0
        while 3 * lost <= sum(self._powers.values()):
            name = names.pop()
            self._network.nodes[name].stop()
            self._network.nodes[name].lose_signing_state()
            lost += self._powers[name]

    def end(self) -> int:
        """What operators do when all is well again but for the ledger; returns how often one said to vote again.

        One acts at a time: if all nodes run, and nothing has been decided for a while, and nobody is past its own.
        """
        nodes = [node for node in self._network.nodes.values() if node.invited]
        said = moved = 0
        for _ in range(_LOOKS * len(nodes)):
            before = _highest(nodes)
            self._world.run(_STILL_MS)
            moved = moved + 1 if _highest(nodes) > before else 0
            losers = [node for node in nodes if _waits(node) and len(node.committed) == before]
            if moved > 1:
                break
            if losers and not moved and all(node.up for node in nodes):
                loser = self._rng.choice(losers)
                loser.stop()
                loser.vote_again()
                loser.start()
                said += 1
        return said


def _highest(nodes: list[SimNode]) -> int:
    return max(len(node.committed) for node in nodes)


def _waits(node: SimNode) -> bool:
    """Is it a validator that does not know from which height it may vote?"""
    engine = node.engine
    return (
        engine is not None
        and engine.status().votes_from_height is None
        and engine.chain.validators.member(node.institution) is not None
    )
