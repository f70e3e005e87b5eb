"""``koinon ledger``: a node's ledger, or an archive of it, without the node."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
from google.protobuf.message import DecodeError

from koinon import genesis as genesis_file
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.display import duration, when
from koinon.errors import Corrupt, InvalidFile, InvalidInput
from koinon.v1.identity_pb2 import Genesis
from node import archive, examine, places, pruning, replay
from node.application import Application
from node.config import Home
from node.examine import Examined
from node.replay import OnProgress, Replayed
from node.store.blocks import BlockStore
from node.store.leveldb import LevelStore, holds_data

_PATH = click.Path(path_type=Path)
_OWN_GENESIS = "the genesis was the ledger's own: compare the chain id with one from someone you trust"


@click.group()
def ledger() -> None:
    """Verify, export or prune a whole ledger, offline."""


@ledger.command()
@click.argument("source", type=_PATH, metavar="HOME|ARCHIVE")
@click.option(
    "--genesis", "genesis_path", type=_PATH, metavar="JSON", help="From someone you trust.  [default: its own]"
)
def verify(source: Path, genesis_path: Path | None) -> None:
    """Replay a ledger from its genesis and compare every commitment; the first divergence is named.

    HOME is the directory of a node that is stopped: what it stores beside its blocks is compared as well. ARCHIVE is a
    file made by koinon ledger export. Takes disk space for a second copy of the state, in the temporary directory.

    Of a home whose blocks were pruned, or that began from a snapshot, there is nothing to replay: headers, audit log
    and state are verified against the validators' signatures instead, and the answer says so.
    """
    trusted = genesis_file.load(genesis_path) if genesis_path else None
    if source.is_dir():
        genesis = _own(trusted, genesis_file.load(Home(source.absolute()).genesis))
        with _opened(source) as store:
            if BlockStore(store).first() > 1:
                _tell_examined(_examined(genesis, store), trusted is not None)
                return
        with _opened(source) as store, _scratch() as scratch, _progress() as on_progress:
            found = replay.replay(genesis, replay.stored(store), scratch, on_progress)
            replay.compare(store, scratch, found.chain)
    else:
        kept = archive.Archive(source)
        genesis = _own(trusted, kept.genesis)
        with _scratch() as scratch, _progress() as on_progress:
            found = replay.replay(genesis, kept.blocks(), scratch, on_progress)
    _tell_replayed(found, trusted is not None)


@ledger.command()
@click.argument("home", type=_PATH)
@click.option("--out", type=_PATH, required=True, metavar="FILE", help="A new file.")
def export(home: Path, out: Path) -> None:
    """Write the ledger of a stopped node to an archive: its genesis, and every block with its certificate.

    The archive is not verified on the way: koinon ledger verify FILE does that, now or in ten years.
    """
    genesis = genesis_file.load(Home(home.absolute()).genesis)
    with _opened(home) as store:
        _all_kept(store)
        height = archive.write(out, genesis, replay.stored(store))
    tell({"file": str(out), "height": height}, str(out))
    output.say(f"blocks 1 to {height}; verify it anywhere: koinon ledger verify {out}")


@ledger.command()
@click.argument("home", type=_PATH)
@click.option(
    "--keep", type=click.IntRange(min=0), required=True, metavar="N", help="The newest blocks that stay whole."
)
@click.option("--archive", "archive_path", type=_PATH, metavar="FILE", help="Export the ledger to this new file first.")
@click.option("--without-archive", is_flag=True, help="Do not: other members keep the blocks, or an archive of them.")
def prune(home: Path, keep: int, archive_path: Path | None, without_archive: bool) -> None:
    """Drop old blocks of a stopped node, in whole segments, and give their space back.

    Headers, certificates, audit records and results of transactions stay: receipts for records and tokens can still be
    made, those for transactions of dropped blocks cannot, and the ledger cannot be replayed without the archive. A
    running node prunes by itself where keep_blocks is set in its config.toml. Blocks that the members demand (parameter
    block_retention_ms) stay, whatever N is.
    """
    if (archive_path is None) != without_archive:
        raise InvalidInput(
            "what is dropped is gone",
            hint="give --archive FILE to keep it in a file, or --without-archive if others do",
        )
    genesis = genesis_file.load(Home(home.absolute()).genesis)
    if archive_path is not None:
        with _opened(home) as store:
            _all_kept(store)
            archive.write(archive_path, genesis, replay.stored(store))
    directory = Home(home.absolute()).ledger
    with _opened(home) as store, output.working("pruning the ledger"):
        before = sum(file.stat().st_size for file in directory.iterdir())
        kept = BlockStore(store)
        retention_ms = Application(store, genesis).parameters().block_retention_ms
        first, below = kept.first(), pruning.allowed(kept, kept.height(), keep, retention_ms)
        while pruning.step(store, kept, below):
            pass
        store.write((), sync=True)
        pruning.give_back(store, below)
        now, height = kept.first(), kept.height()
    after = sum(file.stat().st_size for file in directory.iterdir())
    if invocation().json:
        output.show_json({"pruned": now - first, "first_block": now, "bytes_before": before, "bytes_after": after})
        return
    output.show_text(f"pruned {now - first} blocks; kept whole from {now} on\n")
    output.say(f"{directory}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after")
    if now == first:
        output.say(f"blocks go {pruning.SEGMENT_BLOCKS} at a time, and none are that old yet")
    if retention_ms and pruning.boundary(height, keep) > below:
        output.say(f"more are kept than you asked for: the members demand the blocks of {duration(retention_ms)}")


def _all_kept(store: LevelStore) -> None:
    """Raises InvalidFile where blocks are missing at the beginning."""
    first = BlockStore(store).first()
    if first > 1:
        raise InvalidFile(
            f"this node keeps blocks from {first} on only: an archive begins with block 1",
            rule="pruned",
            hint="export it on the node of a member that keeps all, or use the archive made before pruning",
        )


def _examined(genesis: Genesis, store: LevelStore) -> Examined:
    with output.working("examining the ledger") as line:
        return examine.examine(genesis, store, lambda height: line.update(f"examining the ledger: block {height}"))


@contextmanager
def _opened(home: Path) -> Iterator[LevelStore]:
    """The store of a home. Raises InvalidFile, Corrupt, and what LevelStore raises: Unavailable while the node runs."""
    paths = Home(home.absolute())
    places.check(paths)
    if not holds_data(paths.ledger):
        raise InvalidFile(f"{home} holds no ledger", hint="give the home of a node that has run, as in koinon node run")
    with closing(LevelStore(paths.ledger)) as store:
        try:
            yield store
        except DecodeError as error:
            raise Corrupt(
                f"what is stored cannot be read ({error})",
                hint=f"stop the node, then: koinon node repair --home {home}",
            ) from error


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


def _tell_replayed(found: Replayed, trusted: bool) -> None:
    _tell(
        found,
        "verified: every block follows from the genesis",
        {"by": "replay", "transactions": found.transactions},
        ("Transactions", str(found.transactions)),
        [] if trusted else [_OWN_GENESIS],
    )


def _tell_examined(found: Examined, trusted: bool) -> None:
    first = found.chain.height - found.blocks + 1
    limits = (
        f"blocks below {first} are not here: that executing them leads to this state was not verified; "
        "an archive, or a node that keeps all, can be replayed"
    )
    _tell(
        found,
        "verified by signatures: state and audit log are those that validators signed",
        {"by": "signatures", "headers": found.headers, "first_block": first},
        ("Headers", f"{found.headers}, from the genesis on"),
        [limits] if trusted else [limits, _OWN_GENESIS],
    )


def _tell(
    found: Replayed | Examined, verdict: str, how: dict[str, object], counted: tuple[str, str], warnings: list[str]
) -> None:
    chain = found.chain
    state, audit = chain.hashes.state_commitment.hex(), chain.hashes.audit_root.hex()
    tell(
        {
            "verified": True,
            **how,
            "chain_id": chain.chain_id,
            "height": chain.height,
            "block_hash": chain.block_hash.hex(),
            "state_commitment": state,
            "audit_root": audit,
            "records": found.records,
        },
        verdict,
        *warnings,
        facts=[
            ("Chain", chain.chain_id),
            ("Height", f"{chain.height}, {when(chain.time_ms)}"),
            ("Block", chain.block_hash.hex()),
            ("State", state),
            ("Audit log", f"{found.records} records, root {audit}"),
            counted,
        ],
    )
