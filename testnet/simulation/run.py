"""One seed from beginning to end: build the world, let things go wrong, heal it, demand progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from koinon import genesis as genesis_file
from koinon.envelope import identify
from testnet.simulation.attackers import ATTACKERS, Attacker
from testnet.simulation.checkers import Checkers, Violation
from testnet.simulation.clients import Clients
from testnet.simulation.consortium import genesis, key
from testnet.simulation.faults import Faults
from testnet.simulation.membership import Membership
from testnet.simulation.nodes import Network, SimNode
from testnet.simulation.outage import Outage
from testnet.simulation.searching import SimIndex
from testnet.simulation.signatures import remembered
from testnet.simulation.snapshots import SEGMENT_BLOCKS
from testnet.simulation.world import World

HEIGHTS_AFTER_HEALING = 3
BOUND_MS = 60_000  # of virtual time, from healing until every node of the core is that much higher
_REPEAT_MS = 3_000  # a client that hears nothing sends again
REGAIN_BOUND_MS = 120_000  # until a node that lost its signing state votes again
_OFTEN = ("twin",) * 6  # since only rare schedules show what locks are there for
_SAFETY_MS = (2_500, 9_000)
_VERIFY_EVERYTHING = 64  # one seed in so many runs without remembered signatures
_PRUNING = 0.2  # of the worlds
_RETENTIONS_MS = (0, 0, 4_000, 15_000)  # that members of these demand
_SEARCHED = 0.125  # of the worlds: one node keeps an index for searches
_OUTAGES = 0.3  # of the worlds where nobody attacks


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did, to see that the faults were really there."""

    seed: int
    validators: int
    attackers: tuple[str, ...]
    digest: str  # equal for equal runs
    steps: int
    height: int
    transactions: int  # decided
    committed: int  # of them told to a client
    set_changes: int  # of validators
    later_rounds: int  # blocks decided after round 0
    crashes: int
    repairs: int  # operators that did what an error's hint said
    partitions: int
    pauses: int
    slow_disks: int
    full_disks: int
    lost_disks: int
    left_dead: int  # nodes that stayed away when the rest healed
    equivocations: int  # that were sent
    accused: int  # offences on the ledger
    regained: int  # nodes that lost their signing state and vote again
    admitted: int
    excluded: int  # suspended, removed or left
    empowered: int  # that took up power, or were given another
    restored: int  # ledgers made from snapshots
    pruned: int  # blocks dropped to their headers
    voted_again: int  # times an operator said so
    indexed: int  # records in an index for searches that survived all that
    paid: int  # escrows settled
    refunded: int
    disputes: int  # decided


def consortium(
    world: World,
    powers: Sequence[int],
    attackers: Mapping[int, type[Attacker]] | None = None,
    *,
    retention_ms: int = 0,
) -> tuple[Network, Checkers, Clients]:
    """Members v0, v1, … with these powers, not yet started; those named by ``attackers`` are of that kind.

    ``retention_ms``: for how long they demand whole blocks.
    """
    chosen = attackers or {}
    initial = genesis(tuple(powers), retention_ms)
    checkers = Checkers(
        genesis_file.chain_id(initial),
        genesis_file.validators(initial).to_proto(),
        {f"v{index}" for index in chosen},
        retention_ms=retention_ms,
        segment_blocks=SEGMENT_BLOCKS,
    )
    network = Network(world)
    for index in range(len(powers)):
        name, kind = f"v{index}", chosen.get(index)
        count = kind.processes if kind is not None else 1
        for number in range(count):
            process = name if count == 1 else f"{name}-{'ab'[number]}"
            attacker = None if kind is None else kind(world.random(f"attacker {process}"))
            network.add(SimNode(network, process, name, key(f"{name} validator"), initial, checkers, attacker))
    return network, checkers, Clients(world, network, checkers, genesis_file.chain_id(initial))


def run(seed: int) -> Report:
    """Simulate one seed. Raises Violation."""
    with (
        nullcontext() if seed % _VERIFY_EVERYTHING == _VERIFY_EVERYTHING - 1 else remembered(),
        TemporaryDirectory() as directory,
    ):
        return _run(seed, Path(directory))


def _run(seed: int, directory: Path) -> Report:
    world = World(seed)
    rng = world.random("run")
    count = rng.choice((1, 4, 4, 4, 4, 4, 7))
    powers = [rng.randint(1, 5) for _ in range(count)] if rng.random() < 0.3 else [1] * count
    expendable = _expendable(powers, rng.sample(range(count), count))
    fate = rng.random()
    attackers: dict[int, str] = {}
    if fate < 0.7:
        kinds = [*ATTACKERS, *_OFTEN]
        attackers = {index: rng.choice(kinds) for index in expendable[: rng.randint(1, 2)]}
    spare = [index for index in expendable if index not in attackers]
    reliable = [index for index in range(count) if index not in expendable]

    upkeep = world.random("upkeep")
    prunes = upkeep.random() < _PRUNING
    network, checkers, clients = consortium(
        world,
        powers,
        {i: ATTACKERS[kind] for i, kind in attackers.items()},
        retention_ms=upkeep.choice(_RETENTIONS_MS) if prunes else 0,
    )
    clients.reliable = {f"v{index}": powers[index] for index in reliable}
    nodes = list(network.nodes.values())
    correct = [node for node in nodes if node.correct]
    victim = network.nodes[f"v{spare[0]}"] if spare and rng.random() < 0.5 else None
    dead = [network.nodes[f"v{spare[0]}"]] if spare and victim is None and rng.random() < 0.5 else []
    outage = None
    if not attackers and world.random("fate").random() < _OUTAGES:
        victim, dead = None, []  # all the others must be there, with what they signed
        outage = Outage(world, network, {f"v{index}": power for index, power in enumerate(powers)})
    for node in nodes:
        world.schedule(rng.randint(0, 300), node.start)

    theme = rng.random()
    network.snapshots = "snapshot forger" in attackers.values() or rng.random() < (0.7 if theme > 0.65 else 0.2)
    network.snapshots |= prunes
    clients.trading = theme < 0.25
    newcomers = [_newcomer(world, network, clients, powers, expendable)] if theme > 0.65 else []
    kept = upkeep.choice(((2, 4, 8), (0, 2, 4, 8))) if prunes else (0,)  # nobody keeps all, or some do
    for node in network.nodes.values():
        node.keep_blocks = upkeep.choice(kept)
    searching = world.random("searching")
    searched = searching.choice(correct)
    searched.index = index = SimIndex(directory, searching) if searching.random() < _SEARCHED else None
    world.run(400)
    faults = Faults(world, network, checkers, clients, victim)
    world.run(rng.randint(*_SAFETY_MS))
    faults.heal(dead)
    voted_again = outage.end() if outage is not None else 0
    members = checkers.contents.members
    core = [node for node in (*correct, *newcomers) if node not in dead and members.follows(node.institution)]
    _demand_progress(world, clients, core, checkers)
    regained = _demand_votes(world, victim) if victim in core else 0
    checkers.finish([node for node in core if node.up])
    if index is not None and searched in core:
        index.check(searched.app)
    return Report(
        seed=seed,
        validators=count,
        attackers=tuple(attackers.values()),
        digest=world.digest,
        steps=world.steps,
        height=max(checkers.chain.decided, default=0),
        transactions=len(checkers.contents.included),
        committed=len(checkers.contents.told),
        set_changes=sum(a != b for a, b in pairwise(voters for _, voters in sorted(checkers.chain.voters.items()))),
        later_rounds=sum(round_ > 0 for round_ in checkers.chain.rounds.values()),
        crashes=sum(node.crashes for node in nodes),
        repairs=sum(node.repairs for node in nodes),
        partitions=faults.counted["partitions"],
        pauses=faults.counted["pauses"],
        slow_disks=faults.counted["slow disks"],
        full_disks=faults.counted["full disks"],
        lost_disks=faults.counted["lost disks"],
        left_dead=len(dead),
        equivocations=len(checkers.conduct.equivocations),
        accused=len(checkers.contents.accused),
        regained=regained,
        admitted=members.counted["institution.joined"],
        excluded=sum(members.counted[f"institution.{how}"] for how in ("suspended", "removed", "left")),
        empowered=members.counted["institution.empowered"],
        restored=sum(node.restorations for node in network.nodes.values()),
        pruned=checkers.keeping.dropped,
        voted_again=voted_again,
        indexed=index.records if index is not None else 0,
        paid=members.counted["escrow.settled"],
        refunded=members.counted["escrow.refunded"],
        disputes=members.counted["dispute.decided"],
    )


def _newcomer(
    world: World, network: Network, clients: Clients, powers: Sequence[int], expendable: Sequence[int]
) -> SimNode:
    """A node that its members may let in. They may also exclude some: whose power the correct ones can spare."""
    index, rng = len(powers), world.random("newcomer")
    name, some = f"v{index}", network.nodes[next(iter(network.nodes))]
    node = SimNode(network, name, name, key(f"{name} validator"), some.genesis, some.checkers)
    network.add(node)
    faulty = sum(powers[each] for each in expendable)
    others = [each for each in range(index) if each not in expendable and 3 * faulty < sum(powers) - powers[each]]
    excludable = [*expendable, *rng.sample(others, min(1, len(others)))]
    changing = Membership(world, network, clients, node, index, [f"v{each}" for each in excludable])
    clients.membership = changing.propose
    return node


def _expendable(powers: Sequence[int], order: Sequence[int]) -> list[int]:
    """Members, in this order, that together hold less than a third of the power."""
    chosen: list[int] = []
    for index in order:
        if 3 * sum(powers[i] for i in (*chosen, index)) < sum(powers):
            chosen.append(index)
    return chosen


def _demand_progress(world: World, clients: Clients, core: Sequence[SimNode], checkers: Checkers) -> None:
    """Everyone of the core decides new blocks, one with a transaction that a client repeats; offenders are accused.

    Who was admitted with power votes.
    """
    goal = max(checkers.chain.decided, default=0) + HEIGHTS_AFTER_HEALING
    rng, members = world.random("progress"), checkers.contents.members
    home, wanted, name = "", b"", b""

    def reached() -> bool:
        return (
            name in checkers.contents.included
            and all(len(node.committed) >= goal for node in core)
            and not checkers.conduct.unpunished(checkers.contents.accused)
            and not any(members.waits(node.institution) for node in core)
        )

    end_ms = world.now_ms + BOUND_MS
    while world.now_ms < end_ms:
        if not members.belongs(home):  # what is under way may still exclude it
            home = rng.choice([node.institution for node in core if members.belongs(node.institution)])
            wanted = clients.registration(home)
            name = identify(wanted)
        clients.submit(rng.choice(core), wanted)
        if world.run(_REPEAT_MS, until=reached):
            return
    unpunished = sorted(checkers.conduct.unpunished(checkers.contents.accused))
    raise Violation(
        f"no progress within {BOUND_MS} ms after healing: goal {goal}, {unpunished} not accused, "
        f"transaction in a block: {name in checkers.contents.included}\n" + "\n".join(map(_describe, core))
    )


def _demand_votes(world: World, loser: SimNode) -> int:
    """Whoever lost its signing state votes again, when it is safe. Returns whether it had."""
    engine = loser.engine
    if engine is None:
        raise Violation(f"{loser.name} is down after healing")
    if engine.status().votes_from_height == 0:
        return 0  # what it lost was the ledger alone

    end_ms = world.now_ms + REGAIN_BOUND_MS
    while world.now_ms < end_ms:
        world.run(2_000)
        if loser.engine is not None and loser.engine.status().votes_from_height is not None:
            return 1
    raise Violation(f"{loser.name} never votes again\n" + _describe(loser))


def _describe(node: SimNode) -> str:
    return f"{node.name}: {node.engine.status() if node.engine else 'down'}"
