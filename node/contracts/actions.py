"""What accepted proposals do: apply, one function per kind of action.

Each returns what it changed, in words that say from what to what, or raises what refuses it; whoever calls ``apply``
rolls back then, so that several actions are applied all or none. Records made meanwhile are related to the proposal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from governance import constitution as rules
from koinon import canonical
from koinon import parameters as parameter_rules
from koinon.errors import Refused
from koinon.v1.catalog_pb2 import Taxonomy
from koinon.v1.constitution_pb2 import Constitution
from koinon.v1.governance_pb2 import (
    APPLICATION_STATUS_OPEN,
    AdmitInstitution,
    AssertConstitution,
    AssertMemberStatus,
    AssertParameter,
    Propose,
    RecoverInstitution,
    RegisterRegulator,
    ResolveDispute,
    RevokeRegulator,
    SetConstitution,
    SetParameter,
    SetPower,
    SetTaxonomy,
    SetWeight,
)
from koinon.v1.identity_pb2 import ROLE_REGULATOR, MemberStatus, Person
from node.contracts import (
    accounts,
    applications,
    catalog,
    classification,
    disputes,
    identity,
    keys,
    membership,
    shapes,
    tables,
    upgrades,
    weights,
)
from node.contracts.context import Context
from node.contracts.transitions import CONSORTIUM
from node.ledger.state import State


def apply(context: Context, proposal: Propose) -> list[str]:
    """Apply the actions of an accepted proposal in order; what each changed.

    Raises InvalidInput, NotFound or Refused, and leaves the context half changed: the caller rolls back.
    """
    effects = []
    for action in proposal.actions:
        kind = action.WhichOneof("action") or ""
        effects.append(_APPLY[kind](context, getattr(action, kind)))
    return effects


def named_keys(proposal: Propose) -> list[bytes]:
    """The keys that a proposal's actions would register."""
    found = []
    for action in proposal.actions:
        match action.WhichOneof("action"):
            case "admit":
                found += keys.all_of_descriptor(action.admit.descriptor)
            case "register_regulator":
                found.append(action.register_regulator.person.public_key)
            case "recover":
                found.append(action.recover.public_key)
    return found


# --- what the ledger says


def constitution(state: State) -> Constitution:
    """The constitution in force."""
    return tables.CONSTITUTION.get(state, "")


def constitution_digest(state: State) -> bytes:
    """Names the constitution in force."""
    return canonical.constitution_digest(constitution(state).SerializeToString(deterministic=True))


# --- members


def _admit(context: Context, action: AdmitInstitution) -> str:
    state, name = context.state, action.institution
    former = tables.INSTITUTIONS.find(state, name)
    if former is None and next(tables.PEOPLE.scan(state, f"{name}/"), None) is not None:
        raise Refused(
            f"{name} is an authority with regulators of its own", rule="already-exists", hint="use another id"
        )
    membership.admit(context, action.descriptor, action.power)
    _set_weight(context, SetWeight(institution=name, weight=action.weight or weights.USUAL_WEIGHT))
    application = tables.APPLICATIONS.find(state, name)
    if application is not None and application.status == APPLICATION_STATUS_OPEN:
        applications.end(context, application, "application.admitted")
    power = f"votes with power {action.power} once it has caught up" if action.power else "observes"
    return f"member {name}: {_status(former.status) if former else 'none'} -> active, {power}"


def _suspend(context: Context, action: Any) -> str:
    return _restate(context, action.institution, lambda: membership.suspend(context, action.institution, action.reason))


def _readmit(context: Context, action: Any) -> str:
    return _restate(context, action.institution, lambda: membership.readmit(context, action.institution))


def _remove(context: Context, action: Any) -> str:
    return _restate(context, action.institution, lambda: membership.remove(context, action.institution, action.reason))


def _restate(context: Context, institution: str, change: Callable[[], None]) -> str:
    before = tables.INSTITUTIONS.get(context.state, institution)
    change()
    after = tables.INSTITUTIONS.get(context.state, institution)
    return f"member {institution}: {_status(before.status)} -> {_status(after.status)}"


def _status(status: MemberStatus.ValueType) -> str:
    return MemberStatus.Name(status).removeprefix("MEMBER_STATUS_").lower()


def _set_power(context: Context, action: SetPower) -> str:
    before = tables.INSTITUTIONS.get(context.state, action.institution).descriptor.power
    membership.set_power(context, action.institution, action.power)
    return f"power of {action.institution}: {before} -> {action.power}"


def _set_weight(context: Context, action: SetWeight) -> str:
    state, name = context.state, action.institution
    tables.INSTITUTIONS.get(state, name)
    before = weights.of(state, name)
    effect = f"ballot weight of {name}: {before} -> {action.weight}"
    if action.weight != before:
        weights.put(state, name, action.weight)
        _record(context, "weight.changed", "weights", f"institution:{name}", effect)
    weights.check(state)
    return effect


def _recover(context: Context, action: RecoverInstitution) -> str:
    membership.recover(context, action.institution, action.person_id, action.public_key)
    return f"operator {action.person_id}: key -> {action.public_key.hex()}"


# --- regulators


def _register_regulator(context: Context, action: RegisterRegulator) -> str:
    person = action.person
    shapes.person(person)
    known = tables.PEOPLE.find(context.state, person.id)
    if known is not None and list(known.roles) != [ROLE_REGULATOR]:
        raise Refused(f"{person.id} has other roles", rule="already-exists", hint="name a person of its own")
    identity.admit(context, person)
    return f"regulator {person.id}: key {known.public_key.hex() if known else 'none'} -> {person.public_key.hex()}"


def _revoke_regulator(context: Context, action: RevokeRegulator) -> str:
    person = tables.PEOPLE.get(context.state, action.person_id)
    if ROLE_REGULATOR not in person.roles:
        raise Refused(f"{person.id} is no regulator", rule="wrong-state", hint="koinon member list shows who is")
    others = [role for role in person.roles if role != ROLE_REGULATOR]
    if others:
        identity.admit(context, Person(id=person.id, public_key=person.public_key, roles=others))
    else:
        identity.revoke(context, person, action.reason)
    return f"regulator {person.id}: active -> revoked"


# --- rules


def _set_parameter(context: Context, action: SetParameter) -> str:
    parameters = tables.PARAMETERS.get(context.state, "")
    before = parameter_rules.get(parameters, action.name)
    setattr(parameters, action.name, action.value)
    parameter_rules.check(parameters)
    tables.PARAMETERS.put(context.state, "", parameters)
    context.parameters = parameters
    effect = f"{action.name}: {before} -> {action.value}"
    _record(context, "parameter.changed", "parameters", f"parameter:{action.name}", effect)
    return effect


def _set_constitution(context: Context, action: SetConstitution) -> str:
    rules.check(action.constitution)
    before, former = constitution_digest(context.state), constitution(context.state)
    tables.CONSTITUTION.put(context.state, "", action.constitution)
    effect = f"constitution: {before.hex()[:16]} -> {constitution_digest(context.state).hex()[:16]}"
    if differing := rules.changed(former, action.constitution):
        effect += f", other rules for {', '.join(differing)}"
    _record(context, "constitution.changed", "constitution", "", effect)
    return effect


def _set_taxonomy(context: Context, action: SetTaxonomy) -> str:
    before: Taxonomy = classification.current(context.state)
    catalog.set_taxonomy(context, action.taxonomy)
    after = classification.current(context.state)
    return f"taxonomy: version {before.version} -> {after.version}, {len(after.themes)} themes"


def _record(context: Context, kind: str, what: str, related: str, detail: str) -> None:
    after = CONSORTIUM.after(what, "", kind)
    context.record(kind, f"consortium:{what}", "", after, related=[related] if related else [], detail=detail)


# --- points and disputes


def _mint(context: Context, action: Any) -> str:
    before = accounts.balance(context.state, action.account)
    accounts.mint(context, action.account, action.points, action.reason)
    return f"{action.account}: {before} -> {accounts.balance(context.state, action.account)} points, minted"


def _burn(context: Context, action: Any) -> str:
    before = accounts.balance(context.state, action.account)
    accounts.burn(context, action.account, action.points, action.reason)
    return f"{action.account}: {before} -> {accounts.balance(context.state, action.account)} points, burned"


def _resolve_dispute(context: Context, action: ResolveDispute) -> str:
    disputes.resolve(context, action.dispute_id, action.remedies, action.reason)
    return f"dispute {action.dispute_id}: decided"


# --- preconditions


def _assert_parameter(context: Context, action: AssertParameter) -> str:
    value = parameter_rules.get(tables.PARAMETERS.get(context.state, ""), action.name)
    return _require(value == action.value, f"{action.name} is {value}", str(action.value))


def _assert_member_status(context: Context, action: AssertMemberStatus) -> str:
    member = tables.INSTITUTIONS.find(context.state, action.institution)
    status = _status(member.status) if member else "no member"
    wanted = _status(action.status) if action.status else "no member"
    return _require(status == wanted, f"{action.institution} is {status}", wanted)


def _assert_constitution(context: Context, action: AssertConstitution) -> str:
    digest = constitution_digest(context.state)
    return _require(digest == action.digest, f"the constitution is {digest.hex()[:16]}", action.digest.hex()[:16])


def _require(holds: bool, found: str, wanted: str) -> str:
    if not holds:
        raise Refused(f"{found}, not {wanted}", rule="condition", hint="propose again, for what holds now")
    return f"{found}, as it must be"


_APPLY: dict[str, Callable[[Context, Any], str]] = {
    "admit": _admit,
    "suspend": _suspend,
    "readmit": _readmit,
    "remove": _remove,
    "set_power": _set_power,
    "set_weight": _set_weight,
    "set_parameter": _set_parameter,
    "register_regulator": _register_regulator,
    "revoke_regulator": _revoke_regulator,
    "schedule_upgrade": upgrades.schedule,
    "cancel_upgrade": upgrades.cancel,
    "mint_points": _mint,
    "burn_points": _burn,
    "resolve_dispute": _resolve_dispute,
    "set_constitution": _set_constitution,
    "recover": _recover,
    "set_taxonomy": _set_taxonomy,
    "assert_parameter": _assert_parameter,
    "assert_member_status": _assert_member_status,
    "assert_constitution": _assert_constitution,
}
"""By the name of the action in ``Action``'s oneof; a test compares the two."""
