"""Snapshots: all members cut the same, a joiner believes nothing but the genesis, and nothing is ever half applied."""

from __future__ import annotations

import errno
import hashlib
from collections import deque
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from koinon import canonical
from koinon import genesis as genesis_file
from koinon.envelope import identify
from koinon.errors import Corrupt, Unavailable
from koinon.v1.peer_pb2 import DeliverRequest
from koinon.v1.snapshot_pb2 import ChunkResponse, SnapshotManifest, SnapshotOffer, StateChunk
from node import receipts, restore, snapshot, snapshot_join
from node.application import Application
from node.chain import CHAIN_KEY
from node.config import Home
from node.examine import examine
from node.ledger import blocks
from node.ledger.blocks import ChainState
from node.snapshot import InvalidSnapshot
from node.snapshot_join import Chunks, Joiner, Phase
from node.snapshots import ChunkFiles, Cutter
from node.store.blocks import BlockStore
from node.store.kv import height_key
from node.store.leveldb import LevelStore
from node.store.memory import MemoryStore
from node.store.validator_history import ValidatorHistory
from tests.contracts.consortium import publication
from tests.node.recorded_ledger import RecordedLedger

PEERS = ("case", "iu", "uk")


class Silence:
    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...


class Server:
    """One member's ledger, and what it offers."""

    def __init__(self, path: Path) -> None:
        self.ledger = RecordedLedger(MemoryStore())
        self.cutter = Cutter(path, self.ledger.store, self.ledger.app)
        self.height = 0

    def cut(self) -> None:
        self.height = self.ledger.chain.height
        self.cutter.cut(self.height)()

    def offer(self) -> SnapshotOffer:
        found = self.cutter.newest(self.ledger.chain.height)
        if found is None:
            return SnapshotOffer()
        height, manifest = found
        ledger = self.ledger
        made = receipts.Receipts(ledger.app, ledger.blocks, ledger.validators, ledger.genesis)
        return SnapshotOffer(
            manifest=manifest,
            validator_changes=made.way(height),
            last=made.signed_header(height),
            head=made.signed_header(height + 1),
        )

    def answer(self, message: DeliverRequest) -> DeliverRequest | None:
        match message.WhichOneof("message"):
            case "snapshot_request":
                return DeliverRequest(snapshot_offer=self.offer())
            case "chunk_request":
                asked = message.chunk_request
                data = self.cutter.chunk(asked.height, asked.index)
                return DeliverRequest(chunk_response=ChunkResponse(height=asked.height, index=asked.index, chunk=data))
            case _:
                return None


class Memory(dict[bytes, bytes]):
    """Fetched chunks, where no disk is needed."""

    def put(self, digest: bytes, data: bytes) -> None:
        self[digest] = data


Bend = Callable[[DeliverRequest], DeliverRequest | None]
"""What a faulty peer makes of its answers; None for silence."""


@dataclass
class Net:
    """A joiner and its peers; messages travel when ``run`` is called."""

    server: Server
    chunks: Chunks = field(default_factory=Memory)
    bends: dict[str, Bend] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    searches: int = 0
    queue: deque[tuple[str, DeliverRequest]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.joiner = Joiner(self.server.ledger.genesis, self, self.chunks, Silence(), above=0)

    def send(self, institution: str, message: DeliverRequest) -> None:
        self.asked.append(institution)
        self.queue.append((institution, message))

    def broadcast(self, message: DeliverRequest) -> None:
        self.searches += 1
        for peer in PEERS:
            self.send(peer, message)

    def run(self, intervals: int = 200) -> Phase:
        if self.joiner.phase is Phase.IDLE:
            self.joiner.seek()
        for _ in range(intervals):
            while self.queue:
                peer, message = self.queue.popleft()
                answer = self.server.answer(message)
                if answer is not None and peer in self.bends:
                    answer = self.bends[peer](answer)
                if answer is not None and answer.HasField("snapshot_offer"):
                    self.joiner.on_offer(peer, answer.snapshot_offer)
                elif answer is not None:
                    self.joiner.on_chunk(peer, answer.chunk_response)
            if self.joiner.phase in (Phase.COMPLETE, Phase.IDLE):
                break
            self.joiner.interval_ended(len(PEERS))
        return self.joiner.phase

    def restore(self) -> tuple[MemoryStore, ChainState]:
        store = MemoryStore()
        return store, restore.build(self.server.ledger.genesis, self.joiner.plan, self.joiner.chunk, store)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A ledger of some blocks, several chunks of each kind, and a snapshot in its midst."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "SNAPSHOT_CHUNK_BYTES", 2_000)
        server = Server(tmp_path_factory.mktemp("snapshots"))
        ledger = server.ledger
        ledger.tell()
        for number in range(3):
            names = [f"um.bulk.t{number}x{i}" for i in range(150)]
            ledger.decide(*(ledger.envelope("um/operator", publication(name)) for name in names))
        ledger.decide()
        server.cut()
        ledger.decide(ledger.envelope("uk/operator", publication("uk.ercp.later")))
        ledger.decide()
    return server


def test_a_joiner_restores_what_the_others_have(server: Server) -> None:
    net = Net(server)
    assert net.run() is Phase.COMPLETE
    assert set(net.asked) == set(PEERS)
    store, chain = net.restore()
    plan = net.joiner.plan
    assert len(plan.state_digests) > 10
    assert len(plan.audit_roots) > 1
    assert chain.height == server.height
    app = Application(store, server.ledger.genesis)
    assert (app.info().height, app.info().hashes) == (chain.height, chain.hashes)
    assert BlockStore(store).height() == chain.height
    assert BlockStore(store).first() == chain.height + 1
    assert app.audit_log.root_at(100) == server.ledger.app.audit_log.root_at(100)


def follow(server: Server, chain: ChainState, app: Application, store: MemoryStore) -> ChainState:
    """The next block of the server, executed by a joiner."""
    height = chain.height + 1
    data, commit = server.ledger.blocks.block(height), server.ledger.blocks.commit(height)
    assert data is not None
    assert commit is not None
    block = blocks.parse(data)
    blocks.verify(chain, block)
    finalized = app.finalize_block(block.decided())
    store.write([*finalized.writes, *BlockStore(store).writes(height, data, commit)], sync=True)
    app.commit()
    return chain.after(block, finalized)


def test_it_goes_on_from_there_and_comes_to_the_same_state(server: Server) -> None:
    net = Net(server)
    net.run()
    store, chain = net.restore()
    app = Application(store, server.ledger.genesis)
    while chain.height < server.ledger.chain.height:
        chain = follow(server, chain, app, store)
    assert chain == server.ledger.chain
    assert dict(store.scan(b"s/")) == dict(server.ledger.store.scan(b"s/"))
    assert dict(store.scan(b"l/")) == dict(server.ledger.store.scan(b"l/"))


def test_a_ledger_that_began_from_a_snapshot_lacks_no_header_since(server: Server) -> None:
    """The way to the snapshot's block has gaps, and nothing behind it may have, pruned or not."""
    net = Net(server)
    net.run()
    store, chain = net.restore()
    genesis = server.ledger.genesis
    assert examine(genesis, store).headers == 1
    app = Application(store, genesis)
    kept = BlockStore(store)
    while chain.height < server.ledger.chain.height:
        chain = follow(server, chain, app, store)
    ValidatorHistory(store, genesis_file.validators(genesis)).adopt(chain)
    store.write([(CHAIN_KEY, chain.to_bytes())], sync=True)
    assert examine(genesis, store).blocks == 2
    store.write(kept.prune_writes(server.height + 1), sync=True)
    assert examine(genesis, store).headers == 3
    for height in (server.height, server.height + 1):
        damaged = MemoryStore()
        damaged.write(store.scan(b""), sync=True)
        damaged.write([(height_key(prefix, height), None) for prefix in (b"h/", b"c/")], sync=True)
        with pytest.raises(Corrupt, match=f"at height {height}: "):
            examine(genesis, damaged)


def test_what_was_decided_before_the_snapshot_is_not_decided_again(server: Server) -> None:
    net = Net(server)
    net.run()
    store, chain = net.restore()
    app = Application(store, server.ledger.genesis)
    data = server.ledger.blocks.block(chain.height - 1)
    assert data is not None
    for envelope in blocks.parse(data).transactions:
        refusal = app.check_tx(envelope)
        assert refusal is not None
        assert refusal.rule == "replayed-transaction"
        assert app.transaction(identify(envelope)) is None  # what became of it, this node does not know


def test_a_node_that_joined_by_snapshot_gives_receipts(server: Server) -> None:
    net = Net(server)
    net.run()
    store, chain = net.restore()
    ledger = server.ledger
    app = Application(store, ledger.genesis)
    history = ValidatorHistory(store, chain.validators)
    history.adopt(chain)
    made = receipts.Receipts(app, BlockStore(store), history, ledger.genesis)
    assert made.record(5).record == ledger.app.audit_log.record(5)


def test_who_joined_over_a_way_that_skips_can_show_it_to_others(tmp_path: Path) -> None:
    """It lacks the headers between, and needs none of them."""
    server = Server(tmp_path)
    ledger = server.ledger
    ledger.tell()
    everyone = ledger.chain.validators.to_proto()
    for names in (["iu", "uk", "um"], ["case", "iu", "uk", "um"], ["case"], ["um"], ["case", "iu", "uk", "um"], ["um"]):
        ledger.validators_to_come = tuple(item for item in everyone if item.institution in names)
        ledger.decide()
        ledger.decide()
    ledger.validators_to_come = tuple(everyone)
    for _ in range(3):
        ledger.decide()
    server.cut()
    ledger.decide()
    net = Net(server)
    assert net.run() is Phase.COMPLETE
    assert len(net.joiner.plan.signed) - 1 < len(ledger.validators.last_heights(server.height))
    store, chain = net.restore()
    assert examine(ledger.genesis, store).headers == len(net.joiner.plan.signed)
    history = ValidatorHistory(store, genesis_file.validators(ledger.genesis))
    history.adopt(chain)
    assert history.at(server.height + 2) == ledger.validators.at(server.height + 2)
    made = receipts.Receipts(Application(store, ledger.genesis), BlockStore(store), history, ledger.genesis)
    offer = server.offer()
    offer.ClearField("validator_changes")
    offer.validator_changes.extend(made.way(server.height))
    snapshot.plan(ledger.genesis, offer)
    assert made.record(5).record == ledger.app.audit_log.record(5)


def test_all_who_cut_at_one_height_have_the_same_bytes(server: Server, tmp_path: Path) -> None:
    other = Cutter(tmp_path, server.ledger.store, server.ledger.app)
    height = server.ledger.chain.height
    again = Cutter(tmp_path / "again", server.ledger.store, server.ledger.app)
    other.cut(height)()
    again.cut(height)()
    assert other.newest(height + 1) == again.newest(height + 1)


def test_a_snapshot_survives_a_restart_and_only_the_newest_two_are_kept(server: Server, tmp_path: Path) -> None:
    cutter = Cutter(tmp_path, server.ledger.store, server.ledger.app)
    for height in (3, 4, 5):
        cutter.cut(height)()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "5"]
    (tmp_path / "part").mkdir()
    again = Cutter(tmp_path, server.ledger.store, server.ledger.app)
    found = again.newest(100)
    assert found is not None
    assert found[0] == 5
    assert again.chunk(5, 0)
    assert again.chunk(3, 0) == b""
    assert not (tmp_path / "part").exists()


def test_a_snapshot_counts_once_a_power_cut_cannot_take_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks behind it may be pruned next: who lacks them could get no ledger. Simulated seed 3010441."""
    path = tmp_path / "snapshots"
    cutter, synced = Cutter(path, server.ledger.store, server.ledger.app), list[Path]()

    def note(item: Path) -> None:
        assert cutter.newest(100) is None
        synced.append(item)

    monkeypatch.setattr("node.snapshots.sync", note)
    cutter.cut(5)()
    names = {file.name for file in (path / "5").iterdir()}
    assert {item.name for item in synced[: len(names)]} == names
    assert synced[len(names) :] == [path / "part", path, tmp_path]  # names after contents, the new name last
    assert cutter.newest(100) is not None


def _flip(digests: MutableSequence[bytes]) -> None:
    digests[0] = bytes([digests[0][0] ^ 1]) + digests[0][1:]


def _cut(manifest: SnapshotManifest) -> None:
    manifest.ClearField("audit_size")
    manifest.ClearField("audit_chunks")


MANIFEST_DAMAGE: dict[str, Callable[[SnapshotManifest], object]] = {
    "bit of a state digest": lambda manifest: _flip(manifest.state_chunks),
    "bit of an audit digest": lambda manifest: _flip(manifest.audit_chunks),
    "size": lambda manifest: setattr(manifest, "audit_size", 1 << 40),
    "state digest gone": lambda manifest: manifest.state_chunks.pop(),
    "cut before the audit log": _cut,
}


@pytest.mark.parametrize("damage", MANIFEST_DAMAGE.values(), ids=MANIFEST_DAMAGE)
def test_a_manifest_that_the_own_disk_damaged_is_not_offered(
    server: Server, tmp_path: Path, damage: Callable[[SnapshotManifest], object]
) -> None:
    """Joiners would take this node for a liar."""
    height = server.ledger.chain.height
    Cutter(tmp_path, server.ledger.store, server.ledger.app).cut(height)()
    file = tmp_path / str(height) / "manifest"
    assert Cutter(tmp_path, server.ledger.store, server.ledger.app).newest(height + 1)
    manifest = SnapshotManifest.FromString(file.read_bytes())
    damage(manifest)
    file.write_bytes(manifest.SerializeToString(deterministic=True))
    again = Cutter(tmp_path, server.ledger.store, server.ledger.app)
    assert again.newest(height + 1) is None
    assert again.dropped == [str(height)]
    assert not file.exists()


def test_what_could_not_be_cut_gives_its_room_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk: else the ledger could not go on either, nor after the next cut."""
    cutter = Cutter(tmp_path, server.ledger.store, server.ledger.app)

    def full(*_: object) -> bytes:
        raise Unavailable("no space left", rule="disk-error")

    monkeypatch.setattr("node.snapshot.manifest_of", full)
    with pytest.raises(Unavailable, match="no space left"):
        cutter.cut(server.height)()
    assert not list(tmp_path.rglob("*"))


def test_what_is_cut_is_what_the_store_held_at_that_block(tmp_path: Path) -> None:
    """Blocks that are executed while the thread works leave no trace in the snapshot."""
    one, two = Server(tmp_path / "one"), Server(tmp_path / "two")
    for each in (one, two):
        each.ledger.tell()
    work = one.cutter.cut(one.ledger.chain.height)
    two.cut()
    one.ledger.decide(one.ledger.envelope("uk/operator", publication("uk.ercp.later")))
    work()
    assert one.cutter.newest(100) == two.cutter.newest(100)


# --- liars

_rng = Random(5)


def _edit_chunk(message: DeliverRequest) -> DeliverRequest:
    if message.HasField("chunk_response"):
        data = bytearray(message.chunk_response.chunk)
        data[_rng.randrange(len(data))] ^= 1 << _rng.randrange(8)
        message.chunk_response.chunk = bytes(data)
    return message


def _truncate_chunk(message: DeliverRequest) -> DeliverRequest:
    if message.HasField("chunk_response"):
        message.chunk_response.chunk = message.chunk_response.chunk[:-1]
    return message


def _keep_no_chunk(message: DeliverRequest) -> DeliverRequest:
    if message.HasField("chunk_response"):
        message.chunk_response.chunk = b""
    return message


def _no_chunk(message: DeliverRequest) -> DeliverRequest | None:
    return None if message.HasField("chunk_response") else message


def _no_answer(message: DeliverRequest) -> None:
    return None


def _no_offer(message: DeliverRequest) -> DeliverRequest:
    return DeliverRequest(snapshot_offer=SnapshotOffer())


def _forge_digest(field: str) -> Callable[[DeliverRequest], DeliverRequest]:
    """Digests of what the liar would like to be true."""

    def forge(message: DeliverRequest) -> DeliverRequest:
        if message.HasField("snapshot_offer"):
            manifest = SnapshotManifest.FromString(message.snapshot_offer.manifest)
            getattr(manifest, field)[0] = hashlib.sha256(b"mine").digest()
            message.snapshot_offer.manifest = manifest.SerializeToString(deterministic=True)
        return message

    return forge


def _forge_header(message: DeliverRequest) -> DeliverRequest:
    if message.HasField("snapshot_offer"):
        message.snapshot_offer.head.header = message.snapshot_offer.head.header[:-1] + b"x"
    return message


def _too_few_signatures(message: DeliverRequest) -> DeliverRequest:
    if message.HasField("snapshot_offer"):
        del message.snapshot_offer.head.commit.signatures[1:]
    return message


def _garbage(message: DeliverRequest) -> DeliverRequest:
    if message.HasField("snapshot_offer"):
        message.snapshot_offer.manifest = b"\xff" * 100
    return message


BENDS = {
    "edited chunk": _edit_chunk,
    "truncated chunk": _truncate_chunk,
    "chunk not kept": _keep_no_chunk,
    "no chunk": _no_chunk,
    "no answer": _no_answer,
    "forged state": _forge_digest("state_chunks"),
    "forged audit log": _forge_digest("audit_chunks"),
    "forged header": _forge_header,
    "too few signatures": _too_few_signatures,
    "garbage": _garbage,
}


@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS)
@pytest.mark.parametrize("liars", [("case",), ("case", "iu")], ids=["one", "two"])
def test_one_honest_peer_is_enough(server: Server, bend: Bend, liars: tuple[str, ...]) -> None:
    net = Net(server, bends=dict.fromkeys(liars, bend))
    for _ in range(3):
        assert net.run() is Phase.COMPLETE
        try:
            _, chain = net.restore()
        except Corrupt as error:
            net.joiner.not_restored(error)
        else:
            assert chain.height == server.height
            return
    pytest.fail("never restored")


def test_who_offers_and_sends_nothing_is_chosen_once(server: Server) -> None:
    def bend(message: DeliverRequest) -> DeliverRequest | None:
        return None if message.HasField("chunk_response") else _forge_digest("state_chunks")(message)

    net = Net(server, bends=dict.fromkeys(("case", "iu"), bend))
    assert net.run() is Phase.COMPLETE
    assert net.searches == 2
    net.restore()


def _made_up(index: int) -> bytes:
    return b"made up %d" % index


def _forge_many_chunks(message: DeliverRequest) -> None:
    manifest = SnapshotManifest.FromString(message.snapshot_offer.manifest)
    manifest.state_chunks[:] = [canonical.snapshot_chunk(_made_up(index)) for index in range(2_000)]
    message.snapshot_offer.manifest = manifest.SerializeToString(deterministic=True)


@pytest.mark.parametrize("honest_from", [0, 10, 300], ids=["at once", "in their turn", "in their next turn"])
def test_liars_who_drip_hold_nobody_for_more_than_their_turn(server: Server, honest_from: int) -> None:
    """Chunk by chunk, each just in time: else two liars would hold a joiner with one honest offerer for hours."""
    late: list[tuple[str, ChunkResponse]] = []
    interval = 0

    def drip(peer: str) -> Bend:
        def bend(message: DeliverRequest) -> DeliverRequest | None:
            if message.HasField("snapshot_offer"):
                _forge_many_chunks(message)
                return message
            message.chunk_response.chunk = _made_up(message.chunk_response.index)
            late.append((peer, message.chunk_response))
            return None

        return bend

    def honest(message: DeliverRequest) -> DeliverRequest:
        return message if interval >= honest_from else _no_offer(message)

    net = Net(server, bends={"case": drip("case"), "iu": honest, "uk": drip("uk")})
    while net.run(1) is not Phase.COMPLETE:
        interval += 1
        assert interval < 4 * 240, "held for minutes"
        if interval % 19 == 0:
            for peer, response in late:
                net.joiner.on_chunk(peer, response)
            late.clear()
    assert net.joiner.plan.manifest == server.offer().manifest
    net.restore()


def test_an_only_offer_is_fetched_however_long_it_takes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a slow line a turn ends without anybody else to turn to: nothing is begun anew."""
    monkeypatch.setattr(snapshot_join, "_TURN_INTERVALS", 15)
    late: list[ChunkResponse] = []

    def slow(message: DeliverRequest) -> DeliverRequest | None:
        if not message.HasField("chunk_response"):
            return message
        late.append(message.chunk_response)
        return None

    net = Net(server, bends={"case": _no_offer, "iu": slow, "uk": _no_offer})
    intervals = 0
    while net.run(1) is not Phase.COMPLETE:
        intervals += 1
        assert intervals < 300
        if intervals % 3 == 0:
            for response in late:
                net.joiner.on_chunk("iu", response)
            late.clear()
    assert intervals > 15 + 30, "two turns and more"
    assert net.asked.count("iu") - net.searches == len(net.joiner.plan.digests), "nothing was asked for twice"
    net.restore()


def test_a_state_that_its_manifest_names_and_the_header_does_not_is_never_applied(server: Server) -> None:
    """The liar serves a false state consistently: found when all is there, and nobody who offered it is asked again."""
    offer = server.offer()
    manifest = SnapshotManifest.FromString(offer.manifest)
    chunk = StateChunk.FromString(server.cutter.chunk(server.height, 0))
    chunk.entries[0].value += b"more"
    false = chunk.SerializeToString(deterministic=True)
    manifest.state_chunks[0] = canonical.snapshot_chunk(false)
    forged = manifest.SerializeToString(deterministic=True)

    def bend(message: DeliverRequest) -> DeliverRequest:
        if message.HasField("snapshot_offer"):
            message.snapshot_offer.manifest = forged
        elif message.chunk_response.index == 0:
            message.chunk_response.chunk = false
        return message

    net = Net(server, bends=dict.fromkeys(("case", "iu"), bend))
    assert net.run() is Phase.COMPLETE
    assert net.joiner.plan.manifest == forged
    with pytest.raises(InvalidSnapshot, match="state do not make up the commitment") as refused:
        net.restore()
    net.joiner.not_restored(refused.value)
    assert net.chunks == Memory(), "a restart would begin with what was made up"
    net.asked.clear()
    assert net.run() is Phase.COMPLETE
    assert net.joiner.plan.manifest == offer.manifest
    net.restore()


def test_entries_are_restored_some_megabytes_at_a_time_however_large_they_are() -> None:
    entries = [(b"s/%d" % number, bytes(2_000_000)) for number in range(20)]
    sizes = [sum(map(restore.size_of_entry, batch)) for batch in restore.batches(entries, restore.size_of_entry)]
    assert max(sizes) < 12_000_000
    assert sum(sizes) == sum(map(restore.size_of_entry, entries))
    assert [len(batch) for batch in restore.batches(range(4_500), lambda _: 1)] == [2_000, 2_000, 500]


def test_without_any_snapshot_the_search_ends(server: Server, tmp_path: Path) -> None:
    empty = Server(tmp_path)
    empty.ledger.tell()
    assert Net(empty).run() is Phase.IDLE
    assert Net(server, bends=dict.fromkeys(PEERS, _no_answer)).run() is Phase.IDLE


def test_a_search_ends_when_snapshots_are_gone_sooner_than_fetched(server: Server) -> None:
    net = Net(server, bends=dict.fromkeys(PEERS, _keep_no_chunk))
    assert net.run() is Phase.IDLE
    assert net.searches == 3
    net.bends.clear()
    assert net.run() is Phase.COMPLETE


def test_a_search_goes_on_while_less_is_missing_each_time(server: Server) -> None:
    answers = 0

    def bend(message: DeliverRequest) -> DeliverRequest:
        nonlocal answers
        answers += message.HasField("chunk_response")
        return message if answers % 5 else _keep_no_chunk(message)

    net = Net(server, bends=dict.fromkeys(PEERS, bend))
    assert net.run() is Phase.COMPLETE
    assert net.searches > 3


def test_who_can_answer_only_later_is_asked_again_and_nobody_twice(server: Server) -> None:
    net = Net(server)
    net.joiner.seek()
    net.queue.clear()  # no stream to us was open yet
    for peer in ("case", "iu"):
        net.joiner.on_hello(peer)
    assert [peer for peer, _ in net.queue] == ["case", "iu"]
    net.joiner.on_offer("iu", server.offer())
    net.queue.clear()
    net.joiner.on_hello("iu")
    assert not net.queue


def test_a_snapshot_from_before_our_own_last_block_is_no_help(server: Server) -> None:
    net = Net(server)
    net.joiner.seek(server.height)
    assert net.run() is Phase.IDLE
    net = Net(server)
    net.joiner.seek(server.height - 1)
    assert net.run() is Phase.COMPLETE


def test_a_snapshot_that_blocks_have_overtaken_is_no_help(server: Server) -> None:
    net = Net(server)
    assert net.run() is Phase.COMPLETE
    net.joiner.reached(server.height - 1)
    before = net.joiner.phase
    net.joiner.reached(server.height)
    assert (before, net.joiner.phase) == (Phase.COMPLETE, Phase.IDLE)
    assert net.chunks == Memory(), "they would fill the disk for ever"


def test_what_a_search_in_vain_left_is_dropped_once_blocks_come(server: Server) -> None:
    answers, chunks = 0, Memory()

    def keep_five(message: DeliverRequest) -> DeliverRequest:
        nonlocal answers
        answers += message.HasField("chunk_response")
        return message if answers <= 5 else _keep_no_chunk(message)

    net = Net(server, chunks=chunks, bends=dict.fromkeys(PEERS, keep_five))
    assert net.run() is Phase.IDLE
    net.joiner.reached(0)
    assert chunks, "the next search begins with them"
    net.joiner.reached(1)
    assert not chunks


def test_a_restart_fetches_only_what_is_missing_and_not_what_was_damaged(server: Server) -> None:
    chunks = Memory()
    Net(server, chunks=chunks).run()
    lost, damaged = list(chunks)[:2]
    del chunks[lost]
    chunks[damaged] = chunks[damaged][:-1]
    again = Net(server, chunks=chunks)
    assert again.run() is Phase.COMPLETE
    assert len(again.asked) == len(PEERS) + 2
    again.restore()


# --- on a disk

DAMAGE: dict[str, Callable[[Path], object]] = {
    "lost": Path.unlink,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "changed": lambda file: file.write_bytes(file.read_bytes()[::-1]),
    "emptied": lambda file: file.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("index", [0, -1], ids=["state", "audit log"])
def test_what_our_own_disk_loses_is_fetched_again_and_nobody_is_disbelieved(
    server: Server, tmp_path: Path, damage: Callable[[Path], object], index: int
) -> None:
    home = Home(tmp_path)
    net = Net(server, chunks=ChunkFiles(home.chunks))
    assert net.run() is Phase.COMPLETE
    plan = net.joiner.plan
    damage(home.chunks / plan.digests[index].hex())
    with pytest.raises(Corrupt) as failed:
        restore.build_aside(home, server.ledger.genesis, plan, net.joiner.chunk)
    net.asked.clear()
    net.joiner.not_restored(failed.value)
    assert net.run() is Phase.COMPLETE
    assert len(net.asked) == len(PEERS) + 1  # for their offers, and one of them for the chunk
    restore.build_aside(home, server.ledger.genesis, net.joiner.plan, net.joiner.chunk)
    assert restore.put_in_place(home)


def test_a_disk_that_loses_every_chunk_ends_the_search_and_nobody_is_disbelieved(server: Server) -> None:
    disk = Memory()
    net = Net(server, chunks=disk)
    for _ in range(3):
        assert net.run() is Phase.COMPLETE
        disk.clear()
        with pytest.raises(Corrupt, match="our own disk") as failed:
            net.restore()
        net.joiner.not_restored(failed.value)
    assert (net.joiner.phase, net.searches) == (Phase.IDLE, 3)
    assert net.run() is Phase.COMPLETE
    net.restore()


def test_a_full_disk_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    home = Home(tmp_path)
    with pytest.raises(Unavailable) as failed:
        ChunkFiles(home.chunks).put(bytes(32), b"x")
    assert str(home.chunks) in failed.value.message
    assert "No space left" in failed.value.message
    assert "make room" in (failed.value.hint or "")


def test_a_crash_before_or_after_the_restored_ledger_is_in_place_leaves_no_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    rename = restore._rename

    def crash_before(source: Path, target: Path) -> None:
        raise InterruptedError

    def crash_after(source: Path, target: Path) -> None:
        rename(source, target)
        raise InterruptedError

    for crash in (crash_before, crash_after):
        ChunkFiles(home.chunks).put(bytes(32), b"x")
        home.ledger_restored.mkdir(exist_ok=True)
        (home.ledger_restored / "CURRENT").touch()
        monkeypatch.setattr(restore, "_rename", crash)
        with pytest.raises(InterruptedError):
            restore.put_in_place(home)
        monkeypatch.undo()
        restore.put_in_place(home)
        assert home.ledger.exists()
        assert not home.chunks.exists()


def test_a_restored_ledger_takes_the_place_of_the_old_one_whole_or_not_at_all(server: Server, tmp_path: Path) -> None:
    home = Home(tmp_path)
    net = Net(server)
    net.run()
    store = LevelStore(home.ledger)
    store.write([(b"old", b"1")], sync=True)
    store.close()
    genesis, plan = server.ledger.genesis, net.joiner.plan

    def lost(index: int) -> bytes:
        if index == len(plan.digests) - 1:
            raise InvalidSnapshot("gone")
        return net.joiner.chunk(index)

    with pytest.raises(InvalidSnapshot):
        restore.build_aside(home, genesis, plan, lost)
    assert not restore.put_in_place(home)
    home.ledger_building.mkdir()  # as a crash leaves it
    assert not restore.put_in_place(home)
    assert not home.ledger_building.exists()

    restore.build_aside(home, genesis, plan, net.joiner.chunk)
    ChunkFiles(home.chunks).put(bytes(32), b"x")
    assert restore.put_in_place(home)
    assert not home.chunks.exists()
    store = LevelStore(home.ledger)
    assert store.get(b"old") is None
    assert Application(store, genesis).info().height == server.height
    store.close()
    assert not restore.put_in_place(home)
