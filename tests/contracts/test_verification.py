"""What other institutions state about a dataset, and how datasets are classified."""

from __future__ import annotations

from typing import Any

import pytest

from governance import taxonomy
from koinon.errors import InvalidInput
from koinon.v1.catalog_pb2 import (
    VERIFICATION_OUTCOME_CONFIRMED,
    VERIFICATION_OUTCOME_CONTESTED,
    Taxonomy,
    Theme,
    VerifyDataset,
    WithdrawDataset,
    WithdrawVerification,
)
from node.contracts import catalog, classification
from node.contracts.context import Context
from tests.contracts.consortium import Consortium, publication

NAME = "um.a.t"


def statement(**changes: Any) -> VerifyDataset:
    usual = {
        "dataset": NAME,
        "version": 1,
        "outcome": VERIFICATION_OUTCOME_CONFIRMED,
        "method": "recounted a sample of 100 rows on site",
        "evidence_digest": bytes(range(32)),
    }
    return VerifyDataset(**{**usual, **changes})


@pytest.fixture
def consortium() -> Consortium:
    consortium = Consortium()
    consortium.publish(NAME)
    return consortium


def test_who_checked_how_and_with_what_result_is_in_the_entry(consortium: Consortium) -> None:
    consortium.do("uk/operator", statement())
    consortium.do("iu/operator", statement(outcome=VERIFICATION_OUTCOME_CONTESTED))
    iu, uk = consortium.app.dataset(NAME).verifications
    assert (iu.institution, iu.outcome) == ("iu", VERIFICATION_OUTCOME_CONTESTED)
    assert (uk.made_by, uk.method, uk.evidence_digest) == ("uk/operator", statement().method, bytes(range(32)))
    record = consortium.records()[-1]
    assert (record.kind, record.subject) == ("dataset.verified", f"dataset:{NAME}")
    assert list(record.related) == ["institution:um", "institution:iu"]


def test_statements_stay_with_the_version_they_speak_of(consortium: Consortium) -> None:
    consortium.do("uk/operator", statement())
    consortium.publish(NAME)
    assert list(consortium.app.dataset(NAME).verifications) == []
    assert len(consortium.app.dataset(NAME, 1).verifications) == 1
    assert consortium.refused("uk/operator", statement()) == "dataset-version"
    consortium.do("uk/operator", statement(version=2))
    consortium.do("uk/operator", WithdrawVerification(dataset=NAME, version=1, reason="wrong sample"))
    assert list(consortium.app.dataset(NAME, 1).verifications) == []
    assert len(consortium.app.dataset(NAME).verifications) == 1


def test_only_who_made_a_statement_takes_it_back(consortium: Consortium) -> None:
    consortium.do("uk/operator", statement())
    withdrawal = WithdrawVerification(dataset=NAME, version=1, reason="wrong sample")
    assert consortium.refused("iu/operator", withdrawal) == "not-found"
    assert consortium.refused("uk/operator", statement()) == "already-exists"
    consortium.do("uk/operator", withdrawal)
    assert consortium.refused("uk/operator", withdrawal) == "not-found"
    consortium.do("uk/operator", statement())
    consortium.do("um/operator", WithdrawDataset(name=NAME, reason="over"))
    consortium.do("uk/operator", withdrawal)  # also of what was withdrawn


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"outcome": 0}, "invalid-input"),
        ({"outcome": 3}, "invalid-input"),
        ({"method": ""}, "invalid-input"),
        ({"evidence_digest": b"short"}, "invalid-input"),
        ({"dataset": "um.a.none"}, "not-found"),
        ({"version": 2}, "dataset-version"),
        ({"version": 0}, "dataset-version"),
    ],
)
def test_a_malformed_statement_is_refused(consortium: Consortium, change: dict[str, Any], rule: str) -> None:
    assert consortium.refused("uk/operator", statement(**change)) == rule


def test_what_was_withdrawn_is_not_verified(consortium: Consortium) -> None:
    consortium.do("um/operator", WithdrawDataset(name=NAME, reason="over"))
    assert consortium.refused("uk/operator", statement()) == "dataset-withdrawn"


def test_themes_are_those_of_the_taxonomy(consortium: Consortium) -> None:
    consortium.do("um/operator", publication(NAME, themes=["HEAL.C06", "TECH"]))
    assert consortium.refused("um/operator", publication(NAME, themes=["HEAL.C99"])) == "unknown-theme"
    assert consortium.refused("um/operator", publication(NAME, themes=["TECH", "HEAL"])) == "invalid-input"


def test_the_members_may_choose_another_taxonomy(consortium: Consortium) -> None:
    context = Context(
        consortium.app._new_state(),
        9,
        consortium.time_ms,
        0,
        consortium.app.parameters(),  # what a ballot executes
    )
    ours = Taxonomy(title="Ours", themes=[Theme(code="A", label="A"), Theme(code="A.B", label="B", parent="A")])
    assert classification.current(context.state) == taxonomy.DEFAULT
    for version in (1, 2):
        catalog.set_taxonomy(context, ours)
        assert classification.current(context.state).version == version
    classification.check_known(context.state, ["A.B"])
    assert [record.kind for record in context.records] == ["taxonomy.changed"] * 2
    with pytest.raises(InvalidInput):
        catalog.set_taxonomy(context, Taxonomy())


def test_the_default_taxonomy_is_well_formed() -> None:
    taxonomy.check(taxonomy.DEFAULT)
    assert taxonomy.with_wider(taxonomy.DEFAULT, ["HEAL.C06", "NEW"]) == ["HEAL", "HEAL.C06", "NEW"]
    narrower = taxonomy.with_narrower(taxonomy.DEFAULT, "HEAL")
    assert {"HEAL", "HEAL.C06"} <= set(narrower)
    assert "TECH" not in narrower
    assert taxonomy.with_narrower(taxonomy.DEFAULT, "NEW") == ["NEW"]


@pytest.mark.parametrize(
    "themes",
    [
        [],
        [Theme(code="a", label="x")],
        [Theme(code="A", label="")],
        [Theme(code="A", label="x\x1b")],
        [Theme(code="A", label="x", uri="ftp://x")],
        [Theme(code="B", label="x"), Theme(code="A", label="x")],
        [Theme(code="A", label="x"), Theme(code="A", label="x")],
        [Theme(code="A", label="x", parent="B")],
        [Theme(code="A", label="x", parent="A")],
        [Theme(code="A", label="x", parent="B"), Theme(code="B", label="x", parent="A")],
        [Theme(code=f"T{number:04}", label="x") for number in range(501)],
    ],
)
def test_a_malformed_taxonomy_is_refused(themes: list[Theme]) -> None:
    with pytest.raises(InvalidInput) as caught:
        taxonomy.check(Taxonomy(title="Ours", themes=themes))
    assert caught.value.rule == "taxonomy"
