"""An observer takes up the power that the members approved for it, as soon as its node has caught up."""

from __future__ import annotations

import secrets

from koinon import envelope
from koinon.keys import SigningKey
from koinon.limits import DEFAULT_EXPIRY_MS, NONCE_BYTES
from koinon.v1.identity_pb2 import MEMBER_STATUS_ACTIVE, BeginVoting, Institution
from koinon.v1.transaction_pb2 import Operation
from node.engine import EngineStatus

_NEAR_BLOCKS = 2  # behind what others credibly claim: a height may be under way


def is_ready(member: Institution, status: EngineStatus, validator_key: bytes) -> bool:
    """May this node begin to vote? ``validator_key`` is the one that it holds."""
    return (
        member.status == MEMBER_STATUS_ACTIVE
        and member.approved_power > 0
        and member.descriptor.validator_key == validator_key
        and status.votes_from_height is not None
        and status.height > 0
        and status.height + _NEAR_BLOCKS >= status.highest_claim > 0
    )


def begin(chain_id: str, node_key: SigningKey, height: int, time_ms: int) -> bytes:
    """The envelope that says so; ``time_ms`` is the last block's."""
    operation = Operation(begin_voting=BeginVoting(height=height))
    return envelope.sign(chain_id, [operation], node_key, time_ms + DEFAULT_EXPIRY_MS, secrets.token_bytes(NONCE_BYTES))
