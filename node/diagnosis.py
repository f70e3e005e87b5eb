"""Why nothing is decided, in words: facts that a node gathered about itself become findings with a remedy. Pure.

What a node knows of others is what it heard; so a finding says "is not connected", never "is down".

The ledger has stalled, from where this node stands, when a height that began here has not been decided for
``STALL_MS``, or when not even a heartbeat has come for so long. One silent proposer costs less than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median_low

from koinon.display import duration
from koinon.v1.services_pb2 import DiagnoseStallResponse, Finding, ValidatorStanding

STALL_MS = 5_000  # the first round's timeouts, and the second's, at most
CLOCK_MS = 5_000  # votes under way or repeated explain smaller differences
LOW_DISK_BYTES = 1024**3
SLOW_SYNC_MS = 1_000  # of a propose timeout of one and a half


def diagnose(facts: DiagnoseStallResponse, own: str, now_ms: int) -> None:
    """Fill in ``stalled`` and ``findings`` from all the other fields; ``now_ms`` is Unix time, ``own`` this member."""
    facts.stalled = facts.quiet_ms > facts.heartbeat_ms + STALL_MS or (facts.deciding and facts.deciding_ms > STALL_MS)
    found = [*(_reasons(facts, own, now_ms) if facts.stalled else ()), *_own_troubles(facts, own)]
    if facts.stalled and not any(finding.problem for finding in found):
        found.append(
            _problem(
                f"a quorum is connected and has voted, but nothing is decided in round {facts.round}",
                "wait for one more round; if it repeats, compare the logs of all members at this height",
            )
        )
    facts.findings.extend(sorted(found, key=lambda finding: not finding.problem))


def _reasons(facts: DiagnoseStallResponse, own: str, now_ms: int) -> Iterable[Finding]:
    if facts.syncing:
        yield _problem(
            f"this node is behind: the others have decided height {facts.highest_claim}, it stands before "
            f"{facts.height}, and for {_span(facts.quiet_ms)} it got no block that holds",
            "the log names who sent blocks that were dropped; if the height in koinon status does not grow, "
            "check that the other members' peer ports can be reached: koinon doctor",
        )
        return
    apart = [item for item in facts.validators if not item.connected]
    if facts.reachable_power < facts.quorum:
        yield _problem(
            f"no quorum: {_names(apart, now_ms)} cannot be reached; validators with power {facts.reachable_power} can, "
            f"and a decision takes {facts.quorum}",
            f"ask the operators of {_list(item.institution for item in apart)} to start their nodes, or to open their "
            f"peer ports; {_needed(facts, apart)} must be back. Nothing is lost: the ledger goes on from here then",
        )
        return
    if not facts.deciding:
        yield _problem(
            f"the next height, {facts.height}, has not begun here, though its time has come",
            "restart this node; keep its log for the developers",
        )
        return
    if not facts.proposed:
        yield _warning(
            f"{facts.proposer}, whose turn it is in round {facts.round}, has sent no proposal",
            f"the next round has another proposer; if {facts.proposer} misses every turn, ask its operator",
        )
    for vote, given in (
        ("prevoted", [item.prevoted for item in facts.validators]),
        ("precommitted", [item.precommitted for item in facts.validators]),
    ):
        silent = [item for item, voted in zip(facts.validators, given, strict=True) if not voted]
        if silent and sum(item.power for item in silent) > sum(item.power for item in facts.validators) - facts.quorum:
            others = [item for item in silent if item.institution != own]
            yield _problem(
                f"too few have {vote} in round {facts.round}: nothing came from "
                f"{_names(others, now_ms) or 'this node itself'}",
                "a node that is connected and silent is overloaded, paused, set to another time, or lost its signing "
                "state: ask its operator to run koinon doctor",
            )
            return


def _own_troubles(facts: DiagnoseStallResponse, own: str) -> Iterable[Finding]:
    """What is wrong here, and may or may not be why."""
    if facts.signing_state_lost:
        safe = f"from height {facts.votes_from_height} on" if facts.votes_from_height else "once it knows a safe height"
        yield Finding(
            problem=facts.stalled,
            text=f"this node lost its signing state: it observes, and votes {safe}",
            hint="nothing: voting now could contradict what its key signed before. Where members with more than a "
            "third of the power say the same no height becomes safe by itself: see koinon node vote-again --help"
            if not facts.votes_from_height
            else "nothing: voting now could contradict what its key signed before",
        )
    if facts.validator_key_missing:
        yield Finding(
            problem=facts.stalled,
            text="the members know another validator key for this institution than its home holds: it does not vote",
            hint="restore HOME/keys from the backup made after the last rotation, or: koinon key rotate validator",
        )
    if facts.displaced:
        yield _problem(
            "another process shows this node's certificate: the others end our streams for newer ones, again and again",
            "find the second copy of this home, and stop it for good: two nodes with one validator key sign votes that "
            "exclude each other, which is evidence against their institution",
        )
    clocks = {item.institution: item.clock_ahead_ms for item in facts.validators if item.institution != own}
    heard = [ahead for ahead in clocks.values() if ahead]
    middle = median_low(heard) if heard else 0
    if abs(middle) > CLOCK_MS:
        yield Finding(
            problem=facts.stalled,
            text=f"this machine's clock is {_span(abs(middle))} {'behind' if middle > 0 else 'ahead of'} the others'",
            hint="set it: votes from more than a minute ahead are dropped; run chrony or systemd-timesyncd",
        )
    else:
        for institution, ahead in clocks.items():
            if ahead > CLOCK_MS:  # one that is late, or whose votes are old, does no harm
                yield _warning(f"the clock of {institution} seems {_span(ahead)} ahead", "ask its operator to set it")
    if facts.disk_free_bytes < LOW_DISK_BYTES:
        yield _warning(
            f"{facts.disk_free_bytes // 1024**2} MiB are free on the disk of the ledger",
            "make room: a node whose disk is full stops rather than lose a decision",
        )
    if facts.slowest_sync_ms > SLOW_SYNC_MS:
        yield _warning(
            f"the disk took up to {_span(facts.slowest_sync_ms)} to make a write durable",
            "use a faster disk, or keep other work away from this one: every vote waits for it",
        )


def _needed(facts: DiagnoseStallResponse, apart: Sequence[ValidatorStanding]) -> str:
    """How many of those out of reach make a quorum again, at least."""
    missing, count = facts.quorum - facts.reachable_power, 0
    for power in sorted((item.power for item in apart), reverse=True):
        if missing > 0:
            missing -= power
            count += 1
    if count == len(apart):
        return "all of them" if count > 1 else "it"
    return f"{count} of them"


def _names(items: Sequence[ValidatorStanding], now_ms: int) -> str:
    def heard(item: ValidatorStanding) -> str:
        return f"last heard {_span(now_ms - item.last_seen_ms)} ago" if item.last_seen_ms else "never heard"

    return _list(f"{item.institution} ({heard(item)})" for item in items)


def _list(names: Iterable[str]) -> str:
    *first, last = list(names) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _span(span_ms: int) -> str:
    return duration(max(0, span_ms) // 1000 * 1000 if span_ms >= 1000 else max(0, span_ms))


def _problem(text: str, hint: str) -> Finding:
    return Finding(problem=True, text=text, hint=hint)


def _warning(text: str, hint: str) -> Finding:
    return Finding(text=text, hint=hint)
