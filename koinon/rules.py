"""The closed list of rules that can refuse something, and what each says.

Every refusal anywhere (contracts, planner, sessions, node, client) names one of these words, so that
a person can look it up (``docs/rules.md`` is made from this table) and a program can match on it.
"""

from __future__ import annotations

RULES: dict[str, str] = {
    # --- transactions (consensus)
    "malformed-transaction": "the bytes are not an envelope with a body of this version",
    "oversized-transaction": "an envelope may have at most limits.MAX_ENVELOPE_BYTES bytes and MAX_OPERATIONS operations",
    "wrong-chain": "the transaction was signed for another chain",
    "bad-signature": "the signature does not fit the key and the bytes",
    "unknown-key": "the key belongs to no registered person or node",
    "revoked-key": "the key was revoked; its old signatures stay accountable",
    "member-suspended": "the sender's institution is suspended",
    "transaction-expired": "block time has passed the transaction's expiry",
    "expiry-too-far": "a transaction may expire at most limits.MAX_EXPIRY_MS ahead of block time",
    "replayed-transaction": "a transaction with this id was included before",
    "pool-full": "the node's pool, or the sender's part of it, is full",
    # --- everywhere
    "permission": "the sender's role or institution does not allow the operation",
    "not-found": "what the operation names does not exist",
    "invalid-name": "a name is not well formed",
    "invalid-input": "a field is out of its bounds",
    "already-exists": "what the operation would create exists",
    "wrong-state": "the operation is not allowed in the subject's present state",
    # --- disks and files
    "disk-full": "the disk has no space left",
    "disk-read-only": "the disk, or the directory, cannot be written",
    "disk-error": "the disk, or the file system, reports an error",
    "store-locked": "another process uses the ledger store",
    "invalid-file": "a file is missing, not readable, or not what it should be",
    "invalid-key-file": "a key file is damaged, too open, or its passphrase is wrong",
    "invalid-genesis": "a genesis file is not well formed, or not the one meant",
    "invalid-receipt": "a receipt is not well formed, or proves nothing under this genesis",
    "corrupt": "stored or received bytes contradict the ledger",
}
