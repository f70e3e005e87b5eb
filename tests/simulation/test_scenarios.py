"""The production engine in chosen situations, on simulated time: milliseconds here are virtual and exact."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon import canonical, keys
from koinon.errors import Corrupt
from koinon.limits import MAX_CLOCK_DRIFT_MS, MAX_EARLY_MESSAGES, MAX_ROUNDS_PASSED, MAX_VOTES_PER_MESSAGE
from koinon.v1 import consensus_pb2 as pb
from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from node.abci import Finalized
from node.application import _Standing
from node.consensus.messages import NO_ROUND, VoteType
from node.ledger import blocks
from testnet.simulation.attackers.attacker import signed_proposal, signed_vote, votes
from testnet.simulation.attackers.twin import Twin
from testnet.simulation.checkers import Violation
from testnet.simulation.nodes import TIMEOUTS, SimNode
from testnet.simulation.run import consortium
from testnet.simulation.world import Weather, World

HEARTBEAT_MS, PROOF_MS = 3_000, 100  # as the simulation configures them


class Net:
    """A running consortium with exact delays of one millisecond."""

    def __init__(self, *powers: int, twin: int | None = None) -> None:
        self.world = World(0)
        self.world.weather = Weather(min_delay_ms=1, mean_delay_ms=0)
        attackers = {} if twin is None else {twin: Twin}
        self.network, self.checkers, self.clients = consortium(self.world, powers, attackers)
        self.nodes = list(self.network.nodes.values())
        for node in self.nodes:
            node.start()

    def submit(self, index: int) -> bytes:
        """A transaction through this node; its id."""
        node = self.nodes[index]
        return self.clients.submit(node, self.clients.registration(node.institution))

    def included(self, name: bytes) -> bool:
        return name in self.checkers.contents.included

    def __getitem__(self, index: int) -> SimNode:
        return self.nodes[index]

    def settle(self) -> None:
        """Until nothing is left to prove: the next block would be a heartbeat."""
        self.world.run(3 * PROOF_MS + 50)

    def until_all_at(self, height: int, within_ms: int) -> int:
        """Milliseconds until every running node has committed this height."""
        start_ms = self.world.now_ms
        running = [node for node in self.nodes if node.up]
        assert self.world.run(within_ms, until=lambda: all(len(node.committed) >= height for node in running))
        return self.world.now_ms - start_ms

    @property
    def height(self) -> int:
        return max(len(node.committed) for node in self.nodes)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_transaction_is_decided_at_once_then_proved_then_there_is_quiet(count: int) -> None:
    net = Net(*[1] * count)
    net.settle()
    height = net.height
    something = net.submit(0)
    # Relay, proposal, prevotes, precommits: four hops of a millisecond.
    assert net.until_all_at(height + 1, within_ms=50) <= 4
    assert net.included(something)
    assert PROOF_MS <= net.until_all_at(height + 2, within_ms=200) <= PROOF_MS + 4
    assert net.until_all_at(height + 3, within_ms=5_000) >= HEARTBEAT_MS


def test_many_transactions_are_decided_in_the_order_of_one_pool() -> None:
    net = Net(1)
    net.settle()
    names = [net.submit(0) for _ in range(50)]
    net.world.run(50)
    assert list(net.checkers.contents.included) == names


def test_what_no_block_may_include_does_not_make_the_chain_spin() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    height = net.height
    net[0].pool[b"an id"] = b"unfit", 2**60
    engine = net[0].engine
    assert engine is not None
    net[0].enter(engine.on_transactions)
    net.world.run(10 * PROOF_MS)
    assert net.height - height <= 11


@pytest.mark.parametrize("heard", [False, True], ids=["its machine is gone", "its process ended"])
def test_a_dead_proposer_costs_a_timeout_once_and_little_afterwards(heard: bool) -> None:
    """Who hears that its connection ended does not wait even once."""
    net = Net(1, 1, 1, 1)
    net.settle()
    if not heard:
        net.world.part((["v0", "v1", "v3"], ["v2"]))
    net[2].stop()
    waits = []
    for _ in range(12):
        start_ms, wanted = net.world.now_ms, net.submit(0)
        assert net.world.run(5_000, until=lambda wanted=wanted: net.included(wanted))  # type: ignore[misc]
        waits.append(net.world.now_ms - start_ms)
    slow = [wait for wait in waits if wait > 50]
    first_ms = TIMEOUTS.propose_late_ms if heard else TIMEOUTS.propose_ms
    assert first_ms <= slow[0] <= first_ms + 50
    assert len(slow) >= 3
    assert all(wait <= TIMEOUTS.propose_late_ms + 50 for wait in slow[1:])


def test_more_than_a_third_down_stops_the_chain_and_their_return_resumes_it_soon() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    net[1].stop()
    net[2].stop()
    waits = net.submit(0)
    height = net.height
    net.world.run(240_000)
    assert net.height == height
    net[1].start()
    assert net.until_all_at(height + 1, within_ms=2 * TIMEOUTS.cap_ms) > 0
    net.world.run(1_000)
    assert net.included(waits)


@pytest.mark.parametrize("after_ms", [0, 100, 250, 500])
def test_a_proposer_that_dies_when_two_halves_have_just_met_again_costs_a_timeout_and_no_more(after_ms: int) -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    net.world.part((["v0", "v1"], ["v2", "v3"]))
    net.submit(0)
    net.submit(2)
    net.world.run(20_000)
    engines = [node.engine for node in net.nodes if node.engine is not None]
    assert [engine.status().round for engine in engines] == [0] * 4  # no quorum, no round: nothing grew
    net.world.severed.clear()
    net.network.reconnect()
    net.world.run(after_ms)
    chain, status = engines[0].chain, engines[0].status()
    dead = chain.validators.proposer(chain.height + 1, 1 if status.deciding else 0)
    net.network.nodes[dead].stop()
    start_ms, name = net.world.now_ms, net.submit(0 if dead != "v0" else 1)
    assert net.world.run(20_000, until=lambda: net.included(name))
    assert net.world.now_ms - start_ms <= TIMEOUTS.propose_ms + TIMEOUTS.vote_ms + 50


def test_a_network_slower_than_the_first_timeout_decides_in_a_later_round() -> None:
    net = Net(1, 1, 1, 1)
    net.world.weather = Weather(min_delay_ms=TIMEOUTS.propose_ms + 200, mean_delay_ms=0)
    net.submit(0)
    net.until_all_at(3, within_ms=120_000)


def test_a_node_that_was_away_catches_up_over_many_messages() -> None:
    net = Net(1, 1, 1, 1)
    net[3].stop()
    for _ in range(150):
        net.submit(0)
        net.world.run(120)
    assert net.height > 130
    net[3].start()
    net.until_all_at(net.height, within_ms=3_000)


def test_a_node_with_an_empty_disk_catches_up_and_votes_only_when_it_is_safe() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    net[3].stop()
    net[3].lose_disk()
    net.world.run(2_000)
    net[3].start()
    lost_ms = net.world.now_ms
    net.world.run(5_000)
    engine = net[3].engine
    assert engine is not None
    assert len(net[3].committed) >= net.height - 1
    assert engine.status().votes_from_height is None
    assert net.world.run(2 * MAX_CLOCK_DRIFT_MS, until=lambda: engine.status().votes_from_height is not None)
    assert net.world.now_ms - lost_ms > MAX_CLOCK_DRIFT_MS
    net[0].stop()  # now its vote is needed
    net.until_all_at(net.height + 3, within_ms=10_000)


def test_an_equivocating_validator_is_put_on_the_ledger() -> None:
    net = Net(1, 1, 1, 1, twin=3)
    net.world.severed.add(("v0", "v3-b"))  # one twin misses v0's proposals and prevotes nil
    for number in range(30):
        net.submit(number % 3)
        net.world.run(40)
    assert net.checkers.conduct.equivocations
    assert {institution for institution, _, _ in net.checkers.contents.accused} == {"v3"}


def test_what_is_decided_while_we_are_not_ready_is_taken_up_without_asking() -> None:
    """A node that is one step behind the others loses no message, so it waits for no gossip."""
    net = Net(1, 1, 1, 1)
    net.settle()
    for number in range(20):
        net.submit(number % 4)
        net.world.run(1)
    net.world.run(100)
    assert len(net.checkers.contents.included) == 20


# --- hostile peers


def test_a_peer_cannot_make_us_remember_much() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    engine = net[0].engine
    assert engine is not None
    early = engine.chain.height + 2
    for number in range(1_000):
        vote = pb.Vote(type=pb.VOTE_TYPE_PREVOTE, height=early, round=number, institution="v1")
        engine.on_message("v3", DeliverRequest(votes=peer_pb2.VoteBatch(votes=[vote])))
        engine.on_message("v3", DeliverRequest(proposal=pb.Proposal(height=early, round=number, block=b"x")))
    kept = engine._intake.take_kept()  # the bound is the point of the test
    assert len(kept) == MAX_EARLY_MESSAGES
    assert sum(isinstance(message, pb.Proposal) for _, message in kept) == 2


def test_before_a_height_begins_no_signature_is_verified_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    engine = net[0].engine
    assert engine is not None
    height, verified = engine.chain.height + 1, 0
    verify = keys.verify

    def counting(*signed: bytes) -> bool:
        nonlocal verified
        verified += 1
        return verify(*signed)

    monkeypatch.setattr("node.intake.keys.verify", counting)
    vote = signed_vote(net[3], VoteType.PREVOTE, height, 0, b"")
    engine.on_message("v3", votes(*[vote] * MAX_VOTES_PER_MESSAGE))
    engine.on_message("v3", votes(*[vote] * MAX_VOTES_PER_MESSAGE))
    assert not engine.status().deciding
    assert verified <= MAX_EARLY_MESSAGES
    assert engine._intake.take_kept()
    engine.on_message("v3", votes(signed_vote(net[1], VoteType.PREVOTE, height, 0, b"")))
    assert engine.status().deciding, "votes of those who have not begun yet count, whoever hands them on"


def test_what_one_validator_signs_without_end_fills_neither_memory_nor_log() -> None:
    """Of its conflicting messages the first pair is evidence; the rest is not even written down."""
    net = Net(1, 1, 1, 1)
    net.settle()
    for node in net.nodes[1:3]:
        node.stop()  # so the height is never decided
    victim, liar = net[0], net[3]
    engine = victim.engine
    assert engine is not None
    chain = engine.chain
    height, commit = chain.height + 1, engine.blocks.commit(chain.height)
    turn = next(round_ for round_ in range(3) if chain.validators.proposer(height, round_) == liar.institution)

    def say(number: int) -> None:
        block = blocks.build(chain, [number.to_bytes(30_000, "big")], [], commit, liar.institution).value
        for valid_round in (NO_ROUND, turn, -2):
            engine.on_message(liar.institution, signed_proposal(liar, height, turn, valid_round, block))
        for round_, block_hash in ((0, number.to_bytes(32, "big")), (turn, block.block_hash), (number + 3, b"")):
            for kind in VoteType:
                engine.on_message(liar.institution, votes(signed_vote(liar, kind, height, round_, block_hash)))

    for number in range(2 * MAX_ROUNDS_PASSED):
        say(number)
    assert engine.status().deciding
    records = victim.disk.wal.records()
    assert sum(record[:1] == b"B" for record in records) <= 2 + 1  # of the liar; and what this node proposes itself
    assert len(records) < 5 * MAX_ROUNDS_PASSED


def test_votes_that_nobody_signed_decide_nothing() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    height = net.height
    for node in net.nodes[1:]:
        node.stop()
    net.submit(0)
    net.world.run(10 * TIMEOUTS.cap_ms)
    engine = net[0].engine
    assert engine is not None
    core = engine._core
    for round_ in range(core.round, core.round + 3):
        proposal = core.proposal(round_)
        for vote_type in (pb.VOTE_TYPE_PREVOTE, pb.VOTE_TYPE_PRECOMMIT):
            for name in ("v1", "v2", "v3"):
                forged = pb.Vote(
                    type=vote_type,
                    height=height + 1,
                    round=round_,
                    block_hash=proposal.value.block_hash if proposal else b"",
                    institution=name,
                    signature=bytes(64),
                )
                engine.on_message("v3", DeliverRequest(votes=peer_pb2.VoteBatch(votes=[forged])))
    assert [core.votes.senders(kind, core.round) for kind in VoteType] in ([["v0"], []], [[], []], [["v0"], ["v0"]])
    assert engine.chain.height == height


def test_deformed_blocks_from_one_peer_do_not_keep_us_from_catching_up_with_another() -> None:
    net = Net(1, 1, 1, 1)
    net[3].stop()
    for _ in range(10):
        net.submit(0)
        net.world.run(150)
    source = net[0].engine
    assert source is not None
    block, commit = source.blocks.block(1), source.blocks.commit(1)
    assert block is not None
    assert commit is not None
    net.world.severed.update((f"v{i}", "v3") for i in range(3))
    net[3].start()
    engine = net[3].engine
    assert engine is not None
    forged = pb.Commit(height=1, round=0, block_hash=commit.block_hash, signatures=commit.signatures[:2])
    for bad in (
        peer_pb2.CommittedBlock(block=block, commit=forged),
        peer_pb2.CommittedBlock(block=block[:-1], commit=commit),
        peer_pb2.CommittedBlock(block=source.blocks.block(2) or b"", commit=commit),
        peer_pb2.CommittedBlock(),
    ):
        engine.on_message("v2", DeliverRequest(block_response=peer_pb2.BlockResponse(blocks=[bad])))
        assert engine.chain.height == 0
    net.world.severed.clear()
    net.until_all_at(net.height, within_ms=5_000)


HOSTILE = Net(1, 1, 1, 1)
HOSTILE.settle()
HEARD = HOSTILE.network.overheard[:300]


@given(st.sampled_from(HEARD), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=5))
@settings(max_examples=200)
def test_no_message_raises(message: bytes, changes: list[tuple[int, int]]) -> None:
    deformed = bytearray(message)
    for index, byte in changes:
        deformed[index % len(deformed)] = byte
    HOSTILE[0].deliver("v3", bytes(deformed))
    assert HOSTILE[0].up


# --- this node's own troubles


def test_a_node_that_lost_its_ledger_but_not_its_log_is_still_locked() -> None:
    """Else it would prevote another block in the next round, and help whoever wants to decide twice."""
    net = Net(1, 1, 1, 1)
    net.settle()
    height = net.height
    net.submit(0)
    net.world.run(3)  # relay, proposal, prevotes: all are locked
    names = [node.name for node in net.nodes]
    net.world.part([[name] for name in names])
    net.world.run(5)
    assert net.height == height
    net[0].stop()
    net[0].lose_store()
    net.world.severed = {(a, b) for a, b in net.world.severed if "v0" not in (a, b)}
    net[0].start()
    engine = net[0].engine
    assert engine is not None
    assert engine.chain.height == 0
    assert net.world.run(5_000, until=lambda: engine.chain.height == height and engine.status().deciding)
    assert engine._core._locked_round == 0
    net.world.severed.clear()
    net.until_all_at(height + 2, within_ms=10_000)


def test_a_store_that_contradicts_the_application_is_not_opened() -> None:
    net = Net(1)
    net.settle()
    net[0].stop()
    net[0].disk.store.write([(b"m/application", None)], sync=True)
    with pytest.raises(Violation, match="does not say where") as stopped:
        net[0].start()
    assert isinstance(stopped.value.__cause__, Corrupt)


def test_a_node_whose_state_diverged_stops_instead_of_following() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    net[3].stop()
    store = net[3].disk.store
    wrong = pb.ChainRecord.FromString(store.get(b"m/chain") or b"")
    standing = _Standing.from_bytes(store.get(b"m/application") or b"")
    standing = standing._replace(lthash=bytes([standing.lthash[0] ^ 1]) + standing.lthash[1:])
    wrong.state_commitment = canonical.state_commitment(standing.lthash)
    chain = wrong.SerializeToString(deterministic=True)
    store.write([(b"m/application", standing.to_bytes()), (b"m/chain", chain)], sync=True)
    net.world.run(4_000)
    net[3].start()
    with pytest.raises(Violation) as stopped:
        net.world.run(4_000)
    trouble = stopped.value.__cause__
    assert isinstance(trouble, Corrupt)
    assert trouble.rule == "invalid-block"
    assert "state_commitment" in trouble.message


def test_after_an_error_of_a_port_the_engine_does_nothing_more() -> None:
    net = Net(1)
    net.settle()
    engine, height = net[0].engine, net.height
    assert engine is not None

    class DiskFull(Exception):
        pass

    class Failing:
        def on_committed(self, height: int, block: object, finalized: Finalized) -> None:
            raise DiskFull

    engine._listeners = (Failing(),)
    with pytest.raises(DiskFull):
        net.submit(0)
    engine.on_transactions()
    net.world.run(5_000)
    assert engine.chain.height == height + 1
