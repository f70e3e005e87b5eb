"""Signatures of fetched blocks are verified ahead of execution; a flooder gets no more than its share of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from koinon.v1.consensus_pb2 import Block
from koinon.v1.peer_pb2 import BlockResponse, DeliverRequest
from node.fetched import FetchedBlocks, transactions_of
from node.store.memory import MemoryStore
from node.verified import VerifiedTransactions
from tests.node.recorded_ledger import RecordedLedger


def recorded() -> tuple[RecordedLedger, BlockResponse]:
    ledger = RecordedLedger(MemoryStore())
    ledger.tell()
    response = BlockResponse()
    for height in range(1, ledger.chain.height + 1):
        response.blocks.add(block=ledger.blocks.block(height), commit=ledger.blocks.commit(height))
    return ledger, response


def background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=name)


async def finished(blocks: FetchedBlocks) -> None:
    work = blocks._work
    assert work is not None
    await work


def test_blocks_in_form_have_transactions_and_others_none() -> None:
    _, response = recorded()
    sound = transactions_of(response)
    assert len(sound) == 5
    response.blocks.add(block=b"\xff\xff")
    assert transactions_of(response) == sound


def test_what_is_too_short_for_a_transaction_costs_no_verification() -> None:
    response = BlockResponse()
    response.blocks.add(block=Block(transactions=[b""] * 100_000).SerializeToString())
    assert transactions_of(response) == []


async def test_answers_are_handed_on_after_their_transactions_are_verified() -> None:
    ledger, response = recorded()
    known = VerifiedTransactions(ledger.app.chain_id)
    handed: list[tuple[str, int]] = []

    def hand_on(peer: str, message: DeliverRequest) -> None:
        assert all(known.get(envelope) for envelope in transactions_of(response))
        handed.append((peer, len(message.block_response.blocks)))

    blocks = FetchedBlocks(known, hand_on, background)
    blocks.put("um", DeliverRequest(block_response=response))
    await finished(blocks)
    assert handed == [("um", len(response.blocks))]


async def test_the_same_answer_again_and_again_is_dropped() -> None:
    ledger, response = recorded()
    handed: list[str] = []
    blocks = FetchedBlocks(ledger.app.verified, lambda peer, _: handed.append(peer), background)
    for _ in range(100):
        blocks.put("um", DeliverRequest(block_response=response))
    await finished(blocks)
    assert handed == ["um"]


async def test_what_is_executed_next_is_verified_first() -> None:
    ledger, response = recorded()
    handed: list[int] = []
    blocks = FetchedBlocks(
        ledger.app.verified,
        lambda _, message: handed.append(message.block_response.blocks[0].commit.height),
        background,
    )
    for index in (3, 2, 1, 0):
        blocks.put("um", DeliverRequest(block_response=BlockResponse(blocks=response.blocks[index : index + 1])))
    await finished(blocks)
    assert handed == [1, 2, 3, 4]
