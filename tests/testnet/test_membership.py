"""Four nodes become five by ballot and four by notice, while transactions flow; keys change while their nodes run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import koinon
from koinon import genesis as genesis_file
from koinon.cli import main
from koinon.client import Client
from koinon.errors import KoinonError
from koinon.keys import SigningKey
from koinon.limits import MIN_NOTICE_BLOCKS
from koinon.v1.governance_pb2 import Action, AdmitInstitution, Propose
from node import key_commands
from node.application import Application
from node.replay import replay, stored
from node.store.leveldb import LevelStore
from node.store.memory import MemoryStore
from testnet.network import Testnet
from tests.waiting import eventually


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Testnet]:
    with Testnet.create(tmp_path / "net", ["a", "b", "c", "d"]) as network:
        yield network


class Writer(threading.Thread):
    """One person after the other is registered, all the time; what failed, or took a minute, is kept."""

    def __init__(self, network: Testnet) -> None:
        super().__init__(name="writer", daemon=True)
        self._profile = network.profile("a-operator")
        self._over = threading.Event()
        self.written: list[str] = []
        self.failed: list[KoinonError] = []

    def run(self) -> None:
        with koinon.connect(self._profile) as client:
            while not self._over.is_set():
                person = f"a/p{len(self.written)}"
                try:
                    client.members.register(person, SigningKey.generate().public_key, ["analyst"])
                except KoinonError as error:
                    self.failed.append(error)
                    return
                self.written.append(person)

    def stop(self) -> None:
        self._over.set()
        self.join()


def decide(network: Testnet, voters: tuple[str, ...], action: Action) -> None:
    """Propose as the first, and let all say yes."""
    with koinon.connect(network.profile(f"{voters[0]}-operator")) as client:
        made = client.governance.propose(Propose(title="Membership", reason="A test.", actions=[action]))
    for voter in voters:
        with koinon.connect(network.profile(f"{voter}-operator")) as client, contextlib.suppress(KoinonError):
            client.governance.ballot(made.id, "yes")  # refused once it is decided


def voting(client: Client) -> set[str]:
    return {item.institution for item in client.status().validators}


def verify_offline(network: Testnet, institution: str) -> int:
    """Replay a stopped node's ledger from the genesis; its height."""
    home = network.home(institution)
    store = LevelStore(home.ledger)
    try:
        return replay(genesis_file.load(home.genesis), stored(store), MemoryStore()).chain.height
    finally:
        store.close()


@pytest.mark.timeout(300)
def test_four_become_five_become_four_while_transactions_flow(network: Testnet) -> None:
    writer = Writer(network)
    writer.start()
    descriptor = network.add_institution("e")
    network.start("e")  # before it is admitted: nobody lets it in, and it keeps asking
    with koinon.connect(network.profile("a-operator")) as client:
        client.governance.apply(descriptor, "We have patients too.")
        decide(network, ("a", "b", "c", "d"), Action(admit=AdmitInstitution(institution="e", power=1)))
        eventually(lambda: "e" in voting(client), "e votes")
    with koinon.connect(network.profile("e-operator")) as joined:
        eventually(lambda: voting(joined) == set("abcde"), "e knows that it votes")
        network.kill("d")  # four of five decide: not without e
        before = joined.status().height
        eventually(lambda: joined.status().height > before + 3, "decisions with the vote of e")
        network.start("d")
        network.wait_ready()
        with koinon.connect(network.profile("d-operator")) as leaving:
            preview = leaving.members.preview_leaving(2 * MIN_NOTICE_BLOCKS)
            assert not preview.HasField("refusal")
            leaving.members.leave(preview.height, "Its study is over.")
        eventually(lambda: voting(joined) == set("abce"), "d votes no more")
        eventually(lambda: "d" not in {peer.institution for peer in joined.status().peers}, "d is dropped")
        network.stop("d")
        count = len(writer.written)
        eventually(lambda: len(writer.written) > count + 5, "transactions go on")
        writer.stop()
        assert not writer.failed, writer.failed
        left = next(record for record in joined.audit.list(kind="institution.left"))
        assert left.height == preview.height
        proved = joined.audit.verify(joined.audit.receipt(left.index))
        assert proved.proof.validator_changes >= 1  # the last at least; others may be skipped
        assert "d" not in proved.proof.signers
    eventually(lambda: all(state.ready or not state.pid for state in network.status()), "nobody lags behind")
    network.stop()
    heights = {institution: verify_offline(network, institution) for institution in "abce"}
    assert max(heights.values()) - min(heights.values()) <= 1, heights
    store = LevelStore(network.home("e").ledger)
    people = {person.id for person in Application(store, genesis_file.load(network.home("e").genesis)).people("a")}
    store.close()
    assert people.issuperset(writer.written)


def rotate(network: Testnet, institution: str, purpose: str) -> None:
    """As its operator does, while the node runs."""
    home = network.home(institution)
    arguments = ["key", "rotate", purpose, "--home", str(home.path)]
    result = CliRunner().invoke(main, ["--profile", str(network.profile(f"{institution}-operator")), *arguments])
    assert result.exit_code == 0, result.output
    assert "not taken it up" not in result.output


@pytest.mark.timeout(300)
def test_every_key_of_an_institution_changes_while_its_node_runs(
    network: Testnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_commands, "_TAKEN_UP_S", 60)
    writer = Writer(network)
    writer.start()
    with koinon.connect(network.profile("b-operator")) as client:
        old = {item.institution: item.public_key for item in client.status().validators}
        rotate(network, "b", "validator")
        rotate(network, "b", "node")
        rotate(network, "b", "sealing")
        height = client.status().height + 3
        eventually(lambda: client.status().height > height, "decisions after the rotation")
        new = {item.institution: item.public_key for item in client.status().validators}
        assert {name for name in old if old[name] != new[name]} == {"b"}

        def b_signs() -> bool:  # not every certificate holds every vote
            return "b" in client.audit.header().signers

        eventually(b_signs, "b votes with its new key")
        assert [(item.until_height > 0, item.end) for item in client.members.keys("b") if item.purpose == 1] == [
            (True, "rotated"),
            (False, ""),
        ]
    rotate(network, "c", "tls")  # its node starts again within itself, and shows the new certificate to all
    eventually(lambda: all(state.ready for state in network.status()), "c is connected again, both ways")
    network.kill("b")  # and finds its keys in their places
    network.start("b")
    network.wait_ready()
    with koinon.connect(network.profile("c-operator")) as client:
        client.members.revoke_key("tls", "replaced")
        eventually(lambda: all(state.ready for state in network.status()), "all are connected by the new certificate")
        writer.stop()
        assert not writer.failed, writer.failed
        assert not client.audit.list(kind="evidence.recorded")
    network.stop()
    for institution in "abcd":
        verify_offline(network, institution)
