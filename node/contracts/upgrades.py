"""Upgrades: scheduled by the members for a height -> active from there on; or cancelled.

A node that does not know the version must not execute a single block of it, since it would leave the ledger that the
others share. So it commits the last block before, stops, and says what to install; with that it goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable

from koinon.errors import Refused, Unavailable
from koinon.limits import MIN_UPGRADE_BLOCKS
from koinon.v1.governance_pb2 import CancelUpgrade, Protocol, ScheduleUpgrade, Upgrade
from node.contracts import tables
from node.contracts.context import Context
from node.contracts.transitions import UPGRADE
from node.ledger.state import State

KNOWN_VERSION = 1
"""The latest version of the ledger's protocol that this code executes; it executes all before, too."""

KNOWN_FEATURES: frozenset[str] = frozenset()
"""Flags that an upgrade may turn on."""


def protocol(state: State) -> Protocol:
    """The version of the protocol that the next block follows, and what is scheduled."""
    return tables.PROTOCOL.find(state, "") or Protocol(version=1)


def check(state: State, height: int) -> None:
    """Does this node know the protocol of the block of this height, the next one?

    Raises Unavailable with rule ``upgrade-needed``.
    """
    current = protocol(state)
    if knows(current.version, current.features):
        return
    install = tables.UPGRADES.get(state, str(current.version)).scheduled.install
    flags = f" with {', '.join(current.features)}" if current.features else ""
    raise Unavailable(
        f"from height {height} on the ledger follows version {current.version} of its protocol{flags}, "
        f"and this node knows version {KNOWN_VERSION}",
        rule="upgrade-needed",
        hint=f"install {install}, then start the node again: it goes on from here",
    )


def knows(version: int, features: Iterable[str]) -> bool:
    """Can this code execute that protocol?"""
    return version <= KNOWN_VERSION and KNOWN_FEATURES.issuperset(features)


def schedule(context: Context, action: ScheduleUpgrade) -> str:
    """Let the ledger follow another version from a height on. Raises Refused with rule ``upgrade``."""
    state, current = context.state, protocol(context.state)
    if current.HasField("next"):
        raise _refused(f"version {current.next.scheduled.version} is scheduled already", "cancel it first")
    if action.version <= current.version:
        raise _refused(f"the ledger follows version {current.version}", "schedule a later one")
    if action.height < context.height + MIN_UPGRADE_BLOCKS:
        raise _refused(
            f"height {action.height} is too near: this is {context.height}",
            f"leave {MIN_UPGRADE_BLOCKS} blocks at least, and the members the time to install it",
        )
    key = str(action.version)
    upgrade = tables.UPGRADES.find(state, key) or Upgrade()
    upgrade.scheduled.CopyFrom(action)
    detail = f"from height {action.height}; install {action.install}"
    context.move(UPGRADE, key, upgrade, "upgrade.scheduled", detail=detail)
    tables.UPGRADES.put(state, key, upgrade)
    current.next.CopyFrom(upgrade)
    tables.PROTOCOL.put(state, "", current)
    return f"protocol: version {current.version} -> {action.version} from height {action.height} on"


def cancel(context: Context, action: CancelUpgrade) -> str:
    """Let the ledger stay with its version. Raises Refused with rule ``upgrade``."""
    state, current = context.state, protocol(context.state)
    if not current.HasField("next") or current.next.scheduled.version != action.version:
        raise _refused(f"version {action.version} is not scheduled", "koinon gov constitution shows what is")
    upgrade, key = current.next, str(action.version)
    context.move(UPGRADE, key, upgrade, "upgrade.cancelled")
    tables.UPGRADES.put(state, key, upgrade)
    current.ClearField("next")
    tables.PROTOCOL.put(state, "", current)
    return f"protocol: version {current.version} stays, {action.version} is not scheduled"


def activate_due(context: Context) -> None:
    """At the end of the last block before a scheduled upgrade: from the next one on its version holds."""
    current = protocol(context.state)
    if not current.HasField("next") or current.next.scheduled.height > context.height + 1:
        return
    upgrade = current.next
    scheduled = upgrade.scheduled
    key = str(scheduled.version)
    context.move(UPGRADE, key, upgrade, "upgrade.active", detail=f"from height {scheduled.height}")
    tables.UPGRADES.put(context.state, key, upgrade)
    tables.PROTOCOL.put(context.state, "", Protocol(version=scheduled.version, features=scheduled.features))


def _refused(message: str, hint: str) -> Refused:
    return Refused(message, rule="upgrade", hint=hint)
