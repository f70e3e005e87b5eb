"""Membership: who belongs, and who votes with how much power.

Institutions move *new → active → suspended | removed*, and votes follow: the validators of height *h* + 2 are the
active institutions with power, as the state after block *h* has them. Members decide most of it (governance calls these
functions from accepted proposals); evidence suspends by itself. An institution joins as an **observer**: its node
follows, and takes up the power that was approved once it has caught up (``begin_voting``).

No change is applied that could leave the ledger without decisions:

- **A live quorum** (rule ``no-live-quorum``): those of whom a block of late bears a sign (a vote in its last
  certificate, or the proposal) hold a quorum of the new set. So a member that is up cannot be removed
  while another one is down, if what remains could not decide.
- **Overlap** (rule ``set-change``): at one height either a single institution's power changes, or those who vote before
  and after keep more than two thirds of the power of both sets. So newcomers who come together cannot decide alone (a
  quorum is more than two thirds), and whoever followed the old set finds correct members in the new one, which is
  what light clients build on (arXiv:2010.07031, section 4).

- **A ballot** (rule ``constitution``): somebody who stays has one.

Whoever is suspended or removed loses at once what its other keys could do. Its open tasks fail, and its tokens lapse in
both directions; a removed institution's data are withdrawn and its people revoked (``exclusion``). Its points stay its
own, and its id and keys stay its own for ever, so that what it signed remains accountable. When it comes back, only
those act for it whom its new descriptor names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice

from koinon import genesis_form
from koinon.errors import InvalidInput, KoinonError, Refused
from koinon.limits import LIVE_HEARTBEATS, MAX_INSTITUTIONS, MAX_JOIN_LAG_BLOCKS, MAX_TEXT, MAX_TITLE, MAX_TOTAL_POWER
from koinon.names import PersonId
from koinon.v1.consensus_pb2 import Validator
from koinon.v1.identity_pb2 import (
    MEMBER_STATUS_ACTIVE,
    MEMBER_STATUS_REMOVED,
    MEMBER_STATUS_UNSPECIFIED,
    ROLE_OPERATOR,
    BeginVoting,
    Exclusion,
    Institution,
    InstitutionDescriptor,
    Person,
)
from koinon.validators import ValidatorSet
from node.contracts import identity, keys, shapes, tables, weights
from node.contracts.context import REFUSALS, Context
from node.contracts.transitions import INSTITUTION
from node.ledger.state import State


def validators(state: State) -> ValidatorSet:
    """Who votes, by this state, two heights later. Raises InvalidInput if nobody does, or with too much power."""
    return ValidatorSet.of(
        Validator(institution=item.descriptor.id, public_key=item.descriptor.validator_key, power=item.descriptor.power)
        for item in tables.INSTITUTIONS.scan(state)
        if item.status == MEMBER_STATUS_ACTIVE and item.descriptor.power and item.descriptor.validator_key
    )


def note_signs_of_life(context: Context, institutions: tuple[str, ...]) -> None:
    """Remember that these validators took part in the last decision; once per heartbeat, to spare the state."""
    for institution in sorted(set(institutions)):
        seen_ms = tables.LAST_SIGNS.find(context.state, institution)
        if seen_ms is None or context.time_ms - seen_ms >= context.parameters.heartbeat_ms:
            tables.LAST_SIGNS.put(context.state, institution, context.time_ms)


# --- decided by the members


def admit(context: Context, descriptor: InstitutionDescriptor, power: int) -> None:
    """A new institution joins as an observer; ``power`` is what it may take up once it has caught up (0: none).

    One that was removed may come back so, under its old id, with new keys. ``descriptor`` may come from anyone.

    Raises InvalidInput, and Refused with rule ``already-exists``, ``too-many`` or ``wrong-state``.
    """
    check_descriptor(descriptor)
    _check_power(power)
    state, name = context.state, descriptor.id
    _check_settled(context, name)
    known = list(tables.INSTITUTIONS.scan(state))
    former = next((item for item in known if item.descriptor.id == name), None)
    if former is None and len(known) >= MAX_INSTITUTIONS:
        raise Refused(f"there are {len(known)} institutions", rule="too-many", hint=f"at most {MAX_INSTITUTIONS} fit")
    member = Institution(
        descriptor=descriptor,
        status=former.status if former else MEMBER_STATUS_UNSPECIFIED,
        joined_height=context.height,
        approved_power=power,
    )
    member.descriptor.power = 0
    del member.descriptor.people[:]
    _check_addresses(member.descriptor, known)
    detail = f"observes; may vote with power {power}" if power else "observes"
    detail += f"; node key {descriptor.node_key.hex()}, validator key {descriptor.validator_key.hex()}"
    context.move(INSTITUTION, name, member, "institution.joined", detail=detail)
    for purpose, key in keys.of_descriptor(descriptor):
        keys.register(context, key, name, purpose)
    tables.INSTITUTIONS.put(state, name, member)
    for person in descriptor.people:
        identity.admit(context, person)


def check_descriptor(descriptor: InstitutionDescriptor) -> None:
    """The form of a would-be member's descriptor, from anyone. Raises InvalidInput."""
    genesis_form.validate_descriptor(descriptor)
    shapes.text("title", descriptor.title, MAX_TITLE)
    shapes.addresses(descriptor.peer_address, descriptor.rpc_address, descriptor.mpc_address)


def set_power(context: Context, institution: str, power: int) -> None:
    """Change an active institution's voting power, from two blocks later on; 0 makes it an observer.

    Raises NotFound, InvalidInput, and Refused with rule ``no-live-quorum``, ``set-change`` or ``wrong-state``.
    """
    _check_power(power)
    member = tables.INSTITUTIONS.get(context.state, institution)
    if power:
        _require_key(member)  # else the power would count once the key is there, and the checks be past
    _empower(context, member, power)


def suspend(context: Context, institution: str, reason: str) -> None:
    """For a while: its node follows, and nothing that its keys sign counts.

    Raises NotFound, InvalidInput, and Refused with rule ``no-live-quorum``, ``set-change``, ``constitution`` or
    ``wrong-state``.
    """
    _exclude(context, institution, "institution.suspended", reason)


def readmit(context: Context, institution: str) -> None:
    """Back from a suspension, as an observer; with the power it had approved, once its node has caught up.

    Raises NotFound, and Refused with rule ``wrong-state``.
    """
    member = tables.INSTITUTIONS.get(context.state, institution)
    _check_settled(context, institution)
    context.move(INSTITUTION, institution, member, "institution.readmitted", detail="observes")
    member.approved_power = max(member.approved_power, member.descriptor.power)
    member.descriptor.power = 0
    member.status_reason = ""
    member.joined_height = context.height
    tables.INSTITUTIONS.put(context.state, institution, member)


def remove(context: Context, institution: str, reason: str) -> None:
    """For good: its node is no longer let in, and its data are withdrawn.

    Raises NotFound, InvalidInput, and Refused with rule ``no-live-quorum``, ``set-change``, ``constitution`` or
    ``wrong-state``.
    """
    _exclude_for_good(context, institution, "institution.removed", reason)


def recover(context: Context, institution: str, person_id: str, public_key: bytes) -> None:
    """Give an institution that lost its operators' keys an operator again: known or new, under a key never used.

    The person's earlier key counts no more; what it signed stays that person's.

    Raises NotFound, InvalidInput, and Refused with rule ``already-exists`` or ``wrong-state``.
    """
    member = tables.INSTITUTIONS.get(context.state, institution)
    if member.status == MEMBER_STATUS_REMOVED:
        raise Refused(f"{institution} was removed", rule="wrong-state", hint="it may apply again, with new keys")
    if PersonId.parse(person_id).institution != institution:
        raise InvalidInput(f"{person_id} is not of {institution}", hint="name one of its own people")
    known = tables.PEOPLE.find(context.state, person_id)
    roles = sorted({ROLE_OPERATOR, *(known.roles if known else ())})
    person = Person(id=person_id, public_key=public_key, roles=roles)
    shapes.person(person)
    identity.admit(context, person)


# --- decided by nobody


def leave(context: Context, institution: str) -> None:
    """What a member gave notice of (``departure``); else like a removal.

    Raises NotFound, and Refused with rule ``no-live-quorum``, ``set-change``, ``constitution`` or ``wrong-state``.
    """
    reason = tables.INSTITUTIONS.get(context.state, institution).notice.reason
    _exclude_for_good(context, institution, "institution.left", reason)


def check_without(context: Context, institution: str) -> None:
    """Could the others decide, if this active member were gone?

    Raises NotFound, and Refused with rule ``no-live-quorum``, ``validator-set`` or ``constitution``.
    """
    state = context.state
    before = validators(state)
    state.savepoint()
    try:
        member = tables.INSTITUTIONS.get(state, institution)
        member.status = MEMBER_STATUS_REMOVED
        tables.INSTITUTIONS.put(state, institution, member)
        after = _validators_after(context)
        if after != before:
            _check_live(context, after)
        weights.check(state)
    finally:
        state.rollback()


def begin_voting(context: Context, operation: BeginVoting) -> str:
    """An observer's node has caught up, and takes up the power that the members approved for it."""
    institution = context.sender.institution
    context.authorise(institution=institution)
    member = tables.INSTITUTIONS.get(context.state, institution)
    if not member.approved_power:
        raise Refused(
            f"no power is approved for {institution}, beyond what it has",
            rule="wrong-state",
            hint="members decide that",
        )
    _require_key(member)
    for height, leaving in islice(tables.DEPARTURES.all(context.state), 1):
        if height <= context.height:  # else a change in every block would keep it for ever
            raise Refused(f"{leaving.decode()} leaves with this block", rule="set-change", hint="again in the next one")
    if not context.height - MAX_JOIN_LAG_BLOCKS <= operation.height < context.height:
        raise Refused(
            f"the node of {institution} is at height {operation.height}, the ledger at {context.height - 1}",
            rule="not-caught-up",
            hint="wait until koinon status says that it has caught up",
        )
    tables.LAST_SIGNS.put(context.state, institution, context.time_ms)  # its node is there, and signs
    _empower(context, member, member.approved_power)
    return ""


def sanction(context: Context, institution: str, height: int, offence: str) -> None:
    """What evidence brings about: suspension, unless the others could not decide without the offender.

    Then it stays, and the record says why: an equivocator alone cannot break the ledger, but nobody could go on
    without it, not even to decide about it. What was before its last admission is settled. Raises nothing that a block
    could cause.
    """
    member = tables.INSTITUTIONS.get(context.state, institution)
    if member.status != MEMBER_STATUS_ACTIVE or height < member.joined_height:
        return
    if refused := attempt(context, partial(suspend, context, institution, offence)):
        detail = f"not suspended: {refused.message}"
        context.move(INSTITUTION, institution, member, "institution.spared", detail=detail)


def attempt(context: Context, change: Callable[[], None]) -> KoinonError | None:
    """Make a change of members; or nothing of it, and say what refused it."""
    records = len(context.records)
    context.state.savepoint()
    try:
        change()
    except REFUSALS as error:
        context.state.rollback()
        del context.records[records:]
        return error
    context.state.release()
    return None


# --- within


def _check_power(power: int) -> None:
    if not 0 <= power <= MAX_TOTAL_POWER:
        raise InvalidInput(f"{power} is no voting power", rule="validator-set", hint=f"use 0 to {MAX_TOTAL_POWER}")


def _check_settled(context: Context, institution: str) -> None:
    """Has everything ended that was open when it was excluded? Else some of it would be of use again."""
    if tables.EXCLUSIONS.find(context.state, institution) is not None:
        raise Refused(
            f"what {institution} had under way has not all ended yet",
            rule="wrong-state",
            hint="that takes some blocks: propose again then",
        )


def _require_key(member: Institution) -> None:
    if not member.descriptor.validator_key:
        raise Refused(
            f"{member.descriptor.id} has no validator key",
            rule="wrong-state",
            hint="give it one: koinon key rotate validator",
        )


def _check_addresses(descriptor: InstitutionDescriptor, others: list[Institution]) -> None:
    own = {descriptor.peer_address, descriptor.rpc_address, descriptor.mpc_address}
    for other in others:
        its = other.descriptor
        if its.id == descriptor.id or other.status == MEMBER_STATUS_REMOVED:
            continue
        if shared := own.intersection((its.peer_address, its.rpc_address, its.mpc_address)):
            raise Refused(
                f"{min(shared)} is an address of {its.id}",
                rule="already-exists",
                hint="give each node addresses of its own",
            )


def _empower(context: Context, member: Institution, power: int) -> None:
    name, before = member.descriptor.id, member.descriptor.power
    member.approved_power = 0
    member.descriptor.power = power
    detail = f"from {before} to {power}, at height {context.height + 2}"
    context.move(INSTITUTION, name, member, "institution.empowered", detail=detail)
    tables.INSTITUTIONS.put(context.state, name, member)
    check_set(context)


_HAPPENED = {
    "institution.suspended": "was suspended",
    "institution.removed": "was removed",
    "institution.left": "left",
}


def _exclude_for_good(context: Context, institution: str, kind: str, reason: str) -> None:
    _exclude(context, institution, kind, reason)
    keys.end_all(context, tables.INSTITUTIONS.get(context.state, institution), kind.partition(".")[2])


def _exclude(context: Context, institution: str, kind: str, reason: str) -> None:
    shapes.text("reason", reason, MAX_TEXT)
    state = context.state
    member = tables.INSTITUTIONS.get(state, institution)
    context.move(INSTITUTION, institution, member, kind, detail=reason)
    member.status_reason = reason
    if member.HasField("notice"):
        tables.DEPARTURES.remove(state, member.notice.height, institution.encode())
        member.ClearField("notice")
    tables.INSTITUTIONS.put(state, institution, member)
    check_set(context)
    weights.check(state)
    exclusion = Exclusion(
        institution=institution,
        removed=member.status == MEMBER_STATUS_REMOVED,
        rule="member-removed" if member.status == MEMBER_STATUS_REMOVED else "member-suspended",
        reason=f"{institution} {_HAPPENED[kind]}: {reason}"[:MAX_TEXT],
        cause=context.cause,
        by_notice=kind == "institution.left",
    )
    tables.EXCLUSIONS.put(state, institution, exclusion)


def check_set(context: Context) -> None:
    """May the validators become what the state now says? Raises Refused, see above."""
    before, after = context.validators, _validators_after(context)
    if after == before:
        return
    _check_overlap(before, after)
    _check_live(context, after)


def _validators_after(context: Context) -> ValidatorSet:
    """Raises Refused with rule ``validator-set``."""
    try:
        return validators(context.state)
    except InvalidInput as error:
        raise Refused(error.message, rule="validator-set", hint="keep 1 or more voting, with less power") from error


def _check_overlap(before: ValidatorSet, after: ValidatorSet) -> None:
    old, new = ({member.institution: member.power for member in each} for each in (before, after))
    changed = [name for name in sorted({*old, *new}) if old.get(name, 0) != new.get(name, 0)]
    kept = sum(min(power, new.get(name, 0)) for name, power in old.items())
    if len(changed) > 1 and 3 * kept <= 2 * max(before.total_power, after.total_power):
        raise Refused(
            f"the powers of {', '.join(changed)} would change at one height, and only {kept} would stay the same",
            rule="set-change",
            hint="change one after the other, or less at a time",
        )


def _check_live(context: Context, after: ValidatorSet) -> None:
    since_ms = context.time_ms - LIVE_HEARTBEATS * context.parameters.heartbeat_ms
    signs = {member.institution: tables.LAST_SIGNS.find(context.state, member.institution) for member in after}
    live = [name for name, seen_ms in signs.items() if seen_ms is not None and seen_ms >= since_ms]
    if after.power(live) < after.quorum:
        silent = [name for name in signs if name not in live]
        raise Refused(
            f"too few of those who would vote took part of late: not {', '.join(silent)}; power {after.power(live)} of "
            f"{after.total_power}, a decision takes {after.quorum}",
            rule="no-live-quorum",
            hint=f"first see that the nodes of {', '.join(silent)} run, or change the set in another order",
        )
