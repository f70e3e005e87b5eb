"""Proposes what no correct member would: transactions twice, replayed, expired, unsigned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from testnet.simulation.attackers.attacker import Attacker

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class FoulProposer(Attacker):
    """Its blocks have the right form and header; only what they hold is wrong."""

    def arm(self, node: SimNode) -> None:
        seen: list[bytes] = []
        honest = node.app.prepare_proposal

        def prepare(height: int, time_ms: int, candidates: Sequence[bytes], max_bytes: int) -> list[bytes]:
            chosen = honest(height, time_ms, candidates, max_bytes)
            foul = [[b"no envelope"], chosen[:1], seen[-1:], []][self.rng.randrange(4)]
            seen.extend(chosen)
            return [*chosen, *foul]

        node.app.prepare_proposal = prepare  # type: ignore[method-assign]
