"""Snapshots of one node on its disk: cut for others, restored where this node needs one.

Cutting reads a consistent view of the store, taken at the block, on a thread, so that consensus waits for none of it.
Of the state a copy is written, since it changes; records of the audit log never do, and are served from the store.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from koinon import canonical
from koinon.errors import Corrupt, KoinonError, Unavailable
from koinon.files import sync
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.peer_pb2 import DeliverRequest
from koinon.v1.snapshot_pb2 import SnapshotManifest
from node import restore, snapshot
from node.application import Application
from node.config import Home
from node.engine import Engine
from node.ports import Log, Transport
from node.receipts import Receipts
from node.snapshot_exchange import Exchange
from node.snapshot_join import Joiner
from node.store.kv import KeyValueStore

INTERVAL_S = 0.25
_KEPT = 2  # snapshots: whoever began to fetch one can finish while the next is offered
_MANIFEST = "manifest"
_PART = "part"  # of one being cut


class ChunkFiles:
    """Chunks in a directory, one file each, by digest. A damaged file is a missing chunk: its reader checks it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, digest: bytes) -> bytes | None:
        try:
            return (self._path / digest.hex()).read_bytes()
        except OSError:
            return None

    def put(self, digest: bytes, data: bytes) -> None:
        """Raises Unavailable."""
        file = self._path / digest.hex()
        part = file.with_suffix(".part")
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(file)
        except OSError as error:
            raise Unavailable(
                f"{self._path}: a chunk of a snapshot cannot be written: {error.strerror}",
                rule="disk-error",
                hint="make room on that disk, or remove that directory; then start the node again: it goes on with the "
                "chunks that are there, and fetches the others",
            ) from error

    def clear(self) -> None:
        """Drop them all."""
        shutil.rmtree(self._path, ignore_errors=True)


class Cutter:
    """The snapshots that this node offers."""

    def __init__(self, path: Path, store: KeyValueStore, application: Application) -> None:
        self._path = path
        self._store = store
        self._application = application
        self.dropped: list[str] = []  # names of those that were found damaged
        self._manifests: dict[int, bytes] = self._load()

    def _load(self) -> dict[int, bytes]:
        """Those on the disk, by height; what is not whole is removed, and cut again in time. Raises Corrupt."""
        found = {}
        for directory in self._path.glob("*"):
            if manifest := self._manifest(directory):
                found[int(directory.name)] = manifest
                continue
            shutil.rmtree(directory, ignore_errors=True)
            if directory.name != _PART:
                self.dropped.append(directory.name)
        return found

    def _manifest(self, directory: Path) -> bytes:
        """As it was cut: names of the chunks' files and the audit log tell. Empty if it is not. Raises Corrupt."""
        audit_log = self._application.audit_log
        try:
            data = (directory / _MANIFEST).read_bytes()
            manifest = SnapshotManifest.FromString(data)
            height, states, size = int(manifest.height), manifest.state_chunks, int(manifest.audit_size)
            whole = (
                directory.name == str(height)
                and {file.name for file in directory.iterdir()} == {_MANIFEST, *(digest.hex() for digest in states)}
                and 0 < size <= audit_log.size
                and data == snapshot.manifest_of(height, states, audit_log, size)
            )
        except (OSError, DecodeError):
            return b""
        return data if whole else b""

    def cut(self, height: int) -> Callable[[], None]:
        """Fix what the store holds now, after this block; the returned function does the work, on any thread."""
        state = self._store.scan(b"s/")
        audit_log = self._application.audit_log
        size = audit_log.size

        def work() -> None:
            part, target = self._path / _PART, self._path / str(height)
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir(parents=True)
                digests = list(_write_chunks(part, snapshot.state_chunks(state)))
                manifest = snapshot.manifest_of(height, digests, audit_log, size)
                (part / _MANIFEST).write_bytes(manifest)
                for path in (*part.iterdir(), part):  # blocks are pruned behind it: a power cut must not take both
                    sync(path)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)  # on a full disk the ledger needs the room
                raise
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
            for path in (self._path, self._path.parent):
                sync(path)
            self._manifests[height] = manifest
            for old in sorted(self._manifests)[:-_KEPT]:
                del self._manifests[old]
                shutil.rmtree(self._path / str(old), ignore_errors=True)

        return work

    def newest(self, below: int) -> tuple[int, bytes] | None:
        """Height and manifest of the newest snapshot below a height."""
        manifests = self._manifests.copy()  # a thread may be cutting
        return max(((height, data) for height, data in manifests.items() if height < below), default=None)

    def chunk(self, height: int, index: int) -> bytes:
        """A chunk of a snapshot that is kept; empty where it is not. A damaged one would make us a liar: none goes out.

        Raises Corrupt, once: the snapshot is dropped then.
        """
        kept = self._manifests.get(height)
        if kept is None:
            return b""
        manifest = SnapshotManifest.FromString(kept)
        states = len(manifest.state_chunks)
        if index < states:
            data = ChunkFiles(self._path / str(height)).get(manifest.state_chunks[index]) or b""
            if canonical.snapshot_chunk(data) != manifest.state_chunks[index]:
                self._manifests.pop(height, None)
                shutil.rmtree(self._path / str(height), ignore_errors=True)
                raise Corrupt(f"chunk {index} of the snapshot at {height} is damaged", hint="nothing: another is cut")
            return data
        if index >= states + len(manifest.audit_chunks):
            return b""
        return snapshot.audit_chunk(self._application.audit_log.record, index - states, int(manifest.audit_size))


def _write_chunks(path: Path, chunks: Iterator[bytes]) -> Iterator[bytes]:
    files = ChunkFiles(path)
    for data in chunks:
        digest = canonical.snapshot_chunk(data)
        files.put(digest, data)
        yield digest


class Snapshots:
    """Both sides of one node. Everything but cutting and restoring happens on the event loop."""

    def __init__(
        self,
        home: Home,
        genesis: Genesis,
        every_blocks: int,
        *,
        store: KeyValueStore,
        application: Application,
        engine: Engine,
        receipts: Receipts,
        transport: Transport,
        reachable: Callable[[], int],
        log: Log,
    ) -> None:
        """``every_blocks``: how often to cut one; 0 for never."""
        self._home = home
        self._genesis = genesis
        self._every_blocks = every_blocks
        self._engine = engine
        self._reachable = reachable
        self._log = log
        self._cutter = Cutter(home.snapshots, store, application)
        for name in self._cutter.dropped:
            log.warning("snapshot dropped", name=name, reason="it was damaged on this disk: another is cut in time")
        self._joiner = Joiner(genesis, transport, ChunkFiles(home.chunks), log, engine.chain.height)
        self._exchange = Exchange(
            self._cutter,
            self._joiner,
            engine=engine,
            receipts=receipts,
            transport=transport,
            log=log,
        )
        self._cutting: asyncio.Task[None] | None = None

    # --- cutting

    def on_committed(self, height: int) -> None:
        """A block is on disk and visible: is it time for a snapshot?"""
        if (
            self._every_blocks
            and height % self._every_blocks == 0
            and height == self._engine.chain.height  # else blocks behind it are visible too
            and self._cutting is None
        ):
            self._cutting = asyncio.create_task(self._cut(height), name="cut a snapshot")

    async def _cut(self, height: int) -> None:
        try:
            await asyncio.to_thread(self._cutter.cut(height))
            self._log.info("snapshot cut", height=height)
        except (OSError, KoinonError) as error:
            self._log.warning("snapshot not cut", height=height, reason=str(error))
        finally:
            self._cutting = None

    async def stop(self) -> None:
        """Wait for what is under way."""
        if self._cutting is not None:
            await asyncio.wait([self._cutting])

    def newest(self) -> int:
        """Height of the newest snapshot that this node offers; 0 when there is none."""
        found = self._exchange.newest()
        return found[0] if found else 0

    # --- both sides of the conversation

    def received(self, peer: str, message: DeliverRequest) -> None:
        """A message about snapshots from an authenticated member; its content is not trusted."""
        self._exchange.received(peer, message)

    def on_hello(self, peer: str) -> None:
        """A member's stream to us is open."""
        self._exchange.on_hello(peer)

    # --- joining

    @property
    def progress(self) -> tuple[int, int]:
        """Of a snapshot being fetched: chunks that are here, and how many there are."""
        return self._joiner.progress

    def interval_ended(self) -> bool:
        """Called every INTERVAL_S; returns whether a snapshot is here, and ``restore`` is to be called."""
        return self._exchange.interval_ended(self._reachable())

    async def restore(self) -> bool:
        """Make a ledger of what was fetched, to be put in place at the next start; False if forged, or lost here."""
        plan = self._joiner.plan
        try:
            await asyncio.to_thread(restore.build_aside, self._home, self._genesis, plan, self._joiner.chunk)
        except Corrupt as error:
            self._joiner.not_restored(error)
            return False
        self._log.info(
            "snapshot restored", height=plan.height, records=int(plan.head.header.audit_size), chunks=len(plan.digests)
        )
        return True
