"""Situations that chance seldom makes, made on purpose: exact delays, and the network cut in the worst moment.

Each ends in peace or in a Violation. ``mutants`` looks here first, before it looks through seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from koinon.v1.governance_pb2 import CHOICE_YES, CastBallot, Propose, SuspendInstitution
from koinon.v1.governance_pb2 import Action as GovernanceAction
from koinon.v1.identity_pb2 import BeginVoting
from testnet.simulation.attackers.attacker import Attacker
from testnet.simulation.attackers.endless_signer import EndlessSigner
from testnet.simulation.attackers.false_polka import FalsePolka
from testnet.simulation.attackers.snapshot_forger import SnapshotForger
from testnet.simulation.attackers.twin import Twin
from testnet.simulation.checkers import Checkers, Violation
from testnet.simulation.clients import Clients
from testnet.simulation.nodes import Network, SimNode
from testnet.simulation.run import consortium
from testnet.simulation.signatures import remembered
from testnet.simulation.snapshots import EVERY_BLOCKS
from testnet.simulation.world import Weather, World

_EXACT = Weather(min_delay_ms=1, mean_delay_ms=0)
_BOUND_MS = 60_000
_STATE_FORGED = 4  # a seed by which the forger makes up another state


def _four(attackers: dict[int, type[Attacker]], seed: int = 0) -> tuple[World, Network, Checkers, Clients]:
    """Four members on a calm day."""
    world = World(seed)
    world.weather = _EXACT
    network, checkers, clients = consortium(world, (1, 1, 1, 1), attackers)
    for node in network.nodes.values():
        node.start()
    return world, network, checkers, clients


def _peace(world: World, network: Network, checkers: Checkers, alive: Sequence[SimNode]) -> None:
    """Everything heals; all that are alive must go on together."""
    world.severed.clear()
    network.reconnect()
    goal = max(checkers.chain.decided) + 2
    if not world.run(_BOUND_MS, until=lambda: all(len(node.committed) >= goal for node in alive)):
        raise Violation("no progress after healing")
    checkers.finish(alive)


def _until_turn(world: World, clients: Clients, node: SimNode, others: Sequence[SimNode], every_ms: int = 350) -> None:
    """Decide blocks until it is this node's turn to propose, and all is quiet.

    At 350 ms each has its proof after it: by two blocks at a time the turn may pass for ever.
    """
    while True:
        world.run(every_ms)
        engine = node.engine
        assert engine is not None
        proposer = engine.chain.validators.proposer(engine.chain.height + 1, 0)
        if proposer == node.institution and not engine.status().deciding:
            return
        clients.submit(others[0], clients.registration(others[0].institution))


def _decided_and_cut_off(kind: type[Attacker], *, loses_ledger: bool = False) -> None:
    """v2 proposes and decides, with one twin's help, and both are cut off; v0 and v1 could decide with the other twin.

    What keeps them is that v0 is locked: v1 and that twin never saw the proposal, and v0 does not hear what they lack.
    With ``loses_ledger`` v0 must fetch its ledger anew.
    """
    world, network, checkers, clients = _four({3: kind})
    locked, ignorant, decider, here, there = network.nodes.values()
    quiet = {(there.name, node.name) for node in (locked, ignorant, decider, here)}
    world.severed.update(quiet)
    _until_turn(world, clients, decider, [locked])
    world.severed.clear()
    world.part(([decider.name, locked.name, here.name], [ignorant.name, there.name]))
    world.severed -= {(locked.name, ignorant.name), (locked.name, there.name)}

    def spring(first: SimNode) -> None:
        checkers.on_first_decision = None
        world.part(([decider.name, here.name], [locked.name, ignorant.name, there.name]))
        if loses_ledger:
            world.schedule(5, lambda: _lose_ledger(locked))

    checkers.on_first_decision = spring
    for node in (decider, ignorant):
        clients.submit(node, clients.registration(node.institution))
    world.run(1_500)  # until those who never saw the proposal are in the next round
    world.severed.clear()
    world.part(([decider.name, here.name], [locked.name, ignorant.name, there.name]))
    world.run(15_000)
    _peace(world, network, checkers, [locked, ignorant, decider])


def _lose_ledger(node: SimNode) -> None:
    node.stop()
    node.lose_store()
    node.start()


def _locked_and_the_proposer_dies() -> None:
    """v0 and v1 are locked on a block that v3 never saw, and whoever made it is gone: one of them must propose it."""
    world, network, checkers, clients = _four({})
    first, second, author, unaware = network.nodes.values()
    _until_turn(world, clients, author, [first])
    world.severed.update((unaware.name, node.name) for node in (first, second, author))
    world.severed.add((author.name, unaware.name))
    for node in (author, unaware):
        clients.submit(node, clients.registration(node.institution))
    world.run(1)  # the proposal and its author's prevote are under way
    author.stop()
    world.run(1_200)
    _peace(world, network, checkers, [first, second, unaware])


def _unsynced_but_read() -> None:
    """v0 proposes, finds no space to sync that, ends, reads its log again and sends it; then its machine loses power.

    Found by seeds 304219, 308394 and 309895 of 2026-11-22, as proposals and as votes.
    """
    world, network, checkers, clients = _four({})
    proposer, *others = network.nodes.values()
    _until_turn(world, clients, proposer, others)
    proposer.disk.full = True
    clients.submit(proposer, clients.registration(proposer.institution))
    world.run(100)
    proposer.disk.full = False
    world.severed.update((proposer.name, node.name) for node in others)
    proposer.start()
    world.run(100)
    proposer.stop()
    proposer.disk.files[0].crash()
    proposer.start()
    clients.submit(proposer, clients.registration(proposer.institution))
    world.run(1_500)
    _peace(world, network, checkers, [proposer, *others])


def _an_older_log() -> None:
    """v0 proposes, and ends. Its operator puts back a copy of its log from before, and starts it."""
    world, network, checkers, clients = _four({})
    proposer, *others = network.nodes.values()
    _until_turn(world, clients, proposer, others)
    older = proposer.disk.wal.records()
    clients.submit(others[0], clients.registration(others[0].institution))
    _until_turn(world, clients, proposer, others)
    world.severed.update((proposer.name, node.name) for node in others)
    clients.submit(proposer, clients.registration(proposer.institution))
    world.run(1)
    proposer.stop()
    proposer.disk.files[0].reset(older)
    proposer.start()
    clients.submit(proposer, clients.registration(proposer.institution))
    world.run(1_500)
    _peace(world, network, checkers, [proposer, *others])


def _lost_with_a_slow_clock(slow_ms: int, *, before_ms: int = 0) -> None:
    """v0 proposes where nobody decides without it, and loses its disk; the clock of its new machine is slow.

    ``before_ms`` is how old the chain was: with blocks from minutes, some look to a slow clock like those of now.
    """
    world, network, checkers, clients = _four({})
    proposer, *others = network.nodes.values()
    world.run(before_ms)
    others[-1].stop()
    _until_turn(world, clients, proposer, others, every_ms=37)
    world.severed.update((node.name, proposer.name) for node in others)
    clients.submit(proposer, clients.registration(proposer.institution))
    world.run(3)
    proposer.stop()
    proposer.lose_disk()
    proposer.clock_skew_ms = -slow_ms
    world.severed.clear()
    proposer.start()
    network.reconnect()
    clients.submit(others[0], clients.registration(others[0].institution))
    world.run(15_000)
    proposer.clock_skew_ms = 0
    others[-1].start()
    _peace(world, network, checkers, [proposer, *others])


def _clocks_set_back(ahead_ms: int) -> None:
    """All clocks were ahead, and so is the last block's time: once they are right, nobody waits until it has come."""
    world, network, checkers, clients = _four({})
    nodes = list(network.nodes.values())
    for node in nodes:
        node.clock_skew_ms = ahead_ms
    clients.submit(nodes[0], clients.registration("v0"))
    world.run(2_000)
    for node in nodes:
        node.clock_skew_ms = 0
    _peace(world, network, checkers, nodes)


def _votes_again(*, a_round_later: bool = False) -> None:
    """v0 proposes, and v3 hears it. Then v0 and v1 lose what they signed, and their operators let them go on.

    With ``a_round_later`` v2, which heard nothing of that proposal, is in the next round, and takes v0 along before
    anybody has told it what it signed.
    """
    world, network, checkers, clients = _four({})
    proposer, forgetful, unaware, witness = network.nodes.values()
    _until_turn(world, clients, proposer, [unaware], every_ms=37)
    height = len(proposer.committed)
    world.severed.update((proposer.name, node.name) for node in (forgetful, unaware))
    clients.submit(proposer, clients.registration(proposer.institution))
    if a_round_later:
        world.part(([unaware.name], [proposer.name, forgetful.name, witness.name]))
        world.severed -= {(node.name, unaware.name) for node in (forgetful, witness)}
    world.run(3)
    proposer.stop()
    if a_round_later and not world.run(5_000, until=lambda: _round(unaware) == 1):
        raise Violation("the round does not end")
    forgetful.stop()
    for node in (proposer, forgetful):
        node.lose_signing_state()
    world.severed.clear()
    world.severed.update((node.name, proposer.name) for node in (forgetful, witness))
    proposer.start()
    forgetful.start()
    world.run(2_000)
    world.severed.clear()
    network.reconnect()
    world.run(2_000)
    if len(unaware.committed) > height:
        raise Violation("a block was decided without the two")
    for node in (proposer, forgetful):
        if len(unaware.committed) == height:
            node.stop()
            node.vote_again()
            node.start()
            clients.submit(node, clients.registration(node.institution))  # before anybody tells it anything
            world.run(4_000)
    _peace(world, network, checkers, list(network.nodes.values()))


def _round(node: SimNode) -> int:
    return node.engine.status().round if node.engine is not None else -1


def _loses_its_ledger_while_others_cut_snapshots(
    attackers: dict[int, type[Attacker]], mute: Sequence[str]
) -> tuple[World, Network, Checkers, Clients]:
    """v0 lost its ledger and starts again. The others offer snapshots; it does not hear those who are mute."""
    world, network, checkers, clients = _four(attackers, _STATE_FORGED if attackers else 0)
    network.snapshots = True
    joiner, *others = network.nodes.values()
    for node in others:
        node.stop()
        node.start()
    _decide(world, clients, others[0], 3 * EVERY_BLOCKS, every_ms=200)
    joiner.stop()
    joiner.lose_store()
    world.severed.update((name, joiner.name) for name in mute)
    joiner.start()
    return world, network, checkers, clients


def _decide(world: World, clients: Clients, node: SimNode, transactions: int, every_ms: int) -> None:
    for _ in range(transactions):
        clients.submit(node, clients.registration(node.institution))
        world.run(every_ms)


def _joins_by_snapshot(forger: bool) -> None:
    """v0 lost its ledger, and hears v3 first, alone: by a snapshot of whatever v3 says, it must become what all are."""
    attackers: dict[int, type[Attacker]] = {3: SnapshotForger} if forger else {}
    world, network, checkers, _ = _loses_its_ledger_while_others_cut_snapshots(attackers, mute=("v1", "v2"))
    joiner, *others = network.nodes.values()
    world.run(6_000)  # it waits for the others' offers as long as it may
    _peace(world, network, checkers, [joiner, *others[:2]])
    if not forger and not joiner.restorations:
        raise Violation("nobody joined by a snapshot")


def _snapshots_are_gone_sooner_than_fetched() -> None:
    """v0 lost its ledger and waits for what v3 offers; until then the others have cut two newer ones, for ever.

    Found by seed 502761 of 2026-11-22.
    """
    world, network, checkers, clients = _loses_its_ledger_while_others_cut_snapshots({}, mute=("v3",))
    joiner, *others = network.nodes.values()
    _decide(world, clients, others[0], 200, every_ms=100)
    if joiner.restorations or len(joiner.committed) < max(checkers.chain.decided) - 10:
        raise Violation("it did not go on by blocks")
    _peace(world, network, checkers, [joiner, *others])


def _behind_what_others_keep(*, crashes: bool = False) -> None:
    """v0 was away while the others pruned what it lacks: it must give its ledger up for a snapshot.

    With ``crashes`` the others lose their power while they prune, again and again.
    """
    world, network, checkers, clients = _four({})
    network.snapshots = True
    sleeper, *others = network.nodes.values()
    for node in network.nodes.values():
        node.stop()
        node.keep_blocks = 1
        node.start()
    _decide(world, clients, others[0], 2, every_ms=200)
    sleeper.stop()
    lacking, number = len(sleeper.committed) + 1, 0
    while any(node.keeps(lacking + EVERY_BLOCKS) for node in others) or number < 4 * EVERY_BLOCKS:
        number += 1
        if crashes and number % 4 == 0:
            others[number // 4 % 3].crash_after(number % 50)
        _decide(world, clients, others[0], 1, every_ms=200)
        for node in others:
            if not node.up:
                node.start()
        if number > 200:
            raise Violation("somebody keeps what others need no more")
    sleeper.start()
    world.run(6_000)
    _peace(world, network, checkers, [sleeper, *others])
    if not sleeper.restorations:
        raise Violation("it found the blocks that nobody has")


def _signs_without_end() -> None:
    """v3 contradicts itself in every vote and proposal until it is suspended; all it says arrives, in order."""
    world, network, checkers, clients = _four({3: EndlessSigner})
    others = list(network.nodes.values())[:3]
    _decide(world, clients, others[0], 4, every_ms=400)
    _peace(world, network, checkers, others)


def _suspended_it_does_not_vote() -> None:
    """v3 is suspended by ballots; what its node, and its operator, go on saying does not make it a voter again."""
    world, network, checkers, clients = _four({})
    action = GovernanceAction(suspend=SuspendInstitution(institution="v3", reason="a scenario"))
    propose = Propose(title="Suspend v3", reason="a scenario", actions=[action])
    name = clients.submit(network.nodes["v0"], clients.envelope("v0/operator", propose))
    world.run(1_000)
    info = network.nodes["v0"].app.transaction(name)
    if info is None or not info.created:
        raise Violation("nobody can propose")
    for voter in ("v0", "v1", "v2"):
        clients.submit(
            network.nodes[voter],
            clients.envelope(f"{voter}/operator", CastBallot(proposal_id=info.created[0], choice=CHOICE_YES)),
        )
        world.run(500)
    for node in network.nodes.values():
        begin = clients.envelope("v3", BeginVoting(height=len(node.committed)))
        clients.submit(node, begin)
        world.run(500)
    _peace(world, network, checkers, list(network.nodes.values()))
    if "v3" in checkers.chain.voters[max(checkers.chain.voters)]:
        raise Violation("v3 is suspended and votes")


SCENARIOS: dict[str, Callable[[], None]] = {
    "decided and cut off": lambda: _decided_and_cut_off(Twin),
    "decided and cut off, with lies about a polka": lambda: _decided_and_cut_off(FalsePolka),
    "decided and cut off, and a ledger is lost": lambda: _decided_and_cut_off(Twin, loses_ledger=True),
    "locked, and the proposer dies": _locked_and_the_proposer_dies,
    "unsynced, but read": _unsynced_but_read,
    "an older log": _an_older_log,
    "voting again": _votes_again,
    "voting again, a round later": lambda: _votes_again(a_round_later=True),
    "lost, with a clock that is right": lambda: _lost_with_a_slow_clock(0),
    "lost, with a slow clock": lambda: _lost_with_a_slow_clock(3_600_000),
    "lost, with a slow clock, and far behind": lambda: _lost_with_a_slow_clock(300_000, before_ms=600_000),
    "all clocks are set back": lambda: _clocks_set_back(3_600_000),
    "joining by a snapshot": lambda: _joins_by_snapshot(forger=False),
    "joining by a snapshot that is forged": lambda: _joins_by_snapshot(forger=True),
    "joining, and snapshots are gone sooner than fetched": _snapshots_are_gone_sooner_than_fetched,
    "behind, and all have pruned": _behind_what_others_keep,
    "behind, and all have pruned, and crashed meanwhile": lambda: _behind_what_others_keep(crashes=True),
    "signs without end": _signs_without_end,
    "suspended, and it goes on": _suspended_it_does_not_vote,
}


def play(name: str) -> None:
    """Raises Violation."""
    with remembered():
        SCENARIOS[name]()
