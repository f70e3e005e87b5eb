"""The exact bytes that are hashed and signed.

Everything that a signature or a digest covers is built here and nowhere else, so that the wire
format can be frozen by a digest test (``tests/koinon/test_canonical.py``) and re-implemented from
one page. Three rules make every encoding injective:

1. it starts with a domain tag of its own, so that bytes signed for one purpose mean nothing for another;
2. integers are fixed-width big-endian, byte strings are prefixed with their length (32 bits);
3. received messages are hashed and verified as the bytes that came, never re-serialised.

All functions are pure, total on their stated ranges, and trust nothing: callers check bounds first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

HASH_BYTES = 32
ZERO_HASH = bytes(HASH_BYTES)
ID_BYTES = 16  # of ids shown to people: requests, tokens, tasks


@cache
def _tag(purpose: str) -> bytes:
    return b"koinon/v1/" + purpose.encode("ascii") + b"\0"


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _i32(value: int) -> bytes:
    return value.to_bytes(4, "big", signed=True)


def _i64(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def _field(data: bytes | str) -> bytes:
    raw = data.encode("utf-8") if isinstance(data, str) else data
    return len(raw).to_bytes(4, "big") + raw


def _digest(purpose: str, *fields: bytes) -> bytes:
    return hashlib.sha256(_tag(purpose) + b"".join(fields)).digest()


# --- chain ---------------------------------------------------------------------------------------


def genesis_hash(genesis: bytes) -> bytes:
    """Digest of a serialised Genesis."""
    return _digest("genesis", _field(genesis))


def chain_id(chain_name: str, genesis: bytes) -> str:
    """Name of the chain that starts from these genesis bytes: ``<chain_name>-<16 hex digits>``."""
    return f"{chain_name}-{genesis_hash(genesis)[:8].hex()}"


# --- transactions --------------------------------------------------------------------------------


def transaction_bytes(chain: str, body: bytes) -> bytes:
    """What the sender of a transaction signs."""
    return _tag("transaction") + _field(chain) + body


def transaction_id(public_key: bytes, body: bytes) -> bytes:
    """Names a transaction by key and body, not by signature: a second valid signature is no second transaction."""
    return _digest("transaction-id", _field(public_key), body)


def created_id(transaction: bytes, operation_index: int) -> str:
    """Id (32 hex digits) of what the operation at this index of the transaction creates."""
    return _digest("created-id", _field(transaction), _u32(operation_index))[:ID_BYTES].hex()


# --- consensus -----------------------------------------------------------------------------------


def block_hash(header: bytes) -> bytes:
    """Hash of a block: of its serialised Header, which commits to everything else."""
    return _digest("header", header)


def vote_bytes(chain: str, vote_type: int, height: int, round_: int, block: bytes, time_ms: int) -> bytes:
    """What a validator signs for a vote; ``block`` is empty for nil."""
    return (
        _tag("vote") + _field(chain) + bytes([vote_type]) + _u64(height) + _u32(round_) + _field(block) + _i64(time_ms)
    )


def proposal_bytes(chain: str, height: int, round_: int, valid_round: int, block: bytes) -> bytes:
    """What a proposer signs; ``block`` is the block hash, ``valid_round`` is -1 or a round before this one."""
    return _tag("proposal") + _field(chain) + _u64(height) + _u32(round_) + _i32(valid_round) + _field(block)


def commit_hash(height: int, round_: int, block: bytes, signatures: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Digest of a commit certificate; signatures are (institution, time_ms, signature), ascending."""
    parts = [_field(name) + _i64(time_ms) + _field(signature) for name, time_ms, signature in signatures]
    return _digest("commit", _u64(height), _u32(round_), _field(block), *parts)


def validators_hash(validators: Iterable[tuple[str, bytes, int]]) -> bytes:
    """Digest of a validator set; members are (institution, public key, power), ascending."""
    parts = [_field(name) + _field(key) + _u64(power) for name, key, power in validators]
    return _digest("validators", *parts)


# --- governance --------------------------------------------------------------------------------


def proposal_id(chain: str, proposer: str, time_ms: int, content: bytes) -> str:
    """Id (32 hex digits) of a proposal: chain, proposing person, block time, and its serialised Propose."""
    fields = (_field(chain), _field(proposer), _i64(time_ms), _field(content))
    return _digest("proposal-id", *fields)[:ID_BYTES].hex()


def constitution_digest(constitution: bytes) -> bytes:
    """Names a serialised Constitution, so that a proposal can say under which it was written."""
    return _digest("constitution", _field(constitution))


# --- joint computation ---------------------------------------------------------------------------


def content_commitment(salt: bytes, content_digest: bytes) -> bytes:
    """Hiding commitment to a dataset's content; ``salt`` is 32 random bytes that never leave the owner."""
    return _digest("content", _field(salt), _field(content_digest))


def plan_hash(plan: bytes) -> bytes:
    """Digest of a plan: of the deterministic serialisation that every party compiles for itself."""
    return _digest("plan", plan)


def output_digest(task_id: str, party: int, sealed: bytes) -> bytes:
    """What a party reports on the ledger, and signs, about the sealed output it holds for the asker."""
    return _digest("output", _field(task_id), _u32(party), _field(sealed))


# --- state --------------------------------------------------------------------------------------


def state_entry(key: bytes, value: bytes) -> bytes:
    """What is expanded to the lanes of the state commitment for one key and its value (node.ledger.lthash)."""
    return _tag("state-entry") + _field(key) + _field(value)


def state_commitment(lanes: bytes) -> bytes:
    """Digest of the lanes: what a header says about the state."""
    return _digest("state", _field(lanes))


def snapshot_chunk(chunk: bytes) -> bytes:
    """Digest of a serialised StateChunk: what the manifest of a snapshot lists."""
    return _digest("snapshot-chunk", chunk)


# --- access to a node ----------------------------------------------------------------------------


def ticket_bytes(chain: str, node_certificate_sha256: bytes, expires_at_ms: int) -> bytes:
    """What a caller signs to be let in: good for one node of one chain, for a short while."""
    return _tag("ticket") + _field(chain) + _field(node_certificate_sha256) + _i64(expires_at_ms)


def dataset_uid(descriptor: bytes, transaction: bytes) -> str:
    """Network-wide id of a dataset: of its first descriptor and the transaction that published it."""
    return _digest("dataset", _field(transaction), _field(descriptor))[:ID_BYTES].hex()
