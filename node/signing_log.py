"""Is the write-ahead log as new as the ledger beside it?

A torn end is no damage (node.store.wal), and a log that was cut further back looks the same; so does an older copy.
Both have forgotten what this validator signed since. A validator begins every height that it helps to decide in its
log before its block is stored: where the log ends below the ledger, either the last blocks were fetched from others,
or it is not the log that belongs here. Only people can tell, so they are told.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.ledger.blocks import ChainState

_HEIGHT = b"H"  # kind of record that a height begins with (node.journal)


def ends_below(records: Iterable[bytes], chain: ChainState, institution: str) -> int | None:
    """The last height in the log of a validator whose ledger is further; None where nothing is to be said."""
    if chain.last_validators is None or institution not in chain.last_validators:
        return None
    last = max((int.from_bytes(record[1:], "big") for record in records if record[:1] == _HEIGHT), default=0)
    return last if last < chain.height else None
