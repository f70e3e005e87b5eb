"""Opening the ledger of a home.

LevelDB takes a directory without the file CURRENT for a new store, and deletes every table that it finds there. A
ledger that lost that file would be gone once anybody looked at it.
"""

from __future__ import annotations

from pathlib import Path

from koinon.errors import Corrupt
from node.store.leveldb import LevelStore


def open_ledger(path: Path) -> LevelStore:
    """The store in a directory; an empty one is begun. Raises Corrupt, and what LevelStore raises."""
    if not (path / "CURRENT").exists() and holds_data(path):
        raise Corrupt(
            f"the ledger store {path} is damaged: its file CURRENT is missing",
            hint="stop the node, then: koinon node repair --home HOME. The node fetches the ledger from its peers",
        )
    return LevelStore(path)


def holds_data(path: Path) -> bool:
    """Is there anything of a store in the directory? A store whose making was interrupted has none yet."""
    return any(path.glob("*.ldb")) or any(path.glob("*.log"))
