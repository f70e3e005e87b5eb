"""Data unions: many who earn together, in proportion to weights that an administrator sets.

What a union receives is an ordinary credit of its account. It is divided only when something asks, before any weight
changes, so that a payment costs the same whatever the number of members, and weights hold for what came while
they held. Division is exact: earnings are kept per unit of weight in 2^-32 points; what does not divide waits in the
union's remainder, a member's fraction of a point in its membership. So

    divided points = sum over members of (earned and not claimed), fractions included, + the remainder

and the union's account holds at least that many. Monoplasma's tree of balances needed a trusted operator between its
members and the money; here every validator computes the division.
"""

from __future__ import annotations

from koinon.errors import InvalidInput, NotFound, Refused
from koinon.limits import (
    MAX_TITLE,
    MAX_UNION_CHANGES,
    MAX_UNION_MEMBERS,
    MAX_UNION_WEIGHT,
    MAX_UNIONS_PER_INSTITUTION,
)
from koinon.names import AccountName, PersonId, check_institution
from koinon.v1.points_pb2 import ClaimEarnings, DataUnion, DefineUnion, SetUnionMembers, UnionMembership
from node.contracts import accounts, shapes, tables
from node.contracts.context import Context
from node.contracts.transitions import UNION
from node.ledger.state import State

POINT = 2**32
"""The unit in which earnings per weight are kept: a fraction of a point this fine."""

_EARNED_BYTES = 16  # MAX_POINTS * POINT fits


def define(context: Context, operation: DefineUnion) -> str:
    """An operator founds a data union, or gives its own another title or administrator."""
    name = check_institution(operation.name)
    shapes.text("title", operation.title, MAX_TITLE)
    administrator = PersonId.parse(operation.administrator)
    state = context.state
    union = tables.UNIONS.find(state, name)
    institution = context.sender.institution if union is None else union.institution
    context.authorise(institution=institution)
    tables.PEOPLE.get(state, operation.administrator)
    if administrator.institution != institution:
        raise InvalidInput(
            f"{administrator} is no person of {institution}",
            hint=f"name one: data unions are administered where they were founded, at {institution}",
        )
    before = "open"
    if union is None:
        if tables.INSTITUTION_UNIONS.count(state, institution) >= MAX_UNIONS_PER_INSTITUTION:
            raise Refused(
                f"{institution} has {MAX_UNIONS_PER_INSTITUTION} data unions",
                rule="too-many",
                hint="use one that exists",
            )
        tables.INSTITUTION_UNIONS.add(state, institution, name)
        before, union = "", DataUnion(name=name, institution=institution)
    union.title, union.administrator = operation.title, operation.administrator
    _record(context, union, before, "union.defined", operation.title)
    return ""


def set_members(context: Context, operation: SetUnionMembers) -> str:
    """The administrator, or an operator of its institution, admits members, weighs them anew, or lets them go.

    Who goes is paid what it has earned; the fraction of a point that is left goes to the others.
    """
    _check_members(operation)
    state = context.state
    union = tables.UNIONS.get(state, check_institution(operation.union))
    context.authorise(institution=union.institution, person=union.administrator)
    _divide(state, union)
    for change in operation.members:
        accounts.check_owner(state, change.account)
        member = tables.UNION_MEMBERS.find(state, _key(union.name, change.account))
        if member is None and not change.weight:
            raise NotFound(f"{change.account} is no member of {union.name}", hint="leave it out")
        if member is None:
            member = UnionMembership(union=union.name, account=change.account, settled_at=union.earned_per_weight)
            union.members += 1
        else:
            _pay(context, union, member)
        union.weight += change.weight - member.weight
        member.weight = change.weight
        if change.weight:
            tables.UNION_MEMBERS.put(state, _key(union.name, change.account), member)
        else:
            union.remainder += member.fraction
            union.members -= 1
            tables.UNION_MEMBERS.delete(state, _key(union.name, change.account))
    if union.members > MAX_UNION_MEMBERS or union.weight > MAX_UNION_WEIGHT:
        raise Refused(
            f"{union.name} would have {union.members} members of weight {union.weight} together",
            rule="union-members",
            hint=f"at most {MAX_UNION_MEMBERS} members and a weight of {MAX_UNION_WEIGHT} are allowed",
        )
    changed = ", ".join(f"{change.account} {change.weight}" for change in operation.members[:_SHOWN])
    more = f" and {len(operation.members) - _SHOWN} more" if len(operation.members) > _SHOWN else ""
    _record(context, union, "open", "union.members_set", changed + more)
    return ""


def claim(context: Context, operation: ClaimEarnings) -> str:
    """A person, or an operator for its institution or a device of it, has earnings moved to the member's account."""
    accounts.authorise(context, AccountName.parse(operation.account))
    state = context.state
    union = tables.UNIONS.get(state, check_institution(operation.union))
    member = membership(state, union.name, operation.account)
    _divide(state, union)
    if not _pay(context, union, member):
        raise Refused(
            f"{operation.account} has no whole point to claim from {union.name}",
            rule="insufficient-points",
            hint="wait until the union has earned more; fractions are kept",
        )
    tables.UNION_MEMBERS.put(state, _key(union.name, member.account), member)
    tables.UNIONS.put(state, union.name, union)
    return ""


def membership(state: State, union: str, account: str) -> UnionMembership:
    """Raises NotFound."""
    return tables.UNION_MEMBERS.get(state, _key(union, account))


def earned(state: State, union_name: str, account: str) -> int:
    """Whole points that a member could claim now. Raises NotFound."""
    union = tables.UNIONS.get(state, union_name)
    member = membership(state, union_name, account)
    _divide(state, union)
    return _due(union, member) // POINT


def _divide(state: State, union: DataUnion) -> None:
    """Divide among the present members what came since the last time; without members it goes on waiting."""
    if not union.weight:
        return
    came = accounts.balance(state, f"union:{union.name}") - union.divided
    per_weight, remainder = divmod(came * POINT + union.remainder, union.weight)
    union.divided += came
    union.earned_per_weight = _number(union.earned_per_weight, per_weight)
    union.remainder = remainder


def _pay(context: Context, union: DataUnion, member: UnionMembership) -> int:
    """Move a member's whole points to its account, and bring its membership up to date; how many there were."""
    points, fraction = divmod(_due(union, member), POINT)
    member.settled_at, member.fraction = union.earned_per_weight, fraction
    if points:
        accounts.claim(context, f"union:{union.name}", member.account, points, f"earnings in {union.title}")
        union.divided -= points
    return points


def _due(union: DataUnion, member: UnionMembership) -> int:
    """Earned and not paid, in units of 1/POINT."""
    since = int.from_bytes(union.earned_per_weight, "big") - int.from_bytes(member.settled_at, "big")
    return since * member.weight + member.fraction


def _number(stored: bytes, more: int) -> bytes:
    return (int.from_bytes(stored, "big") + more).to_bytes(_EARNED_BYTES, "big")


def _key(union: str, account: str) -> str:
    return f"{union}\0{account}"


def _check_members(operation: SetUnionMembers) -> None:
    if not 1 <= len(operation.members) <= MAX_UNION_CHANGES:
        raise InvalidInput(f"{len(operation.members)} members are set", hint=f"set 1 to {MAX_UNION_CHANGES} at a time")
    for member in operation.members:
        if AccountName.parse(member.account).kind not in ("person", "institution"):
            raise InvalidInput(f"{member.account} cannot be a member", hint="members are people and institutions")
    shapes.ascending("members", [member.account for member in operation.members])


_SHOWN = 20  # changes written out in a record; the operation holds all


def _record(context: Context, union: DataUnion, before: str, kind: str, detail: str) -> None:
    after = UNION.after(union.name, before, kind)
    related = [f"institution:{union.institution}", f"person:{union.administrator}"]
    context.record(kind, f"{UNION.subject}:{union.name}", before, after, related=related, detail=detail)
    tables.UNIONS.put(context.state, union.name, union)
