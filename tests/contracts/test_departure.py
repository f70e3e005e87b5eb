"""Leaving by one's own notice: when, what ends, who stays, what refuses it; and that it escapes nothing."""

from __future__ import annotations

import pytest

from koinon.limits import KEPT_BLOCKS, MAX_NOTICE_BLOCKS, MIN_NOTICE_BLOCKS
from koinon.v1.access_pb2 import TOKEN_STATUS_REVOKED
from koinon.v1.catalog_pb2 import DATASET_STATUS_WITHDRAWN
from koinon.v1.dispute_pb2 import DISPUTE_STATUS_DECIDED, REMEDY_REVOCATION
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_VALIDATOR,
    MEMBER_STATUS_ACTIVE,
    MEMBER_STATUS_REMOVED,
    MEMBER_STATUS_SUSPENDED,
    BeginVoting,
    GiveNotice,
    RevokeKey,
    RotateKey,
    WithdrawNotice,
)
from koinon.v1.points_pb2 import TransferPoints
from koinon.v1.task_pb2 import TASK_STATUS_FAILED
from tests.contracts.consortium import MEMBERS, Consortium, claim, key, publication
from tests.contracts.decree import admit, decree, remove, set_power, suspend
from tests.contracts.test_membership import double_vote, kinds, powers, scene, weight


@pytest.fixture
def consortium() -> Consortium:
    """After a first block, so that everybody was seen to vote."""
    made = Consortium()
    made.wait(1)
    return made


def notice(consortium: Consortium, blocks: int = MIN_NOTICE_BLOCKS) -> GiveNotice:
    """To leave so many blocks after the next one, which holds the notice."""
    return GiveNotice(height=consortium.app.info().height + 1 + blocks, reason="the study is over")


def pass_blocks(consortium: Consortium, number: int) -> None:
    for _ in range(number):
        consortium.wait(1)


def give(consortium: Consortium, *members: str) -> None:
    """All give notice for the same height, and it comes."""
    height = consortium.app.info().height + len(members) + MIN_NOTICE_BLOCKS
    for member in members:
        consortium.do(f"{member}/operator", GiveNotice(height=height, reason="the study is over"))
    pass_blocks(consortium, MIN_NOTICE_BLOCKS)


def status(consortium: Consortium, name: str) -> int:
    return consortium.app.institution(name).status


def test_a_member_leaves_at_the_height_that_it_named(consortium: Consortium) -> None:
    asked = notice(consortium)
    consortium.do("iu/operator", asked)
    assert consortium.app.institution("iu").notice == asked
    consortium.do("iu/operator", publication("iu.a.t"))  # until then it is a member like all
    pass_blocks(consortium, MIN_NOTICE_BLOCKS - 2)
    assert status(consortium, "iu") == MEMBER_STATUS_ACTIVE
    assert powers(consortium)["iu"] == 1
    consortium.wait(1)
    assert consortium.app.info().height == asked.height
    member = consortium.app.institution("iu")
    assert (member.status, member.status_reason) == (MEMBER_STATUS_REMOVED, "the study is over")
    assert not member.HasField("notice")
    assert powers(consortium) == {"case": 1, "uk": 1, "um": 1}
    assert kinds(consortium, "institution:iu")[1:] == ["institution.leaving", "institution.left"]
    assert consortium.refused("iu/operator", publication("iu.a.t")) == "member-removed"
    record = next(record for record in consortium.app.keys("iu") if record.purpose == 1)
    assert (record.until_height, record.end) == (asked.height + 2, "left")


def test_what_it_had_under_way_ends_with_reasons_and_its_points_stay(consortium: Consortium) -> None:
    task, held, given = scene(consortium)
    give(consortium, "iu")
    app = consortium.app
    assert (app.task(task).status, app.task(task).rule) == (TASK_STATUS_FAILED, "member-removed")
    assert app.task(task).reason == "iu left: the study is over"
    assert {app.token(token).status for token in (held, given)} == {TOKEN_STATUS_REVOKED}
    assert app.dataset("iu.a.t").status == DATASET_STATUS_WITHDRAWN
    assert app.account("institution:iu").points == 0
    spend = TransferPoints(source="institution:iu", target="fund:consortium", points=1, reason="late")
    assert consortium.refused("iu/operator", spend) == "member-removed"
    app.check_conservation()


def test_a_notice_is_withdrawn_before_it_takes_effect(consortium: Consortium) -> None:
    assert consortium.refused("iu/operator", WithdrawNotice(reason="stays")) == "wrong-state"
    consortium.do("iu/operator", notice(consortium))
    assert consortium.refused("iu/operator", notice(consortium)) == "already-exists"
    consortium.do("iu/operator", WithdrawNotice(reason="more patients came"))
    pass_blocks(consortium, MIN_NOTICE_BLOCKS + 1)
    assert status(consortium, "iu") == MEMBER_STATUS_ACTIVE
    assert kinds(consortium, "institution:iu")[1:] == ["institution.leaving", "institution.staying"]
    consortium.do("iu/operator", notice(consortium))


@pytest.mark.parametrize("blocks", [MIN_NOTICE_BLOCKS - 1, MAX_NOTICE_BLOCKS + 1])
def test_the_height_is_near_and_not_too_near(consortium: Consortium, blocks: int) -> None:
    assert consortium.refused("iu/operator", notice(consortium, blocks)) == "notice"


def test_a_preview_says_what_would_refuse_a_notice(consortium: Consortium) -> None:
    height = notice(consortium).height

    def refused_by(height: int) -> str:
        _, refusal = consortium.app.preview_notice("iu", height)
        return refusal.rule if refusal else ""

    assert [refused_by(at) for at in (height, height - MIN_NOTICE_BLOCKS, 2**64)] == ["", "notice", "notice"]
    assert consortium.app.preview_notice("iu", height)[0][0] == f"member iu: active -> removed, at height {height}"
    consortium.do("iu/operator", notice(consortium))
    assert refused_by(height + 1) == "already-exists"


# --- decisions go on


def one_is_down(consortium: Consortium, name: str) -> None:
    consortium.silent = {name}
    consortium.wait(60 * 5_000)
    consortium.wait(1)


def test_who_is_needed_is_not_let_go(consortium: Consortium) -> None:
    """Three of four are up: two of the remaining three would be too few."""
    one_is_down(consortium, "uk")
    assert consortium.refused("um/operator", notice(consortium)) == "no-live-quorum"
    consortium.do("uk/operator", notice(consortium))  # its operator can, if its node cannot
    pass_blocks(consortium, MIN_NOTICE_BLOCKS)
    assert powers(consortium) == {"case": 1, "iu": 1, "um": 1}


def test_who_is_needed_by_then_stays_until_the_others_can_do_without(consortium: Consortium) -> None:
    consortium.do("um/operator", notice(consortium, MIN_NOTICE_BLOCKS + 3))
    one_is_down(consortium, "uk")
    pass_blocks(consortium, MIN_NOTICE_BLOCKS + 1)
    assert kinds(consortium, "institution:um")[1:] == ["institution.leaving", "institution.kept"]
    record = [record for record in consortium.records() if record.kind == "institution.kept"][-1]
    due = consortium.app.institution("um").notice.height
    assert due == record.height + KEPT_BLOCKS
    assert "not uk" in record.detail
    consortium.silent = set()
    pass_blocks(consortium, KEPT_BLOCKS)
    assert consortium.app.info().height == due
    assert status(consortium, "um") == MEMBER_STATUS_REMOVED
    assert [record.kind for record in consortium.records()][-1] != "institution.kept"


def test_several_leave_at_one_height_one_after_the_other(consortium: Consortium) -> None:
    give(consortium, "iu", "uk", "um")
    assert len(powers(consortium)) == 3
    consortium.wait(1)
    assert len(powers(consortium)) == 2
    consortium.wait(1)
    assert powers(consortium) == {"case": 1}
    assert consortium.refused("case/operator", notice(consortium)) == "validator-set"


def test_the_last_two_cannot_both_leave(consortium: Consortium) -> None:
    decree(consortium, remove("uk"))
    decree(consortium, remove("um"))
    give(consortium, "case", "iu")
    consortium.wait(1)
    assert powers(consortium) == {"iu": 1}
    assert kinds(consortium, "institution:iu")[-1] == "institution.kept"


def test_a_change_of_power_in_the_same_block_keeps_it_for_one_block(consortium: Consortium) -> None:
    """Else whoever wants to keep it changes something, every hundred blocks."""
    consortium.do("iu/operator", notice(consortium))
    pass_blocks(consortium, MIN_NOTICE_BLOCKS - 1)
    assert decree(consortium, set_power("um", 0)) == ""  # at its height
    assert status(consortium, "iu") == MEMBER_STATUS_ACTIVE
    assert kinds(consortium, "institution:iu")[-1] == "institution.kept"
    consortium.wait(1)
    assert powers(consortium) == {"case": 1, "uk": 1}


def test_nobody_keeps_it_by_a_change_in_every_block(consortium: Consortium) -> None:
    """Votes can be given up at any time, but they are not taken up again while somebody leaves."""
    consortium.do("iu/operator", notice(consortium))
    pass_blocks(consortium, MIN_NOTICE_BLOCKS - 1)
    consortium.do("uk/operator", RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="to be in the way"))
    assert kinds(consortium, "institution:iu")[-1] == "institution.kept"
    again = RotateKey(purpose=KEY_PURPOSE_VALIDATOR, key=key("uk validator again").public_key)
    begin = BeginVoting(height=consortium.app.info().height)
    assert consortium.refused("uk/operator", again, begin) == "set-change"
    assert powers(consortium) == {"case": 1, "um": 1}
    consortium.do("uk/operator", again, begin)
    assert powers(consortium) == {"case": 1, "uk": 1, "um": 1}


def test_an_observer_leaves_whoever_is_down(consortium: Consortium) -> None:
    decree(consortium, admit("osu", power=0))
    one_is_down(consortium, "uk")
    give(consortium, "osu")
    assert status(consortium, "osu") == MEMBER_STATUS_REMOVED
    assert powers(consortium) == dict.fromkeys(MEMBERS, 1)


def test_somebody_keeps_a_ballot(consortium: Consortium) -> None:
    assert decree(consortium, *(weight(name, 0) for name in ("case", "iu", "uk"))) == ""
    assert consortium.refused("um/operator", notice(consortium)) == "constitution"


# --- no way out


@pytest.mark.parametrize("exclude", [suspend, remove])
def test_what_the_members_decide_ends_the_notice(consortium: Consortium, exclude: object) -> None:
    consortium.do("iu/operator", notice(consortium))
    assert decree(consortium, exclude("iu")) == ""  # type: ignore[operator]
    before = status(consortium, "iu")
    pass_blocks(consortium, MIN_NOTICE_BLOCKS + 1)
    assert status(consortium, "iu") == before
    assert not consortium.app.institution("iu").HasField("notice")


def test_evidence_during_the_notice_suspends_and_afterwards_is_recorded(consortium: Consortium) -> None:
    consortium.do("iu/operator", notice(consortium))
    consortium.decide(evidence=(double_vote("iu", 1),))
    pass_blocks(consortium, MIN_NOTICE_BLOCKS + 1)
    assert status(consortium, "iu") == MEMBER_STATUS_SUSPENDED
    give(consortium, "um")
    consortium.decide(evidence=(double_vote("um", 2),))
    assert kinds(consortium, "institution:um")[-2:] == ["institution.left", "evidence.recorded"]


def test_a_dispute_goes_on_without_who_left(consortium: Consortium) -> None:
    consortium.publish("iu.a.t")
    token = consortium.token("iu.a.t")
    dispute = consortium.do("um/analyst", claim(token, "iu", REMEDY_REVOCATION))
    give(consortium, "iu")
    consortium.wait(30 * 24 * 3_600_000)
    consortium.wait(30 * 24 * 3_600_000)
    found = consortium.app.dispute(dispute)
    assert (found.status, list(found.remedies)) == (DISPUTE_STATUS_DECIDED, [REMEDY_REVOCATION])


def test_power_given_meanwhile_does_not_keep_it(consortium: Consortium) -> None:
    consortium.do("iu/operator", notice(consortium))
    assert decree(consortium, set_power("iu", 2)) == ""
    pass_blocks(consortium, MIN_NOTICE_BLOCKS)
    assert status(consortium, "iu") == MEMBER_STATUS_REMOVED
