"""Forgets its lock: prevotes whatever is proposed, as if it had never precommitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.consensus.messages import Value
from testnet.simulation.attackers.attacker import Attacker

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class Amnesiac(Attacker):
    """Leaves no evidence: every single vote is one that a correct validator could have signed."""

    def arm(self, node: SimNode) -> None:
        def locks(value: Value) -> bool:
            return True

        assert node.engine is not None
        node.engine._core._locks = locks  # type: ignore[method-assign]
