"""Who belongs changes while everything else goes wrong: by ballots, by notice, and by nodes that have caught up.

A newcomer is proposed, admitted, started, and begins to vote; others are suspended, readmitted, removed, or leave. Whom
the others cannot spare is left alone: correct nodes keep more than two thirds of the power in every world.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random
from typing import Any

from koinon.limits import MIN_NOTICE_BLOCKS
from koinon.v1.governance_pb2 import (
    Action,
    AdmitInstitution,
    Propose,
    ReadmitInstitution,
    RemoveInstitution,
    SetPower,
    SuspendInstitution,
)
from koinon.v1.identity_pb2 import (
    MEMBER_STATUS_ACTIVE,
    MEMBER_STATUS_SUSPENDED,
    BeginVoting,
    GiveNotice,
    WithdrawNotice,
)
from node import taking_part
from node.application import Application
from testnet.simulation.clients import Clients, Signed
from testnet.simulation.consortium import OPERATOR, member
from testnet.simulation.nodes import Network, SimNode
from testnet.simulation.world import World

_LOOK_MS = 300
_AGAIN_MS = 1_500  # before a node says once more that it begins to vote


class Membership:
    """Of one run: the newcomer, and those who may be excluded."""

    def __init__(
        self,
        world: World,
        network: Network,
        clients: Clients,
        newcomer: SimNode,
        index: int,
        excludable: Collection[str],
    ) -> None:
        """``index``: the newcomer's number among the members."""
        self._world = world
        self._network = network
        self._clients = clients
        self._newcomer = newcomer
        self._descriptor = member(index, 1)
        self._excludable = sorted({*excludable, newcomer.institution})
        self._said: dict[str, int] = {}  # by node: when it last said that it begins
        self._rng = world.random("membership")
        newcomer.invited = False
        self._look_on()

    def _look_on(self) -> None:
        """As operators and nodes do now and then: start who is let in, take up power that was approved."""
        self._world.schedule(_LOOK_MS, self._look_on)
        for node in self._network.nodes.values():
            if node.up:
                node.enter(lambda node=node: self._begin_voting(node))  # type: ignore[misc]
        if not self._newcomer.invited and any(self._lets_in(node) for node in self._network.nodes.values()):
            self._newcomer.invited = True
            self._newcomer.start()

    def _lets_in(self, node: SimNode) -> bool:
        return node.up and node.correct and self._newcomer.institution in node.app.ballot_weights()

    def _begin_voting(self, node: SimNode) -> None:
        engine, now_ms = node.engine, self._world.now_ms
        found = [item for item in node.app.institutions() if item.descriptor.id == node.institution]
        if engine is None or not found or now_ms - self._said.get(node.name, 0) < _AGAIN_MS:
            return
        if taking_part.is_ready(found[0], engine.status(), found[0].descriptor.validator_key):
            self._said[node.name] = now_ms
            name = self._clients.node_key_name(node.app, node.institution)
            node.submit(self._clients.envelope(name, BeginVoting(height=engine.chain.height)))

    def propose(self, app: Application, rng: Random, members: Sequence[str]) -> Signed:
        """Admit the newcomer; once it is in, anything that may be done to it and the others."""
        sender = f"{rng.choice(members)}/{OPERATOR}"
        known = {item.descriptor.id: item for item in app.institutions()}
        name = self._newcomer.institution
        if name not in known:
            return sender, _proposal(
                admit=AdmitInstitution(institution=name, descriptor=self._descriptor, power=rng.randint(0, 3))
            )
        other = rng.choice([each for each in self._excludable if each in known])
        if known[other].status == MEMBER_STATUS_SUSPENDED:
            return sender, _proposal(readmit=ReadmitInstitution(institution=other))
        operator = f"{other}/{OPERATOR}"
        changes: list[tuple[int, str, Any]] = [
            (4, sender, _proposal(suspend=SuspendInstitution(institution=other, reason="to see what happens"))),
            (1, sender, _proposal(remove=RemoveInstitution(institution=other, reason="to see what happens"))),
            (1, operator, GiveNotice(height=app.info().height + MIN_NOTICE_BLOCKS + 3, reason="to see what happens")),
            (1, operator, WithdrawNotice(reason="to see what happens")),
        ]
        if known[name].status == MEMBER_STATUS_ACTIVE:
            changes.append((4, sender, _proposal(set_power=SetPower(institution=name, power=rng.randint(0, 3)))))
        ((_, signer, message),) = rng.choices(changes, [weight for weight, _, _ in changes])
        return signer, message


def _proposal(**action: Any) -> Propose:
    return Propose(title="A change", reason="to see what happens", actions=[Action(**action)])
