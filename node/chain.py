"""Where the chain stands: as its store says it, and as application and last block do beside it."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from koinon import canonical
from koinon.errors import Corrupt
from koinon.v1.consensus_pb2 import Header
from koinon.validators import ValidatorSet
from node.abci import AppInfo
from node.damage import damaged
from node.ledger.blocks import ChainState
from node.store.blocks import BlockStore
from node.store.kv import KeyValueStore

CHAIN_KEY = b"m/chain"
"""Where a store keeps the ChainState of its last block."""


def standing(store: KeyValueStore, chain_id: str, genesis_time_ms: int, info: AppInfo) -> ChainState:
    """After the last block, or at the genesis in a new store. Raises Corrupt if the three do not fit together."""
    kept = BlockStore(store)
    height, data, validators = kept.height(), store.get(CHAIN_KEY), ValidatorSet.of(info.validators)
    if data is None:
        chain = ChainState.genesis(chain_id, genesis_time_ms, validators, info.hashes)
    else:
        chain = ChainState.from_bytes(chain_id, data)
    if not chain.height == info.height == height:
        raise _contradiction(f"chain at {chain.height}, application at {info.height}, blocks up to {height}")
    if (chain.hashes, chain.next_validators) != (info.hashes, validators):
        raise _contradiction(f"chain and application differ in what block {height} left")
    if height and not _is_last(kept.header(height), chain):
        raise _contradiction(f"the block at height {height} is missing, or not the one that the chain goes on from")
    return chain


def _is_last(data: bytes | None, chain: ChainState) -> bool:
    """Is this the header of the block that the chain stands after?"""
    try:
        header = Header.FromString(data or b"")
    except DecodeError:
        return False
    return chain.last_validators is not None and (
        canonical.block_hash(data or b""),
        header.time_ms,
        header.validators_hash,
        header.next_validators_hash,
    ) == (chain.block_hash, chain.time_ms, chain.last_validators.hash(), chain.validators.hash())


def _contradiction(problem: str) -> Corrupt:
    return damaged(f"the ledger on disk contradicts itself: {problem}")
