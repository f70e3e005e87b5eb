"""What the options of ``koinon gov propose`` say: one option per kind of action, each repeatable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from koinon import genesis, proposals
from koinon.errors import InvalidInput
from koinon.v1.governance_pb2 import (
    Action,
    AdmitInstitution,
    AssertParameter,
    BurnPoints,
    CancelUpgrade,
    MintPoints,
    ReadmitInstitution,
    RecoverInstitution,
    RegisterRegulator,
    RemoveInstitution,
    RevokeRegulator,
    ScheduleUpgrade,
    SetConstitution,
    SetParameter,
    SetPower,
    SetWeight,
    SuspendInstitution,
)
from koinon.v1.identity_pb2 import ROLE_REGULATOR, Person

Function = TypeVar("Function", bound=Callable[..., Any])

_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class ActionOption:
    """An option, and the action that its text and the proposal's reason make."""

    name: str
    metavar: str
    build: Callable[[str, str], Action]
    help: str


def action_options(function: Function) -> Function:
    """Gives a command every option of ``OPTIONS``, in that order."""
    for option in reversed(OPTIONS):
        add = click.option(f"--{option.name}", metavar=option.metavar, multiple=True, help=option.help)
        function = add(function)
    return function


def actions(texts: Mapping[str, tuple[str, ...]], reason: str) -> list[Action]:
    """The actions of what was given for the options, in the options' order. Raises InvalidInput."""
    return [option.build(text, reason) for option in OPTIONS for text in texts[option.name.replace("-", "_")]]


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.rpartition("=")
    if not sign or not name or not value:
        raise InvalidInput(f"{text!a} is not of the form NAME=VALUE", hint="e.g. --set min_cohort_floor=10")
    return name, value


def _number(text: str) -> tuple[str, int]:
    name, value = _pair(text)
    return name, _whole(name, value)


def _whole(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > _MOST_DIGITS:
        raise InvalidInput(f"{name} would be {value!a}, which is no whole number", hint="write digits only")
    return int(value)


def _keyed(text: str) -> tuple[str, bytes]:
    name, value = _pair(text)
    try:
        return name, bytes.fromhex(value)
    except ValueError:
        raise InvalidInput(f"the key of {name} is not 64 hex digits", hint="koinon key make FILE prints it") from None


def _condition(text: str, _: str) -> Action:
    name, value = _number(text)
    return Action(assert_parameter=AssertParameter(name=name, value=value))


def _admit(text: str, _: str) -> Action:
    subject, sign, power = text.rpartition("=")
    if not sign or not power.isdigit():
        subject, power = text, "0"
    admission = AdmitInstitution(institution=subject, power=_whole("power", power))
    path = Path(subject)
    if path.is_file():
        admission.descriptor.CopyFrom(genesis.load_descriptor(path))
        admission.institution = admission.descriptor.id
    return Action(admit=admission)


def _power(text: str, _: str) -> Action:
    name, power = _number(text)
    return Action(set_power=SetPower(institution=name, power=power))


def _weight(text: str, _: str) -> Action:
    name, weight = _number(text)
    return Action(set_weight=SetWeight(institution=name, weight=weight))


def _parameter(text: str, _: str) -> Action:
    name, value = _number(text)
    return Action(set_parameter=SetParameter(name=name, value=value))


def _regulator(text: str, _: str) -> Action:
    name, key = _keyed(text)
    person = Person(id=name, public_key=key, roles=[ROLE_REGULATOR])
    return Action(register_regulator=RegisterRegulator(person=person))


def _recover(text: str, reason: str) -> Action:
    person, key = _keyed(text)
    institution = person.partition("/")[0]
    return Action(recover=RecoverInstitution(institution=institution, person_id=person, public_key=key, reason=reason))


def _mint(text: str, reason: str) -> Action:
    account, points = _number(text)
    return Action(mint_points=MintPoints(account=account, points=points, reason=reason))


def _burn(text: str, reason: str) -> Action:
    account, points = _number(text)
    return Action(burn_points=BurnPoints(account=account, points=points, reason=reason))


def _upgrade(text: str, _: str) -> Action:
    place, _, install = text.partition(":")
    version, sign, height = place.partition("@")
    if not sign or not install.strip():
        raise InvalidInput(
            f"{text!a} is not of the form N@HEIGHT:INSTALL", hint='e.g. --upgrade "2@120000: koinon 0.2"'
        )
    return Action(
        schedule_upgrade=ScheduleUpgrade(
            version=_whole("version", version), height=_whole("height", height), install=install.strip()
        )
    )


OPTIONS = (
    ActionOption("if", "NAME=VALUE", _condition, "Only if the parameter has this value when it comes to it."),
    ActionOption("admit", "ID|FILE[=N]", _admit, "Admit who applied, or a descriptor; to vote with power N."),
    ActionOption(
        "readmit", "ID", lambda it, _: Action(readmit=ReadmitInstitution(institution=it)), "End a suspension."
    ),
    ActionOption("power", "ID=N", _power, "Change voting power in consensus; 0 makes an observer."),
    ActionOption("weight", "ID=N", _weight, "Change the weight of an institution's ballot."),
    ActionOption(
        "suspend",
        "ID",
        lambda it, reason: Action(suspend=SuspendInstitution(institution=it, reason=reason)),
        "Suspend an institution.",
    ),
    ActionOption(
        "remove",
        "ID",
        lambda it, reason: Action(remove=RemoveInstitution(institution=it, reason=reason)),
        "Remove an institution for good.",
    ),
    ActionOption("recover", "PERSON=KEY", _recover, "Give an institution that lost its keys an operator again."),
    ActionOption("set", "NAME=VALUE", _parameter, "Change a parameter."),
    ActionOption("regulator", "PERSON=KEY", _regulator, "Register a regulator: authority/name and 64 hex digits."),
    ActionOption(
        "revoke-regulator",
        "PERSON",
        lambda it, reason: Action(revoke_regulator=RevokeRegulator(person_id=it, reason=reason)),
        "Revoke a regulator.",
    ),
    ActionOption("mint", "ACCOUNT=N", _mint, "Mint points for an account."),
    ActionOption("burn", "ACCOUNT=N", _burn, "Burn points of an account."),
    ActionOption("upgrade", "N@HEIGHT:INSTALL", _upgrade, "Follow version N of the protocol from a height on."),
    ActionOption(
        "cancel-upgrade",
        "N",
        lambda it, _: Action(cancel_upgrade=CancelUpgrade(version=_whole("version", it))),
        "Cancel the upgrade to version N.",
    ),
    ActionOption(
        "constitution",
        "FILE",
        lambda it, _: Action(set_constitution=SetConstitution(constitution=proposals.load_constitution(Path(it)))),
        "Change the constitution.",
    ),
)
"""In the order in which their actions are applied."""
