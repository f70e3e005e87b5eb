"""What a node and its worker process say to each other. Both trust each other; sizes are bounded all the same.

A stream of frames (4-byte length, payload), and beside it a socket pair over which the node passes connections from
other workers (SCM_RIGHTS):

====================  ============================================================
worker                node
====================  ============================================================
(ready)               a Job
``COMPUTED``          ``SEAL``, or the process is killed
an Outcome            nothing more
====================  ============================================================
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from dataclasses import dataclass
from typing import Any

from mpc.engines import TableFile
from mpc.session import Identity

READY, COMPUTED, SEAL = b"ready", b"computed", b"seal"
MAX_REQUEST_BYTES = 64  # between node and nursery (mpc.worker_main)


@dataclass(frozen=True, slots=True)
class Job:
    """What a node hands to its worker; trusted."""

    identity: Identity
    plan: bytes  # serialised Plan
    result_key: bytes  # X25519
    seconds: float  # from now until everything must be over
    memory_mb: int = 1024  # for the local engine
    source_index: int | None = None  # into the plan's sources; None where this party brings no input
    table: TableFile | None = None

    def to_json(self) -> bytes:
        identity = self.identity
        return json.dumps(
            {
                "task_id": identity.task_id,
                "plan_hash": _text(identity.plan_hash),
                "party": identity.party,
                "institutions": identity.institutions,
                "certificates": [_text(certificate) for certificate in identity.certificates],
                "addresses": identity.addresses,
                "key_pem": _text(identity.key_pem),
                "plan": _text(self.plan),
                "result_key": _text(self.result_key),
                "seconds": self.seconds,
                "memory_mb": self.memory_mb,
                "source_index": self.source_index,
                "table": None if self.table is None else self.table.to_json(),
            }
        ).encode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> Job:
        value: dict[str, Any] = json.loads(data)
        return cls(
            identity=Identity(
                task_id=value["task_id"],
                plan_hash=_bytes(value["plan_hash"]),
                party=value["party"],
                institutions=tuple(value["institutions"]),
                certificates=tuple(_bytes(certificate) for certificate in value["certificates"]),
                addresses=tuple(value["addresses"]),
                key_pem=_bytes(value["key_pem"]),
            ),
            plan=_bytes(value["plan"]),
            result_key=_bytes(value["result_key"]),
            seconds=value["seconds"],
            memory_mb=value["memory_mb"],
            source_index=value["source_index"],
            table=None if value["table"] is None else TableFile.from_json(value["table"]),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: with a sealed output, or at a rule. Holds no data value."""

    sealed: bytes = b""
    rule: str = ""
    message: str = ""
    local_ms: int = 0  # in the local engine
    meeting_ms: int = 0  # until all parties were connected
    secure_ms: int = 0  # in the secure program
    rounds: int = 0
    bytes_sent: int = 0  # to other parties, before TLS

    def to_json(self) -> bytes:
        return json.dumps({name: _plain(getattr(self, name)) for name in self.__slots__}).encode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> Outcome:
        """Raises ValueError, TypeError or KeyError."""
        value = json.loads(data)
        return cls(**{**value, "sealed": _bytes(value["sealed"])})


def write_frame(writer: asyncio.StreamWriter, payload: bytes) -> None:
    """One frame on a control stream."""
    writer.write(struct.pack(">I", len(payload)) + payload)


async def read_frame(reader: asyncio.StreamReader, limit: int) -> bytes:
    """The next frame of a control stream. Raises asyncio.IncompleteReadError, or ValueError beyond ``limit`` bytes."""
    (size,) = struct.unpack(">I", await reader.readexactly(4))
    if size > limit:
        raise ValueError(f"a frame of {size} bytes, at most {limit} are allowed")
    return await reader.readexactly(size)


def _plain(value: object) -> object:
    return _text(value) if isinstance(value, bytes) else value


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
