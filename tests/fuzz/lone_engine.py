"""One correct validator alone with three hostile ones whose keys the fuzzer holds.

The bytes of an input are a program: votes, proposals, blocks and raw messages that the three send, and timers that
fire. Whatever it is, the engine must not raise, and must never sign two conflicting votes or proposals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from koinon import canonical
from koinon.keys import SigningKey
from koinon.v1 import consensus_pb2 as pb
from koinon.v1 import peer_pb2
from koinon.v1.peer_pb2 import DeliverRequest
from node.abci import AppHashes, AppInfo, DecidedBlock, Finalized
from node.consensus.events import Timeouts, Timer
from node.engine import Engine, EngineConfig
from node.journal import Journal
from node.ledger import blocks
from node.ports import Wake
from node.store.memory import MemoryStore
from node.store.wal import MemoryWal
from tests.fuzz.reader import Reader

CHAIN = "fuzz-0123456789abcdef"
TIME_MS = 1_700_000_000_000
KEYS = {name: SigningKey(hashlib.sha256(name.encode()).digest()) for name in ("v0", "v1", "v2", "v3")}
OWN = "v0"
OTHERS = ("v1", "v2", "v3")
VALIDATORS = tuple(
    pb.Validator(institution=name, public_key=key.public_key, power=1) for name, key in sorted(KEYS.items())
)
MAX_STEPS = 200


class LoneEngine:
    """The engine on ports that remember what it signed."""

    def __init__(self) -> None:
        self.sent: dict[tuple[int, int, int], bytes] = {}  # (height, round, kind) -> block hash
        self._timers: list[Timer | Wake] = []
        self._now_ms = TIME_MS
        self._seen: list[bytes] = []  # block hashes a vote could name
        self._pool = [b"a transaction"]
        wal = MemoryWal()
        Journal.create(wal, KEYS[OWN].public_key)
        self.engine = Engine(
            EngineConfig(OWN, CHAIN, TIME_MS, timeouts=Timeouts()),
            transport=self,
            clock=self,
            timers=self,
            wal=wal,
            store=MemoryStore(),
            app=_Echo(),
            pool=self,
            signer=KEYS[OWN],
            log=self,
        )
        self.engine.start()

    def run(self, program: bytes) -> None:
        """Feed the whole input; an exception or a conflicting signature is a finding."""
        reader = Reader(program)
        for _ in range(MAX_STEPS):
            if reader.at_end:
                return
            peer = OTHERS[reader.below(3)]
            match reader.below(6):
                case 0 if self._timers:
                    self._now_ms += 1 + reader.below(2_000)
                    self.engine.on_timer(self._timers.pop(reader.below(len(self._timers))))
                case 1:
                    self._deliver(peer, DeliverRequest(votes=peer_pb2.VoteBatch(votes=[self._vote(peer, reader)])))
                case 2:
                    self._deliver(peer, DeliverRequest(proposal=self._proposal(peer, reader)))
                case 3:
                    self._deliver(peer, self._blocks(reader))
                case 4:
                    self.engine.on_transactions()
                case _:
                    try:
                        self._deliver(peer, DeliverRequest.FromString(reader.take(reader.below(256))))
                    except DecodeError:
                        continue  # gRPC ends the stream

    def _deliver(self, peer: str, message: DeliverRequest) -> None:
        self.engine.on_message(peer, message)

    # --- what the three make

    def _vote(self, signer: str, reader: Reader) -> pb.Vote:
        vote = pb.Vote(
            type=pb.VoteType.ValueType(1 + reader.below(2)),
            height=self.engine.chain.height + reader.below(3),
            round=reader.below(4),
            block_hash=self._hash(reader),
            time_ms=self._now_ms + reader.below(3) - 1,
            institution=signer,
        )
        vote.signature = KEYS[signer].sign(
            canonical.vote_bytes(CHAIN, vote.type, vote.height, vote.round, vote.block_hash, vote.time_ms)
        )
        return vote

    def _hash(self, reader: Reader) -> bytes:
        chosen = reader.below(8)
        if chosen == 0 or not self._seen:
            return b""
        return reader.take(32) if chosen == 1 else self._seen[-1 - reader.below(len(self._seen))]

    def _proposal(self, signer: str, reader: Reader) -> pb.Proposal:
        chain = self.engine.chain
        transactions = [b"transaction %d" % reader.below(4) for _ in range(reader.below(3))]
        commit = self.engine.blocks.commit(chain.height) if chain.height else None
        block = blocks.build(chain, transactions, [], commit, signer)
        data, block_hash = block.value.block, block.value.block_hash
        if reader.below(4) == 0 and (noise := reader.take(reader.below(8))):
            place = reader.below(len(data))
            data = data[:place] + noise + data[place + len(noise) :]
        self._seen.append(block_hash)
        proposal = pb.Proposal(
            height=chain.height + 1,
            round=reader.below(4),
            valid_round=reader.below(4) - 1,
            block=data,
            institution=signer,
        )
        proposal.signature = KEYS[signer].sign(
            canonical.proposal_bytes(CHAIN, proposal.height, proposal.round, proposal.valid_round, block_hash)
        )
        return proposal

    def _blocks(self, reader: Reader) -> DeliverRequest:
        """Blocks as a peer sends them to one who is behind: the next height, certified by whom the input says."""
        chain = self.engine.chain
        commit = self.engine.blocks.commit(chain.height) if chain.height else None
        block = blocks.build(chain, [b"synced"], [], commit, "v1")
        certificate = pb.Commit(height=chain.height + 1, round=reader.below(3), block_hash=block.value.block_hash)
        for name in OTHERS[: reader.below(4)]:
            signed = canonical.vote_bytes(
                CHAIN, 2, certificate.height, certificate.round, certificate.block_hash, self._now_ms
            )
            certificate.signatures.add(institution=name, time_ms=self._now_ms, signature=KEYS[name].sign(signed))
        response = peer_pb2.BlockResponse(blocks=[peer_pb2.CommittedBlock(block=block.value.block, commit=certificate)])
        return DeliverRequest(block_response=response)

    # --- ports: transport, clock, timers, pool, log

    def send(self, institution: str, message: DeliverRequest) -> None:
        self.broadcast(message)

    def broadcast(self, message: DeliverRequest) -> None:
        for vote in message.votes.votes:
            if vote.institution == OWN:
                self._signed((vote.height, vote.round, vote.type), vote.block_hash)
        if message.proposal.institution == OWN:
            block_hash = blocks.parse(message.proposal.block).value.block_hash
            self._signed((message.proposal.height, message.proposal.round, 0), block_hash)
            self._seen.append(block_hash)

    def _signed(self, position: tuple[int, int, int], block_hash: bytes) -> None:
        if self.sent.setdefault(position, block_hash) != block_hash:
            raise AssertionError(f"signed twice at {position}")

    def now_ms(self) -> int:
        return self._now_ms

    def schedule(self, delay_ms: int, timer: Timer | Wake) -> None:
        self._timers.append(timer)

    def __len__(self) -> int:
        return len(self._pool)

    def reap(self, max_bytes: int, max_count: int) -> Sequence[bytes]:
        return self._pool[:max_count]

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...


class _Echo:
    """An application for which every transaction is valid and the state is a digest of all of them."""

    def __init__(self) -> None:
        self._height = 0
        self._pending = self._digest = canonical.ZERO_HASH

    def _hashes(self, digest: bytes) -> AppHashes:
        return AppHashes(digest, digest, digest, 0)

    def info(self) -> AppInfo:
        return AppInfo(self._height, self._hashes(self._digest), VALIDATORS)

    def check_tx(self, envelope: bytes) -> None:
        return None

    def prepare_proposal(self, height: int, time_ms: int, candidates: Sequence[bytes], max_bytes: int) -> list[bytes]:
        return list(candidates)

    def process_proposal(self, height: int, time_ms: int, transactions: Sequence[bytes]) -> None:
        return None

    def finalize_block(self, block: DecidedBlock) -> Finalized:
        self._pending = hashlib.sha256(self._digest + b"".join(block.transactions)).digest()
        return Finalized(block.height, (), self._hashes(self._pending), VALIDATORS, ())

    def validator_key(self, institution: str, height: int) -> bytes | None:
        key = KEYS.get(institution)
        return None if key is None else key.public_key

    def commit(self) -> None:
        self._digest = self._pending
        self._height += 1
