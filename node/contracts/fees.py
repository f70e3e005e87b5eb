"""Fees: what the members voted that beginning something costs, beside any price; they go to the consortium's fund.

A new dataset is paid for by its institution, a request for access by the person who makes it: at once and for good,
since the ledger has done its part. Further versions of a dataset are free, so that nobody pays for a correction. A
task's fee is in escrow with its price (``settlement``), and comes back with it.

Nothing else costs a fee, whatever the members vote: who may not act for want of points can still withdraw, revoke,
answer, dispute, cast ballots and leave.
"""

from __future__ import annotations

from koinon import parameters
from koinon.errors import Refused
from node.contracts import accounts
from node.contracts.context import Context


def charge(context: Context, parameter: str, account: str, subject: str) -> None:
    """Take the fee that a parameter names, if there is one, from an account that the sender may spend from.

    Raises Refused with rule ``max-fee`` (the transaction agrees to less) or ``insufficient-points``.
    """
    fee = parameters.get(context.parameters, parameter)
    if not fee:
        return
    if fee > context.max_fee:
        raise Refused(
            f"the {parameter.replace('_', ' ')} is {fee} points, and the transaction agrees to {context.max_fee} more",
            rule="max-fee",
            hint="koinon gov constitution shows the fees in force; agree with --max-fee",
        )
    context.max_fee -= fee
    accounts.charge(context, account, fee, subject, parameter.replace("_", " "))
