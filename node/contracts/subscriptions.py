"""Subscriptions: a price per period, paid by the first task that needs it, for as many tasks as there may be within it.

A period is bought, whatever becomes of the tasks: one that fails does not end it. Its points stay in escrow
until it is over, and then go to the publisher and the fund. The period ends with its token at the latest. Of a
token that is taken back the publisher has earned what has passed, and the rest returns to the holder; a holder
that gives its token up, or uses it up, or whose institution leaves, has had what it paid for.
"""

from __future__ import annotations

from governance import sharing
from koinon.v1.access_pb2 import TOKEN_STATUS_REVOKED, Token
from koinon.v1.points_pb2 import Shares, SourceTerms
from node.contracts import accounts, tables
from node.contracts.context import Context


def escrow_id(token: Token) -> str:
    """Of the period begun last."""
    return f"{token.id}:{token.subscriptions}"


def begin(context: Context, source: SourceTerms, token: Token, shares: Shares) -> None:
    """The holder pays for a period that begins now. Raises Refused with rule ``insufficient-points``."""
    token.subscriptions += 1
    token.paid_until_ms = context.time_ms + token.price.period_ms
    paid_for = SourceTerms()
    paid_for.CopyFrom(source)
    paid_for.points = source.subscription
    planned = sharing.payouts(sharing.share_subscription(paid_for, shares))
    accounts.hold(
        context,
        escrow_id(token),
        f"person:{token.holder}",
        source.subscription,
        subject=f"token:{token.id}",
        tokens=[token.id],
        planned=planned,
        due_at_ms=token.paid_until_ms,
    )
    tables.TOKENS.put(context.state, token.id, token)


def end(context: Context, token: Token, *, given_up: bool) -> None:
    """A token has just ended: settle the period under way, if there is one."""
    state, held = context.state, escrow_id(token)
    if token.paid_until_ms <= context.time_ms or not accounts.is_open(state, held):
        return
    escrow = tables.ESCROWS.get(state, held)
    planned = [(payout.account, payout.points) for payout in escrow.planned]
    if token.status == TOKEN_STATUS_REVOKED and not given_up:
        left_ms = token.paid_until_ms - context.time_ms
        earned, _ = sharing.divide(escrow.points, [token.price.period_ms - left_ms, left_ms])
        parts = sharing.divide(earned, [points for _, points in planned])
        planned = [(account, points) for (account, _), points in zip(planned, parts, strict=True) if points]
    accounts.schedule(context, held, planned, context.time_ms)
