"""What clients and onlookers know, held against every ledger."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from koinon import envelope
from koinon.v1.consensus_pb2 import Block
from node.store.blocks import BlockStore
from testnet.simulation.checkers import Violation


@dataclass(slots=True)
class Checks:
    """What clients and onlookers know, and every ledger is held against."""

    answered: dict[bytes, tuple[int, tuple[str, ...]]] = field(default_factory=dict)  # COMMITTED id: height, created
    silent: list[tuple[str, int, int]] = field(default_factory=list)  # institution; not a vote between these heights
    first: dict[str, int] = field(default_factory=dict)  # of who began from a snapshot: the first block it has
    blocks: dict[int, bytes] = field(default_factory=dict)  # digest at each height, of the ledger that was read first

    def examine(self, institution: str, kept: BlockStore) -> None:
        """Hold one ledger against the rest: the blocks from where its node began. Raises Violation."""
        found: dict[bytes, int] = {}
        first = self.first.get(institution, 1)
        for height in range(first, kept.height() + 1):
            data, commit = kept.block(height), kept.commit(height)
            if data is None or commit is None:
                raise Violation(f"{institution} lacks the block at height {height}, or its certificate")
            if self.blocks.setdefault(height, digest := hashlib.sha256(data).digest()) != digest:
                raise Violation(f"fork: {institution} has another block at height {height}")
            block = Block.FromString(data)
            if block.evidence:
                raise Violation(f"the block at height {height} holds evidence: somebody equivocated")
            signers = {item.institution for item in commit.signatures}
            for silent, after, before in self.silent:
                if silent in signers and after < height < before:
                    raise Violation(f"{silent} signed height {height}, and knew nothing of its past before {before}")
            for transaction_id in map(envelope.identify, block.transactions):
                if transaction_id in found:
                    raise Violation(f"{institution} has {transaction_id.hex()} twice")
                found[transaction_id] = height
        for transaction_id, (height, _) in self.answered.items():
            if height >= first and found.get(transaction_id) != height:
                raise Violation(f"lost: {institution} lacks {transaction_id.hex()} at height {height}")
