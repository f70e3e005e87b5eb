"""What must hold in every run. Thresholds, hashes, trees and signatures are worked out again here, on purpose.

Nothing of the production arithmetic is imported: a mistake there must not hide itself.

- ``chain``: agreement, one chain, certificates of the right validators, durability
- ``contents``: transactions, audit log, state
- ``points``: balances and escrow, from the audit log alone
- ``settlement``: what tasks cost, from the audit log alone
- ``members``: who votes, from the audit log alone
- ``conduct``: what nodes say in their own names
- ``journals``: how much they write down of one height
- ``keeping``: what they prune, and what not
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from koinon.v1 import consensus_pb2 as pb
from koinon.v1.peer_pb2 import DeliverRequest
from node.abci import AppHashes, Finalized
from testnet.simulation.checkers.chain import Chain
from testnet.simulation.checkers.conduct import Conduct
from testnet.simulation.checkers.contents import Contents, state_commitment
from testnet.simulation.checkers.journals import Journals
from testnet.simulation.checkers.keeping import Keeping
from testnet.simulation.checkers.members import Members
from testnet.simulation.checkers.settlement import Settlement
from testnet.simulation.checkers.violation import Violation
from testnet.simulation.consortium import FUND_BP, TASK_FEE

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

__all__ = ["Checkers", "Violation"]


class Checkers:
    """Watches every node. Raises Violation at the moment of the wrong, while the stack still shows why."""

    def __init__(
        self,
        chain_id: str,
        validators: Sequence[pb.Validator],
        faulty: Collection[str] = (),
        *,
        retention_ms: int = 0,
        segment_blocks: int = 1,
    ) -> None:
        """``faulty``: the institutions that attack; of them nothing is demanded. The rest as ``Keeping``."""
        self.chain = Chain(chain_id, validators)
        self.contents = Contents(faulty, Members(validators), Settlement(FUND_BP, TASK_FEE))
        self.conduct = Conduct(chain_id, self.chain, faulty)
        self.journals = Journals()
        self.keeping = Keeping(self.chain, retention_ms, segment_blocks)
        self.on_first_decision: Callable[[SimNode], None] | None = None  # an adversary watches too

    def on_start(self, node: SimNode) -> None:
        """After a restart nothing that was announced may be missing."""
        if not node.correct:
            return
        self.journals.on_start(node)
        info, announced = node.app.info(), len(node.committed)
        if info.height < announced:
            raise Violation(f"{node.name} announced block {announced} and restarts at {info.height}")
        for height in range(announced + 1, info.height):  # a crash after the write and before the announcement
            following = pb.Header.FromString(_block(node, height + 1).header)
            hashes = AppHashes(
                following.results_root, following.state_commitment, following.audit_root, int(following.audit_size)
            )
            self._check(node, height, hashes, node.validators.at(height + 2).to_proto())
        if info.height > announced:
            self._check(node, info.height, info.hashes, info.validators)
        elif node.restored_height == info.height:
            self.chain.check_state(node, info)
        self.keeping.on_start(node)

    def on_committed(self, node: SimNode, height: int, finalized: Finalized) -> None:
        if not node.correct:
            return
        if height != len(node.committed) + 1:
            raise Violation(f"{node.name} announces block {height} after its number {len(node.committed)}")
        first = height not in self.chain.decided
        self._check(node, height, finalized.hashes, finalized.validators)
        node.world.note("committed", node.name, height, node.committed[-1].hex())
        if first and self.on_first_decision is not None:
            self.on_first_decision(node)

    def _check(self, node: SimNode, height: int, hashes: AppHashes, voters: Iterable[pb.Validator]) -> None:
        """Everything about the block at ``height``, which left ``node`` with these hashes and validators."""
        block = _block(node, height)
        commit = node.disk.store.get(b"c/" + height.to_bytes(8, "big"))
        if commit is None:
            raise Violation(f"{node.name} announces block {height} without a certificate")
        first = self.chain.check(node, height, block, pb.Commit.FromString(commit), hashes, voters)
        node.committed.append(self.chain.decided[height])
        if first:
            self.contents.check(node, height, block, hashes)
            self.contents.members.compare(height, self.chain.voters[height + 2].values())

    def on_restored(self, node: SimNode, height: int) -> None:
        """The node's ledger is now made from a snapshot of this height, which others announced."""
        if state_commitment(node) != self.chain.state_commitment(height):
            raise Violation(f"{node.name} restored another state than that after block {height}")
        node.committed = [self.chain.decided[number] for number in range(1, height + 1)]

    def on_upkeep(self, node: SimNode) -> None:
        """A node had time for pruning."""
        if node.correct:
            self.keeping.on_upkeep(node)

    def on_send(self, node: SimNode, message: DeliverRequest) -> None:
        self.conduct.on_send(node, message)

    def on_delivery(self, node: SimNode, message: DeliverRequest) -> None:
        self.conduct.on_delivery(node, message)

    def on_logged(self, node: SimNode, record: bytes) -> None:
        self.journals.on_logged(node, record)

    def finish(self, nodes: Sequence[SimNode]) -> None:
        """At the end, of everything together; ``nodes`` are correct and up."""
        for node in nodes:
            node.disk.damaged.clear()  # what nobody has read yet is no fault of the node
            self.keeping.check(node)
        self.chain.finish(nodes)
        self.contents.finish(nodes)


def _block(node: SimNode, height: int) -> pb.Block:
    data = node.disk.store.get(b"b/" + height.to_bytes(8, "big"))
    if data is None:
        raise Violation(f"{node.name} announces block {height}, which is not in its store")
    return pb.Block.FromString(data)
