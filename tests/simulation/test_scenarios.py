"""The production engine in chosen situations, on simulated time: milliseconds here are virtual and exact."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.errors import Corrupt
from koinon.limits import MAX_CLOCK_DRIFT_MS, MAX_EARLY_MESSAGES
from koinon.v1 import consensus_pb2 as pb
from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from node.abci import Finalized
from node.consensus.messages import VoteType
from testnet.simulation.application import UNFIT
from testnet.simulation.checkers import Checkers
from testnet.simulation.nodes import TIMEOUTS, Network, SimNode
from testnet.simulation.run import consortium
from testnet.simulation.world import Weather, World

HEARTBEAT_MS, PROOF_MS = 800, 100  # as testnet.simulation.run configures them


class Net:
    """A running consortium with exact delays of one millisecond."""

    def __init__(self, *powers: int, faulty: int | None = None) -> None:
        self.world = World(0)
        self.world.weather = Weather(min_delay_ms=1, max_delay_ms=1)
        self.network: Network
        self.checkers: Checkers
        self.network, self.checkers = consortium(self.world, powers, faulty)
        self.nodes = list(self.network.nodes.values())
        for node in self.nodes:
            node.start()

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
    net[0].submit(b"something")
    # Relay, proposal, prevotes, precommits: four hops of a millisecond.
    assert net.until_all_at(height + 1, within_ms=50) <= 4
    assert b"something" in net.checkers.included
    assert PROOF_MS <= net.until_all_at(height + 2, within_ms=200) <= PROOF_MS + 4
    assert net.until_all_at(height + 3, within_ms=2_000) >= HEARTBEAT_MS


def test_many_transactions_are_decided_in_the_order_of_one_pool() -> None:
    net = Net(1)
    net.settle()
    for number in range(50):
        net[0].submit(b"%d" % number)
    net.world.run(50)
    assert len(net.checkers.included) == 50


def test_what_no_block_may_include_does_not_make_the_chain_spin() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    height = net.height
    net[0].submit(UNFIT)
    net.world.run(10 * PROOF_MS)
    assert net.height - height <= 11


def test_a_dead_proposer_costs_a_timeout_once_and_little_afterwards() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    net[2].stop()
    waits = []
    for number in range(12):
        net[0].submit(b"%d" % number)
        start_ms, wanted = net.world.now_ms, b"%d" % number
        assert net.world.run(5_000, until=lambda wanted=wanted: wanted in net.checkers.included)  # type: ignore[misc]
        waits.append(net.world.now_ms - start_ms)
    slow = [wait for wait in waits if wait > 50]
    assert TIMEOUTS.propose_ms <= slow[0] <= TIMEOUTS.propose_ms + 50
    assert len(slow) >= 3
    assert all(wait <= TIMEOUTS.propose_late_ms + 50 for wait in slow[1:])


def test_more_than_a_third_down_stops_the_chain_and_their_return_resumes_it_soon() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    net[1].stop()
    net[2].stop()
    net[0].submit(b"waits")
    height = net.height
    net.world.run(600_000)  # ten minutes: timeouts have grown to their cap
    assert net.height == height
    net[1].start()
    assert net.until_all_at(height + 1, within_ms=2 * TIMEOUTS.cap_ms) > 0
    net.world.run(1_000)
    assert b"waits" in net.checkers.included


def test_a_node_that_was_away_catches_up_over_many_messages() -> None:
    net = Net(1, 1, 1, 1)
    net[3].stop()
    for number in range(150):
        net[0].submit(b"%d" % number)
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
    net = Net(1, 1, 1, 1, faulty=3)
    net.world.severed.add(("v0", "v3-b"))  # one twin misses v0's proposals and prevotes nil
    for number in range(30):
        net.nodes[number % 3].submit(b"%d" % number)
        net.world.run(40)
    assert net.checkers.equivocations
    assert net.checkers.accused


def test_what_is_decided_while_we_are_not_ready_is_taken_up_without_asking() -> None:
    """A node that is one step behind the others loses no message, so it waits for no gossip."""
    net = Net(1, 1, 1, 1)
    net.settle()
    for number in range(20):
        net[number % 4].submit(b"%d" % number)
        net.world.run(1)
    net.world.run(100)
    assert len(net.checkers.included) == 20


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


def test_votes_that_nobody_signed_decide_nothing() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    height = net.height
    for node in net.nodes[1:]:
        node.stop()
    net[0].submit(b"alone")
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
    for number in range(10):
        net[0].submit(b"%d" % number)
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
@settings(max_examples=200, deadline=None)
def test_no_message_raises(message: bytes, changes: list[tuple[int, int]]) -> None:
    deformed = bytearray(message)
    for index, byte in changes:
        deformed[index % len(deformed)] = byte
    HOSTILE[0].deliver("v3", bytes(deformed))
    assert HOSTILE[0].up


# --- this node's own troubles


def test_a_store_that_contradicts_the_application_is_not_opened() -> None:
    net = Net(1)
    net.settle()
    net[0].stop()
    net[0]._store.write([(b"m/application", None)], sync=True)
    with pytest.raises(Corrupt):
        net[0].start()


def test_a_node_whose_state_diverged_stops_instead_of_following() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    engine = net[3].engine
    assert engine is not None
    net[3].stop()
    wrong = pb.ChainRecord.FromString(net[3]._store.get(b"m/chain") or b"")
    standing = bytearray(net[3]._store.get(b"m/application") or b"")
    standing[40] ^= 1
    wrong.state_commitment = bytes(standing[40:72])
    net[3]._store.write(
        [(b"m/application", bytes(standing)), (b"m/chain", wrong.SerializeToString(deterministic=True))], sync=True
    )
    net.world.run(2_000)
    net[3].start()
    with pytest.raises(Corrupt) as trouble:
        net.world.run(3_000)
    assert trouble.value.rule == "invalid-block"
    assert "state_commitment" in trouble.value.message


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
        net[0].submit(b"x")
    engine.on_transactions()
    net.world.run(5_000)
    assert engine.chain.height == height + 1
