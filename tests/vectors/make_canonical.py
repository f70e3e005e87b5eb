"""Makes canonical.json: what every function of koinon.canonical returns for fixed arguments.

Run it as ``python tests/vectors/make_canonical.py`` after a *deliberate* change of the wire format, and
change the digest in tests/koinon/test_canonical.py. Byte strings are written as ``{"hex": …}``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from koinon import canonical

FILE = Path(__file__).with_name("canonical.json")

HASH = bytes(range(32))
KEY = bytes(range(32, 64))
SIGNATURE = bytes(range(64))
CHAIN = "ercp-0011223344556677"

CALLS: list[tuple[str, list[Any]]] = [
    ("genesis_hash", [b""]),
    ("genesis_hash", [b"genesis"]),
    ("chain_id", ["ercp", b"genesis"]),
    ("transaction_bytes", [CHAIN, b"body"]),
    ("transaction_bytes", ["", b""]),
    ("transaction_id", [KEY, b"body"]),
    ("created_id", [HASH, 0]),
    ("created_id", [HASH, 63]),
    ("block_hash", [b"header"]),
    ("vote_bytes", [CHAIN, 1, 1, 0, b"", 0]),
    ("vote_bytes", [CHAIN, 2, 2**64 - 1, 2**32 - 1, HASH, 2**63 - 1]),
    ("vote_bytes", ["ünïcode", 2, 7, 3, HASH, -1]),
    ("proposal_bytes", [CHAIN, 7, 3, -1, HASH]),
    ("proposal_bytes", [CHAIN, 7, 3, 2, HASH]),
    ("commit_hash", [7, 0, HASH, []]),
    ("commit_hash", [7, 1, HASH, [["case", 1, SIGNATURE], ["um", 2, SIGNATURE]]]),
    ("validators_hash", [[["um", KEY, 1]]]),
    ("validators_hash", [[["case", HASH, 1], ["um", KEY, 10_000]]]),
    ("proposal_id", [CHAIN, "um/operator", 1_763_000_000_000, b"proposal"]),
    ("proposal_id", ["", "", 0, b""]),
    ("constitution_digest", [b"constitution"]),
    ("snapshot_chunk", [b"chunk"]),
    ("content_commitment", [HASH, KEY]),
    ("plan_hash", [b"plan"]),
    ("output_digest", ["00" * 16, 0, b"sealed"]),
    ("output_digest", ["00" * 16, 14, b""]),
    ("state_entry", [b"s/key", b"value"]),
    ("state_commitment", [bytes(2048)]),
    ("ticket_bytes", [CHAIN, HASH, 1_763_000_000_000]),
    ("dataset_uid", [b"descriptor", HASH]),
]


def cases() -> list[dict[str, Any]]:
    """All vectors, made anew."""
    return [
        {
            "function": function,
            "arguments": [plain(argument) for argument in arguments],
            "result": plain(getattr(canonical, function)(*arguments)),
        }
        for function, arguments in CALLS
    ]


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def text() -> str:
    """The contents of the file."""
    return json.dumps(cases(), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="ascii")
