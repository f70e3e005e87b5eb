"""What validators sign and send, as immutable values.

``NIL`` stands for the paper's *nil*; any other block is named by its hash (the paper's *id(v)*). A message
that reaches the core has a valid signature of a validator of its height: the engine checks that first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from koinon import canonical
from koinon.v1 import consensus_pb2 as pb

NIL = b""
NO_ROUND = -1


class VoteType(IntEnum):
    """The numbers are those of the wire format."""

    PREVOTE = 1
    PRECOMMIT = 2


@dataclass(frozen=True, slots=True)
class Value:
    """What is decided on: a serialised Block and its hash."""

    block_hash: bytes
    block: bytes


@dataclass(frozen=True, slots=True)
class Vote:
    """A signed prevote or precommit."""

    type: VoteType
    height: int
    round: int
    block_hash: bytes  # or NIL
    time_ms: int
    institution: str
    signature: bytes

    def signed_bytes(self, chain_id: str) -> bytes:
        return canonical.vote_bytes(chain_id, self.type, self.height, self.round, self.block_hash, self.time_ms)

    def to_proto(self) -> pb.Vote:
        return pb.Vote(
            type=pb.VoteType.ValueType(self.type),
            height=self.height,
            round=self.round,
            block_hash=self.block_hash,
            time_ms=self.time_ms,
            institution=self.institution,
            signature=self.signature,
        )

    @classmethod
    def from_proto(cls, message: pb.Vote) -> Vote | None:
        """None unless the type is known and the block hash is NIL or 32 bytes. The signature is not checked here."""
        if int(message.type) not in _VOTE_TYPES or len(message.block_hash) not in (0, canonical.HASH_BYTES):
            return None
        return cls(
            VoteType(message.type),
            message.height,
            message.round,
            message.block_hash,
            message.time_ms,
            message.institution,
            message.signature,
        )


_VOTE_TYPES = frozenset(int(vote_type) for vote_type in VoteType)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A signed proposal of a value; ``valid_round`` is NO_ROUND or the round of the polka it had."""

    height: int
    round: int
    valid_round: int
    value: Value
    institution: str
    signature: bytes

    def signed_bytes(self, chain_id: str) -> bytes:
        return canonical.proposal_bytes(chain_id, self.height, self.round, self.valid_round, self.value.block_hash)

    def to_proto(self) -> pb.Proposal:
        return pb.Proposal(
            height=self.height,
            round=self.round,
            valid_round=self.valid_round,
            block=self.value.block,
            institution=self.institution,
            signature=self.signature,
        )
