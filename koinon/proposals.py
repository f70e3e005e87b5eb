"""Proposals as people write and read them: files in TOML or JSON, actions in one line of words.

A file names a title, a reason and actions, each as in governance.proto::

    title = "A larger minimum cohort"
    reason = "Agreed in May."

    [[actions]]
    set_parameter = { name = "min_cohort_floor", value = 10 }

    [[actions]]
    admit = { descriptor = "koi/descriptor.json", power = 1 }

Where it differs from the messages: keys and digests are in hex, fractions may be written "2/3", and a descriptor is the
path of its file, from the proposal's own directory.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from koinon import genesis
from koinon.display import duration
from koinon.errors import InvalidFile
from koinon.files import read_text
from koinon.json_form import read
from koinon.limits import MAX_PROPOSAL_BYTES
from koinon.v1.constitution_pb2 import ArbitrationPolicy, Constitution, DecisionPolicy, Fraction
from koinon.v1.governance_pb2 import Action, Propose
from koinon.v1.identity_pb2 import MemberStatus
from koinon.words import word

_HINT = "docs/governance.md shows the form of the file"
_FRACTION = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_FRACTIONS = ("participation", "approval", "veto", "refund", "payout", "revocation", "suspension")
_BYTES = ("public_key", "digest")
_MAX_DEPTH = 16  # actions[0].set_constitution.constitution.policies[0].policy.veto.numerator takes nine


def load(path: Path) -> Propose:
    """Read a proposal's file. Raises InvalidFile."""
    table = _table(path, "proposal")
    descriptors: dict[int, Path] = {}
    actions = table.get("actions")
    for index, action in enumerate(actions if isinstance(actions, list) else []):
        admit = action.get("admit") if isinstance(action, dict) else None
        if isinstance(admit, dict) and isinstance(admit.get("descriptor"), str):
            descriptors[index] = path.parent / admit.pop("descriptor")
    proposal = read(_plainer(table), Propose, "proposal", _HINT)
    for index, file in descriptors.items():
        admission = proposal.actions[index].admit
        admission.descriptor.CopyFrom(genesis.load_descriptor(file))
        admission.institution = admission.institution or admission.descriptor.id
    return proposal


def load_constitution(path: Path) -> Constitution:
    """Read a constitution's file: the entry ``constitution`` of ``koinon gov constitution --json``, or that alone."""
    table = _table(path, "constitution")
    inner = table.get("constitution", table)
    return read(_plainer(inner if isinstance(inner, dict) else {}), Constitution, "constitution", _HINT)


def describe(action: Action) -> str:
    """One action in words, without what the ledger would have to say about it."""
    kind = action.WhichOneof("action") or ""
    return _WORDS[kind](getattr(action, kind)) if kind in _WORDS else f"{kind or 'an action'} of a later version"


def policy(terms: DecisionPolicy) -> str:
    """What a decision takes, in words."""
    parts = [
        f"more than {fraction(terms.approval)} yes, at least {fraction(terms.participation)} taking part",
        f"ballots for {duration(terms.voting_period_ms)}",
    ]
    if terms.HasField("veto"):
        parts.append(f"vetoed by {fraction(terms.veto)}")
    if terms.delay_ms:
        parts.append(f"done {duration(terms.delay_ms)} later")
    return ", ".join(parts)


def arbitration(terms: ArbitrationPolicy) -> str:
    """What arbiters need to decide a dispute, in words."""
    parts = ", ".join(
        f"{name} more than {fraction(part)}"
        for name, part in (("refund", terms.refund), ("payout", terms.payout), ("revocation", terms.revocation))
    )
    return (
        f"{parts} of the arbiters; suspension more than {fraction(terms.suspension)} of all but the respondent; "
        f"quorum {terms.quorum}; {duration(terms.answer_period_ms)} to answer, "
        f"{duration(terms.ruling_period_ms)} to rule"
    )


def fraction(part: Fraction) -> str:
    """``2/3``"""
    return f"{part.numerator}/{part.denominator}"


def _admission(action: Any) -> str:
    power = f"votes with power {action.power} once it has caught up" if action.power else "observes"
    return f"admit {action.institution} ({action.descriptor.title}): {power}"


_WORDS: dict[str, Callable[[Any], str]] = {
    "admit": _admission,
    "suspend": lambda it: f"suspend {it.institution}: {it.reason}",
    "readmit": lambda it: f"readmit {it.institution}",
    "remove": lambda it: f"remove {it.institution}: {it.reason}",
    "set_power": lambda it: f"set the power of {it.institution} to {it.power}",
    "set_weight": lambda it: f"set the ballot weight of {it.institution} to {it.weight}",
    "set_parameter": lambda it: f"set {it.name} to {it.value}",
    "register_regulator": lambda it: f"register the regulator {it.person.id}, key {it.person.public_key.hex()}",
    "revoke_regulator": lambda it: f"revoke the regulator {it.person_id}: {it.reason}",
    "schedule_upgrade": lambda it: f"upgrade to protocol {it.version} at height {it.height}; install {it.install}",
    "cancel_upgrade": lambda it: f"cancel the upgrade to protocol {it.version}",
    "mint_points": lambda it: f"mint {it.points} points for {it.account}: {it.reason}",
    "burn_points": lambda it: f"burn {it.points} points of {it.account}: {it.reason}",
    "resolve_dispute": lambda it: f"resolve dispute {it.dispute_id}: {it.reason}",
    "set_constitution": lambda it: (
        f"change the constitution: usually {policy(it.constitution.usual)}; "
        f"disputes: {arbitration(it.constitution.arbitration)}"
    ),
    "recover": lambda it: (
        f"recover {it.institution}: {it.person_id} acts for it with key {it.public_key.hex()}: {it.reason}"
    ),
    "set_taxonomy": lambda it: f"change the taxonomy: {it.taxonomy.title}, {len(it.taxonomy.themes)} themes",
    "assert_parameter": lambda it: f"only if {it.name} is {it.value}",
    "assert_member_status": lambda it: f"only if {it.institution} is {word(MemberStatus, it.status)}",
    "assert_constitution": lambda it: f"only under the constitution {it.digest.hex()[:16]}",
}


def _table(path: Path, what: str) -> dict[str, Any]:
    text = read_text(path, f"{what} file", MAX_PROPOSAL_BYTES)
    try:
        table = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        _check_depth(table, _MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"the {what} {path} is neither TOML nor JSON: {error}", hint=_HINT) from error
    return dict(table)


def _check_depth(value: Any, left: int) -> None:
    """Raises ValueError for what is nested deeper than any proposal."""
    if not left:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def _plainer(value: Any, name: str = "") -> Any:
    """The same in the form of messages: fractions as objects, keys and digests in base64."""
    if isinstance(value, dict):
        return {key: _plainer(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_plainer(item, name) for item in value]
    if name in _FRACTIONS and isinstance(value, str) and (found := _FRACTION.fullmatch(value)):
        return {"numerator": int(found[1]), "denominator": int(found[2])}
    if name in _BYTES and isinstance(value, str) and _HEX.fullmatch(value):
        return base64.b64encode(bytes.fromhex(value)).decode("ascii")
    return value
