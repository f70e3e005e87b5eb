"""What the verifier says of a receipt file, in a word: shared by the tests of all vectors."""

from __future__ import annotations

from pathlib import Path

from koinon import receipt
from koinon.errors import Corrupt, InvalidFile
from koinon.rules import RULES
from koinon.v1.identity_pb2 import Genesis


def verdict(file: Path, genesis: Genesis) -> str:
    """``holds``, ``malformed``, or the step that failed."""
    try:
        receipt.verify(receipt.load(file), genesis)
    except (InvalidFile, Corrupt) as error:
        told = error
    else:
        return "holds"
    assert told.rule in RULES
    assert told.hint
    return "malformed" if isinstance(told, InvalidFile) else told.message.partition(":")[0]
