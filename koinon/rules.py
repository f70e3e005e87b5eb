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
    "oversized-block": "a block has at most limits.MAX_BLOCK_TRANSACTIONS and MAX_BLOCK_OPERATIONS",
    "pool-full": "the node's pool, or the sender's part of it, is full",
    # --- everywhere
    "permission": "the sender's role or institution does not allow the operation",
    "not-found": "what the operation names does not exist",
    "invalid-name": "a name is not well formed",
    "invalid-input": "a field is out of its bounds",
    "already-exists": "what the operation would create exists",
    "wrong-state": "the operation is not allowed in the subject's present state",
    # --- contracts
    "parameters": "a parameter of the consortium is out of its bounds",
    "last-operator": "an institution keeps at least one operator",
    "too-many": "a bound on open requests, active tokens or open tasks is reached",
    "policy": "the dataset's policy, or a parameter of the consortium, does not allow as much",
    "dataset-withdrawn": "the dataset was withdrawn by its publisher",
    "dataset-version": "the dataset has a newer version than the one named",
    "token-holder": "the token is bound to someone else",
    "token-dataset": "the token is for another dataset",
    "token-columns": "the token does not cover the columns",
    "token-operations": "the token does not cover the operations",
    "token-used-up": "every use of the token is spent, or reserved by open tasks",
    "token-expired": "the token's time is over",
    "token-revoked": "the token was revoked by the publisher or given up by its holder",
    "committee": "a committee is ascending, within the consortium's sizes, holds every owner and an honest majority",
    "plan-mismatch": "a party's own compilation of the plan differs from the one submitted",
    "task-cancelled": "the asker, or an operator of its institution, cancelled the task",
    "accept-deadline": "not every party accepted the task in time",
    "run-deadline": "not every party reported in time",
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
    # --- consensus
    "validator-set": "validators are 1 to limits.MAX_VALIDATORS, ascending, with distinct keys and bounded power",
    "commit-certificate": "a block counts as decided with valid precommits of more than two thirds of the power",
    "malformed-block": "the bytes are not a block within the limits",
    "invalid-block": "a block's header must equal what every validator computes from its own state",
    "invalid-evidence": "evidence is two signatures of one validator on messages that exclude each other",
    "signing-state": "a validator that lost its signing state does not vote until a safe height",
    # --- clients and calls
    "internal": "something that should not happen did; a bug in Koinon",
    "refused": "a rule of the consortium says no",
    "unauthenticated": "the call carries no valid ticket of a registered key",
    "unavailable": "the node, or a member it needs, is out of reach or still catching up",
    "node-down": "nothing answers at the node's address",
    "deadline": "nothing was decided in time; nothing is lost",
    "status-unknown": "a transaction was sent, and whether it commits is not known yet",
    "exhausted": "a bound on size or number is reached",
    "unknown-profile": "there is no such profile, or none was given",
    "wrong-certificate": "the node does not hold the certificate pinned in the profile",
    "ambiguous-id": "the beginning of an id fits more than one",
    "missing-extra": "a part of Koinon is needed that is not installed",
    "wrong-answer": "the node's answer contradicts the request, the plan or the ledger",
    "task-failed": "a task ended without a result",
    # --- keys and tickets
    "bad-ticket": "the ticket is not signed by its key for this node and chain",
    "ticket-expired": "the ticket's time has passed",
    "ticket-too-long": "a ticket may be good for at most limits.MAX_TICKET_MS",
    "wrong-key": "the key is not the one needed",
}
