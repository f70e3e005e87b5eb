"""``koinon ledger``: a node's ledger, or an archive of it, without the node."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from koinon import genesis as genesis_file
from koinon.cli import output
from koinon.cli.app import invocation
from koinon.display import when
from koinon.errors import InvalidFile
from koinon.v1.identity_pb2 import Genesis
from node import archive, replay
from node.config import Home
from node.replay import OnProgress, Replayed
from node.store.leveldb import LevelStore

_PATH = click.Path(path_type=Path)


@click.group()
def ledger() -> None:
    """Verify or export a whole ledger, offline."""


@ledger.command()
@click.argument("source", type=_PATH, metavar="HOME|ARCHIVE")
@click.option(
    "--genesis", "genesis_path", type=_PATH, metavar="JSON", help="From someone you trust.  [default: its own]"
)
def verify(source: Path, genesis_path: Path | None) -> None:
    """Replay a ledger from its genesis and compare every commitment; the first divergence is named.

    HOME is the directory of a node that is stopped: what it stores beside its blocks is compared as well. ARCHIVE is a
    file made by koinon ledger export. Takes disk space for a second copy of the state, in the temporary directory.
    """
    trusted = genesis_file.load(genesis_path) if genesis_path else None
    if source.is_dir():
        genesis = _own(trusted, genesis_file.load(Home(source.absolute()).genesis))
        with _opened(source) as store, _scratch() as scratch, _progress() as on_progress:
            found = replay.replay(genesis, replay.stored(store), scratch, on_progress)
            replay.compare(store, scratch, found.chain)
    else:
        kept = archive.Archive(source)
        genesis = _own(trusted, kept.genesis)
        with _scratch() as scratch, _progress() as on_progress:
            found = replay.replay(genesis, kept.blocks(), scratch, on_progress)
    _tell(found, trusted is not None)


@ledger.command()
@click.argument("home", type=_PATH)
@click.option("--out", type=_PATH, required=True, metavar="FILE", help="A new file.")
def export(home: Path, out: Path) -> None:
    """Write the ledger of a stopped node to an archive: its genesis, and every block with its certificate.

    The archive is not verified on the way: koinon ledger verify FILE does that, now or in ten years.
    """
    genesis = genesis_file.load(Home(home.absolute()).genesis)
    with _opened(home) as store:
        height = archive.write(out, genesis, replay.stored(store))
    if invocation().json:
        output.show_json({"file": str(out), "height": height})
    else:
        output.show_text(f"{out}\n")
    output.say(f"blocks 1 to {height}; verify it anywhere: koinon ledger verify {out}")


@contextmanager
def _opened(home: Path) -> Iterator[LevelStore]:
    """The store of a home. Raises InvalidFile, and what LevelStore raises: Unavailable while the node runs."""
    path = Home(home.absolute()).ledger
    if not (path / "CURRENT").is_file():
        raise InvalidFile(f"{home} holds no ledger", hint="give the home of a node that has run, as in koinon node run")
    with closing(LevelStore(path)) as store:
        yield store


@contextmanager
def _scratch() -> Iterator[LevelStore]:
    with (
        tempfile.TemporaryDirectory(prefix="koinon-replay-") as directory,
        closing(LevelStore(Path(directory))) as store,
    ):
        yield store


@contextmanager
def _progress() -> Iterator[OnProgress]:
    with output.working("replaying the ledger") as line:
        yield lambda height, count: line.update(f"replaying the ledger: block {height}, {count} transactions")


def _own(trusted: Genesis | None, own: Genesis) -> Genesis:
    """Raises InvalidFile where the two are not the same."""
    if trusted is not None and trusted != own:
        raise InvalidFile(
            f"the ledger began from another genesis: it is {genesis_file.chain_id(own)}",
            rule="invalid-genesis",
            hint="use the genesis file of the ledger's network",
        )
    return own


def _tell(found: Replayed, trusted: bool) -> None:
    chain = found.chain
    if invocation().json:
        output.show_json(
            {
                "verified": True,
                "chain_id": chain.chain_id,
                "height": chain.height,
                "block_hash": chain.block_hash.hex(),
                "state_commitment": chain.hashes.state_commitment.hex(),
                "audit_root": chain.hashes.audit_root.hex(),
                "transactions": found.transactions,
                "records": found.records,
            }
        )
        return
    output.show_text("verified: every block follows from the genesis\n")
    output.show(
        output.facts(
            [
                ("Chain", chain.chain_id),
                ("Height", f"{chain.height}, {when(chain.time_ms)}"),
                ("Block", chain.block_hash.hex()),
                ("State", chain.hashes.state_commitment.hex()),
                ("Audit log", f"{found.records} records, root {chain.hashes.audit_root.hex()}"),
                ("Transactions", str(found.transactions)),
            ]
        )
    )
    if not trusted:
        output.say("the genesis was the ledger's own: compare the chain id with one from someone you trust")
