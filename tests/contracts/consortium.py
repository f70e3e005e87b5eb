"""A small consortium in one process: the real application over a store in memory, blocks decided by decree.

Keys are derived from names, so that every run makes the same ledger.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from koinon import genesis as genesis_file
from koinon import parameters
from koinon.envelope import sign
from koinon.v1.access_pb2 import RequestAccess
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.catalog_pb2 import (
    ACCESS_MODE_AUTO,
    ACCESS_MODE_REVIEW,
    COLUMN_TYPE_INTEGER,
    COLUMN_TYPE_TEXT,
    TASK_OPERATION_AVG,
    TASK_OPERATION_COUNT,
    TASK_OPERATION_GROUP_BY,
    TASK_OPERATION_SUM,
    AccessPolicy,
    Column,
    PublishDataset,
)
from koinon.v1.consensus_pb2 import Evidence
from koinon.v1.demand_pb2 import PostDemand
from koinon.v1.dispute_pb2 import OpenDispute, Remedy
from koinon.v1.identity_pb2 import (
    ROLE_ANALYST,
    ROLE_OPERATOR,
    ROLE_REGULATOR,
    Genesis,
)
from koinon.v1.task_pb2 import AcceptTask, CompleteTask, ReceiveResult, SubmitTask, TaskSource
from koinon.v1.transaction_pb2 import TRANSACTION_STATUS_COMMITTED, Operation, TransactionResult
from node.abci import DecidedBlock, Finalized
from node.application import Application
from node.store.kv import KeyValueStore
from node.store.memory import MemoryStore
from testnet.simulation import consortium as named

key, person = named.key, named.person
START_MS = 1_700_000_000_000
BLOCK_MS = 1_000
MEMBERS = ("case", "iu", "uk", "um")
PLAN_HASH = bytes(range(32))
ALL_OPERATIONS = (TASK_OPERATION_COUNT, TASK_OPERATION_SUM, TASK_OPERATION_AVG, TASK_OPERATION_GROUP_BY)

# Every field of Operation's oneof, by the type of its message.
_FIELDS = {
    item.message_type.name: item.name
    for item in Operation.DESCRIPTOR.oneofs_by_name["operation"].fields
    if item.message_type is not None
}


def operation(message: Any) -> Operation:
    """Wrap an operation's message, unless it is wrapped."""
    if isinstance(message, Operation):
        return message
    wrapped: dict[str, Any] = {_FIELDS[type(message).__name__]: message}
    return Operation(**wrapped)


def genesis(members: tuple[str, ...] = MEMBERS) -> Genesis:
    descriptors = [
        named.descriptor(
            name,
            number,
            1,
            [
                person(f"{name}/operator", ROLE_OPERATOR),
                person(f"{name}/analyst", ROLE_ANALYST),
                person(f"{name}/regulator", ROLE_REGULATOR),
            ],
        )
        for number, name in enumerate(members)
    ]
    return genesis_file.join("test", START_MS, descriptors, parameters.defaults())


def publication(name: str, *, auto: bool = True, **changes: Any) -> PublishDataset:
    """A dataset of two columns."""
    publication = PublishDataset(
        name=name,
        title="Indomethacin to prevent pancreatitis",
        description="A randomised trial.",
        keywords=["ercp", "pancreatitis"],
        columns=[
            Column(name="rx", type=COLUMN_TYPE_TEXT, codelist=["0_placebo", "1_indomethacin"]),
            Column(name="age", type=COLUMN_TYPE_INTEGER, unit="a", nullable=True),
        ],
        row_count=160,
        row_count_step=10,
        policy=AccessPolicy(
            mode=ACCESS_MODE_AUTO if auto else ACCESS_MODE_REVIEW,
            operations=ALL_OPERATIONS,
            min_cohort=5,
            max_uses=100,
            max_duration_ms=1_000_000,
        ),
        commitment=hashlib.sha256(name.encode()).digest(),
    )
    publication.MergeFrom(PublishDataset(**changes))
    return publication


def access_request(dataset: str, *, uses: int = 2, duration_ms: int = 100_000) -> RequestAccess:
    """Everything, for a purpose."""
    return RequestAccess(
        dataset=dataset, operations=ALL_OPERATIONS, purposes=["to learn"], duration_ms=duration_ms, uses=uses
    )


def wanted(**changes: Any) -> PostDemand:
    """What somebody misses; give columns or themes."""
    return PostDemand(**{"title": "Pancreatitis", "purpose": "to learn", "duration_ms": 100_000, **changes})


def claim(subject: str, respondent: str, *remedies: Remedy.ValueType, task: bool = False) -> OpenDispute:
    """A dispute over a token, or a task."""
    opened = OpenDispute(respondent=respondent, claim="not as agreed", remedies=remedies, evidence_digests=[bytes(32)])
    if task:
        opened.task_id = subject
    else:
        opened.token_id = subject
    return opened


@dataclass
class Consortium:
    """Sends transactions and decides blocks, one per call, each ``BLOCK_MS`` after the one before."""

    store: KeyValueStore = field(default_factory=MemoryStore)
    genesis: Genesis = field(default_factory=genesis)
    blocks: list[DecidedBlock] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)  # validators whose votes are in no certificate
    max_fee: int = 0  # that every transaction agrees to
    _nonce: int = 0

    def __post_init__(self) -> None:
        self.app = Application(self.store, self.genesis)
        self.chain_id = genesis_file.chain_id(self.genesis)

    @property
    def time_ms(self) -> int:
        return self.app.time_ms

    def envelope(self, sender: str, *messages: Any, expires_in_ms: int = 60_000, chain_id: str = "") -> bytes:
        """A transaction signed by the key of this name; expiry counts from the last block."""
        self._nonce += 1
        operations = [operation(message) for message in messages]
        nonce = self._nonce.to_bytes(16, "big")
        expires_at_ms = self.time_ms + expires_in_ms
        return sign(chain_id or self.chain_id, operations, key(sender), expires_at_ms, nonce, self.max_fee)

    def decide(self, *envelopes: bytes, after_ms: int = BLOCK_MS, evidence: tuple[Evidence, ...] = ()) -> Finalized:
        """Execute and commit one block."""
        block = DecidedBlock(
            self.app.info().height + 1,
            self.time_ms + after_ms,
            bytes(32),
            MEMBERS[0],
            envelopes,
            evidence,
            tuple(item.institution for item in self.app.info().validators if item.institution not in self.silent),
        )
        return self.replay(block)

    def replay(self, block: DecidedBlock) -> Finalized:
        """Execute and commit a block made before."""
        finalized = self.app.finalize_block(block)
        self.store.write(finalized.writes, sync=True)
        self.app.commit()
        self.blocks.append(block)
        return finalized

    def send(self, sender: str, *messages: Any) -> TransactionResult:
        """One transaction in a block of its own; what became of it."""
        return self.decide(self.envelope(sender, *messages)).results[0]

    def do(self, sender: str, *messages: Any) -> str:
        """The same, which must succeed; the id its first operation created."""
        result = self.send(sender, *messages)
        assert result.status == TRANSACTION_STATUS_COMMITTED, result.refusal
        return result.created[0]

    def records(self, from_index: int = 0) -> list[AuditRecord]:
        """The audit log from an index on."""
        found = (self.app.record(index) for index in range(from_index, self.app.audit_log.size))
        return [record for record in found if record is not None]

    def refused(self, sender: str, *messages: Any) -> str:
        """The same, which must be refused; by which rule."""
        result = self.send(sender, *messages)
        assert result.status != TRANSACTION_STATUS_COMMITTED
        assert result.refusal.message
        assert result.refusal.hint
        return result.refusal.rule

    def wait(self, after_ms: int) -> Finalized:
        """Let time pass in an empty block."""
        return self.decide(after_ms=after_ms)

    # --- common beginnings

    def publish(self, *names: str, auto: bool = True) -> None:
        for name in names:
            self.do(f"{name.partition('.')[0]}/operator", publication(name, auto=auto))

    def token(self, dataset: str, holder: str = "um/analyst", *, uses: int = 2, duration_ms: int = 100_000) -> str:
        """A token for a published dataset whose policy grants at once."""
        request = self.do(holder, access_request(dataset, uses=uses, duration_ms=duration_ms))
        return self.app.request(request).token_id

    def submission(self, tokens: dict[str, str], committee: tuple[str, ...] = ("case", "iu", "um")) -> SubmitTask:
        """A task over datasets, given with the token for each."""
        return SubmitTask(
            sql="SELECT COUNT(*) FROM ercp.indo_rct",
            plan_hash=PLAN_HASH,
            sources=[
                TaskSource(
                    dataset=dataset,
                    version=self.app.dataset(dataset).version,
                    token_id=token,
                    columns=["age"],
                    operations=[TASK_OPERATION_COUNT],
                )
                for dataset, token in sorted(tokens.items())
            ],
            committee=committee,
            result_key=bytes(32),
            threshold=(len(committee) - 1) // 2,
            purpose="to learn",
        )

    def accept_all(self, task: str) -> None:
        for party in self.app.task(task).submitted.committee:
            self.do(party, accept(task, party))

    def complete_all(self, task: str) -> None:
        for party in self.app.task(task).submitted.committee:
            self.do(party, complete(task, party))


def accept(task: str, party: str) -> AcceptTask:
    return AcceptTask(task_id=task, plan_hash=PLAN_HASH, session_certificate=f"{party} {task}".encode())


def complete(task: str, party: str) -> CompleteTask:
    return CompleteTask(task_id=task, output_digest=output_digest(task, party))


def receive(task: str, *parties: str) -> ReceiveResult:
    """The outputs of these parties were opened."""
    return ReceiveResult(task_id=task, output_digests=[output_digest(task, party) for party in parties])


def output_digest(task: str, party: str) -> bytes:
    return hashlib.sha256(f"{party} {task}".encode()).digest()
