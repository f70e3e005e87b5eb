"""PURE ledger: blocks, the state and its commitment, the audit log."""
