"""What is fuzzed: every decoder of outside bytes with the errors it may raise, and the engine's inputs.

A target is a function of bytes; whatever it raises beyond the errors its docstring promises is a finding.
Seeds are good inputs to begin from; inputs that once failed, or led somewhere new, are in ``corpus/<target>/``.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from koinon import (
    canonical,
    descriptor,
    envelope,
    genesis,
    json_form,
    keys,
    light_client,
    names,
    profile,
    receipt,
    ticket,
)
from koinon.errors import Corrupt, InvalidFile, InvalidInput, Unauthenticated, UnsupportedQuery
from koinon.keys import SealingKey, SigningKey
from koinon.shares import open_outputs, pack
from koinon.v1 import consensus_pb2 as pb
from koinon.v1.audit_pb2 import Receipt, SignedHeader
from koinon.v1.identity_pb2 import Genesis, InstitutionDescriptor, RevokePerson
from koinon.v1.session_pb2 import SealedOutput
from koinon.v1.task_pb2 import SubmitTask, Task, TaskParty
from koinon.v1.transaction_pb2 import Envelope, Operation, TransactionBody
from koinon.validators import ValidatorSet, verify_commit
from mpc import session, sql
from node import archive
from node.config import Address
from node.journal import Journal
from node.ledger import blocks, evidence
from node.ledger.blocks import ChainState
from node.ledger.lthash import LtHash
from node.store import wal
from node.store.wal import MemoryWal
from tests.fuzz.lone_engine import CHAIN, KEYS, VALIDATORS, LoneEngine

_VECTORS = Path(__file__).parents[1] / "vectors"
_DATA = Path(__file__).parents[2] / "testnet" / "data"
_KEY = SigningKey(hashlib.sha256(b"a person").digest())
_NODE = SigningKey(hashlib.sha256(b"a node").digest())
_SEALING = SealingKey(hashlib.sha256(b"a result key").digest())
_SET = ValidatorSet.of(VALIDATORS)
_SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-")) / "input"


@dataclass(frozen=True)
class Target:
    """``run`` may raise ``errors`` and nothing else."""

    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]

    def __call__(self, data: bytes) -> None:
        with suppress(*self.errors):
            self.run(data)


def _text(data: bytes) -> str:
    """Files are read as UTF-8 before they are parsed (koinon.files); here every byte string is some text."""
    return data.decode("utf-8", errors="replace")


def _file(data: bytes) -> Path:
    _SCRATCH.write_bytes(data)
    return _SCRATCH


# --- transactions


def _signed(body: bytes) -> bytes:
    """The body with its sender's valid signature: a member may sign anything."""
    return Envelope(
        body=body, public_key=_KEY.public_key, signature=_KEY.sign(canonical.transaction_bytes(CHAIN, body))
    ).SerializeToString()


def _body() -> bytes:
    operations = [Operation(revoke_person=RevokePerson(person_id="um/analyst"))]
    return TransactionBody(chain_id=CHAIN, nonce=bytes(16), expires_at_ms=1, operations=operations).SerializeToString()


# --- blocks


def _block(data: bytes) -> None:
    block = blocks.parse(data)
    blocks.verify(_chain_state(), block)


def _chain_state() -> ChainState:
    return LoneEngine().engine.chain


def _good_block() -> blocks.ParsedBlock:
    return blocks.build(_chain_state(), [b"one", b"two"], [], None, "v1")


def _good_commit() -> pb.Commit:
    value = _good_block().value
    commit = pb.Commit(height=1, round=0, block_hash=value.block_hash)
    for name in ("v1", "v2", "v3"):
        signed = canonical.vote_bytes(CHAIN, pb.VOTE_TYPE_PRECOMMIT, 1, 0, value.block_hash, 5)
        commit.signatures.add(institution=name, time_ms=5, signature=KEYS[name].sign(signed))
    return commit


def _commit(data: bytes) -> None:
    commit = pb.Commit.FromString(data)
    verify_commit(CHAIN, _SET, commit, commit.block_hash, commit.height)


def _duplicate() -> pb.Evidence:
    votes = []
    for block_hash in (bytes(32), b"\1" * 32):
        signed = canonical.vote_bytes(CHAIN, pb.VOTE_TYPE_PREVOTE, 3, 0, block_hash, 5)
        votes.append(
            pb.Vote(
                type=pb.VOTE_TYPE_PREVOTE,
                height=3,
                block_hash=block_hash,
                time_ms=5,
                institution="v3",
                signature=KEYS["v3"].sign(signed),
            )
        )
    return pb.Evidence(duplicate_vote=pb.DuplicateVote(first=votes[0], second=votes[1]))


# --- files


def _receipt(data: bytes) -> None:
    receipt.verify(receipt.parse(_text(data)), _genesis())


def _genesis() -> Genesis:
    return genesis.load(_VECTORS / "receipts" / "genesis.json")


def _genesis_file(data: bytes) -> None:
    genesis.validate(json_form.parse(_text(data), Genesis, genesis.FORMAT, "a genesis"))


def _descriptor_file(data: bytes) -> None:
    genesis.validate_descriptor(
        json_form.parse(_text(data), InstitutionDescriptor, genesis.DESCRIPTOR_FORMAT, "a member")
    )


def _header(data: bytes) -> None:
    light_client.advance(light_client.root(_genesis()), SignedHeader.FromString(data))


def _headers() -> Iterator[bytes]:
    for path in sorted((_VECTORS / "receipts").glob("good-*.json")):
        for header in receipt.load(path).validator_changes:
            yield header.SerializeToString()


def _archive(data: bytes) -> None:
    for _ in archive.Archive(_file(data)).blocks():
        pass


def _archives() -> Iterator[bytes]:
    _SCRATCH.unlink(missing_ok=True)
    archive.write(_SCRATCH, _genesis(), [archive.Decided(_good_block().value.block, _good_commit())])
    yield _SCRATCH.read_bytes()


def _wals() -> Iterator[bytes]:
    _SCRATCH.unlink(missing_ok=True)
    log = wal.FileWal(_SCRATCH)
    log.append(b"one")
    log.append(b"two" * 100)
    log.sync()
    log.close()
    yield _SCRATCH.read_bytes()


def _journal(data: bytes) -> None:
    log = MemoryWal()
    Journal.create(log, _KEY.public_key)
    for record in data.split(b"\n--\n"):
        log.append(record)
    log.sync()
    Journal(log, _KEY.public_key, "v0", 0)


# --- results of joint computations


def _task() -> Task:
    return Task(
        id="0" * 32,
        submitted=SubmitTask(plan_hash=bytes(32), threshold=1),
        parties=[TaskParty(institution=name) for name in ("um", "iu", "uk")],
    )


def _outputs(data: bytes) -> None:
    """Shares of a party that can seal, sign and report whatever it likes."""
    task = _task()
    outputs = []
    for party in range(3):
        sealed = keys.seal(_SEALING.public_key, data if party == 0 else _shares(party))
        digest = canonical.output_digest(task.id, party, sealed)
        task.parties[party].output_digest = digest
        outputs.append(SealedOutput(task_id=task.id, party=party, sealed=sealed, signature=_NODE.sign(digest)))
    open_outputs(task, outputs, _SEALING, [[_NODE.public_key]] * 3, 2)


def _shares(party: int) -> bytes:
    return pack("0" * 32, bytes(32), party, 1, [party + 1, 7])


def _files(folder: Path, pattern: str) -> Callable[[], Iterator[bytes]]:
    return lambda: (path.read_bytes() for path in sorted(folder.glob(pattern)))


TARGETS: dict[str, Target] = {
    "envelope": Target(
        lambda data: envelope.verify(CHAIN, data), (envelope.InvalidTransaction,), lambda: [_signed(_body())]
    ),
    "transaction_body": Target(
        lambda data: envelope.verify(CHAIN, _signed(data)), (envelope.InvalidTransaction,), lambda: [_body()]
    ),
    "ticket": Target(
        lambda data: ticket.verify(CHAIN, b"certificate", data, 0),
        (Unauthenticated,),
        lambda: [ticket.make(CHAIN, b"certificate", _KEY, 1_000)],
    ),
    "block": Target(_block, (blocks.InvalidBlock,), lambda: [_good_block().value.block]),
    "commit": Target(_commit, (DecodeError, Corrupt), lambda: [_good_commit().SerializeToString()]),
    "evidence": Target(
        lambda data: evidence.verify(CHAIN, _SET, 5, pb.Evidence.FromString(data)),
        (DecodeError, evidence.InvalidEvidence),
        lambda: [_duplicate().SerializeToString()],
    ),
    "header": Target(_header, (DecodeError, light_client.UntrustedHeader), _headers),
    "receipt": Target(_receipt, (InvalidFile, Corrupt), _files(_VECTORS / "receipts", "good-*.json")),
    "receipt_message": Target(
        lambda data: receipt.verify(Receipt.FromString(data), _genesis()),
        (DecodeError, Corrupt),
        lambda: [receipt.load(p).SerializeToString() for p in sorted((_VECTORS / "receipts").glob("good-*.json"))],
    ),
    "genesis": Target(_genesis_file, (InvalidFile,), _files(_VECTORS / "receipts", "genesis.json")),
    "institution": Target(
        _descriptor_file,
        (InvalidFile,),
        lambda: [json_form.render(i, genesis.DESCRIPTOR_FORMAT).encode() for i in _genesis().institutions],
    ),
    "descriptor": Target(
        lambda data: descriptor.check(descriptor.parse(_text(data))),
        (InvalidFile, InvalidInput),
        _files(_DATA, "descriptor.toml"),
    ),
    "profile": Target(
        lambda data: profile.parse(_text(data), _SCRATCH.parent),
        (InvalidFile,),
        lambda: [
            (
                b'institution = "um"\nperson = "um/a"\nkey_file = "~/k"\nrpc_address = "127.0.0.1:1"\ngenesis = "g"\n'
                b'node_certificate = "-----BEGIN CERTIFICATE-----"\n'
            )
        ],
    ),
    "address": Target(lambda data: Address.parse(_text(data)), (ValueError,), lambda: [b"127.0.0.1:7100", b"[::1]:1"]),
    "name": Target(
        lambda data: names.parse_source(_text(data)), (InvalidInput,), lambda: [b"um.ercp.indo_rct", b"ercp.indo_rct"]
    ),
    "sql": Target(
        lambda data: sql.parse(_text(data)),
        (UnsupportedQuery,),
        lambda: [
            (
                b"SELECT rx, COUNT(*) AS n, AVG(CASE WHEN outcome = '1_yes' THEN 1.0 ELSE 0 END) AS rate "
                b"FROM ercp.indo_rct WHERE age BETWEEN 20 AND 70 GROUP BY rx"
            )
        ],
    ),
    "preamble": Target(session.parse_preamble, (), lambda: [session.MAGIC + bytes(16)]),
    "outputs": Target(_outputs, (Corrupt,), lambda: [_shares(0)]),
    "chain_state": Target(
        lambda data: ChainState.from_bytes(CHAIN, data), (Corrupt,), lambda: [_chain_state().to_bytes()]
    ),
    "lthash": Target(LtHash.from_bytes, (Corrupt,), lambda: [LtHash().to_bytes()]),
    "wal": Target(lambda data: wal.read(_file(data)), (Corrupt,), _wals),
    "journal": Target(
        _journal,
        (Corrupt,),
        lambda: [b"H" + bytes(7) + b"\1", b"V" + _duplicate().duplicate_vote.first.SerializeToString()],
    ),
    "archive": Target(_archive, (InvalidFile, Corrupt), _archives),
    "engine": Target(
        lambda data: LoneEngine().run(data),
        (),
        lambda: [hashlib.shake_256(b"program %d" % number).digest(400) for number in range(8)],
    ),
}
