"""Who votes changes while the network decides: new keys, powers and an observer, on the production engine."""

from __future__ import annotations

from typing import Any

import pytest

from koinon import genesis as genesis_file
from koinon import light_client
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.consensus_pb2 import Block
from koinon.v1.governance_pb2 import CHOICE_YES, Action, CastBallot, Propose, SetPower
from koinon.v1.identity_pb2 import KEY_PURPOSE_VALIDATOR, RevokeKey, RotateKey
from koinon.validators import ValidatorSet
from node.archive import Decided
from node.replay import replay
from node.store.memory import MemoryStore
from testnet.simulation.consortium import OPERATOR, validator_key
from tests.simulation.test_scenarios import Net

NAMES = ("v0", "v1", "v2", "v3", "v4")


def send(net: Net, sender: str, message: Any) -> str:
    """A transaction through the first node, decided; the id it created. It must be applied."""
    name = net.clients.submit(net[0], net.clients.envelope(sender, message))
    assert net.world.run(5_000, until=lambda: net[0].app.transaction(name) is not None)
    info = net[0].app.transaction(name)
    assert info is not None
    assert not info.refusal.rule, info.refusal
    return info.created[0]


def set_power(net: Net, institution: str, power: int) -> None:
    """By ballots of all."""
    action = Action(set_power=SetPower(institution=institution, power=power))
    proposal = send(net, f"v0/{OPERATOR}", Propose(title="Power", reason="A test.", actions=[action]))
    for voter in NAMES[: len(net.nodes)]:
        if net[0].app.proposal(proposal).decided_at_ms:
            break
        send(net, f"{voter}/{OPERATOR}", CastBallot(proposal_id=proposal, choice=CHOICE_YES))
    net.settle()


def voters(net: Net) -> dict[str, int]:
    return {member.institution: member.power for member in net[0].engine.chain.validators}  # type: ignore[union-attr]


def rotate(net: Net, institution: str, number: int) -> None:
    key = validator_key(institution, number).public_key
    send(net, f"{institution}/{OPERATOR}", RotateKey(purpose=KEY_PURPOSE_VALIDATOR, key=key))
    net.settle()


def crash(net: Net, index: int) -> None:
    """The process ends at its next operation, which comes soon."""
    net[index].crash_after(0)
    assert net.world.run(10_000, until=lambda: not net[index].up)


def signed_header(net: Net, height: int) -> SignedHeader:
    node = net[0]
    engine = node.engine
    assert engine is not None
    block, commit = engine.blocks.block(height), engine.blocks.commit(height)
    return SignedHeader(
        header=Block.FromString(block or b"").header, commit=commit, validators=node.validators.at(height).to_proto()
    )


def follow(net: Net, height: int) -> int:
    """A light client goes from the genesis to this height; how many headers it took."""
    client = light_client.LightClient(net[0].genesis)
    question = client.verify(height)
    try:
        wanted = next(question)
        while True:
            wanted = question.send(signed_header(net, wanted))
    except StopIteration:
        return len(client)


def test_every_member_changes_its_key_and_the_ledger_goes_on() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    for number in (1, 2):
        for name in NAMES[:4]:
            rotate(net, name, number)
    net.until_all_at(net.height + 2, within_ms=20_000)
    assert not net.checkers.conduct.equivocations
    assert follow(net, net.height) > 4  # nobody who signs now was known at first: it cannot skip the whole way
    light = [item.until_height > 0 for item in net[0].app.keys("v1") if item.purpose == KEY_PURPOSE_VALIDATOR]
    assert light == [True, True, False]


def test_a_node_that_restarts_between_the_transaction_and_its_effect_signs_with_the_right_key() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    key = validator_key("v3", 1).public_key
    name = net.clients.submit(
        net[0],
        net.clients.envelope(f"v3/{OPERATOR}", RotateKey(purpose=KEY_PURPOSE_VALIDATOR, key=key)),
    )
    assert net.world.run(5_000, until=lambda: net[3].app.transaction(name) is not None)
    height = len(net[3].committed)
    crash(net, 3)
    assert len(net[3].committed) <= height + 1
    net[3].start()
    crash(net, 0)  # now nothing is decided without v3
    net.until_all_at(net.height + 4, within_ms=60_000)
    assert not net.checkers.conduct.equivocations
    status = net[3].engine.status()  # type: ignore[union-attr]
    assert (status.votes_from_height, status.has_key) == (0, True)


def test_power_moves_by_ballot_and_an_observer_follows() -> None:
    net = Net(1, 1, 1, 1, 1)
    net.settle()
    set_power(net, "v4", 0)
    assert "v4" not in voters(net)
    set_power(net, "v0", 2)
    assert voters(net) == {"v0": 2, "v1": 1, "v2": 1, "v3": 1}
    net.until_all_at(net.height + 3, within_ms=20_000)  # the observer too
    crash(net, 4)
    net.submit(0)
    net.settle()
    net[4].start()
    net.until_all_at(net.height, within_ms=20_000)  # it catches up across the changes
    set_power(net, "v4", 1)
    assert voters(net)["v4"] == 1
    crash(net, 1)  # 5 of 6 left, and 5 decide: not without v4
    net.until_all_at(net.height + 3, within_ms=60_000)


def test_who_revokes_its_key_observes() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    send(net, f"v3/{OPERATOR}", RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="stolen"))
    net.settle()
    assert set(voters(net)) == {"v0", "v1", "v2"}
    net.until_all_at(net.height + 3, within_ms=20_000)


def test_a_ledger_with_changes_replays_and_its_history_is_known() -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    rotate(net, "v1", 1)
    set_power(net, "v2", 2)
    rotate(net, "v1", 2)
    net.settle()
    engine = net[0].engine
    assert engine is not None
    decided = []
    for height in range(1, net.height + 1):
        block, commit = engine.blocks.block(height), engine.blocks.commit(height)
        assert block is not None
        assert commit is not None
        decided.append(Decided(block, commit))
    replayed = replay(net[0].genesis, decided, MemoryStore())
    assert replayed.chain.validators == engine.chain.validators
    for height in range(1, net.height + 3):
        expected = ValidatorSet.of(item for _, item in sorted(net.checkers.chain.voters[height].items()))
        assert net[0].validators.at(height) == expected
    assert len(net[0].validators.last_heights(net.height + 2)) == 3
    assert genesis_file.validators(net[0].genesis) == net[0].validators.at(1)


@pytest.mark.parametrize("height", [1, 5])
def test_a_light_client_skips_where_it_may(height: int) -> None:
    net = Net(1, 1, 1, 1)
    net.settle()
    net.until_all_at(10, within_ms=60_000)
    assert follow(net, height) == 1
