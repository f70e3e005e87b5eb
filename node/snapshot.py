"""Snapshots: what a ledger says after one block, cut into chunks, and why a stranger may believe it.

Pure. A snapshot of height *h* holds every key and value of the state after block *h*, ascending, in chunks of about
SNAPSHOT_CHUNK_BYTES; and every audit record so far, in chunks of SNAPSHOT_AUDIT_RECORDS. Both follow from the ledger
alone, so that all members who cut at *h* have the same bytes, and a joiner can fetch from all of them.

**Why believe it.** Header *h* + 1 states the state commitment, and root and size of the audit log. A joiner proves that
header from the genesis alone, by last headers of validator sets, which are the way (koinon.light_client, ``lead``, as
in a receipt). Then

1. roots of the audit chunks make up the audit root, so each record chunk is proved when it comes;
2. digests of the state chunks are the word of whoever offered them: each chunk is compared with them when it comes, and
   all together with the state commitment when the last is there. A false digest is found then, at the cost of one
   download, and whoever offered it is asked no more.

Not in a snapshot are blocks before it, and results of their transactions: the joiner does not know them, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from google.protobuf.message import DecodeError

from koinon import canonical, light_client, merkle
from koinon.errors import Corrupt
from koinon.light_client import TrustedHeader
from koinon.limits import MAX_SNAPSHOT_CHUNKS, SNAPSHOT_AUDIT_RECORDS, SNAPSHOT_CHUNK_BYTES
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.consensus_pb2 import Header
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.snapshot_pb2 import AuditChunk, SnapshotManifest, SnapshotOffer, StateChunk
from koinon.validators import ValidatorSet
from node.ledger.audit_log import AuditLog

_ENTRY_BYTES = 16  # framing of one entry, generously


class InvalidSnapshot(Corrupt):
    """An offer, or a chunk, is not what the chain's headers say (rule ``invalid-snapshot``)."""

    default_rule = "invalid-snapshot"


# --- cutting


def state_chunks(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Serialised StateChunks of these pairs, which are ascending by key."""
    chunk, size = StateChunk(), 0
    for key, value in entries:
        chunk.entries.add(key=key, value=value)
        size += len(key) + len(value) + _ENTRY_BYTES
        if size >= SNAPSHOT_CHUNK_BYTES:
            yield chunk.SerializeToString(deterministic=True)
            chunk, size = StateChunk(), 0
    if size:
        yield chunk.SerializeToString(deterministic=True)


def audit_chunk(record: Callable[[int], bytes | None], index: int, audit_size: int) -> bytes:
    """The serialised AuditChunk with this index, of a log that had this many records. Raises Corrupt."""
    start = index * SNAPSHOT_AUDIT_RECORDS
    records = [record(i) for i in range(start, min(start + SNAPSHOT_AUDIT_RECORDS, audit_size))]
    found = [data for data in records if data is not None]
    if len(found) < len(records):
        raise Corrupt("the audit log lacks records", hint="stop the node, then: koinon node repair --home HOME")
    return AuditChunk(records=found).SerializeToString(deterministic=True)


def manifest_of(height: int, state_digests: Iterable[bytes], audit_log: AuditLog, audit_size: int) -> bytes:
    """The serialised SnapshotManifest of this height, when the log had this many records. Raises Corrupt."""
    return SnapshotManifest(
        height=height,
        state_chunks=state_digests,
        audit_size=audit_size,
        audit_chunks=audit_log.roots(audit_size, SNAPSHOT_AUDIT_RECORDS),
    ).SerializeToString(deterministic=True)


# --- believing


@dataclass(frozen=True, slots=True)
class Plan:
    """A snapshot whose header is proved: what is to be fetched, and what must come out."""

    manifest: bytes  # serialised: names the snapshot
    state_digests: tuple[bytes, ...]
    audit_roots: tuple[bytes, ...]
    signed: tuple[SignedHeader, ...]  # the way from the genesis, ascending, and ``last``
    last: TrustedHeader  # the snapshot's block
    head: TrustedHeader  # the one after it

    @property
    def height(self) -> int:
        return self.last.height

    @property
    def digests(self) -> tuple[bytes, ...]:
        """One per chunk, in order: those of the state, then those of the audit log."""
        return self.state_digests + self.audit_roots

    def validator_sets(self, genesis: ValidatorSet) -> dict[int, ValidatorSet]:
        """Who voted at the heights of the headers that are here, by the first height after the one before.

        Sets that the way skips are not here, nor a header for which they would be needed. A header on the way is the
        last of its set, even where the next one on the way has the same validators: others came between.
        """
        sets = [*((int(item.commit.height), ValidatorSet.of(item.validators)) for item in self.signed)]
        sets.append((self.head.height, self.head.validators))
        changes = {
            height + 1: after
            for (height, before), (_, after) in pairwise(sets)
            if height < self.height or after != before
        }
        return {1: genesis} | changes

    def check(self, index: int, data: bytes) -> None:
        """Is this the chunk with this index? ``data`` may come from anyone. Raises InvalidSnapshot."""
        if index < len(self.state_digests):
            sound = canonical.snapshot_chunk(data) == self.state_digests[index]
        else:
            try:
                records = AuditChunk.FromString(data).records
            except DecodeError:
                raise _invalid(f"chunk {index} of the snapshot at {self.height} is not in form") from None
            sound = merkle.root(records) == self.audit_roots[index - len(self.state_digests)]
        if not sound:
            raise _invalid(f"chunk {index} of the snapshot at {self.height} is not what its manifest names")


def plan(genesis: Genesis, offer: SnapshotOffer) -> Plan:
    """Prove an offer from anyone, as far as it can be without its chunks. Raises InvalidSnapshot, UntrustedHeader.

    1. The headers on the way lead from the genesis to the snapshot's block and the one after it.
    2. The manifest is in form, and is for that block.
    3. Its audit chunks make up the audit log that the header states.
    """
    # 1
    trusted = light_client.lead(light_client.root(genesis), offer.validator_changes)
    last = light_client.advance(trusted, offer.last, skip=False)
    head = light_client.advance(last, offer.head, skip=False)
    if head.height != last.height + 1 or head.header.previous_block_hash != last.block_hash:
        raise _invalid("the two headers of the offer do not follow one another")
    # 2
    try:
        manifest = SnapshotManifest.FromString(offer.manifest)
    except DecodeError:
        raise _invalid("the manifest of the snapshot is not in form") from None
    digests = [*manifest.state_chunks, *manifest.audit_chunks]
    if len(digests) > MAX_SNAPSHOT_CHUNKS or any(len(item) != canonical.HASH_BYTES for item in digests):
        raise _invalid("the manifest of the snapshot is beyond its bounds")
    if manifest.height != last.height or not manifest.state_chunks:
        raise _invalid(f"the manifest is not for block {last.height}")
    # 3
    header = head.header
    chunks = -(-int(header.audit_size) // SNAPSHOT_AUDIT_RECORDS)
    if manifest.audit_size != header.audit_size or len(manifest.audit_chunks) != chunks:
        raise _invalid("the manifest lists another audit log than the header states")
    if merkle.root_of_hashes(manifest.audit_chunks) != header.audit_root:
        raise _invalid("the chunks of the audit log do not make up the root that the header states")
    return Plan(
        manifest=offer.manifest,
        state_digests=tuple(manifest.state_chunks),
        audit_roots=tuple(manifest.audit_chunks),
        signed=(*offer.validator_changes, offer.last),
        last=last,
        head=head,
    )


def entries(plan_: Plan, chunks: Callable[[int], bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of the state. ``chunks`` are what ``check`` let pass. Raises InvalidSnapshot, and what they raise."""
    before = b""
    for index in range(len(plan_.state_digests)):
        try:
            chunk = StateChunk.FromString(chunks(index))
        except DecodeError:
            raise _invalid(f"chunk {index} of the snapshot at {plan_.height} is not in form") from None
        for entry in chunk.entries:
            if entry.key <= before or not entry.key.startswith(b"s/"):
                raise _invalid(f"chunk {index} of the snapshot at {plan_.height} holds keys out of order")
            before = entry.key
            yield entry.key, entry.value


def records(plan_: Plan, chunks: Callable[[int], bytes]) -> Iterator[bytes]:
    """Every audit record, in order. ``chunks`` are as for ``entries``. Raises what they raise."""
    first = len(plan_.state_digests)
    for index in range(first, first + len(plan_.audit_roots)):
        yield from AuditChunk.FromString(chunks(index)).records


def compare(header: Header, state_commitment: bytes, audit_root: bytes, audit_size: int) -> None:
    """Is what was restored what the header after it states? Raises InvalidSnapshot."""
    if state_commitment != header.state_commitment:
        raise _invalid("the chunks of the state do not make up the commitment that the header states")
    if (audit_root, audit_size) != (header.audit_root, header.audit_size):
        raise _invalid("the records do not make up the audit log that the header states")


def _invalid(problem: str) -> InvalidSnapshot:
    return InvalidSnapshot(problem, hint="nothing: the node fetches it from another member, or all blocks instead")
