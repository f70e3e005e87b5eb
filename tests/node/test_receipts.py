"""Receipts that a node makes hold for those who trust the genesis alone, across changes of validators."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from koinon import envelope, light_client, receipt
from koinon import genesis as genesis_file
from koinon.errors import Unavailable
from koinon.light_client import TrustedHeader
from koinon.receipt import VerifiedRecord, VerifiedToken, VerifiedTransaction
from koinon.v1 import services_pb2
from koinon.v1.access_pb2 import RevokeToken
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.identity_pb2 import ROLE_OPERATOR
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_REJECTED
from node import auth
from node.auth import Caller
from node.changes import Changes
from node.read_model import ReadModel
from node.receipts import Receipts
from node.rpc.audit import AuditService
from node.rpc.trail import Trail
from node.store.kv import height_key
from node.store.memory import MemoryStore
from node.store.validator_history import ValidatorHistory
from tests.node.recorded_ledger import RecordedLedger


@pytest.fixture
def ledger() -> RecordedLedger:
    return RecordedLedger(MemoryStore())


def receipts(ledger: RecordedLedger) -> Receipts:
    return Receipts(ledger.app, ledger.blocks, ledger.validators, ledger.genesis)


def change_validators(ledger: RecordedLedger, *out: str) -> None:
    """These leave; two blocks later the others decide alone."""
    everyone = genesis_file.validators(ledger.genesis).to_proto()
    ledger.validators_to_come = tuple(item for item in everyone if item.institution not in out)
    for _ in range(2):
        ledger.decide()


def indices(ledger: RecordedLedger, token: str) -> list[int]:
    kinds = ("token.granted", "token.revoked")
    return [item.index for item in ledger.records() if item.subject == f"token:{token}" and item.kind in kinds]


def heights(way: Sequence[SignedHeader]) -> list[int]:
    return [signed.commit.height for signed in way]


def test_the_way_to_a_header_skips_ends_of_sets_where_a_third_vouches(ledger: RecordedLedger) -> None:
    for out in (("uk",), ("um",), ("uk",), (), ("iu", "uk", "um"), ("case", "iu", "uk"), ("iu", "uk", "um"), ()):
        change_validators(ledger, *out)
    ledger.decide()
    made, newest = receipts(ledger), ledger.chain.height
    assert ledger.validators.last_heights(newest) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert heights(made.way(2)) == []
    assert heights(made.way(3)) == [2]
    assert heights(made.way(10)) == [8]
    assert heights(made.way(newest)) == [10, 12, 16]  # at 10 all four stop, case alone decides 11 and 12, um 13 and 14
    for height in range(1, newest + 1):
        way = receipts(ledger).way(height)
        assert heights(made.way(height)) == heights(way), "whatever was asked before"
        led = light_client.lead(light_client.root(ledger.genesis), way)
        assert light_client.advance(led, made.signed_header(height), skip=False).height == height
    client = light_client.LightClient(ledger.genesis)
    client.learn([*made.way(newest), made.signed_header(newest)])
    assert len(client) == 4


def test_whoever_changes_keys_all_the_time_makes_no_way_longer(ledger: RecordedLedger) -> None:
    """One member of four: the others vouch from the genesis on."""
    for number in range(40):
        change_validators(ledger, *(["case"] if number % 2 else []))
    ledger.decide()
    assert len(ledger.validators.last_heights(10**6)) == 39
    assert len(receipts(ledger).record(3).validator_changes) == 1


def test_a_record_a_token_and_a_transaction_are_proved(ledger: RecordedLedger) -> None:
    token, rejected = ledger.tell()
    made = receipts(ledger)
    for found in ledger.records()[:5]:
        proved = receipt.verify(made.record(found.index), ledger.genesis)
        assert isinstance(proved, VerifiedRecord)
        assert proved.record == found
    transaction = receipt.verify(made.transaction(rejected), ledger.genesis)
    assert isinstance(transaction, VerifiedTransaction)
    assert transaction.result.status == TRANSACTION_STATUS_REJECTED
    assert (transaction.height, transaction.proof.height) == (2, 3)
    (granted,) = indices(ledger, token)
    open_ = receipt.verify(made.token(granted, None), ledger.genesis)
    ledger.decide(ledger.envelope("iu/operator", RevokeToken(token_id=token, reason="over")))
    ledger.decide()
    revoked = receipt.verify(made.token(*indices(ledger, token)), ledger.genesis)
    assert isinstance(open_, VerifiedToken)
    assert isinstance(revoked, VerifiedToken)
    assert (open_.end, revoked.end and revoked.end.kind) == (None, "token.revoked")
    assert revoked.token_id == token


def test_every_transaction_of_a_block_is_proved(ledger: RecordedLedger) -> None:
    ledger.tell()
    made = receipts(ledger)
    for height in (1, 2, 3):
        for data in made._block(height).transactions:
            transaction = envelope.identify(data)
            proved = receipt.verify(made.transaction(transaction), ledger.genesis)
            assert isinstance(proved, VerifiedTransaction)
            assert (proved.transaction.id, proved.height) == (transaction, height)


def test_receipts_reach_over_changes_of_validators(ledger: RecordedLedger) -> None:
    _, transaction = ledger.tell()
    before = receipts(ledger).transaction(transaction)
    change_validators(ledger, "case")
    change_validators(ledger, "um")
    change_validators(ledger)
    ledger.decide()
    assert [len(ledger.validators.at(height)) for height in (1, 6, 7, 9, 10, 11)] == [4, 4, 3, 3, 3, 4]
    made = receipts(ledger).record(3)
    assert ledger.validators.last_heights(11) == [6, 8, 10]
    assert heights(made.validator_changes) == [10]
    proved = receipt.verify(made, ledger.genesis)
    assert proved.proof.validator_changes == 1
    assert receipts(ledger).transaction(transaction) == before


def test_a_light_client_follows_the_node(ledger: RecordedLedger) -> None:
    ledger.tell()
    change_validators(ledger, "case", "um")
    for _ in range(5):
        ledger.decide()
    made = receipts(ledger)
    asked: list[int] = []
    found = run(light_client.LightClient(ledger.genesis).verify(ledger.chain.height), made, asked)
    assert found.block_hash == ledger.chain.block_hash
    assert len(asked) <= 4


def run(driver: Generator[int, SignedHeader, TrustedHeader], made: Receipts, asked: list[int]) -> TrustedHeader:
    try:
        asked.append(next(driver))
        while True:
            asked.append(driver.send(made.signed_header(asked[-1])))
    except StopIteration as end:
        found: TrustedHeader = end.value
        return found


def test_the_history_of_validators_survives_a_crash_between_block_and_entry(ledger: RecordedLedger) -> None:
    ledger.tell()
    change_validators(ledger, "case")
    (start,) = (height + 1 for height in ledger.validators.last_heights(100))
    ledger.store.write([(height_key(b"v/", start), None)], sync=True)
    again = ValidatorHistory(ledger.store, genesis_file.validators(ledger.genesis))
    assert again.last_heights(100) == []
    again.adopt(ledger.chain)
    assert again.last_heights(100) == [start - 1]
    assert len(again.at(start)) == 3


def test_a_node_hands_out_nothing_that_does_not_hold(ledger: RecordedLedger) -> None:
    _, transaction = ledger.tell()
    made = receipts(ledger)
    with pytest.raises(Unavailable, match="does not keep"):
        made.record(10_000)
    with pytest.raises(Unavailable, match="does not keep"):
        made.transaction(bytes(32))
    newest = ledger.records()[-1]
    key, value = next(ledger.store.scan(b"l/r" + newest.index.to_bytes(8, "big")))
    ledger.store.write([(key, value[:-1] + b"\xff")], sync=True)
    with pytest.raises(Unavailable, match="step 5"):
        made.record(newest.index)
    ledger.store.write([(height_key(b"b/", 3), None)], sync=True)
    with pytest.raises(Unavailable, match="block 3"):
        made.transaction(transaction)


async def test_a_token_of_a_block_that_is_shown_to_nobody_yet_is_asked_for_again(
    ledger: RecordedLedger, tmp_path: Path
) -> None:
    with closing(ReadModel(tmp_path / "read.sqlite", ledger.app)) as model:
        token, _ = ledger.tell()
        ledger.decide()
        service = AuditService(ledger.app, model, Trail(ledger.app, model), receipts(ledger), Changes())
        auth._caller.set(Caller("um/operator", frozenset({ROLE_OPERATOR})))
        wanted = services_pb2.GetReceiptRequest(token_id=token)
        with pytest.raises(Unavailable, match="not indexed yet"):
            await service.GetReceipt(wanted, cast("Any", None))
        model.follow()
        made = (await service.GetReceipt(wanted, cast("Any", None))).receipt
        assert isinstance(receipt.verify(made, ledger.genesis), VerifiedToken)
