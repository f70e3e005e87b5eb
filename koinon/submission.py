"""Writing to the ledger: sign once, send until decided.

A transaction is named by its key and body, so sending the same envelope again can never apply it
twice: while a decision is out of reach the very same bytes are sent again. A write ends in one of
three ways: COMMITTED, a refusal raised as a typed error, or StatusUnknown, which carries the id and
the envelope, so that nobody has to guess.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from koinon import display, envelope
from koinon.errors import KoinonError, Refused, StatusUnknown, Unavailable
from koinon.keys import SigningKey
from koinon.limits import DEFAULT_EXPIRY_MS, MAX_WAIT_MS, NONCE_BYTES
from koinon.rpc import CALL_S, NEVER_SENT, Connection, typed_error
from koinon.v1.services_pb2 import GetTransactionsRequest, SubmitRequest, TransactionInfo
from koinon.v1.transaction_pb2 import Envelope, Operation, Refusal, TransactionBody, TransactionStatus

_POLL_MS = 5_000
_POLL_SLACK_S = 5.0
_RESEND_S = 0.5
_UNDECIDED_S = 10.0  # blocks take a second or two: who waits longer is told

OnUndecided = Callable[[], None]
"""Called once for a write that the ledger has not decided after ten seconds."""


def sign(
    chain_id: str, operations: Sequence[Operation], key: SigningKey, max_fee: int = 0, *, since_ms: int = 0
) -> bytes:
    """A signed envelope that can be included for the next two minutes, and costs at most ``max_fee`` points in fees.

    The two minutes begin now, or at ``since_ms``, a block time, if that is later.
    """
    expires_at_ms = max(time.time_ns() // 1_000_000, since_ms) + DEFAULT_EXPIRY_MS
    return envelope.sign(chain_id, operations, key, expires_at_ms, os.urandom(NONCE_BYTES), max_fee)


def expiry_ms(signed: bytes) -> int:
    """The block time from which an envelope of one's own can no longer commit."""
    return int(TransactionBody.FromString(Envelope.FromString(signed).body).expires_at_ms)


async def send(
    connection: Connection,
    signed: bytes,
    transaction_id: bytes,
    timeout_s: float,
    on_undecided: OnUndecided | None = None,
) -> TransactionInfo:
    """Send an envelope and wait until it is final; returns its committed info.

    Raises what refused it, Unavailable if it was certainly never sent, StatusUnknown otherwise: when the time is over,
    or when the node knows that it was decided, and not how. A CancelledError has the StatusUnknown as its cause: who
    stops waiting takes nothing back.
    """
    give_up = time.monotonic() + timeout_s
    sent = False
    reminder = asyncio.get_running_loop().call_later(_UNDECIDED_S, on_undecided) if on_undecided else None
    try:
        while True:
            try:
                info = await _submit(connection, signed, transaction_id, give_up)
                sent = True
                info = await _follow(connection, info, signed, give_up)
            except StatusUnknown:
                raise
            except Unavailable as error:
                sent = sent or error.rule != NEVER_SENT
                if not sent:
                    raise
            else:
                if info.status == TransactionStatus.TRANSACTION_STATUS_COMMITTED:
                    return info
                if info.status == TransactionStatus.TRANSACTION_STATUS_REJECTED:
                    raise refusal_error(info.refusal)
            if time.monotonic() + _RESEND_S > give_up:
                raise _unknown(transaction_id, signed, f"was sent, but not decided within {timeout_s:.0f} s")
            await asyncio.sleep(_RESEND_S)
    except asyncio.CancelledError as stopped:
        so_far = "was sent, and not yet decided" if sent else "may have been sent"
        raise stopped from _unknown(transaction_id, signed, f"{so_far} when waiting for it ended")
    finally:
        if reminder:
            reminder.cancel()


async def _submit(connection: Connection, signed: bytes, transaction_id: bytes, give_up: float) -> TransactionInfo:
    left = max(give_up - time.monotonic(), _RESEND_S)
    response = await connection.call(
        connection.transactions.Submit, SubmitRequest(envelopes=[signed]), timeout_s=min(left, CALL_S)
    )
    return _only(response.transactions, transaction_id)


async def _follow(connection: Connection, info: TransactionInfo, signed: bytes, give_up: float) -> TransactionInfo:
    """What becomes of an envelope that was handed in, while it is PENDING. It may end as that, or UNKNOWN."""
    transaction_id = info.transaction_id
    if info.refusal.rule == "replayed-transaction":  # an earlier attempt got through: what became of it counts
        info = await status(connection, transaction_id)
        if info.status == TransactionStatus.TRANSACTION_STATUS_UNKNOWN:
            raise StatusUnknown(
                f"transaction {transaction_id.hex()} was decided, but this node joined by a snapshot since, and does "
                "not hold the result",
                hint=f"ask at another member's node: koinon status --transaction {transaction_id.hex()}",
                transaction_id=transaction_id,
                envelope=signed,
            )
    while info.status == TransactionStatus.TRANSACTION_STATUS_PENDING and (left := give_up - time.monotonic()) > 0:
        info = await status(connection, transaction_id, wait_ms=min(_POLL_MS, int(left * 1000) + 1))
    return info


async def status(connection: Connection, transaction_id: bytes, *, wait_ms: int = 0) -> TransactionInfo:
    """What the node knows of a transaction; waits up to ``wait_ms`` for a final answer."""
    wait_ms = min(wait_ms, MAX_WAIT_MS)
    response = await connection.call(
        connection.transactions.GetTransactions,
        GetTransactionsRequest(transaction_ids=[transaction_id], wait_ms=wait_ms),
        timeout_s=wait_ms / 1000 + _POLL_SLACK_S,
    )
    return _only(response.transactions, transaction_id)


def refusal_error(refusal: Refusal) -> KoinonError:
    """The typed error of a refusal on the ledger; its rule chooses the class."""
    error = typed_error(KoinonError, refusal.message or refusal.rule, refusal.rule, refusal.hint)
    if type(error) is KoinonError:
        return Refused(error.message, rule=refusal.rule, hint=refusal.hint)
    return error


def _only(infos: Sequence[TransactionInfo], transaction_id: bytes) -> TransactionInfo:
    if len(infos) != 1 or infos[0].transaction_id != transaction_id:
        raise KoinonError(
            f"the node answered about another transaction than {transaction_id.hex()}",
            hint="client and node are of different versions, or the node is faulty",
        )
    return infos[0]


def _unknown(transaction_id: bytes, signed: bytes, so_far: str) -> StatusUnknown:
    return StatusUnknown(
        f"transaction {transaction_id.hex()} {so_far}",
        hint=f"koinon status --transaction {transaction_id.hex()} tells what became of it; it can still commit in a "
        f"block of before {display.when(expiry_ms(signed))}, and sending the same envelope again is safe",
        transaction_id=transaction_id,
        envelope=signed,
    )
