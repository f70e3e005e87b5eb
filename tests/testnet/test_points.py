"""A priced query on real nodes: the price beforehand, escrow, settlement, the explanation, and a data union."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import koinon
from koinon.cli import main
from koinon.errors import PermissionRefused, Refused
from testnet.network import Testnet

SQL = "SELECT SUM(x) AS s FROM c.small"
PRICES = {"um": "100/use", "iu": "2/row", "uk": "30/7d"}
ROWS = 50
COST = 100 + 2 * ROWS + 30


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testnet]:
    with Testnet.create(tmp_path_factory.mktemp("points"), tuple(PRICES), points=1_000) as running:
        file = tmp_path_factory.mktemp("data") / "small.csv"
        file.write_text("x\n" + "".join(f"{number}\n" for number in range(ROWS)))
        ok(running, "iu-operator", "points", "union", "define", "patients", "--title", "Patients")
        ok(running, "iu-operator", "points", "union", "set", "patients", "um/analyst=1", "um/regulator=2")
        for institution, price in PRICES.items():
            payee = ["--payee", "union:patients"] if institution == "iu" else []
            publish(running, institution, file, "c.small", "--price", price, *payee)
        publish(running, "um", file, "c.free")
        for name in ("c.small", "c.free"):
            ok(running, "analyst", "access", "request", name, "--purpose", "to see what it costs", "--uses", "20")
        yield running


def run(network: Testnet, who: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--profile", str(network.profile(who)), *arguments])


def ok(network: Testnet, who: str, *arguments: str) -> str:
    result = run(network, who, *arguments)
    assert result.exit_code == 0, f"{arguments}: {result.stderr}"
    return result.stdout


def publish(network: Testnet, institution: str, file: Path, name: str, *further: str) -> None:
    arguments = [str(file), "--name", name, "--title", "Small", "--access", "auto", *further]
    ok(network, f"{institution}-operator", "catalog", "publish", *arguments)


def data(network: Testnet, who: str, *arguments: str) -> Any:
    return json.loads(ok(network, who, *arguments, "--json"))


def balance(network: Testnet, who: str, account: str = "") -> int:
    return int(ok(network, who, "points", "balance", *([account] if account else [])))


def test_a_priced_query_from_the_preview_to_the_explanation(network: Testnet) -> None:
    assert "100/use" in ok(network, "analyst", "catalog", "search", "small")
    assert "2/row for union:patients" in ok(network, "analyst", "catalog", "show", "iu.c.small")
    preview = ok(network, "analyst", "query", SQL, "--dry-run")
    assert f"{COST} points, in escrow until the task ends" in preview
    assert "data of um.c.small" in preview
    assert data(network, "analyst", "query", SQL, "--dry-run")["price"] == COST

    assert "[max-price]" in run(network, "analyst", "query", SQL).stderr
    poor = run(network, "analyst", "query", SQL, "--max-price", str(COST))
    assert "[insufficient-points]" in poor.stderr
    arguments = ["um/analyst", "600", "--from", "um", "--reason", "budget of the study"]
    assert ok(network, "um-operator", "points", "transfer", *arguments) == "400\n"

    with koinon.connect(network.profile("analyst")) as client:
        result = client.query(SQL, max_price=COST)
        assert result.rows == ({"s": 3 * sum(range(ROWS))},)
        assert f"; {COST} points paid" in result.note()
        explained = client.points.explain(result.task_id)
        assert {(payout.account, payout.points) for payout in explained.payouts} == {
            ("institution:um", 100),
            ("union:patients", 100),
        }
        assert sum(payout.points for payout in explained.escrow.paid) == 200
        assert client.points.balance() == 600 - COST
    said = ok(network, "analyst", "points", "explain", result.task_id[:12])
    assert "200 points of person:um/analyst: settled, 200 paid" in said
    assert "uk.c.small: 30 for a period that begins" in said
    assert balance(network, "um-operator", "um") == 400 + 100

    again = run(network, "analyst", "query", SQL, "--max-price", "200")
    assert "; 200 points paid" in again.stderr, "the period was paid before"
    assert balance(network, "analyst") == 600 - COST - 200
    claimed = data(network, "analyst", "points", "union", "claim", "patients")["points"]
    assert claimed == 600 - COST - 200 + 66
    statement = data(network, "analyst", "points", "statement")
    assert [line["change"] for line in statement] == [66, -200, -30, -200, 600]
    assert statement[0]["balance"] == claimed
    held = data(network, "regulator", "audit", "list", f"task:{result.task_id}", "--kind", "escrow.")
    assert [record["kind"] for record in held] == ["escrow.held", "escrow.settled"]


def test_what_is_free_stays_free(network: Testnet) -> None:
    assert "Price      free" in ok(network, "analyst", "query", "SELECT SUM(x) AS s FROM um.c.free", "--dry-run")
    with koinon.connect(network.profile("analyst")) as client:
        before = client.points.balance()
        result = client.query("SELECT SUM(x) AS s FROM um.c.free")
        assert client.points.balance() == before
        assert not client.points.explain(result.task_id).terms.sources
    assert ok(network, "analyst", "points", "explain", result.task_id).endswith("is free\n")


def test_points_are_conserved_and_people_see_their_own(network: Testnet) -> None:
    with (
        koinon.connect(network.profile("regulator")) as regulator,
        koinon.connect(network.profile("analyst")) as analyst,
    ):
        supply = regulator.points.supply()
        assert supply.minted == 3_000
        assert sum(account.points for account in regulator.points.accounts()) + supply.escrowed == supply.minted
        assert {account.id for account in analyst.points.accounts() if "person:" in account.id} == {"person:um/analyst"}
        assert [member.earned for member in regulator.points.union_members("patients")][1] > 0
        assert [member.earned for member in analyst.points.union_members("patients")][1] == 0
        with pytest.raises(PermissionRefused):
            analyst.points.balance("iu/operator")
        with pytest.raises(PermissionRefused):
            analyst.points.transfer("iu", 1, reason="not mine", source="um")
        with pytest.raises(Refused, match="and 1000000 are needed"):
            analyst.points.transfer("iu", 1_000_000, reason="too much")


def test_a_fee_is_seen_before_it_is_paid_and_explained_after(network: Testnet, tmp_path: Path) -> None:
    fees = ("task_fee=5", "request_fee=2", "dataset_fee=3")
    options = [word for fee in fees for word in ("--set", fee)]
    preview = ok(network, "um-operator", "gov", "propose", *options, "--reason", "for the common work", "--dry-run")
    assert "task_fee: 0 -> 5" in preview
    proposal = data(network, "um-operator", "gov", "propose", *options, "--reason", "for the common work")["id"]
    for operator in ("um-operator", "iu-operator"):
        ok(network, operator, "gov", "ballot", "yes", proposal)
    fund, poor = balance(network, "analyst", "fund:consortium"), balance(network, "analyst")

    file = tmp_path / "more.csv"
    file.write_text("x\n1\n2\n3\n")
    arguments = ("catalog", "publish", str(file), "--name", "c.more", "--title", "More", "--access", "auto")
    refused = run(network, "um-operator", *arguments)
    assert "costs your institution a fee of 3 points" in refused.stderr
    assert "[max-fee]" in refused.stderr
    ok(network, "um-operator", *arguments, "--max-fee", "3")
    ok(network, "um-operator", *arguments)  # a correction

    asked = ("access", "request", "c.free", "--purpose", "to see what it costs")
    assert "the request fee is 2 points" in run(network, "analyst", *asked).stderr
    ok(network, "analyst", *asked, "--max-fee", "2")
    assert data(network, "analyst", "points", "statement", "--limit", "1")[0]["kind"] == "points.charged"

    sql = "SELECT SUM(x) AS s FROM um.c.free"
    assert "5 points, in escrow until the task ends: um.c.free free; fee 5" in ok(
        network, "analyst", "query", sql, "--dry-run"
    )
    assert "[max-price]" in run(network, "analyst", "query", sql).stderr
    with koinon.connect(network.profile("analyst")) as client:
        result = client.query(sql, max_price=5)
    explained = ok(network, "analyst", "points", "explain", result.task_id)
    assert "fee of a task, whatever its price" in explained
    assert balance(network, "analyst", "fund:consortium") == fund + 3 + 2 + 5
    assert balance(network, "analyst") == poor - 2 - 5
