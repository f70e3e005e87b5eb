"""Accounts: whole points, which come into being by ``mint`` alone, end by ``burn`` alone, and otherwise move.

Escrow holds what somebody has promised: held -> settled | refunded; a dispute freezes it until it is decided. What
is settled and not paid out goes back to the payer, so that escrow never keeps anything.

Invariant, with the totals stored beside the accounts (``Supply``): the sum of all accounts and of all escrows held or
frozen is what was minted less what was burned. Every movement is in an audit record with its postings, so that
the log alone shows the same. No balance is negative, and none exceeds ``limits.MAX_POINTS``, since no more are minted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from governance.permissions import is_device
from koinon.errors import Corrupt, InvalidInput, Refused
from koinon.limits import MAX_DUE_PER_BLOCK, MAX_POINTS, MAX_TEXT
from koinon.names import AccountName
from koinon.v1.points_pb2 import (
    ESCROW_STATUS_FROZEN,
    ESCROW_STATUS_HELD,
    Account,
    Escrow,
    Payout,
    Posting,
    Supply,
    TransferPoints,
)
from node.contracts import shapes, tables
from node.contracts.context import Context
from node.contracts.transitions import ACCOUNT, ESCROW
from node.ledger.state import State

FUND = "fund:consortium"

_TIME_DIGITS = 20  # any 64-bit number, so that the order of texts is that of times


def balance(state: State, account: str) -> int:
    """Points that the account can spend now; 0 for one that never had any."""
    found = tables.ACCOUNTS.find(state, account)
    return 0 if found is None else found.points


def supply(state: State) -> Supply:
    """Everything that was minted and burned, and what is in escrow now."""
    return tables.SUPPLY.find(state, "") or Supply()


def check_conservation(state: State) -> None:
    """Hold the stored totals against every account and escrow there is: for whoever examines a whole ledger.

    Raises Corrupt.
    """
    total = supply(state)
    spendable = sum(account.points for account in tables.ACCOUNTS.scan(state))
    escrowed = sum(
        escrow.points
        for escrow in tables.ESCROWS.scan(state)
        if escrow.status in (ESCROW_STATUS_HELD, ESCROW_STATUS_FROZEN)
    )
    if escrowed != total.escrowed or spendable + escrowed != total.minted - total.burned:
        raise Corrupt(
            f"{spendable} points in accounts and {escrowed} in escrow do not add up: {total.minted} were minted, "
            f"{total.burned} burned, and {total.escrowed} should be in escrow",
            hint="a contract is wrong: keep the ledger, and tell the developers",
        )


def check_owner(state: State, account: str) -> AccountName:
    """Is the account somebody's? Raises InvalidName or NotFound."""
    name = AccountName.parse(account)
    match name.kind:
        case "institution":
            tables.INSTITUTIONS.get(state, name.owner)
        case "person":
            tables.PEOPLE.get(state, name.owner)
        case "union":
            tables.UNIONS.get(state, name.owner)
    return name


def institution_of(state: State, account: str) -> str:
    """Whose the account is in the end: the institution's, its person's or its data union's; '' for the fund's."""
    name = AccountName.parse(account)
    match name.kind:
        case "person":
            return name.owner.partition("/")[0]
        case "union":
            return tables.UNIONS.get(state, name.owner).institution
        case "institution":
            return name.owner
    return ""


def authorise(context: Context, account: AccountName) -> None:
    """Is it the sender's account, its institution's, or that of a device of its institution?

    Raises PermissionRefused.
    """
    match account.kind:
        case "person":
            owner = tables.PEOPLE.find(context.state, account.owner)
            device = owner is not None and is_device(owner.roles)
            context.authorise(person=account.owner, institution=account.owner.partition("/")[0] if device else "")
        case "institution":
            context.authorise(institution=account.owner)
        case _:  # the fund's points move by a ballot, a union's by its members' claims
            context.authorise()


# --- operations


def transfer_points(context: Context, operation: TransferPoints) -> str:
    """A person spends from its own account, an operator from its institution's and those of its devices."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    authorise(context, AccountName.parse(operation.source))
    transfer(context, operation.source, operation.target, operation.points, operation.reason)
    return ""


# --- movements, for other contracts: the caller has asked who may. What raises has changed nothing.


def mint(context: Context, account: str, points: int, reason: str = "") -> None:
    """Make points. Raises InvalidInput, InvalidName, NotFound, or Refused with rule ``points-limit``."""
    _check_points(points)
    check_owner(context.state, account)
    total = supply(context.state)
    if total.minted + points > MAX_POINTS:
        raise Refused(
            f"{total.minted} points were minted before, and {points} more would be too many",
            rule="points-limit",
            hint=f"at most {MAX_POINTS} are ever minted: mint fewer",
        )
    total.minted += points
    tables.SUPPLY.put(context.state, "", total)
    _record(context, "points.minted", account, [_credit(context.state, account, points)], reason)


def burn(context: Context, account: str, points: int, reason: str = "") -> None:
    """End points. Raises as ``transfer``."""
    _check_points(points)
    posting = _debit(context.state, account, points)
    total = supply(context.state)
    total.burned += points
    tables.SUPPLY.put(context.state, "", total)
    _record(context, "points.burned", account, [posting], reason)


def transfer(context: Context, source: str, target: str, points: int, reason: str) -> None:
    """Move points.

    Raises InvalidInput (points, or both accounts are one), InvalidName, NotFound (no such target), or Refused with
    rule ``insufficient-points``.
    """
    if source == target:
        raise InvalidInput(f"both accounts are {source}", hint="name another account to move points to")
    check_owner(context.state, target)
    paid = _debit(context.state, source, points)
    _record(context, "points.transferred", source, [paid, _credit(context.state, target, points)], reason)


def claim(context: Context, union: str, member: str, points: int, reason: str) -> None:
    """Move what a member earned, as ``unions`` computed it, from the union's account. Raises as ``transfer``."""
    check_owner(context.state, member)
    paid = _debit(context.state, union, points, of_members=True)
    _record(context, "points.claimed", union, [paid, _credit(context.state, member, points)], reason)


def charge(context: Context, account: str, points: int, subject: str, reason: str) -> None:
    """Move a fee to the fund; ``subject`` (``dataset:…``) is what it is paid for. Raises as ``transfer``."""
    paid = _debit(context.state, account, points)
    _record(context, "points.charged", account, [paid, _credit(context.state, FUND, points)], reason, subject)


# --- escrow


def hold(
    context: Context,
    escrow_id: str,
    account: str,
    points: int,
    *,
    subject: str = "",
    tokens: Sequence[str] = (),
    planned: Sequence[tuple[str, int]] = (),
    due_at_ms: int = 0,
) -> None:
    """Put points of an account in escrow for ``subject`` (``task:…``, ``token:…``), whose trail then shows them.

    ``tokens`` are those used for it: ``of_token`` finds it by each. With ``due_at_ms``, ``planned`` is paid
    when block time reaches it.

    Raises InvalidInput, InvalidName, or Refused with rule ``already-exists`` or ``insufficient-points``.
    """
    state = context.state
    if tables.ESCROWS.find(state, escrow_id) is not None:
        raise Refused(f"escrow {escrow_id} exists", rule="already-exists", hint="an escrow is opened once")
    posting = _debit(state, account, points)
    escrow = Escrow(
        id=escrow_id, payer=account, points=points, held_at_ms=context.time_ms, subject=subject, tokens=tokens
    )
    for token_id in tokens:
        tables.TOKEN_ESCROWS.add(state, token_id, _by_age(escrow))
    _escrowed(state, points)
    detail = f"{points} points"
    context.move(ESCROW, escrow_id, escrow, "escrow.held", related=_related(escrow), detail=detail, postings=[posting])
    _plan(context, escrow, planned, due_at_ms)


def schedule(context: Context, escrow_id: str, planned: Sequence[tuple[str, int]], due_at_ms: int) -> None:
    """Let a held escrow be settled by ``planned`` when block time reaches ``due_at_ms``. Raises NotFound."""
    _plan(context, tables.ESCROWS.get(context.state, escrow_id), planned, due_at_ms)


def freeze(context: Context, escrow_id: str) -> None:
    """A dispute stops an escrow, also its due time. Raises NotFound, or Refused with rule ``wrong-state``."""
    escrow = tables.ESCROWS.get(context.state, escrow_id)
    context.move(ESCROW, escrow_id, escrow, "escrow.frozen", related=_related(escrow))
    _unschedule(context, escrow)
    tables.ESCROWS.put(context.state, escrow_id, escrow)


def thaw(context: Context, escrow_id: str) -> None:
    """The dispute is over and decides nothing here; what fell due meanwhile is paid at the end of the block.

    Raises NotFound, or Refused with rule ``wrong-state``.
    """
    escrow = tables.ESCROWS.get(context.state, escrow_id)
    context.move(ESCROW, escrow_id, escrow, "escrow.thawed", related=_related(escrow))
    _plan(context, escrow, [(payout.account, payout.points) for payout in escrow.planned], escrow.due_at_ms)


def settle(context: Context, escrow_id: str, payouts: Sequence[tuple[str, int]]) -> None:
    """Pay out of a held or frozen escrow; the rest goes back to the payer.

    Raises NotFound, or Refused with rule ``wrong-state`` or ``insufficient-points`` (more than it holds).
    """
    escrow = tables.ESCROWS.get(context.state, escrow_id)
    paid = [(account, points) for account, points in payouts if points]
    rest = escrow.points - sum(points for _, points in paid)
    if rest < 0 or any(points < 0 for _, points in paid):
        raise Refused(
            f"escrow {escrow_id} holds {escrow.points} points",
            rule="insufficient-points",
            hint="pay out no more than it holds",
        )
    back = [(escrow.payer, rest)] if rest else []
    escrow.paid.extend(Payout(account=account, points=points) for account, points in paid)
    _end(context, escrow, "escrow.settled", f"{escrow.points - rest} paid, {rest} back", paid + back)


def refund(context: Context, escrow_id: str) -> None:
    """Give a held or frozen escrow back to its payer. Raises NotFound, or Refused with rule ``wrong-state``."""
    escrow = tables.ESCROWS.get(context.state, escrow_id)
    _end(context, escrow, "escrow.refunded", f"{escrow.points} points", [(escrow.payer, escrow.points)])


def of_token(state: State, token_id: str) -> Iterator[str]:
    """Every escrow, held or frozen, for what a token was used for; the longest held first."""
    return (entry[_TIME_DIGITS:] for entry in tables.TOKEN_ESCROWS.under(state, token_id))


def is_open(state: State, escrow_id: str) -> bool:
    """Is there such an escrow, held or frozen?"""
    escrow = tables.ESCROWS.find(state, escrow_id)
    return escrow is not None and escrow.status in (ESCROW_STATUS_HELD, ESCROW_STATUS_FROZEN)


def is_frozen(state: State, escrow_id: str) -> bool:
    """Does a dispute hold this escrow?"""
    escrow = tables.ESCROWS.find(state, escrow_id)
    return escrow is not None and escrow.status == ESCROW_STATUS_FROZEN


def settle_due(context: Context) -> None:
    """Pay what was planned for the time that block time has reached; where nothing was, give it back."""
    for escrow_id in tables.ESCROW_DUES.pop_due(context.state, context.time_ms, at_most=MAX_DUE_PER_BLOCK):
        escrow = tables.ESCROWS.get(context.state, escrow_id.decode())
        if escrow.planned:
            settle(context, escrow.id, [(payout.account, payout.points) for payout in escrow.planned])
        else:
            refund(context, escrow.id)


# --- what all of these are made of


def _debit(state: State, account: str, points: int, *, of_members: bool = False) -> Posting:
    """Take points from an account; ``of_members``: a data union's, by a member's claim.

    Raises InvalidInput, InvalidName, or Refused with rule
    ``insufficient-points``.
    """
    _check_points(points)
    if AccountName.parse(account).kind == "union" and not of_members:
        raise Refused(
            f"what {account} holds belongs to its members",
            rule="insufficient-points",
            hint="its members claim it: koinon points union claim",
        )
    before = balance(state, account)
    if before < points:
        raise Refused(
            f"{account} has {before} points, and {points} are needed",
            rule="insufficient-points",
            hint="wait for points to come in, or ask the members to mint some",
        )
    tables.ACCOUNTS.put(state, account, Account(id=account, points=before - points))
    return Posting(account=account, change=-points, balance=before - points)


def _credit(state: State, account: str, points: int) -> Posting:
    after = balance(state, account) + points
    tables.ACCOUNTS.put(state, account, Account(id=account, points=after))
    return Posting(account=account, change=points, balance=after)


def _check_points(points: int) -> None:
    if not 0 < points <= MAX_POINTS:
        raise InvalidInput(f"{points} is no number of points to move", hint=f"use 1 to {MAX_POINTS}")


def _escrowed(state: State, change: int) -> None:
    total = supply(state)
    total.escrowed += change
    tables.SUPPLY.put(state, "", total)


def _plan(context: Context, escrow: Escrow, planned: Sequence[tuple[str, int]], due_at_ms: int) -> None:
    """Set what is paid when; of a frozen escrow it waits for the end of the dispute."""
    _unschedule(context, escrow)
    payouts = [Payout(account=account, points=points) for account, points in planned]
    del escrow.planned[:]
    escrow.planned.extend(payouts)
    escrow.due_at_ms = due_at_ms
    if due_at_ms and escrow.status == ESCROW_STATUS_HELD:
        tables.ESCROW_DUES.add(context.state, due_at_ms, escrow.id.encode())
    tables.ESCROWS.put(context.state, escrow.id, escrow)


def _unschedule(context: Context, escrow: Escrow) -> None:
    if escrow.due_at_ms:
        tables.ESCROW_DUES.remove(context.state, escrow.due_at_ms, escrow.id.encode())


def _end(context: Context, escrow: Escrow, kind: str, detail: str, due: Sequence[tuple[str, int]]) -> None:
    ESCROW.after(escrow.id, ESCROW.names[escrow.status], kind)
    postings = [_credit(context.state, account, points) for account, points in due]
    related = list(dict.fromkeys([*_related(escrow), *(posting.account for posting in postings)]))
    context.move(ESCROW, escrow.id, escrow, kind, related=related, detail=detail, postings=postings)
    _unschedule(context, escrow)
    _escrowed(context.state, -escrow.points)
    for token_id in escrow.tokens:
        tables.TOKEN_ESCROWS.remove(context.state, token_id, _by_age(escrow))
    escrow.ended_at_ms = context.time_ms
    tables.ESCROWS.put(context.state, escrow.id, escrow)


def _by_age(escrow: Escrow) -> str:
    return f"{escrow.held_at_ms:0{_TIME_DIGITS}d}{escrow.id}"


def _related(escrow: Escrow) -> list[str]:
    return [*filter(None, (escrow.subject,)), escrow.payer]


def _record(
    context: Context, kind: str, account: str, postings: Sequence[Posting], reason: str, about: str = ""
) -> None:
    subject = f"{ACCOUNT.subject}:{account}"
    before = ""
    after = ACCOUNT.after(account, before, kind)
    related = [*filter(None, (about,)), *(posting.account for posting in postings)]
    context.record(kind, subject, before, after, related=related, detail=reason, postings=postings)
