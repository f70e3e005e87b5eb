"""``koinon node vote-again``: what is left where so many lost their signing state that nothing can be decided."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from koinon import genesis as genesis_file
from koinon import key_files
from koinon.cli import output
from koinon.errors import Corrupt, InvalidInput, Refused
from koinon.v1.identity_pb2 import Genesis
from node import config as configs
from node import places
from node.application import Application
from node.chain import CHAIN_KEY
from node.journal import Journal, Position, last_signed
from node.ledger.blocks import ChainState
from node.store.kv import KeyValueStore
from node.store.leveldb import LevelStore
from node.store.wal import FileWal


@click.command("vote-again")
@click.option("--home", required=True, type=click.Path(path_type=Path), help="The directory made by koinon init.")
@click.option("--yes", is_flag=True, help="Every other member was asked: do not ask me.")
def vote_again(home: Path, yes: bool) -> None:
    """Vote again after the signing state was lost, where waiting cannot end.

    A node that lost it waits for a block that proves a height safe. Members with more than a third of the power that
    lost it at once wait for ever. Then, and only then: see that the nodes of all others run, that none of them is past
    the height named here, and that only one node runs with this home's keys. What the others saw of this validator's
    votes they tell it; it contradicts none of that. What nobody saw has decided nothing.
    """
    config = configs.load(home.absolute())
    places.check(config.home)
    genesis = genesis_file.load(config.home.genesis)
    height, key, signed = _validator_standing(config, genesis)
    wal = FileWal(config.home.wal)
    try:
        journal = Journal(wal, key, config.institution, time.time_ns() // 1_000_000, signed)
        if journal.votes_from_height is not None:
            raise Refused(
                f"{config.institution} has its signing state, or knows from which height it votes",
                rule="wrong-state",
                hint="start the node; koinon why-stalled says what is wrong",
            )
        if not yes and not click.confirm(
            f"Is no member past height {height}, and does nobody else run with these keys?", err=True
        ):
            raise InvalidInput("nothing was changed", hint="ask the other members' operators for koinon status")
        journal.vote_again(height + 1)
        first = max(height + 1, journal.signed[0])  # of what it knows to have signed it contradicts nothing
    finally:
        wal.close()
    output.say(f"{config.institution} votes from height {first} on: start its node")


def _validator_standing(config: configs.NodeConfig, genesis: Genesis) -> tuple[int, bytes, Position]:
    """Of a stopped node. Raises Corrupt, Unavailable."""
    if not config.home.ledger.exists():
        raise Corrupt(
            "there is no ledger in this home, so no height to vote from",
            hint="start the node: it fetches the ledger from the other members first",
        )
    with closing(LevelStore(config.home.ledger)) as store:
        made = partial(key_files.public_key, config.home.key("validator"), "ed25519")
        return validator_standing(store, genesis, config.institution, made)


def validator_standing(
    store: KeyValueStore, genesis: Genesis, institution: str, made: Callable[[], bytes]
) -> tuple[int, bytes, Position]:
    """The last height of a ledger, the validator key that counts next, and what was signed last.

    ``made`` says which key the node was made with. Raises Corrupt.
    """
    data, signed = store.get(CHAIN_KEY), last_signed(store)
    height = Application(store, genesis).info().height
    if data is not None:
        own = ChainState.from_bytes(genesis_file.chain_id(genesis), data).validators.member(institution)
        if own is not None:
            return height, own.public_key, signed
    return height, made(), signed
