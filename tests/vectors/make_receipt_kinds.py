"""Makes receipt_kinds/: receipts for transactions and tokens on the chain of make_receipts.py, good and spoilt ones.

Run it as ``python -m tests.vectors.make_receipt_kinds`` after a *deliberate* change of a format, and change the digest
in tests/koinon/test_receipt_kinds.py.

Here the blocks are linked by hash and have contents: block 5 one transaction, block 7 three of which the second is
rejected, block 9 five, block 10 none. Record 8 grants a token, 13 is a use of it, 22 revokes it; 9 grants
another one, which expires with 23; a third one, granted by 11, is used up with 21.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from koinon import canonical, envelope, merkle, receipt
from koinon import genesis as genesis_file
from koinon.json_form import render
from koinon.v1.audit_pb2 import (
    RECEIPT_KIND_RECORD,
    RECEIPT_KIND_TOKEN,
    RECEIPT_KIND_TRANSACTION,
    AuditRecord,
    Receipt,
    RecordProof,
    TransactionProof,
)
from koinon.v1.catalog_pb2 import WithdrawDataset
from koinon.v1.consensus_pb2 import Header
from koinon.v1.transaction_pb2 import (
    TRANSACTION_STATUS_COMMITTED,
    TRANSACTION_STATUS_REJECTED,
    Envelope,
    Operation,
    Refusal,
    TransactionResult,
)
from tests.vectors import make_receipts as chain
from tests.vectors.make_receipts import CHAIN, GENESIS, SECOND, START_MS, sign, signing_key, validators_at

DIRECTORY = Path(__file__).with_name("receipt_kinds")

TOKENS = {
    8: ("token.granted", "a"),
    9: ("token.granted", "b"),
    11: ("token.granted", "c"),
    13: ("token.used", "a"),
    21: ("token.used_up", "c"),
    22: ("token.revoked", "a"),
    23: ("token.expired", "b"),
}
"""What the records at some indexes are about; the others are those of make_receipts."""


def record_at(index: int) -> bytes:
    record = chain.record_of(index)
    if index in TOKENS:
        kind, token = TOKENS[index]
        record.kind, record.subject = kind, f"token:{token * 32}"
        record.related.extend(["dataset:um.ercp.indo_rct", "person:iu/analyst"])
        record.to_state = kind.partition(".")[2].replace("granted", "active")
    return record.SerializeToString(deterministic=True)


RECORDS = [record_at(index) for index in range(60)]


def envelope_of(number: int, chain_id: str = CHAIN) -> bytes:
    operation = Operation(withdraw_dataset=WithdrawDataset(name=f"um.ercp.t{number}"))
    nonce = number.to_bytes(16, "big")
    return envelope.sign(chain_id, [operation], signing_key("um/operator"), START_MS + 60_000, nonce)


BLOCKS: dict[int, list[bytes]] = {
    5: [envelope_of(50)],
    7: [envelope_of(70), envelope_of(71), envelope_of(72)],
    9: [envelope_of(90 + index) for index in range(5)],
}


def result_of(data: bytes) -> bytes:
    """Committed, but for one."""
    identifier = envelope.identify(data)
    if data == BLOCKS[7][1]:
        refusal = Refusal(rule="not-found", message="there is no dataset um.ercp.t71", hint="koinon catalog search")
        result = TransactionResult(transaction_id=identifier, status=TRANSACTION_STATUS_REJECTED, refusal=refusal)
    else:
        result = TransactionResult(
            transaction_id=identifier,
            status=TRANSACTION_STATUS_COMMITTED,
            created=[canonical.created_id(identifier, 0)],
        )
    return result.SerializeToString(deterministic=True)


def results_at(height: int) -> list[bytes]:
    return [result_of(data) for data in BLOCKS.get(height, [])]


@cache
def header_bytes(height: int) -> bytes:
    return header_at(height).SerializeToString(deterministic=True)


def header_at(height: int) -> Header:
    header = chain.header_at(height)
    header.previous_block_hash = canonical.block_hash(header_bytes(height - 1)) if height > 1 else canonical.ZERO_HASH
    header.transactions_root = merkle.root(BLOCKS.get(height, []))
    header.results_root = merkle.root(results_at(height - 1))
    header.audit_root = merkle.root(RECORDS[: header.audit_size])
    return header


def changes_before(height: int) -> list[int]:
    return [change for change in (9, 19) if change < height]


def proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    return merkle.inclusion_proof(index, len(leaves), merkle.subtrees(hashes))


def start(kind: int, height: int) -> Receipt:
    return Receipt(
        kind=kind,  # type: ignore[arg-type]
        head=sign(header_at(height), validators_at(height)),
        validator_changes=[sign(header_at(change), validators_at(change)) for change in changes_before(height)],
        genesis_hash=genesis_file.genesis_hash(GENESIS).hex(),
    )


def of_record(index: int, height: int, kind: int = RECEIPT_KIND_RECORD) -> Receipt:
    made = start(kind, height)
    made.index, made.record, made.tree_size = index, RECORDS[index], header_at(height).audit_size
    made.path.extend(proof(RECORDS[: made.tree_size], index))
    return made


def of_token(granted: int, end: int | None, height: int) -> Receipt:
    made = of_record(granted, height, RECEIPT_KIND_TOKEN)
    if end is not None:
        path = proof(RECORDS[: made.tree_size], end)
        made.end.CopyFrom(RecordProof(record=RECORDS[end], index=end, path=path))
    return made


def of_transaction(height: int, index: int) -> Receipt:
    made = start(RECEIPT_KIND_TRANSACTION, height + 1)
    results = results_at(height)
    made.transaction.CopyFrom(
        TransactionProof(
            envelope=BLOCKS[height][index],
            header=header_bytes(height),
            index=index,
            size=len(results),
            path=proof(BLOCKS[height], index),
            result=results[index],
            result_path=proof(results, index),
        )
    )
    return made


def good() -> Iterator[tuple[str, Receipt]]:
    yield "record", of_record(9, 9)
    yield "record-after-two-changes", of_record(31, 25)
    yield "token-active", of_token(8, None, 6)
    yield "token-end-not-shown", of_token(8, None, 25)
    yield "token-revoked", of_token(8, 22, 15)
    yield "token-expired", of_token(9, 23, 25)
    yield "token-used-up", of_token(11, 21, 25)
    yield "transaction-alone-in-its-block", of_transaction(5, 0)
    yield "transaction-rejected", of_transaction(7, 1)
    yield "transaction-first", of_transaction(9, 0)
    yield "transaction-in-the-middle", of_transaction(9, 2)
    yield "transaction-last-of-an-uneven-tree", of_transaction(9, 4)


# --- each of these spoils an honest receipt for the revoked token, proved by block 15


def kindless_with_end(spoilt: Receipt) -> None:
    spoilt.ClearField("kind")


def record_with_end(spoilt: Receipt) -> None:
    spoilt.kind = RECEIPT_KIND_RECORD


def token_with_transaction(spoilt: Receipt) -> None:
    spoilt.transaction.CopyFrom(of_transaction(5, 0).transaction)


def token_called_transaction(spoilt: Receipt) -> None:
    spoilt.kind = RECEIPT_KIND_TRANSACTION


def token_too_few_signatures(spoilt: Receipt) -> None:
    spoilt.head.CopyFrom(sign(header_at(15), SECOND, ["iu", "um"]))


def token_tree_size_changed(spoilt: Receipt) -> None:
    spoilt.tree_size += 1


def grant_changed(spoilt: Receipt) -> None:
    spoilt.record = spoilt.record.replace(b"iu/analyst", b"um/analyst")


def grant_of_nothing(spoilt: Receipt) -> None:
    """A record of something else."""
    spoilt.CopyFrom(of_token(10, 22, 15))


def grant_is_the_revocation(spoilt: Receipt) -> None:
    spoilt.CopyFrom(of_token(22, 8, 15))


def end_changed(spoilt: Receipt) -> None:
    spoilt.end.record = spoilt.end.record.replace(b"um/operator", b"iu/operator")


def end_at_another_index(spoilt: Receipt) -> None:
    spoilt.end.index = 23


def end_beyond_the_log(spoilt: Receipt) -> None:
    spoilt.end.index = spoilt.tree_size


def end_path_too_short(spoilt: Receipt) -> None:
    del spoilt.end.path[-1]


def end_empty(spoilt: Receipt) -> None:
    spoilt.end.Clear()
    spoilt.end.SetInParent()


def end_of_another_token(spoilt: Receipt) -> None:
    spoilt.CopyFrom(of_token(8, 23, 15))


def end_that_is_a_use(spoilt: Receipt) -> None:
    spoilt.CopyFrom(of_token(8, 13, 15))


def end_that_is_the_grant(spoilt: Receipt) -> None:
    spoilt.CopyFrom(of_token(8, 8, 15))


def end_not_in_the_log_yet(spoilt: Receipt) -> None:
    """A head from before the revocation."""
    end = RecordProof()
    end.CopyFrom(spoilt.end)
    spoilt.CopyFrom(of_token(8, None, 9))
    spoilt.end.CopyFrom(end)


def end_before_the_grant(spoilt: Receipt) -> None:
    """A quorum signed a log in which a token is revoked first: what only a broken ledger would do."""
    header = header_at(15)
    records = RECORDS[: header.audit_size]
    for index, other in ((8, 22), (22, 8)):
        record = AuditRecord.FromString(RECORDS[other])
        record.index = index
        records[index] = record.SerializeToString(deterministic=True)
    header.audit_root = merkle.root(records)
    spoilt.head.CopyFrom(sign(header, SECOND))
    spoilt.record, spoilt.index = records[22], 22
    spoilt.end.record, spoilt.end.index = records[8], 8
    del spoilt.path[:], spoilt.end.path[:]
    spoilt.path.extend(proof(records, 22))
    spoilt.end.path.extend(proof(records, 8))


# --- each of these spoils an honest receipt for transaction 2 of the five of block 9, proved by block 10


def transaction_with_record(spoilt: Receipt) -> None:
    spoilt.record = RECORDS[8]


def transaction_with_tree_size(spoilt: Receipt) -> None:
    spoilt.tree_size = 1


def transaction_called_record(spoilt: Receipt) -> None:
    spoilt.kind = RECEIPT_KIND_RECORD


def transaction_of_nothing(spoilt: Receipt) -> None:
    spoilt.ClearField("transaction")


def transaction_head_forged(spoilt: Receipt) -> None:
    header = header_at(10)
    header.results_root = merkle.EMPTY_ROOT
    spoilt.head.header = header.SerializeToString(deterministic=True)


def block_of_another_height(spoilt: Receipt) -> None:
    spoilt.transaction.header = header_bytes(8)


def block_changed(spoilt: Receipt) -> None:
    header = header_at(9)
    header.transactions_root = merkle.root([BLOCKS[9][2]])
    spoilt.transaction.header = header.SerializeToString(deterministic=True)


def head_too_late(spoilt: Receipt) -> None:
    """A good header, but not the one after the transaction's."""
    spoilt.head.CopyFrom(sign(header_at(11), SECOND))


def envelope_changed(spoilt: Receipt) -> None:
    spoilt.transaction.envelope = envelope_of(192)


def envelope_of_another_place(spoilt: Receipt) -> None:
    spoilt.transaction.envelope = BLOCKS[9][3]


def transaction_index_changed(spoilt: Receipt) -> None:
    spoilt.transaction.index = 3


def transaction_beyond_the_block(spoilt: Receipt) -> None:
    spoilt.transaction.index = 5


def size_beyond_the_limit(spoilt: Receipt) -> None:
    spoilt.transaction.size = 2**40


def transaction_path_too_short(spoilt: Receipt) -> None:
    del spoilt.transaction.path[-1]


def transaction_path_too_long(spoilt: Receipt) -> None:
    spoilt.transaction.path.append(bytes(32))


def node_as_envelope(spoilt: Receipt) -> None:
    """An inner node passed off as a transaction (RFC 6962 hashes them apart)."""
    proved = spoilt.transaction
    proved.envelope = merkle.leaf_hash(BLOCKS[9][2]) + merkle.leaf_hash(BLOCKS[9][3])
    proved.index, proved.size = 1, 3
    del proved.path[0]


def result_changed(spoilt: Receipt) -> None:
    """Rejected, it says now."""
    result = TransactionResult.FromString(spoilt.transaction.result)
    result.status = TRANSACTION_STATUS_REJECTED
    spoilt.transaction.result = result.SerializeToString(deterministic=True)


def result_of_another_place(spoilt: Receipt) -> None:
    other = of_transaction(9, 3).transaction
    spoilt.transaction.result = other.result
    del spoilt.transaction.result_path[:]
    spoilt.transaction.result_path.extend(other.result_path)


def result_path_empty(spoilt: Receipt) -> None:
    del spoilt.transaction.result_path[:]


def result_names_another_transaction(spoilt: Receipt) -> None:
    """A quorum signed results in another order: what only a broken ledger would do."""
    results = results_at(9)
    results[2], results[3] = results[3], results[2]
    put_block(spoilt, BLOCKS[9], results)


def result_is_noise(spoilt: Receipt) -> None:
    results = results_at(9)
    results[2] = b"\xff" * 20
    put_block(spoilt, BLOCKS[9], results)


def envelope_not_signed(spoilt: Receipt) -> None:
    """In a decided block, with a result, and yet signed by nobody."""
    forged = Envelope.FromString(BLOCKS[9][2])
    forged.signature = signing_key("mallory").sign(b"anything")
    envelopes = list(BLOCKS[9])
    envelopes[2] = forged.SerializeToString(deterministic=True)
    put_block(spoilt, envelopes, results_at(9))


def envelope_for_another_chain(spoilt: Receipt) -> None:
    envelopes = list(BLOCKS[9])
    envelopes[2] = envelope_of(92, "other-0000000000000000")
    put_block(spoilt, envelopes, [result_of(data) for data in envelopes])


def put_block(spoilt: Receipt, envelopes: list[bytes], results: list[bytes]) -> None:
    """Let quorums sign a block 9 of these envelopes and a block 10 with these results."""
    block, head = header_at(9), header_at(10)
    block.transactions_root = merkle.root(envelopes)
    data = block.SerializeToString(deterministic=True)
    head.previous_block_hash = canonical.block_hash(data)
    head.results_root = merkle.root(results)
    proved = spoilt.transaction
    proved.envelope, proved.header, proved.result = envelopes[2], data, results[2]
    del proved.path[:], proved.result_path[:]
    proved.path.extend(proof(envelopes, 2))
    proved.result_path.extend(proof(results, 2))
    spoilt.validator_changes[0].CopyFrom(sign(block, validators_at(9)))
    spoilt.head.CopyFrom(sign(head, SECOND))


BAD_TOKENS: list[tuple[int, Callable[[Receipt], None]]] = [
    (1, kindless_with_end),
    (1, record_with_end),
    (1, token_with_transaction),
    (1, token_called_transaction),
    (3, token_too_few_signatures),
    (4, token_tree_size_changed),
    (5, grant_changed),
    (6, grant_of_nothing),
    (6, grant_is_the_revocation),
    (7, end_changed),
    (7, end_at_another_index),
    (7, end_beyond_the_log),
    (7, end_path_too_short),
    (7, end_empty),
    (7, end_of_another_token),
    (7, end_that_is_a_use),
    (7, end_that_is_the_grant),
    (7, end_not_in_the_log_yet),
    (7, end_before_the_grant),
]
BAD_TRANSACTIONS: list[tuple[int, Callable[[Receipt], None]]] = [
    (1, transaction_with_record),
    (1, transaction_with_tree_size),
    (1, transaction_called_record),
    (3, transaction_head_forged),
    (4, transaction_of_nothing),
    (4, block_of_another_height),
    (4, block_changed),
    (4, head_too_late),
    (5, envelope_changed),
    (5, envelope_of_another_place),
    (5, transaction_index_changed),
    (5, transaction_beyond_the_block),
    (5, size_beyond_the_limit),
    (5, transaction_path_too_short),
    (5, transaction_path_too_long),
    (5, node_as_envelope),
    (6, result_changed),
    (6, result_of_another_place),
    (6, result_path_empty),
    (6, result_is_noise),
    (7, result_names_another_transaction),
    (7, envelope_not_signed),
    (7, envelope_for_another_chain),
]


def malformed() -> Iterator[tuple[str, str]]:
    table = json.loads(receipt.render(of_token(8, 22, 15)))
    yield "kind-unknown", json.dumps(table | {"kind": "promise"}, indent=1)
    yield "kind-as-number", json.dumps(table | {"kind": 3}, indent=1)
    yield "kind-unspecified", json.dumps(table | {"kind": "unspecified"}, indent=1)
    yield "end-as-list", json.dumps(table | {"end": [table["end"]]}, indent=1)


def cases() -> Iterator[tuple[str, str, str]]:
    """All files but the genesis: name, what verifying must say, text."""
    for name, made in good():
        yield f"good-{name}.json", "holds", receipt.render(made)
    for bad, honest in ((BAD_TOKENS, of_token(8, 22, 15)), (BAD_TRANSACTIONS, of_transaction(9, 2))):
        for step, spoil in bad:
            spoilt = Receipt()
            spoilt.CopyFrom(honest)
            spoil(spoilt)
            yield f"bad-{spoil.__name__.replace('_', '-')}.json", f"step {step}", receipt.render(spoilt)
    for name, text in malformed():
        yield f"malformed-{name}.json", "malformed", text


def files() -> dict[str, str]:
    """Every file's text by name; ``expected.json`` says what verifying each must say."""
    made = list(cases())
    return {
        "genesis.json": render(GENESIS, genesis_file.FORMAT),
        "expected.json": json.dumps({name: outcome for name, outcome, _ in made}, indent=1) + "\n",
        **{name: text for name, _, text in made},
    }


def digest() -> str:
    """Of the files as they are: names and contents."""
    total = hashlib.sha256()
    for file in sorted(DIRECTORY.iterdir()):
        total.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for file in DIRECTORY.iterdir():
        file.unlink()
    for name, text in files().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")
