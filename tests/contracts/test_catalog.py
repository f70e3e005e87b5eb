"""Catalog: publications, their versions, their bounds, and withdrawal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from koinon.names import TableName
from koinon.v1.access_pb2 import REQUEST_STATUS_DENIED, TOKEN_STATUS_REVOKED
from koinon.v1.catalog_pb2 import (
    COLUMN_TYPE_TEXT,
    DATASET_STATUS_PUBLISHED,
    DATASET_STATUS_WITHDRAWN,
    Column,
    PublishDataset,
    WithdrawDataset,
)
from tests.contracts.consortium import Consortium, access_request, publication

NAME = "um.ercp.indo_rct"


def test_what_was_published_is_what_the_ledger_holds(consortium: Consortium) -> None:
    uid = consortium.do("um/operator", publication(NAME))
    dataset = consortium.app.dataset(NAME)
    assert dataset.published == publication(NAME)
    assert (dataset.uid, dataset.version, dataset.status) == (uid, 1, DATASET_STATUS_PUBLISHED)
    assert (dataset.publisher, dataset.published_by) == ("um", "um/operator")
    assert dataset.released_at_ms == consortium.time_ms


def test_a_new_version_keeps_the_uid_and_the_old_descriptor(consortium: Consortium) -> None:
    uid = consortium.do("um/operator", publication(NAME))
    for version in (2, 3):
        assert consortium.do("um/operator", publication(NAME, title=f"Version {version}")) == uid
    assert consortium.app.dataset(NAME).version == 3
    assert [consortium.app.dataset(NAME, version).published.title for version in (1, 2, 3)] == [
        "Indomethacin to prevent pancreatitis",
        "Version 2",
        "Version 3",
    ]


def test_one_table_of_every_institution(consortium: Consortium) -> None:
    consortium.publish("um.ercp.indo_rct", "case.ercp.indo_rct", "iu.ercp.other")
    found = consortium.app.datasets_of_table(TableName.parse("ercp.indo_rct"))
    assert [dataset.published.name for dataset in found] == ["case.ercp.indo_rct", "um.ercp.indo_rct"]


def test_withdrawing_ends_requests_tokens_and_tasks(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    token = consortium.token("um.a.t")
    consortium.do("um/operator", publication("um.a.t", auto=False))
    request = consortium.do("iu/analyst", access_request("um.a.t"))
    task = consortium.do("um/analyst", consortium.submission({"um.a.t": token}))
    consortium.do("um/operator", WithdrawDataset(name="um.a.t", reason="consent withdrawn"))
    assert consortium.app.dataset("um.a.t").status == DATASET_STATUS_WITHDRAWN
    assert consortium.app.request(request).status == REQUEST_STATUS_DENIED
    assert consortium.app.token(token).status == TOKEN_STATUS_REVOKED
    ended = consortium.app.task(task)
    assert ended.rule == "token-revoked"
    assert token in ended.reason
    assert "consent withdrawn" in ended.reason
    assert [record.kind for record in consortium.records()[-5:]] == [
        "dataset.withdrawn",
        "access.denied",
        "token.revoked",
        "task.failed",
        "token.returned",
    ]


def test_a_withdrawn_dataset_is_of_no_use_until_published_again(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    withdrawal = WithdrawDataset(name="um.a.t", reason="wrong file")
    consortium.do("um/operator", withdrawal)
    assert consortium.refused("um/analyst", access_request("um.a.t")) == "dataset-withdrawn"
    assert consortium.refused("um/operator", withdrawal) == "wrong-state"
    consortium.publish("um.a.t")
    assert consortium.app.dataset("um.a.t").version == 2
    consortium.token("um.a.t")


def columns(*names: str) -> list[Column]:
    return [Column(name=name, type=COLUMN_TYPE_TEXT) for name in names]


MALFORMED: dict[str, tuple[Callable[[PublishDataset], object], str]] = {
    "no institution": (lambda d: setattr(d, "name", "ercp.indo_rct"), "invalid-name"),
    "capitals in the name": (lambda d: setattr(d, "name", "um.ERCP.indo_rct"), "invalid-name"),
    "too long a part": (lambda d: setattr(d, "name", "um.a." + "t" * 64), "invalid-name"),
    "a zero byte in the name": (lambda d: setattr(d, "name", "um.a.t\0"), "invalid-name"),
    "no title": (lambda d: setattr(d, "title", ""), "invalid-input"),
    "a long title": (lambda d: setattr(d, "title", "x" * 201), "invalid-input"),
    "a terminal escape": (lambda d: setattr(d, "title", "\x1b[2Jgone"), "invalid-input"),
    "reversed text": (lambda d: setattr(d, "description", "abc\u202edcba"), "invalid-input"),
    "a long description": (lambda d: setattr(d, "description", "x" * 2001), "invalid-input"),
    "many keywords": (lambda d: d.keywords.extend(map(str, range(15))), "invalid-input"),
    "an empty keyword": (lambda d: d.keywords.append(""), "invalid-input"),
    "a keyword twice": (lambda d: d.keywords.append("ercp"), "invalid-input"),
    "no columns": (lambda d: d.ClearField("columns"), "invalid-input"),
    "many columns": (lambda d: d.columns.extend(columns(*(f"c{i}" for i in range(255)))), "invalid-input"),
    "a column that is no name": (lambda d: d.columns.extend(columns("a b")), "invalid-name"),
    "a column twice but for case": (lambda d: d.columns.extend(columns("AGE")), "invalid-input"),
    "a column of no type": (lambda d: d.columns.append(Column(name="x")), "invalid-input"),
    "a column of a later type": (lambda d: d.columns.append(Column(name="x", type=99)), "invalid-input"),  # type: ignore[arg-type]
    "a long codelist": (lambda d: d.columns[0].codelist.extend(map(str, range(64))), "invalid-input"),
    "a code twice": (lambda d: d.columns[0].codelist.append("0_placebo"), "invalid-input"),
    "an empty code": (lambda d: d.columns[0].codelist.append(""), "invalid-input"),
    "too many rows": (lambda d: setattr(d, "row_count", 10**12), "invalid-input"),
    "no rounding step": (lambda d: setattr(d, "row_count_step", 0), "invalid-input"),
    "not rounded": (lambda d: setattr(d, "row_count", 164), "invalid-input"),
    "no access mode": (lambda d: setattr(d.policy, "mode", 0), "invalid-input"),
    "a later access mode": (lambda d: setattr(d.policy, "mode", 3), "invalid-input"),
    "no operations": (lambda d: d.policy.ClearField("operations"), "invalid-input"),
    "operations out of order": (lambda d: d.policy.operations.append(1), "invalid-input"),  # type: ignore[arg-type]
    "a later operation": (lambda d: d.policy.operations.append(99), "invalid-input"),  # type: ignore[arg-type]
    "no commitment": (lambda d: setattr(d, "commitment", b""), "invalid-input"),
    "no minimum cohort": (lambda d: setattr(d.policy, "min_cohort", 0), "policy"),
    "a cohort below the floor": (lambda d: setattr(d.policy, "min_cohort", 4), "policy"),
    "no uses": (lambda d: setattr(d.policy, "max_uses", 0), "policy"),
    "uses beyond the consortium's": (lambda d: setattr(d.policy, "max_uses", 10_001), "policy"),
    "no duration": (lambda d: setattr(d.policy, "max_duration_ms", 0), "policy"),
    "a negative duration": (lambda d: setattr(d.policy, "max_duration_ms", -1), "policy"),
    "an endless duration": (lambda d: setattr(d.policy, "max_duration_ms", 2**62), "policy"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_publication_is_refused(consortium: Consortium, case: str) -> None:
    change, rule = MALFORMED[case]
    dataset = publication(NAME)
    change(dataset)
    assert consortium.refused("um/operator", dataset) == rule
    assert consortium.app.datasets() == []


def test_nobody_withdraws_without_a_reason(consortium: Consortium) -> None:
    consortium.publish(NAME)
    assert consortium.refused("um/operator", WithdrawDataset(name=NAME)) == "invalid-input"
    assert consortium.refused("um/operator", WithdrawDataset(name="um.no.such", reason="x")) == "not-found"
