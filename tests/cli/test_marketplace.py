"""Supply, demand, negotiation and a dispute: people of four real nodes, typing commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testnet.network import Testnet
from tests.cli.people import People

TABLE = "a.demo.trial"


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with Testnet.create(tmp_path_factory.mktemp("marketplace"), ["b", "a", "c", "d"]) as network:
        yield People(network)


def test_from_a_wish_to_a_verdict(consortium: People, tmp_path: Path) -> None:
    analyst = "analyst"  # of b, the first named
    wish = consortium.data(
        analyst, "demand", "post", "Ages by arm", "--columns", "age,arm", "--themes", "HEAL", "--purpose", "a trial"
    )
    assert consortium.data("a-operator", "demand", "list", "--matched") == []

    table = tmp_path / "trial.csv"
    table.write_text("age,arm\n50,a\n61,b\n47,a\n")
    publish = ["--name", "demo.trial", "--title", "A trial", "--themes", "HEAL.C06", "--price", "5/use", "--yes"]
    consortium.ok("a-operator", "catalog", "publish", str(table), *publish)
    (match,) = consortium.data(analyst, "demand", "show", wish["id"][:8])["matches"]
    assert match["dataset"] == TABLE
    (seen,) = consortium.data("a-operator", "demand", "list", "--matched")
    assert seen["id"] == wish["id"]
    consortium.ok(analyst, "demand", "withdraw", wish["id"], "--reason", "found")

    report = tmp_path / "report.txt"
    report.write_text("all rows compared with the charts")
    consortium.ok(
        "c-operator",
        "catalog",
        "verify",
        TABLE,
        "--outcome",
        "confirmed",
        "--method",
        "charts",
        "--evidence",
        str(report),
    )
    consortium.refused(
        "a-operator",
        4,
        "permission",
        *("catalog", "verify", TABLE, "--outcome", "confirmed", "--method", "mine", "--evidence", str(report)),
    )
    found = consortium.data(analyst, "catalog", "search", "--theme", "HEAL", "--verified", "1", "--max-price", "5")
    assert [dataset["published"]["name"] for dataset in found] == [TABLE]
    assert consortium.data(analyst, "catalog", "search", "--max-price", "4") == []
    consortium.ok("a-operator", "catalog", "publish", str(table), *publish, "--description", "Better described")
    assert [item["version"] for item in consortium.data(analyst, "catalog", "history", TABLE)] == [2, 1]
    assert "description" in consortium.ok(analyst, "catalog", "history", TABLE).splitlines()[2]
    assert "c (confirmed)" in consortium.ok(analyst, "catalog", "history", TABLE)

    exported = json.loads(consortium.ok(analyst, "catalog", "export"))
    assert [item["dct:identifier"] for item in exported["dataset"]] == [found[0]["uid"]]
    card = json.loads(consortium.ok(analyst, "catalog", "export", "--format", "croissant", "--dataset", TABLE))
    assert [field["name"] for field in card["recordSet"][0]["field"]] == ["age", "arm"]

    (request,) = consortium.data(analyst, "access", "request", TABLE, "--purpose", "a look", "--uses", "9")
    consortium.ok(
        "a-operator", "access", "counter", request["id"], "--uses", "2", "--price", "free", "--note", "try it"
    )
    shown = consortium.ok(analyst, "access", "show", request["id"])
    assert "countered" in shown
    assert "try it" in shown
    token = consortium.data(analyst, "access", "accept", request["id"], "--offer", "1")
    assert (token["uses_left"], token.get("price", {}).get("points", 0)) == (2, 0)

    opened = consortium.data(
        analyst, "dispute", "open", "--token", token["id"], "--claim", "the arms are swapped", "--seek", "revocation"
    )
    assert (opened["opened"]["respondent"], opened["arbiters"]) == ("a", ["c", "d"])
    consortium.ok("a-operator", "dispute", "answer", opened["id"], "--statement", "they are not")
    for arbiter in ("c", "d"):
        consortium.ok(
            f"{arbiter}-operator", "dispute", "rule", opened["id"], "--order", "revocation", "--reason", "they are"
        )
    assert "revocation (by arbiters)" in consortium.ok(analyst, "dispute", "show", opened["id"])
    tokens = consortium.data(analyst, "access", "list", "--mine")["tokens"]
    assert [item["status"] for item in tokens] == ["revoked"]
    kinds = [record["kind"] for record in consortium.data(analyst, "audit", "list", "--kind", "dispute.")]
    assert kinds == ["dispute.opened", "dispute.answered", "dispute.ruled", "dispute.ruled", "dispute.decided"]
