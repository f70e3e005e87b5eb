"""Membership: joining, voting, suspension, removal, return; and what is refused so that decisions go on."""

from __future__ import annotations

from functools import partial

import pytest

from koinon.v1.access_pb2 import REQUEST_STATUS_DENIED, TOKEN_STATUS_REVOKED
from koinon.v1.catalog_pb2 import DATASET_STATUS_WITHDRAWN
from koinon.v1.consensus_pb2 import VOTE_TYPE_PRECOMMIT, DuplicateVote, Evidence, Vote
from koinon.v1.demand_pb2 import DEMAND_STATUS_OPEN, DEMAND_STATUS_WITHDRAWN
from koinon.v1.governance_pb2 import Action as GovernanceAction
from koinon.v1.governance_pb2 import Propose, SetWeight
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_VALIDATOR,
    MEMBER_STATUS_ACTIVE,
    MEMBER_STATUS_REMOVED,
    MEMBER_STATUS_SUSPENDED,
    ROLE_OPERATOR,
    BeginVoting,
    RegisterPerson,
    RevokeKey,
    RevokePerson,
    RotateKey,
)
from koinon.v1.task_pb2 import TASK_STATUS_FAILED
from node.contracts import actions, membership, tables
from node.contracts.context import Context
from tests.contracts.consortium import MEMBERS, Consortium, access_request, key, person, publication, wanted
from tests.contracts.decree import Action, admit, decree, descriptor, readmit, recover, remove, set_power, suspend


@pytest.fixture
def consortium() -> Consortium:
    """After a first block, so that everybody was seen to vote."""
    made = Consortium()
    made.wait(1)
    return made


def powers(consortium: Consortium) -> dict[str, int]:
    """Who votes two heights from now."""
    return {item.institution: item.power for item in consortium.app.info().validators}


def kinds(consortium: Consortium, subject: str) -> list[str]:
    return [record.kind for record in consortium.records() if record.subject == subject]


# --- joining


def test_who_is_admitted_observes_and_its_people_can_act(consortium: Consortium) -> None:
    assert decree(consortium, admit("osu")) == ""
    assert powers(consortium) == dict.fromkeys(MEMBERS, 1)
    member = consortium.app.institution("osu")
    assert (member.status, member.descriptor.power, member.approved_power) == (MEMBER_STATUS_ACTIVE, 0, 1)
    consortium.do("osu/operator", publication("osu.a.t"))
    consortium.do("osu/analyst", access_request("osu.a.t"))


def test_an_observer_is_given_power_by_the_members(consortium: Consortium) -> None:
    decree(consortium, admit("osu", power=0))
    assert decree(consortium, set_power("osu", 1)) == ""
    assert powers(consortium) == dict.fromkeys((*MEMBERS, "osu"), 1)
    assert kinds(consortium, "institution:osu") == ["institution.joined", "institution.empowered"]


def test_admission_and_power_in_one_proposal(consortium: Consortium) -> None:
    assert decree(consortium, admit("osu"), set_power("osu", 1)) == ""
    assert powers(consortium)["osu"] == 1


@pytest.mark.parametrize(
    ("name", "number"), [("um", 7), ("osu", 0)], ids=["an institution that is a member", "keys that are taken"]
)
def test_what_exists_is_not_admitted_again(consortium: Consortium, name: str, number: int) -> None:
    decree(consortium, admit("osu"))
    assert decree(consortium, admit(name, number)) in ("wrong-state", "already-exists")


def test_an_address_belongs_to_one(consortium: Consortium) -> None:
    decree(consortium, admit("osu", 1))
    consortium.app.institution("osu")
    assert decree(consortium, admit("wsu", 1)) == "already-exists"
    decree(consortium, remove("osu"))
    assert decree(consortium, admit("wsu", 1)) == ""


# --- leaving


def scene(consortium: Consortium) -> tuple[str, str, str]:
    """A task of um/analyst on data of iu and um, and a token of iu/analyst's on um's data."""
    consortium.publish("iu.a.t", "um.a.t")
    held, given = consortium.token("um.a.t", "iu/analyst"), consortium.token("iu.a.t")
    task = consortium.do("um/analyst", consortium.submission({"iu.a.t": given}, ("case", "iu", "um")))
    return task, held, given


@pytest.mark.parametrize("exclude", [suspend, remove])
def test_who_is_excluded_leaves_nothing_open(consortium: Consortium, exclude: object) -> None:
    task, held, given = scene(consortium)
    rest = consortium.token("um.a.t")
    consortium.publish("um.a.review", auto=False)
    request = consortium.do("iu/analyst", access_request("um.a.review"))
    missed, other = (consortium.do(f"{name}/analyst", wanted(columns=["sex"])) for name in ("iu", "uk"))
    assert decree(consortium, exclude("iu")) == ""  # type: ignore[operator]
    app = consortium.app
    assert (app.task(task).status, app.task(task).rule) == (
        TASK_STATUS_FAILED,
        "member-removed" if exclude is remove else "member-suspended",
    )
    assert "broke the rules" in app.task(task).reason or "left the study" in app.task(task).reason
    assert {app.token(token).status for token in (held, given)} == {TOKEN_STATUS_REVOKED}
    assert app.token(rest).status != TOKEN_STATUS_REVOKED
    assert app.request(request).status == REQUEST_STATUS_DENIED
    assert app.demand(missed).status == DEMAND_STATUS_WITHDRAWN
    assert app.demand(other).status == DEMAND_STATUS_OPEN
    assert powers(consortium) == {"case": 1, "uk": 1, "um": 1}


def test_keys_of_the_excluded_do_nothing(consortium: Consortium) -> None:
    decree(consortium, suspend("iu"))
    assert consortium.refused("iu/operator", publication("iu.a.t")) == "member-suspended"
    assert consortium.app.sender(key("iu/operator").public_key).id == "iu/operator"  # it may look
    decree(consortium, remove("iu"))
    assert consortium.refused("iu/operator", publication("iu.a.t")) == "member-removed"
    assert consortium.refused("iu", publication("iu.a.t")) == "member-removed"


def test_data_of_the_removed_are_withdrawn(consortium: Consortium) -> None:
    consortium.publish("iu.a.t")
    decree(consortium, suspend("iu"))
    assert consortium.app.dataset("iu.a.t").status != DATASET_STATUS_WITHDRAWN
    assert consortium.refused("um/analyst", access_request("iu.a.t")) == "member-suspended"
    decree(consortium, remove("iu"))
    assert consortium.app.dataset("iu.a.t").status == DATASET_STATUS_WITHDRAWN
    assert consortium.app.institution("iu").status == MEMBER_STATUS_REMOVED


def test_the_readmitted_observe_until_their_node_has_caught_up(consortium: Consortium) -> None:
    decree(consortium, set_power("iu", 2))
    decree(consortium, suspend("iu"))
    assert decree(consortium, readmit("iu")) == ""
    member = consortium.app.institution("iu")
    assert (member.status, member.descriptor.power, member.approved_power) == (MEMBER_STATUS_ACTIVE, 0, 2)
    consortium.do("iu/operator", publication("iu.a.t"))


def test_the_removed_come_back_with_new_keys(consortium: Consortium) -> None:
    decree(consortium, admit("osu", 1))
    decree(consortium, remove("osu"))
    assert decree(consortium, readmit("osu")) == "wrong-state"
    assert decree(consortium, admit("osu", 1)) == "already-exists"
    assert decree(consortium, admit("osu", 2)) == "already-exists"  # its people's
    assert decree(consortium, admit("osu", 102)) == ""
    assert consortium.app.institution("osu").status == MEMBER_STATUS_ACTIVE
    assert consortium.refused("osu/operator", publication("osu.a.t")) == "revoked-key"
    consortium.do("osu/operator 102", publication("osu.a.t"))


def test_whoever_acted_for_the_removed_does_not_act_for_it_again(consortium: Consortium) -> None:
    """It may have been removed because of that operator."""
    decree(consortium, admit("osu", 1))
    consortium.do("osu/operator", RegisterPerson(person=person("osu/second", ROLE_OPERATOR)))
    decree(consortium, remove("osu"))
    newcomer = descriptor("osu", 2)
    newcomer.people[0].public_key = key("osu/operator, new").public_key
    newcomer.people[1].public_key = key("osu/analyst, new").public_key
    assert decree(consortium, partial(membership.admit, descriptor=newcomer, power=1)) == ""
    assert kinds(consortium, "person:osu/second") == ["person.registered", "person.revoked"]
    for former in ("osu/operator", "osu/second", "osu/analyst"):
        assert consortium.refused(former, publication("osu.a.t")) == "revoked-key"
    consortium.do("osu/operator, new", publication("osu.a.t"))
    alone = RevokePerson(person_id="osu/operator", reason="left")
    assert consortium.refused("osu/operator, new", alone) == "last-operator"


# --- decisions go on


def test_a_set_that_would_not_decide_is_refused(consortium: Consortium) -> None:
    """Three of four are up: without one of them, two of the remaining three would be too few."""
    consortium.silent = {"uk"}
    consortium.wait(60 * 5_000)
    consortium.wait(1)
    for wrong in (remove("um"), suspend("um"), set_power("um", 0)):
        assert decree(consortium, wrong) == "no-live-quorum"
    assert powers(consortium) == dict.fromkeys(MEMBERS, 1)
    assert decree(consortium, remove("uk")) == ""
    assert decree(consortium, set_power("um", 0)) == ""


def test_power_for_a_node_that_was_never_seen_counts_as_missing(consortium: Consortium) -> None:
    decree(consortium, admit("osu"))
    assert decree(consortium, set_power("osu", 3)) == "no-live-quorum"  # 4 of 7, and 5 decide
    assert decree(consortium, set_power("osu", 1)) == ""


def test_nobody_is_not_a_set(consortium: Consortium) -> None:
    assert decree(consortium, *(set_power(name, 0) for name in MEMBERS)) in ("validator-set", "set-change")
    assert decree(consortium, set_power("um", 10_001)) == "validator-set"
    assert decree(consortium, set_power("um", 9_999)) == "validator-set"


def test_much_at_one_height_is_refused_and_one_after_the_other_is_not(consortium: Consortium) -> None:
    assert decree(consortium, remove("iu"), remove("uk")) == "set-change"
    assert powers(consortium) == dict.fromkeys(MEMBERS, 1)
    assert decree(consortium, remove("iu")) == ""
    assert decree(consortium, remove("uk")) == ""
    assert decree(consortium, remove("um")) == ""
    assert decree(consortium, remove("case")) == "validator-set"


def test_a_set_is_in_force_two_heights_later(consortium: Consortium) -> None:
    height = consortium.app.info().height
    decree(consortium, set_power("um", 2))
    record = consortium.records()[-1]
    assert record.detail == f"from 1 to 2, at height {height + 3}"
    assert consortium.app.info().height == height + 1


def test_the_application_knows_the_set_again_after_a_restart(consortium: Consortium) -> None:
    decree(consortium, set_power("um", 2))
    again = Consortium(consortium.store, consortium.genesis)
    assert again.app.info() == consortium.app.info()


def weight(institution: str, number: int) -> Action:
    action = GovernanceAction(set_weight=SetWeight(institution=institution, weight=number))

    def apply(context: Context) -> None:
        actions.apply(context, Propose(actions=[action]))

    return apply


@pytest.mark.parametrize("exclude", [suspend, remove])
def test_somebody_keeps_a_ballot(consortium: Consortium, exclude: object) -> None:
    """Else nothing could ever be decided again."""
    assert decree(consortium, *(weight(name, 0) for name in ("case", "iu", "uk"))) == ""
    assert decree(consortium, exclude("um")) == "constitution"  # type: ignore[operator]
    assert consortium.app.institution("um").status == MEMBER_STATUS_ACTIVE
    consortium.decide(evidence=(double_vote("um", 1),))
    assert consortium.app.institution("um").status == MEMBER_STATUS_ACTIVE
    assert kinds(consortium, "institution:um")[-1] == "institution.spared"
    assert decree(consortium, weight("uk", 1), exclude("um")) == ""  # type: ignore[operator]


def test_no_power_waits_for_a_key_past_the_checks(consortium: Consortium) -> None:
    """Else it would count as soon as the key is there, whether what is then a quorum is live or not."""
    consortium.do("um/operator", RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="stolen"))
    assert decree(consortium, set_power("um", 9_000)) == "wrong-state"
    consortium.do("um/operator", RotateKey(purpose=KEY_PURPOSE_VALIDATOR, key=key("new").public_key))
    assert powers(consortium) == {"case": 1, "iu": 1, "uk": 1}
    assert decree(consortium, set_power("um", 1)) == ""


# --- evidence


def double_vote(institution: str, height: int) -> Evidence:
    votes = [
        Vote(type=VOTE_TYPE_PRECOMMIT, height=height, institution=institution, block_hash=bytes([number]) * 32)
        for number in (1, 2)
    ]
    return Evidence(duplicate_vote=DuplicateVote(first=votes[0], second=votes[1]))


def test_no_pause_in_voting_spares_an_equivocator(consortium: Consortium) -> None:
    """Else it could sign anything with the last vote that a revoked key has, and be back without a ballot."""
    consortium.do("um/operator", RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="to be accused of nothing"))
    height = consortium.app.info().height
    assert "um" not in powers(consortium)
    assert consortium.app.validator_key("um", height + 1) == key("um validator").public_key
    consortium.do("um/operator", RotateKey(purpose=KEY_PURPOSE_VALIDATOR, key=key("new").public_key))
    consortium.decide(evidence=(double_vote("um", height + 1),))
    assert consortium.app.institution("um").status == MEMBER_STATUS_SUSPENDED
    assert consortium.refused("um", BeginVoting(height=consortium.app.info().height)) == "member-suspended"


def test_no_friend_spares_an_equivocator_by_a_change_of_its_own_in_that_block(consortium: Consortium) -> None:
    """Evidence comes once: what would be too much in one block is refused to the others."""
    revocation = RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="to be in the way")
    block = consortium.decide(consortium.envelope("uk/operator", revocation), evidence=(double_vote("um", 1),))
    assert consortium.app.institution("um").status == MEMBER_STATUS_SUSPENDED
    assert block.results[0].refusal.rule == "set-change"
    assert powers(consortium) == {"case": 1, "iu": 1, "uk": 1}


def test_evidence_suspends(consortium: Consortium) -> None:
    consortium.decide(evidence=(double_vote("um", 1),))
    assert consortium.app.institution("um").status == MEMBER_STATUS_SUSPENDED
    assert "um" not in powers(consortium)
    assert kinds(consortium, "institution:um")[-2:] == ["evidence.recorded", "institution.suspended"]
    consortium.decide(evidence=(double_vote("um", 2),))  # of before; there is nobody to suspend
    assert kinds(consortium, "institution:um")[-1] == "evidence.recorded"


def test_what_was_before_a_return_is_settled(consortium: Consortium) -> None:
    """Else whoever keeps a second piece of evidence undoes what the members decided, whenever it likes."""
    consortium.decide(evidence=(double_vote("um", 1),))
    decree(consortium, readmit("um"))
    consortium.decide(evidence=(double_vote("um", 2),))
    assert kinds(consortium, "institution:um")[-1] == "evidence.recorded"
    assert consortium.app.institution("um").status == MEMBER_STATUS_ACTIVE
    consortium.decide(evidence=(double_vote("um", consortium.app.info().height),))
    assert consortium.app.institution("um").status == MEMBER_STATUS_SUSPENDED


def test_an_offender_without_whom_nothing_could_be_decided_stays(consortium: Consortium) -> None:
    consortium.silent = {"uk"}
    consortium.wait(60 * 5_000)
    consortium.wait(1)
    consortium.decide(evidence=(double_vote("um", 1),))
    assert consortium.app.institution("um").status == MEMBER_STATUS_ACTIVE
    assert kinds(consortium, "institution:um")[-1] == "institution.spared"
    assert "uk" in consortium.records()[-1].detail


# --- lost keys


def test_an_institution_gets_an_operator_again(consortium: Consortium) -> None:
    assert decree(consortium, recover("um", "um/operator", "um/operator again")) == ""
    assert consortium.refused("um/operator", publication("um.a.t")) == "revoked-key"
    consortium.do("um/operator again", publication("um.a.t"))
    assert decree(consortium, recover("um", "um/second", "um/second")) == ""
    consortium.do("um/second", publication("um.b.t"))


def test_recovery_is_for_its_own_people_with_keys_never_used(consortium: Consortium) -> None:
    assert decree(consortium, recover("um", "iu/operator", "x")) == "invalid-input"
    assert decree(consortium, recover("um", "um/operator", "iu/operator")) == "already-exists"
    assert decree(consortium, recover("osu", "osu/operator", "x")) == "not-found"
    decree(consortium, remove("um"))
    assert decree(consortium, recover("um", "um/operator", "x")) == "wrong-state"


def test_every_key_has_one_owner_for_ever_and_a_span(consortium: Consortium) -> None:
    state = consortium.app._new_state()
    records = {bytes(record.key): record for record in tables.KEYS.scan(state)}
    assert len(records) == len(MEMBERS) * 7  # validator, node, sealing, certificate, three people
    assert {record.from_height for record in records.values()} == {1}
