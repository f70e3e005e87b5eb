"""A validator that nobody can help: its signing state is lost, and without its vote no height becomes safe."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner, Result

from koinon.keys import SigningKey
from node.cli import node
from node.config import Home
from node.journal import mark
from node.store import wal
from node.store.leveldb import LevelStore
from tests.node.test_runtime import home, running

__all__ = ["home"]


def vote_again(path: Path, *, sure: str = "y\n") -> Result:
    return CliRunner().invoke(node, ["vote-again", "--home", str(path)], input=sure)


def records(home: Home) -> list[bytes]:
    return wal.read(home.wal)


async def test_a_lone_validator_votes_again_when_its_operator_says_so(home: Home) -> None:
    async with running(home) as (client, _, _):
        await client.members.register("um/first", SigningKey.generate().public_key, ["analyst"])
        refused = vote_again(home.path)
        assert getattr(refused.exception, "rule", "") == "store-locked"
        height = (await client.status()).height
    refused = vote_again(home.path)
    assert getattr(refused.exception, "rule", "") == "wrong-state"
    home.wal.unlink()
    async with running(home) as (client, _, _):  # it only observes now, and nobody else decides
        stall = await client.why_stalled()
        assert stall.signing_state_lost
        assert any("vote-again" in finding.hint for finding in stall.findings)
        assert (await client.status()).height >= height
    before = records(home)
    assert vote_again(home.path, sure="n\n").exit_code != 0
    assert vote_again(home.path).exit_code == 0, vote_again(home.path).output
    assert records(home)[: len(before)] == before  # what others told of its votes is among them
    async with running(home) as (client, _, _):
        await client.members.register("um/second", SigningKey.generate().public_key, ["analyst"])
        assert (await client.status()).height > height


async def test_what_was_signed_further_on_is_where_voting_goes_on(home: Home) -> None:
    """However the ledger came to say so: nothing at or before it is signed again, and the operator is told."""
    async with running(home) as (client, _, _):
        height = (await client.status()).height
    with closing(LevelStore(home.ledger)) as store:
        store.write([mark((height + 50, 0, 2))], sync=True)
    home.wal.unlink()
    said = vote_again(home.path)
    assert said.exit_code == 0, said.output
    assert f"votes from height {height + 50} on" in said.output


def test_without_a_ledger_there_is_no_height_to_vote_from(home: Home) -> None:
    shutil.rmtree(home.ledger, ignore_errors=True)
    refused = vote_again(home.path)
    assert getattr(refused.exception, "rule", "") == "corrupt"
