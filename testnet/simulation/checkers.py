"""What must hold in every run. Thresholds, hashes and signatures are worked out again here, on purpose.

Nothing of the production arithmetic is imported: a mistake there must not hide itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from koinon.v1 import consensus_pb2 as pb
from koinon.v1.peer_pb2 import DeliverRequest
from node.abci import Finalized
from node.ledger.blocks import ParsedBlock

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode


class Violation(AssertionError):
    """Something happened that must never happen."""


class Checkers:
    """Watches every node. Raises Violation at the moment of the wrong, while the stack still shows why."""

    def __init__(self, chain_id: str, validators: Sequence[pb.Validator], faulty: str | None) -> None:
        self.decided: dict[int, bytes] = {}  # height: block hash
        self.accused: set[tuple[str, int, int]] = set()  # by evidence in blocks: institution, height, round
        self.equivocations: set[tuple[str, int, int]] = set()  # that the faulty validator sent
        self.rounds: dict[int, int] = {}  # height: round in which it was decided
        self.included: set[bytes] = set()
        self.on_first_decision: Callable[[SimNode], None] | None = None  # an adversary watches too
        self._chain_id = chain_id
        self._keys = {v.institution: VerifyKey(v.public_key) for v in validators}
        self._power = {v.institution: v.power for v in validators}
        self._faulty = faulty
        self._sent: dict[tuple[str, int, int, int], tuple[int, bytes]] = {}
        self._headers: dict[int, pb.Header] = {}
        self._state_after: dict[int, bytes] = {}

    # --- agreement, linkage, durability

    def on_committed(self, node: SimNode, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        if not node.correct:
            return
        engine = node.engine
        assert engine is not None
        data, commit = engine.blocks.block(height), engine.blocks.commit(height)
        if data is None or commit is None:
            raise Violation(f"{node.name} announces block {height}, which is not in its store")
        header_bytes = pb.Block.FromString(data).header
        block_hash = hashlib.sha256(b"koinon/v1/header\0" + header_bytes).digest()
        node.world.note("committed", node.name, height, block_hash.hex())
        if height != len(node.committed):
            raise Violation(f"{node.name} announces block {height} as its number {len(node.committed)}")
        if self.decided.setdefault(height, block_hash) != block_hash:
            raise Violation(f"agreement: {node.name} decides another block {height}")
        state = finalized.hashes.state_commitment
        if self._state_after.setdefault(height, state) != state:
            raise Violation(f"{node.name} has another state after block {height}")
        self._check_certificate(node, height, block_hash, commit)
        if height not in self._headers:
            self._check_link(height, pb.Header.FromString(header_bytes))
            self._check_body(height, pb.Block.FromString(data))
            self.rounds[height] = commit.round
            if self.on_first_decision is not None:
                self.on_first_decision(node)

    def on_start(self, node: SimNode) -> None:
        """After a restart nothing that was announced may be missing."""
        assert node.engine is not None
        height = node.engine.chain.height
        if height < len(node.committed):
            raise Violation(f"{node.name} announced block {len(node.committed)} and restarts at {height}")
        # A crash after the write and before the announcement: the block is there, and was not announced.
        for missing in range(len(node.committed) + 1, height + 1):
            data = node.engine.blocks.block(missing)
            assert data is not None
            node.committed.append(hashlib.sha256(b"koinon/v1/header\0" + pb.Block.FromString(data).header).digest())
            if self.decided.setdefault(missing, node.committed[-1]) != node.committed[-1] and node.correct:
                raise Violation(f"agreement: {node.name} stores another block {missing}")

    def _check_certificate(self, node: SimNode, height: int, block_hash: bytes, commit: pb.Commit) -> None:
        if (commit.height, commit.block_hash) != (height, block_hash):
            raise Violation(f"{node.name} stores a certificate of another block at {height}")
        signers = [item.institution for item in commit.signatures]
        if signers != sorted(set(signers)):
            raise Violation(f"the certificate of block {height} at {node.name} names a signer twice")
        if 3 * sum(self._power[name] for name in signers) <= 2 * sum(self._power.values()):
            raise Violation(f"the certificate of block {height} at {node.name} has no two thirds: {signers}")
        for item in commit.signatures:
            signed = _vote_bytes(self._chain_id, 2, height, commit.round, block_hash, item.time_ms)
            try:
                self._keys[item.institution].verify(signed, item.signature)
            except BadSignatureError:
                raise Violation(f"block {height} at {node.name}: {item.institution} did not sign") from None

    def _check_link(self, height: int, header: pb.Header) -> None:
        self._headers[height] = header
        before = self._headers.get(height - 1)
        previous_hash = self.decided.get(height - 1, bytes(32))
        if (header.height, header.chain_id, header.previous_block_hash) != (height, self._chain_id, previous_hash):
            raise Violation(f"block {height} does not follow block {height - 1}")
        if before is not None:
            if header.time_ms <= before.time_ms:
                raise Violation(f"time stands still at block {height}")
            if header.state_commitment != self._state_after[height - 1]:
                raise Violation(f"the header of block {height} does not state what block {height - 1} did")

    def _check_body(self, height: int, block: pb.Block) -> None:
        for envelope in block.transactions:
            if envelope in self.included or envelope.startswith(b"unfit"):
                raise Violation(f"block {height} includes a transaction that must not be there")
            self.included.add(envelope)
        for item in block.evidence:
            evidence = pb.Evidence.FromString(item)
            if evidence.HasField("duplicate_vote"):
                vote = evidence.duplicate_vote.first
                accused = (vote.institution, vote.height, vote.round)
            else:
                proposal = evidence.duplicate_proposal
                accused = (proposal.institution, proposal.height, proposal.round)
            if accused[0] != self._faulty:
                raise Violation(f"block {height} accuses {accused[0]}, which is correct")
            self.accused.add(accused)

    # --- no correct validator signs twice

    def on_send(self, node: SimNode, message: DeliverRequest) -> None:
        """What a node says in its own name; across crashes, it never contradicts itself."""
        for vote in message.votes.votes:
            if vote.institution == node.institution:
                self._said(node, (vote.institution, vote.height, vote.round, int(vote.type)), (0, vote.block_hash))
        if message.HasField("proposal") and message.proposal.institution == node.institution:
            proposal = message.proposal
            header = pb.Block.FromString(proposal.block).header
            said = (proposal.valid_round, hashlib.sha256(header).digest())
            self._said(node, (proposal.institution, proposal.height, proposal.round, 0), said)

    def _said(self, node: SimNode, position: tuple[str, int, int, int], said: tuple[int, bytes]) -> None:
        if self._sent.setdefault(position, said) != said:
            if node.correct:
                raise Violation(f"{node.name} signs twice at {position}, after {node.crashes} crashes")
            self.equivocations.add(position[:3])


def _vote_bytes(chain: str, vote_type: int, height: int, round_: int, block: bytes, time_ms: int) -> bytes:
    """docs: the bytes of a vote, restated."""
    name = chain.encode()
    return b"".join(
        (
            b"koinon/v1/vote\0",
            len(name).to_bytes(4, "big") + name,
            vote_type.to_bytes(1, "big"),
            height.to_bytes(8, "big"),
            round_.to_bytes(4, "big"),
            len(block).to_bytes(4, "big") + block,
            time_ms.to_bytes(8, "big", signed=True),
        )
    )
