"""Signatures of fetched blocks are verified ahead of execution; a flooder gets no more than its share of memory."""

from __future__ import annotations

from koinon.envelope import SignedTransaction
from koinon.v1.peer_pb2 import BlockResponse, DeliverRequest
from node.fetched import FetchedBlocks, verified
from node.store.memory import MemoryStore
from tests.node.recorded_ledger import RecordedLedger


def recorded() -> tuple[RecordedLedger, BlockResponse]:
    ledger = RecordedLedger(MemoryStore())
    ledger.tell()
    response = BlockResponse()
    for height in range(1, ledger.chain.height + 1):
        response.blocks.add(block=ledger.blocks.block(height), commit=ledger.blocks.commit(height))
    return ledger, response


async def finished(blocks: FetchedBlocks) -> None:
    work = blocks._work
    assert work is not None
    await work


def test_valid_transactions_are_found_and_nothing_else() -> None:
    ledger, response = recorded()
    sound = verified(ledger.app.chain_id, response)
    assert len(sound) == 5
    response.blocks.add(block=b"\xff\xff")
    assert verified(ledger.app.chain_id, response) == sound
    assert verified("another-chain", response) == []


async def test_answers_are_handed_on_after_their_transactions_are_remembered() -> None:
    ledger, response = recorded()
    remembered: list[bytes] = []
    handed: list[tuple[str, int]] = []

    def remember(envelope: bytes, transaction: SignedTransaction) -> None:
        assert not handed
        remembered.append(envelope)

    def hand_on(peer: str, message: DeliverRequest) -> None:
        handed.append((peer, len(message.block_response.blocks)))

    blocks = FetchedBlocks(ledger.app.chain_id, remember, hand_on)
    blocks.put("um", DeliverRequest(block_response=response))
    await finished(blocks)
    assert len(remembered) == 5
    assert handed == [("um", len(response.blocks))]


async def test_the_same_answer_again_and_again_is_dropped() -> None:
    ledger, response = recorded()
    handed: list[str] = []
    blocks = FetchedBlocks(ledger.app.chain_id, lambda *_: None, lambda peer, _: handed.append(peer))
    for _ in range(100):
        blocks.put("um", DeliverRequest(block_response=response))
    await finished(blocks)
    assert handed == ["um"]


async def test_what_is_executed_next_is_verified_first() -> None:
    ledger, response = recorded()
    handed: list[int] = []
    blocks = FetchedBlocks(
        ledger.app.chain_id,
        lambda *_: None,
        lambda _, message: handed.append(message.block_response.blocks[0].commit.height),
    )
    for index in (3, 2, 1, 0):
        blocks.put("um", DeliverRequest(block_response=BlockResponse(blocks=response.blocks[index : index + 1])))
    await finished(blocks)
    assert handed == [1, 2, 3, 4]
