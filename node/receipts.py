"""Making receipts (koinon.receipt) from what this node keeps.

A node hands out no receipt that it has not verified itself, as whoever gets it will: whatever it lacks, or
whatever its disk lost, shows here and not years later.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from koinon import envelope, light_client, merkle
from koinon import genesis as genesis_file
from koinon import receipt as receipts
from koinon.errors import Corrupt, InvalidInput, Unavailable
from koinon.v1.audit_pb2 import (
    RECEIPT_KIND_RECORD,
    RECEIPT_KIND_TOKEN,
    RECEIPT_KIND_TRANSACTION,
    ProvedRecords,
    Receipt,
    ReceiptKind,
    RecordProof,
    SignedHeader,
    TransactionProof,
)
from koinon.v1.consensus_pb2 import Block, Header
from koinon.v1.identity_pb2 import Genesis
from koinon.validators import ValidatorSet
from node.application import Application
from node.store.blocks import BlockStore
from node.store.validator_history import ValidatorHistory


class Receipts:
    """For audit records, tokens and transactions. Every method raises Unavailable where this node keeps too little."""

    def __init__(
        self, application: Application, blocks: BlockStore, validators: ValidatorHistory, genesis: Genesis
    ) -> None:
        self._application = application
        self._blocks = blocks
        self._validators = validators
        self._genesis = genesis
        # Of ways: ends of sets that none can skip, who signed the last of these, and up to which end this is known.
        # Replaced as a whole: receipts are made on several threads.
        self._walked: tuple[tuple[int, ...], ValidatorSet, int] = (), genesis_file.validators(genesis), 0

    def record(self, index: int) -> Receipt:
        """For the record at an index that the newest header covers."""
        return self._verified(self._of_record(RECEIPT_KIND_RECORD, index))

    def records(self, indices: Sequence[int], height: int) -> ProvedRecords:
        """For several records, ascending, under the header of ``height``, which covers them; 0 is the newest."""
        head = self.signed_header(height or self._blocks.height())
        size = Header.FromString(head.header).audit_size
        if indices and indices[-1] >= size:
            raise InvalidInput(
                f"block {head.commit.height} covers {size} records, not number {indices[-1]}",
                hint="name a later block, or none",
            )
        log = self._application.audit_log
        proved = ProvedRecords(head=head, tree_size=size)
        for index in indices:
            proved.records.add(record=self._leaf(index), index=index, path=log.inclusion_proof(index, size))
        self._lead(proved)
        try:
            receipts.verify_records(proved, self._genesis)
        except Corrupt as error:
            raise self._lacking(f"what proves it ({error.message})") from error
        return proved

    def token(self, granted: int, end: int | None) -> Receipt:
        """For a token, by the index of the record that granted it, and of the one that ended it, if one did."""
        receipt = self._of_record(RECEIPT_KIND_TOKEN, granted)
        if end is not None:
            path = self._application.audit_log.inclusion_proof(end, receipt.tree_size)
            receipt.end.CopyFrom(RecordProof(record=self._leaf(end), index=end, path=path))
        return self._verified(receipt)

    def transaction(self, transaction_id: bytes) -> Receipt:
        """For a transaction of any block but the last one."""
        found = self._application.result(transaction_id)
        if found is None:
            raise self._lacking(f"transaction {transaction_id.hex()}")
        height, result = found
        block = self._block(height)
        ids = [envelope.identify(data) for data in block.transactions]
        results = [each[1] for each in map(self._application.result, ids) if each is not None]
        if transaction_id not in ids or len(results) != len(ids):
            raise self._lacking(f"what block {height} did")
        index, size = ids.index(transaction_id), len(ids)
        return self._verified(
            Receipt(
                kind=RECEIPT_KIND_TRANSACTION,
                head=self.signed_header(height + 1),
                transaction=TransactionProof(
                    envelope=block.transactions[index],
                    header=block.header,
                    index=index,
                    size=size,
                    path=merkle.inclusion_proof(index, size, _subtrees(block.transactions)),
                    result=result,
                    result_path=merkle.inclusion_proof(index, size, _subtrees(results)),
                ),
            )
        )

    def signed_header(self, height: int) -> SignedHeader:
        """The header at a height, with its certificate and who could sign it."""
        header, commit = self._blocks.header(height), self._blocks.commit(height)
        if header is None or commit is None:
            raise self._lacking(f"the header of block {height}")
        return SignedHeader(header=header, commit=commit, validators=self._validators.at(height).to_proto())

    def way(self, height: int) -> list[SignedHeader]:
        """The way from the genesis to a height (koinon.light_client): last headers of sets of validators before it.

        The last of them names who votes at this height. The others are as few as vouching allows: from the end of one
        set as far as a third of it signed each end on.
        """
        ends = self._validators.last_heights(height)
        turns, vouching, known_to = self._walked
        for end in ends[bisect_right(ends, known_to) :]:
            if known_to and not light_client.vouch(vouching, self.signed_header(end)):
                turns, vouching = (*turns, known_to), self._validators.at(known_to)  # it leads to this end by name
            known_to = end
        self._walked = turns, vouching, known_to
        return [self.signed_header(end) for end in sorted({*turns[: bisect_left(turns, height)], *ends[-1:]})]

    def _of_record(self, kind: ReceiptKind.ValueType, index: int) -> Receipt:
        """Under the newest header, which every record before it is under."""
        head = self.signed_header(self._blocks.height())
        size = Header.FromString(head.header).audit_size
        if index >= size:
            raise self._lacking(f"a block that covers record {index}")
        path = self._application.audit_log.inclusion_proof(index, size)
        return Receipt(kind=kind, record=self._leaf(index), index=index, tree_size=size, path=path, head=head)

    def _verified(self, receipt: Receipt) -> Receipt:
        """With the way to its head, and seen to hold."""
        self._lead(receipt)
        try:
            receipts.verify(receipt, self._genesis)
        except Corrupt as error:
            raise self._lacking(f"what proves it ({error.message})") from error
        return receipt

    def _lead(self, proof: Receipt | ProvedRecords) -> None:
        """The way from the genesis to its head."""
        proof.genesis_hash = genesis_file.genesis_hash(self._genesis).hex()
        proof.validator_changes.extend(self.way(proof.head.commit.height))

    def _leaf(self, index: int) -> bytes:
        data = self._application.audit_log.record(index)
        if data is None:
            raise self._lacking(f"record {index}")
        return data

    def _block(self, height: int) -> Block:
        data = self._blocks.block(height)
        if data is None:
            raise self._lacking(f"block {height}")
        return Block.FromString(data)

    @staticmethod
    def _lacking(what: str) -> Unavailable:
        return Unavailable(f"this node does not keep {what}", hint="ask another member's node")


def _subtrees(leaves: Sequence[bytes]) -> merkle.Subtree:
    return merkle.subtrees([merkle.leaf_hash(leaf) for leaf in leaves])
