"""One seed from beginning to end: build the world, let things go wrong, heal it, demand progress."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from koinon.keys import SigningKey
from koinon.v1.consensus_pb2 import Validator
from node.engine import EngineConfig
from testnet.simulation.application import ChainApplication, FoulApplication
from testnet.simulation.checkers import Checkers, Violation
from testnet.simulation.faults import Faults
from testnet.simulation.nodes import TIMEOUTS, Network, SimNode
from testnet.simulation.world import World

CHAIN_ID = "sim-0123456789abcdef"
HEIGHTS_AFTER_HEALING = 4
BOUND_MS = 60_000  # of virtual time, from healing until every correct node is that much higher
REGAIN_BOUND_MS = 120_000  # until a node that lost its signing state votes again


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did, to see that the faults were really there."""

    seed: int
    validators: int
    digest: str  # equal for equal runs
    steps: int
    height: int
    later_rounds: int  # blocks decided after round 0
    crashes: int
    equivocations: int  # that were sent
    accused: int  # offences on the ledger
    regained: int  # nodes that lost their signing state and vote again


def consortium(world: World, powers: Sequence[int], faulty: int | None = None) -> tuple[Network, Checkers]:
    """Validators v0, v1, … with these powers, not yet started; the faulty one is a pair of twins."""
    signing_keys = [SigningKey(hashlib.sha256(b"v%d" % i).digest()) for i in range(len(powers))]
    validators = tuple(
        Validator(institution=f"v{i}", public_key=key.public_key, power=power)
        for i, (key, power) in enumerate(zip(signing_keys, powers, strict=True))
    )
    checkers = Checkers(CHAIN_ID, validators, None if faulty is None else f"v{faulty}")
    network = Network(world)
    for i, key in enumerate(signing_keys):
        name = f"v{i}"
        config = EngineConfig(
            institution=name,
            chain_id=CHAIN_ID,
            genesis_time_ms=world.now_ms,
            heartbeat_ms=800,
            proof_delay_ms=100,
            gossip_ms=200,
            timeouts=TIMEOUTS,
        )
        twins = ((f"{name}-a", ChainApplication), (f"{name}-b", FoulApplication))
        for process, application in twins if i == faulty else ((name, ChainApplication),):
            network.add(
                SimNode(
                    world,
                    process,
                    name,
                    key,
                    validators,
                    config,
                    checkers,
                    network,
                    correct=i != faulty,
                    application=application,
                )
            )
    return network, checkers


def run(seed: int) -> Report:
    """Simulate one seed. Raises Violation."""
    world = World(seed)
    rng = world.rng
    count = rng.choice((1, 4, 4, 4, 7))
    powers = [rng.randint(1, 5) for _ in range(count)] if rng.random() < 0.3 else [1] * count
    expendable = [i for i, power in enumerate(powers) if 3 * power < sum(powers)]
    fate = rng.random()  # at most one validator is worse than slow or crashed
    faulty = rng.choice(expendable) if expendable and fate < 0.45 else None
    loser = rng.choice(expendable) if expendable and fate > 0.8 else None

    network, checkers = consortium(world, powers, faulty)
    nodes = list(network.nodes.values())
    victim = None if loser is None else network.nodes[f"v{loser}"]
    for node in nodes:
        world.schedule(rng.randint(0, 500), node.start)

    world.run(600)
    faults = Faults(world, network, checkers, None if faulty is None else f"v{faulty}", victim)
    world.run(rng.randint(5_000, 25_000))
    faults.heal()
    _demand_progress(world, faults, [node for node in nodes if node.correct], checkers)
    regained = _demand_votes(world, victim) if victim is not None else 0
    _compare(nodes)
    return Report(
        seed=seed,
        validators=count,
        digest=world.digest,
        steps=world.steps,
        height=max(checkers.decided, default=0),
        later_rounds=sum(round_ > 0 for round_ in checkers.rounds.values()),
        crashes=sum(node.crashes for node in nodes),
        equivocations=len(checkers.equivocations),
        accused=len(checkers.accused),
        regained=regained,
    )


def _demand_progress(world: World, faults: Faults, correct: Sequence[SimNode], checkers: Checkers) -> None:
    goal = max(len(node.committed) for node in correct) + HEIGHTS_AFTER_HEALING
    envelope = faults.submit_to(world.rng.choice(correct))

    def reached() -> bool:
        return all(len(node.committed) >= goal for node in correct) and envelope in checkers.included

    if not world.run(BOUND_MS, until=reached):
        raise Violation(
            f"no progress: not everyone is at {goal} after {BOUND_MS} ms\n" + "\n".join(map(_describe, correct))
        )


def _demand_votes(world: World, loser: SimNode) -> int:
    def regained() -> bool:
        return loser.engine is not None and loser.engine.status().votes_from_height is not None

    if not world.run(REGAIN_BOUND_MS, until=regained):
        raise Violation(f"{loser.name} never votes again\n" + _describe(loser))
    return 1


def _compare(nodes: Sequence[SimNode]) -> None:
    """Chains of correct nodes are prefixes of one chain; checked at every block, and here once more as a whole."""
    chains = sorted((node.committed for node in nodes if node.correct), key=len)
    for shorter, longer in pairwise(chains):
        if longer[: len(shorter)] != shorter:
            raise Violation("agreement: two correct nodes hold different chains")


def _describe(node: SimNode) -> str:
    return f"{node.name}: {node.engine.status() if node.engine else 'down'}"
