"""What blocks hold and do: no transaction twice, none invented, none lost; a log that only grows; one state."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from koinon.v1 import consensus_pb2 as pb
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.points_pb2 import Account, Supply
from koinon.v1.transaction_pb2 import Envelope
from node.abci import AppHashes
from testnet.simulation.checkers.members import Members
from testnet.simulation.checkers.points import Points
from testnet.simulation.checkers.settlement import Settlement
from testnet.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

_LANES = 1024


class Contents:
    """Transactions, audit records and state of the one chain."""

    def __init__(self, faulty: Collection[str], members: Members, settlement: Settlement) -> None:
        self.made: set[bytes] = set()  # envelopes that somebody signed
        self.included: dict[bytes, int] = {}  # transaction id: height
        self.told: dict[bytes, tuple[int, bytes]] = {}  # transaction id: what a node told its client
        self.accused: set[tuple[str, int, int]] = set()  # by evidence in blocks: institution, height, round
        self._faulty = faulty
        self._leaves: list[bytes] = []  # hashes of all audit records
        self._height = 0
        self._points = Points()
        self._settlement = settlement
        self.members = members

    def check(self, node: SimNode, height: int, block: pb.Block, hashes: AppHashes) -> None:
        """The block at ``height``, when the first node has executed it."""
        for envelope in block.transactions:
            if envelope not in self.made:
                raise Violation(f"block {height} includes a transaction that nobody signed")
            name = transaction_id(envelope)
            if name in self.included:
                raise Violation(f"blocks {self.included[name]} and {height} include one transaction")
            self.included[name] = height
        self._check_evidence(height, block)
        self._check_log(node, height, hashes)

    def _check_evidence(self, height: int, block: pb.Block) -> None:
        for item in block.evidence:
            evidence = pb.Evidence.FromString(item)
            if evidence.HasField("duplicate_vote"):
                vote = evidence.duplicate_vote.first
                accused = (vote.institution, vote.height, vote.round)
            else:
                proposal = evidence.duplicate_proposal
                accused = (proposal.institution, proposal.height, proposal.round)
            if accused[0] not in self._faulty:
                raise Violation(f"block {height} accuses {accused[0]}, which is correct")
            self.accused.add(accused)

    def _check_log(self, node: SimNode, height: int, hashes: AppHashes) -> None:
        if hashes.audit_size < len(self._leaves):
            raise Violation(f"the audit log shrinks at block {height}")
        for index in range(len(self._leaves), hashes.audit_size):
            data = node.app.audit_log.record(index)
            if data is None:
                raise Violation(f"{node.name} lacks audit record {index} of block {height}")
            record = AuditRecord.FromString(data)
            if record.index != index or not self._height <= record.height <= height:
                raise Violation(f"audit record {index} of block {height} says {record.index} and {record.height}")
            self._leaves.append(hashlib.sha256(b"\0" + data).digest())
            self._points.check(record)
            self._settlement.check(record)
            self.members.check(record)
        if hashes.audit_root != tree_root(self._leaves):
            raise Violation(f"the audit log of block {height} is not the old one and what was added")
        self._height = height

    def tell(self, name: bytes, answer: tuple[int, bytes]) -> None:
        """A correct node told its client that a transaction was decided: height and serialised result."""
        if self.told.setdefault(name, answer) != answer:
            raise Violation(f"two nodes tell different things about transaction {name.hex()}")

    def finish(self, nodes: Sequence[SimNode]) -> None:
        for node in nodes:
            info = node.app.info()
            for name, answer in self.told.items():
                if info.height < answer[0]:
                    continue
                unknown = (None,) if answer[0] <= node.restored_height else ()  # results are in no snapshot
                if node.app.result(name) not in (answer, *unknown):
                    raise Violation(f"{node.name} has lost transaction {name.hex()}, which was told to be in a block")
            for index, leaf in enumerate(self._leaves[: info.hashes.audit_size]):
                data = node.app.audit_log.record(index)
                if data is None or hashlib.sha256(b"\0" + data).digest() != leaf:
                    raise Violation(f"{node.name} has another audit record {index}")
        for node in nodes[:1]:
            if state_commitment(node) != node.app.info().hashes.state_commitment:
                raise Violation(f"the state that {node.name} stores is not the one its header commits to")
            if node.app.info().hashes.audit_size == len(self._leaves):
                supply = Supply.FromString(node.disk.store.get(b"s/supply/") or b"")
                self._points.finish(node.name, _accounts(node), supply)


def transaction_id(envelope: bytes) -> bytes:
    """docs: the name of a transaction, restated."""
    message = Envelope.FromString(envelope)
    key = message.public_key
    return hashlib.sha256(b"koinon/v1/transaction-id\0" + len(key).to_bytes(4, "big") + key + message.body).digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, level by level: an odd node goes up as it is."""
    if not leaves:
        return hashlib.sha256().digest()
    level = list(leaves)
    while len(level) > 1:
        paired = [hashlib.sha256(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def _accounts(node: SimNode) -> dict[str, int]:
    found = (Account.FromString(value) for _, value in node.disk.store.scan(b"s/account/"))
    return {account.id: account.points for account in found}


def state_commitment(node: SimNode) -> bytes:
    """LtHash16 over everything under ``s/``, from nothing."""
    lanes = np.zeros(_LANES, dtype="<u2")
    for key, value in node.disk.store.scan(b"s/"):
        entry = b"".join(len(part).to_bytes(4, "big") + part for part in (key, value))
        expanded = hashlib.shake_128(b"koinon/v1/state-entry\0" + entry).digest(2 * _LANES)
        lanes += np.frombuffer(expanded, dtype="<u2")
    return hashlib.sha256(b"koinon/v1/state\0" + (2 * _LANES).to_bytes(4, "big") + lanes.tobytes()).digest()
