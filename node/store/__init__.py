"""Where a node keeps what it must not lose: a key-value store, a write-ahead log, and their in-memory twins."""
