"""The transition tables as data: every pair of state and event, allowed or refused."""

from __future__ import annotations

import pytest

from koinon.errors import Refused
from koinon.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_RUNNING, Task
from node.contracts.transitions import MACHINES, TASK, Machine

# What may ever happen to a subject: event, from, to. Written out again, so that a change is deliberate.
PATHS = """
reading: audit.read -recorded
institution: institution.joined -active, institution.joined removed-active, institution.moved active-active,
  institution.empowered active-active, institution.suspended active-suspended, institution.readmitted suspended-active,
  institution.removed active-removed, institution.removed suspended-removed, institution.spared active-active,
  evidence.recorded active-active, evidence.recorded suspended-suspended, evidence.recorded removed-removed,
  institution.leaving active-active, institution.staying active-active, institution.kept active-active,
  institution.left active-removed, key.rotated active-active, key.revoked active-active
person: person.registered -active, person.registered active-active, person.registered revoked-active,
  person.revoked active-revoked
dataset: dataset.published -published, dataset.published published-published, dataset.published withdrawn-published,
  dataset.withdrawn published-withdrawn, dataset.verified published-published,
  dataset.unverified published-published, dataset.unverified withdrawn-withdrawn
request: access.requested -open, access.countered open-countered, access.countered countered-countered,
  access.revised open-open, access.revised countered-open, access.granted open-granted,
  access.granted countered-granted, access.denied open-denied, access.denied countered-denied,
  access.withdrawn open-withdrawn, access.withdrawn countered-withdrawn, access.expired open-expired,
  access.expired countered-expired
taxonomy: taxonomy.changed -active, taxonomy.changed active-active
demand: demand.posted -open, demand.matched open-open, demand.priced_out open-open,
  demand.withdrawn open-withdrawn, demand.expired open-expired
dispute: dispute.opened -open, dispute.answered open-arbitration, dispute.unanswered open-arbitration,
  dispute.ruled arbitration-arbitration, dispute.decided open-decided, dispute.decided arbitration-decided,
  dispute.withdrawn open-withdrawn, dispute.withdrawn arbitration-withdrawn
token: token.granted -active, token.used active-active, token.returned active-active,
  token.returned expired-expired, token.returned revoked-revoked, token.used_up active-used_up,
  token.expired active-expired, token.revoked active-revoked
task: task.submitted -submitted, task.accepted submitted-submitted, task.running submitted-running,
  task.reported running-running, task.completed running-completed, task.received completed-completed,
  task.failed submitted-failed,
  task.failed running-failed, task.cancelled submitted-cancelled, task.cancelled running-cancelled,
  task.expired submitted-expired, task.expired running-expired
account: points.minted -, points.burned -, points.transferred -, points.claimed -,
  points.charged -
escrow: escrow.held -held, escrow.frozen held-frozen, escrow.thawed frozen-held, escrow.settled held-settled,
  escrow.settled frozen-settled, escrow.refunded held-refunded, escrow.refunded frozen-refunded
union: union.defined -open, union.defined open-open, union.members_set open-open
proposal: proposal.made -open, ballot.cast open-open, ballot.replaced open-open, proposal.accepted open-accepted,
  proposal.rejected open-rejected, proposal.expired open-expired, proposal.withdrawn open-withdrawn,
  proposal.dropped open-dropped, proposal.dropped accepted-dropped, proposal.executed accepted-executed,
  proposal.failed accepted-failed, proposal.postponed accepted-accepted
application: application.made -open, application.made withdrawn-open, application.made admitted-open,
  application.withdrawn open-withdrawn, application.admitted open-admitted
upgrade: upgrade.scheduled -scheduled, upgrade.scheduled cancelled-scheduled, upgrade.cancelled scheduled-cancelled,
  upgrade.active scheduled-active
consortium: parameter.changed -, weight.changed -, constitution.changed -
"""

FINAL = {
    "request": {"granted", "denied", "withdrawn", "expired"},
    "demand": {"withdrawn", "expired"},
    "dispute": {"decided", "withdrawn"},
    "task": {"failed", "cancelled", "expired"},
    "escrow": {"settled", "refunded"},
    "proposal": {"rejected", "expired", "withdrawn", "dropped", "executed", "failed"},
    "upgrade": {"active"},
    "reading": {"recorded"},
}


def states(machine: Machine) -> set[str]:
    return {state for moves in machine.transitions.values() for pair in moves.items() for state in pair}


def paths() -> dict[str, set[tuple[str, str, str]]]:
    found = {}
    for block in PATHS.strip().replace("\n  ", " ").splitlines():
        subject, _, moves = block.partition(": ")
        triples = set()
        for move in moves.split(","):
            if move.strip():
                kind, _, pair = move.strip().partition(" ")
                before, _, after = pair.partition("-")
                triples.add((kind, before, after))
        found[subject] = triples
    return found


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.subject)
def test_every_pair_of_state_and_event_is_as_written(machine: Machine) -> None:
    written = paths()[machine.subject]
    for kind in machine.transitions:
        for state in states(machine):
            after = {to for event, before, to in written if (event, before) == (kind, state)}
            if after:
                assert machine.after("x", state, kind) == after.pop()
            else:
                with pytest.raises(Refused) as caught:
                    machine.after("x", state, kind)
                assert caught.value.rule == "wrong-state"
                assert caught.value.hint
    assert {kind for kind, _, _ in written} == set(machine.transitions)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.subject)
def test_states_on_the_wire_are_those_of_the_table(machine: Machine) -> None:
    if machine.names:  # not a person, say, which has a flag
        assert set(machine.names.values()) >= states(machine)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.subject)
def test_nothing_leads_out_of_a_final_state(machine: Machine) -> None:
    final = {state for state in states(machine) if all(state not in moves for moves in machine.transitions.values())}
    assert final == FINAL.get(machine.subject, final & {"used_up"})


def test_a_refused_move_leaves_the_subject_as_it_was() -> None:
    task = Task(status=TASK_STATUS_COMPLETED)
    with pytest.raises(Refused):
        TASK.move("t", task, "task.failed")
    assert task.status == TASK_STATUS_COMPLETED


def test_a_move_sets_the_status_and_names_both_states() -> None:
    task = Task(status=TASK_STATUS_RUNNING)
    assert TASK.move("t", task, "task.completed") == ("running", "completed")
    assert task.status == TASK_STATUS_COMPLETED
