"""The read model: search, filters, stable paging, and being lost and built again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from koinon import trail
from koinon.errors import InvalidInput, NotFound, Unavailable
from koinon.v1.access_pb2 import (
    REQUEST_STATUS_DENIED,
    REQUEST_STATUS_OPEN,
    TOKEN_STATUS_ACTIVE,
    TOKEN_STATUS_REVOKED,
    DenyAccess,
    RevokeToken,
)
from koinon.v1.catalog_pb2 import (
    VERIFICATION_OUTCOME_CONFIRMED,
    VERIFICATION_OUTCOME_CONTESTED,
    VerifyDataset,
    WithdrawDataset,
)
from koinon.v1.demand_pb2 import DEMAND_STATUS_OPEN, WithdrawDemand
from koinon.v1.dispute_pb2 import DISPUTE_STATUS_OPEN, REMEDY_REVOCATION, WithdrawDispute
from koinon.v1.governance_pb2 import (
    APPLICATION_STATUS_OPEN,
    PROPOSAL_STATUS_WITHDRAWN,
    ApplyForMembership,
    WithdrawApplication,
    WithdrawProposal,
)
from koinon.v1.points_pb2 import PRICE_UNIT_ROW, Price
from koinon.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_SUBMITTED
from node.read_model import ReadModel
from tests.contracts.consortium import (
    START_MS,
    Consortium,
    access_request,
    claim,
    genesis,
    publication,
    wanted,
)
from tests.contracts.decree import descriptor
from tests.contracts.test_roles import set_floor

INDO = ("case.ercp.indo_rct", "iu.ercp.indo_rct", "um.ercp.indo_rct")


@pytest.fixture
def consortium() -> Consortium:
    """Four datasets, one withdrawn; a request in every state, tokens, and two tasks."""
    consortium = Consortium()
    consortium.publish(*INDO)
    consortium.do("uk/operator", publication("uk.renal.dialysis", auto=False, title="Diálisis in Kentucky"))
    consortium.publish("uk.renal.old")
    consortium.do("uk/operator", WithdrawDataset(name="uk.renal.old", reason="superseded"))
    return consortium


@pytest.fixture
def model(consortium: Consortium, tmp_path: Path) -> Iterator[ReadModel]:
    model = ReadModel(tmp_path / "read.sqlite", consortium.app)
    yield model
    model.close()


def names(model: ReadModel, text: str = "", **filters: object) -> list[str]:
    found, _ = model.search_datasets(text=text, page_size=50, **filters)()  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pancreatitis", {*INDO, "uk.renal.dialysis"}),  # a keyword of all
        ("PANCREA ercp", {*INDO, "uk.renal.dialysis"}),  # beginnings, whatever case; every word
        ("indo_rct", set(INDO)),
        ("um.ercp.indo_rct", {"um.ercp.indo_rct"}),
        ("dialisis", {"uk.renal.dialysis"}),  # without the accent
        ("kentucky nowhere", set()),
        ('"" OR title:* NEAR(', set()),  # query syntax is text
        ("- * ( )", set()),
    ],
)
def test_search_finds_every_word_and_nothing_by_syntax(model: ReadModel, text: str, found: set[str]) -> None:
    assert set(names(model, text)) == found


def test_search_puts_titles_before_descriptions(consortium: Consortium, model: ReadModel) -> None:
    consortium.do("um/operator", publication("um.a.mentioned", title="Other", description="on sepsis"))
    consortium.do("iu/operator", publication("iu.a.named", title="Sepsis"))
    model.follow()
    found, _ = model.search_datasets(text="sepsis", page_size=5)()
    assert found[0] == "iu.a.named"
    assert len(found) == 2


def test_filters_narrow_a_search(model: ReadModel) -> None:
    assert names(model, institution="iu") == ["iu.ercp.indo_rct"]
    assert names(model, "trial", institution="um") == ["um.ercp.indo_rct"]
    assert len(names(model, column="AGE")) == 4
    assert names(model, column="weight") == []
    assert "uk.renal.old" not in names(model)
    assert "uk.renal.old" in names(model, include_withdrawn=True)


def test_a_new_version_replaces_what_is_searched(consortium: Consortium, model: ReadModel) -> None:
    consortium.do("um/operator", publication("um.ercp.indo_rct", title="Renamed"))
    model.follow()
    assert names(model, "renamed") == ["um.ercp.indo_rct"]
    assert "um.ercp.indo_rct" not in names(model, "indomethacin")


def test_pages_are_stable_while_entities_come(consortium: Consortium, model: ReadModel) -> None:
    ids = [consortium.do("um/analyst", access_request("uk.renal.dialysis")) for _ in range(5)]
    model.follow()
    first, token = model.requests(page_size=2)
    consortium.do("um/analyst", access_request("uk.renal.dialysis"))
    model.follow()
    second, token = model.requests(page_size=2, page_token=token)
    third, end = model.requests(page_size=2, page_token=token)
    assert [request.id for request in (*first, *second, *third)] == ids[::-1]
    assert end == ""


def test_requests_and_tokens_by_state(consortium: Consortium, model: ReadModel) -> None:
    wanted = consortium.do("um/analyst", access_request("uk.renal.dialysis"))
    refused = consortium.do("iu/analyst", access_request("uk.renal.dialysis"))
    consortium.do("uk/operator", DenyAccess(request_id=refused, reason="no"))
    kept, lost = consortium.token(INDO[0]), consortium.token(INDO[1])
    consortium.do("iu/operator", RevokeToken(token_id=lost, reason="audit"))
    model.follow()

    def requests(**filters: object) -> list[str]:
        return [item.id for item in model.requests(page_size=50, **filters)[0]]  # type: ignore[arg-type]

    def tokens(**filters: object) -> list[str]:
        return [item.id for item in model.tokens(page_size=50, **filters)[0]]  # type: ignore[arg-type]

    assert requests(institution="uk") == [refused, wanted]
    assert requests(institution="uk", status=REQUEST_STATUS_OPEN) == [wanted]
    assert requests(requester="iu/analyst", status=REQUEST_STATUS_DENIED) == [refused]
    assert requests(id_prefix=wanted[:6]) == [wanted]
    assert tokens(holder="um/analyst") == [lost, kept]
    assert tokens(status=TOKEN_STATUS_ACTIVE) == [kept]
    assert tokens(dataset=INDO[1], status=TOKEN_STATUS_REVOKED) == [lost]


def test_proposals_by_state_newest_first_page_by_page(consortium: Consortium, model: ReadModel) -> None:
    made = [consortium.do("um/operator", set_floor(value)) for value in range(6, 11)]
    consortium.do("um/operator", WithdrawProposal(proposal_id=made[1], reason="no longer"))
    model.follow()
    first, token = model.proposals(page_size=2)
    made.append(consortium.do("um/operator", set_floor(11)))  # while somebody reads
    consortium.do("um/operator", WithdrawProposal(proposal_id=made[0], reason="no longer"))
    model.follow()
    second, token = model.proposals(page_size=2, page_token=token)
    third, end = model.proposals(page_size=2, page_token=token)
    assert [item.id for item in (*first, *second, *third)] == made[4::-1]
    assert end == ""
    withdrawn, _ = model.proposals(status=PROPOSAL_STATUS_WITHDRAWN, page_size=9)
    assert [item.id for item in withdrawn] == [made[1], made[0]]
    assert [item.id for item in model.proposals(id_prefix=made[2][:8], page_size=9)[0]] == [made[2]]


def test_applications_by_state_page_by_page(consortium: Consortium, model: ReadModel) -> None:
    for number, name in enumerate(("wsu", "osu", "psu")):
        apply = ApplyForMembership(descriptor=descriptor(name, number), motivation="to learn")
        consortium.do("um/operator", apply)
    consortium.do("um/operator", WithdrawApplication(institution="psu", reason="not now"))
    model.follow()
    first, token = model.applications(page_size=2)
    second, end = model.applications(page_size=2, page_token=token)
    assert [item.descriptor.id for item in (*first, *second)] == ["osu", "psu", "wsu"]
    assert end == ""
    waiting, end = model.applications(status=APPLICATION_STATUS_OPEN, page_size=2)
    assert ([item.descriptor.id for item in waiting], end) == (["osu", "wsu"], "")
    assert [item.descriptor.id for item in model.applications(institution="psu", page_size=2)[0]] == ["psu"]


def test_tasks_by_party_state_and_prefix(consortium: Consortium, model: ReadModel) -> None:
    token = consortium.token(INDO[2])
    done = consortium.do("um/analyst", consortium.submission({INDO[2]: token}))
    consortium.accept_all(done)
    consortium.complete_all(done)
    begun = consortium.do("um/analyst", consortium.submission({INDO[2]: token}, ("case", "uk", "um")))
    model.follow()

    def tasks(**filters: object) -> list[str]:
        return [item.id for item in model.tasks(page_size=50, **filters)[0]]  # type: ignore[arg-type]

    assert tasks() == [begun, done]
    assert tasks(institution="uk") == [begun]
    assert tasks(status=TASK_STATUS_COMPLETED) == [done]
    assert tasks(asker="um/analyst", status=TASK_STATUS_SUBMITTED) == [begun]
    assert model.task_id(done[:8]) == done
    with pytest.raises(NotFound):
        model.task_id("zz")
    with pytest.raises(NotFound):
        model.task_id("")


def test_records_by_subject_actor_kind_and_time(consortium: Consortium, model: ReadModel) -> None:
    token = consortium.token(INDO[2])
    consortium.do("um/analyst", consortium.submission({INDO[2]: token}))
    model.follow()
    found, _ = model.records(trail.make(f"dataset:{INDO[2]}"), limit=50)
    assert [record.kind for record in found] == [
        "dataset.published",
        "access.requested",
        "access.granted",
        "token.granted",
        "task.submitted",
        "token.used",
    ]
    assert [r.kind for r in model.records(trail.make(actor="um/analyst", kind="token."), limit=50)[0]] == [
        "token.granted",
        "token.used",
    ]
    assert {r.kind for r in model.records(trail.make(kind="institution.joined"), limit=50)[0]} == {"institution.joined"}
    joined, _ = model.records(trail.make(until_ms=START_MS + 1), limit=50)
    assert {record.height for record in joined} == {0}
    later, _ = model.records(trail.make(since_ms=found[-1].time_ms), limit=50)
    assert [record.index for record in later] == [found[-2].index, found[-1].index]


def test_records_are_paged_by_index(model: ReadModel, consortium: Consortium) -> None:
    collected, index = list[int](), 0
    while True:
        records, index = model.records(trail.make(from_index=index), limit=7)
        collected += [record.index for record in records]
        if index == 0:
            break
    assert collected == list(range(consortium.app.audit_log.size))
    assert model.records(trail.make(from_index=2**64 - 1), limit=5) == ([], 0)


@pytest.mark.parametrize("damage", ["none", "gone", "garbage", "other version", "other ledger", "ahead", "half made"])
def test_a_lost_or_foreign_index_is_made_again(consortium: Consortium, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "read.sqlite"
    indexed = Consortium(genesis=genesis(("aa", "bb", "cc"))) if damage == "other ledger" else consortium
    ReadModel(path, indexed.app).close()
    match damage:
        case "gone":
            path.unlink()
        case "garbage":
            path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
        case "other version":
            change(path, "PRAGMA user_version = 77")
        case "ahead":
            change(path, "UPDATE standing SET next_index = 1000000")
        case "half made":
            change(path, "DELETE FROM standing")
    consortium.publish("um.later.one")
    model = ReadModel(path, consortium.app)
    assert len(names(model, include_withdrawn=True)) == 6
    assert model.records(trail.ANYTHING, limit=500)[0][-1].index == consortium.app.audit_log.size - 1
    model.close()


def test_a_place_that_cannot_be_written_is_named(consortium: Consortium, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"read\.sqlite"):
        ReadModel(tmp_path / "missing" / "read.sqlite", consortium.app)


def test_rebuilding_changes_no_answer(consortium: Consortium, model: ReadModel) -> None:
    token = consortium.token(INDO[0])
    consortium.do("case/operator", RevokeToken(token_id=token, reason="audit"))
    model.follow()
    before = (names(model, "trial"), model.records(trail.ANYTHING, limit=500), model.tokens(page_size=9))
    model.rebuild()
    assert (names(model, "trial"), model.records(trail.ANYTHING, limit=500), model.tokens(page_size=9)) == before


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "²", "9" * 30])
def test_a_page_token_of_someone_else_is_refused(model: ReadModel, token: str) -> None:
    for question in (model.tasks, model.tokens, model.requests, model.proposals, model.search_datasets):
        with pytest.raises(InvalidInput):
            question(page_size=5, page_token=token)


@pytest.mark.parametrize("text", ["x" * 201, "a " * 17])
def test_a_search_is_bounded(model: ReadModel, text: str) -> None:
    with pytest.raises(InvalidInput):
        model.search_datasets(text=text, page_size=5)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


def test_filters_by_theme_unit_price_freshness_and_quality(consortium: Consortium, model: ReadModel) -> None:
    since_ms = consortium.time_ms + 1
    consortium.do("um/operator", publication("um.a.digestive", themes=["HEAL.C06"]))
    per_row = Price(unit=PRICE_UNIT_ROW, points=2)
    consortium.do("iu/operator", publication("iu.a.dear", themes=["HEAL", "TECH"], price=per_row))
    consortium.do("iu/operator", publication("iu.a.doubted"))
    for verifier, name, outcome in (
        ("uk", "um.a.digestive", VERIFICATION_OUTCOME_CONFIRMED),
        ("iu", "um.a.digestive", VERIFICATION_OUTCOME_CONFIRMED),
        ("uk", "iu.a.dear", VERIFICATION_OUTCOME_CONFIRMED),
        ("uk", "iu.a.doubted", VERIFICATION_OUTCOME_CONFIRMED),
        ("um", "iu.a.doubted", VERIFICATION_OUTCOME_CONTESTED),
    ):
        statement = VerifyDataset(
            dataset=name, version=1, outcome=outcome, method="recounted", evidence_digest=bytes(32)
        )
        consortium.do(f"{verifier}/operator", statement)
    model.follow()
    assert names(model, theme="HEAL") == ["iu.a.dear", "um.a.digestive"]
    assert names(model, theme="HEAL.C06") == ["um.a.digestive"]
    assert names(model, theme="ENER") == []
    assert len(names(model, unit="a")) == 7
    assert names(model, column="rx", unit="a") == []
    assert set(names(model)) - set(names(model, max_price=319)) == {"iu.a.dear"}
    assert "iu.a.dear" in names(model, max_price=320)
    assert names(model, released_since_ms=since_ms) == ["iu.a.doubted", "iu.a.dear", "um.a.digestive"]
    assert names(model, min_verifications=1) == ["iu.a.dear", "um.a.digestive"]
    assert names(model, "pancreatitis", theme="HEAL", min_verifications=2) == ["um.a.digestive"]
    consortium.publish("um.a.digestive")
    model.follow()
    assert names(model, min_verifications=1) == ["iu.a.dear"]  # what was verified was the version before
    assert names(model, theme="HEAL") == ["iu.a.dear"]


def test_demands_and_disputes_by_whom_they_concern(consortium: Consortium, model: ReadModel) -> None:
    mine = consortium.do("um/analyst", wanted(columns=["age"]))
    other = consortium.do("iu/analyst", wanted(columns=["weight"]))
    consortium.publish("uk.a.new")
    token = consortium.token(INDO[1])
    dispute = consortium.do("um/analyst", claim(token, "iu", REMEDY_REVOCATION))
    model.follow()

    def demands(**filters: object) -> list[str]:
        return [item.id for item in model.demands(page_size=50, **filters)[0]]  # type: ignore[arg-type]

    def disputes(**filters: object) -> list[str]:
        return [item.id for item in model.disputes(page_size=50, **filters)[0]]  # type: ignore[arg-type]

    assert demands() == [other, mine]
    assert demands(demander="um/analyst") == demands(matched_institution="uk") == demands(id_prefix=mine[:8]) == [mine]
    assert demands(matched_institution="um") == []
    for concerned in ("um", "iu", "case", "uk"):
        assert disputes(institution=concerned) == [dispute]
    assert disputes(institution="xx") == []
    assert disputes(subject=token) == disputes(status=DISPUTE_STATUS_OPEN) == [dispute]
    consortium.do("um/analyst", WithdrawDispute(dispute_id=dispute))
    consortium.do("um/analyst", WithdrawDemand(demand_id=mine))
    model.follow()
    assert disputes(status=DISPUTE_STATUS_OPEN) == []
    assert demands(status=DEMAND_STATUS_OPEN) == [other]
