"""What the engine needs from the world: each port has a real part in the runtime and a simulated one.

All calls are synchronous and made from one thread (or event loop). A port may raise only where its
docstring says so; such an error means that this node cannot go on, and ends the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from koinon.v1.peer_pb2 import DeliverRequest
from node.abci import Finalized
from node.consensus.events import Timer
from node.ledger.blocks import ParsedBlock


class Transport(Protocol):
    """Sends to other members' nodes: unreliably, at most once, without waiting."""

    def send(self, institution: str, message: DeliverRequest) -> None: ...

    def broadcast(self, message: DeliverRequest) -> None:
        """To every other member. The message is not changed afterwards, by anyone."""
        ...


class Clock(Protocol):
    def now_ms(self) -> int:
        """Unix time. It may jump; consensus needs it only for the times in votes."""
        ...


class Alarm(Enum):
    """Why the engine wants to be woken, beside the core's timers."""

    START = "start"  # begin the height: transactions wait
    PROOF = "proof"  # begin the height: the last block's effects are not yet in a header
    HEARTBEAT = "heartbeat"  # begin the height: it is time for a sign of life
    ADOPT = "adopt"  # follow the blocks that have come from peers
    GOSSIP = "gossip"  # tell peers where we stand


@dataclass(frozen=True, slots=True)
class Wake:
    """An alarm set while ``height`` was about to be decided; later it means nothing."""

    alarm: Alarm
    height: int


class Timers(Protocol):
    def schedule(self, delay_ms: int, timer: Timer | Wake) -> None:
        """Call ``Engine.on_timer(timer)`` once, after this delay, and never from within this call."""
        ...


class Pool(Protocol):
    """Transactions that passed check_tx and wait for a block. Committed ones leave it through a Listener."""

    def __len__(self) -> int: ...

    def reap(self, max_bytes: int, max_count: int) -> Sequence[bytes]:
        """The oldest envelopes within these bounds that a block may hold by now. They stay in the pool."""
        ...


class Signer(Protocol):
    """The validator key. Only the engine signs with it, and only what its journal allows."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


class Listener(Protocol):
    """Told of every block after it is on disk and visible, in order, before the next height begins."""

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None: ...


class Log(Protocol):
    """Events for people, in structlog's manner. Never keys, never contents."""

    def info(self, event: str, **fields: object) -> object: ...

    def warning(self, event: str, **fields: object) -> object: ...
