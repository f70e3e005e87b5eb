"""Proposes blocks that accuse a correct member, with signatures that are not that member's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon.v1 import consensus_pb2 as pb
from testnet.simulation.attackers.attacker import Attacker, signed_vote

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class FalseAccuser(Attacker):
    """If anyone believed it, it would rid itself of the others one by one."""

    def arm(self, node: SimNode) -> None:
        assert node.engine is not None
        honest = node.engine._evidence.fitting

        def fitting(*arguments: object) -> list[pb.Evidence]:
            height = len(node.committed)
            found: list[pb.Evidence] = honest(*arguments)  # type: ignore[arg-type]
            others = [name for name in node.network.institutions if name != node.institution]
            if height < 1 or self.rng.random() < 0.3:
                return found
            pair = [signed_vote(node, 1, height, 0, block_hash) for block_hash in (b"", b"\1" * 32)]
            for vote in pair:
                vote.institution = self.rng.choice(others[:1])
            return [*found, pb.Evidence(duplicate_vote=pb.DuplicateVote(first=pair[0], second=pair[1]))]

        node.engine._evidence.fitting = fitting  # type: ignore[method-assign, assignment]
