"""The replicated state as typed tables: a prefix under ``s/`` each, protobuf values, and indexes in key order.

==========================  =======================================================  ====================
table                       key after the prefix                                     value
==========================  =======================================================  ====================
parameters                  (none)                                                   Parameters
institutions                institution                                              Institution
people                      person                                                   Person
key owners                  Ed25519 key that signs transactions, 32 bytes            person or institution
keys                        key in hex (of a certificate, its SHA-256)               KeyRecord
owner's keys                owner, height and key in hex                             (none)
validator keys              institution, height and key in hex                       (none)
reserved keys               key in hex, proposal or application                      (none)
last signs of life          institution                                              time (8 bytes)
departures                  height, institution                                      (none)
exclusions                  institution                                              Exclusion, until all has ended
operators                   institution, name                                        (none)
datasets                    name                                                     Dataset, newest
superseded datasets         name, version                                            Dataset
requests                    id                                                       AccessRequest
open requests               dataset, requester, id                                   (none)
request deadlines           time, id                                                 (none)
taxonomy                    (none)                                                   Taxonomy
demands                     id                                                       Demand
open demands                institution, person, id                                  (none)
demand terms                column or theme, id                                      (none)
demand expiries             time, id                                                 (none)
disputes                    id                                                       Dispute
open disputes               claimant's institution, subject, id                      (none)
frozen by                   escrow, dispute                                          (none)
frozen once                 escrow, claimant's institution                           (none)
waived                      task, institution                                        (none)
dispute deadlines           time, id                                                 (none)
tokens                      id                                                       Token
active tokens               dataset, holder, id                                      (none)
token expiries              time, id                                                 (none)
tasks                       id                                                       Task
open tasks by asker         asker, id                                                (none)
open tasks by token         token, id                                                (none)
task deadlines              time, id                                                 (none)
readings                    id                                                       Reading
reading expiries            time, id                                                 (none)
seen transactions           last expiry, height                                      ids, 32 bytes each
evidence                    institution, height, round, kind                         (none)
accounts                    account                                                  Account
supply                      (none)                                                   Supply
escrows                     id                                                       Escrow
escrow dues                 time, id                                                 (none)
open escrows by token       token, time held and id                                  (none)
data unions                 name                                                     DataUnion
unions of an institution    institution, name                                        (none)
members of unions           union, account                                           UnionMembership
constitution                (none)                                                   Constitution
ballot weights              institution                                              MemberWeight
proposals                   id                                                       GovernanceProposal
pending proposals           proposer's institution, id                               (none)
proposal times              time, id                                                 (none)
applications                institution                                              Application
open applications           sponsor's institution, institution                       (none)
protocol                    (none)                                                   Protocol
upgrades                    version                                                  Upgrade
==========================  =======================================================  ====================

Parts of a key are separated by a zero byte, which no name contains; times and numbers are 8 bytes,
big-endian, so that byte order is their order. Where a bound holds per dataset, the dataset alone is a key
too: its value is the number of entries. Time-ordered tables make the end of a block cost what
has expired, not what exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from google.protobuf.message import Message

from koinon.canonical import HASH_BYTES
from koinon.errors import NotFound
from koinon.v1.access_pb2 import AccessRequest, Token
from koinon.v1.audit_pb2 import Reading
from koinon.v1.catalog_pb2 import Dataset, Taxonomy
from koinon.v1.constitution_pb2 import Constitution, MemberWeight
from koinon.v1.demand_pb2 import Demand
from koinon.v1.dispute_pb2 import Dispute
from koinon.v1.governance_pb2 import Application, GovernanceProposal, Protocol, Upgrade
from koinon.v1.identity_pb2 import Exclusion, Institution, KeyRecord, Parameters, Person
from koinon.v1.points_pb2 import Account, DataUnion, Escrow, Supply, UnionMembership
from koinon.v1.task_pb2 import Task
from node.ledger.state import State

STATE = b"s/"

M = TypeVar("M", bound=Message)


def _prefix(name: str) -> bytes:
    return STATE + name.encode("ascii") + b"/"


class Table(Generic[M]):
    """Messages of one type by a text key, stored in protobuf's deterministic serialisation."""

    def __init__(self, name: str, message: type[M], noun: str) -> None:
        self._prefix = _prefix(name)
        self._message = message
        self._noun = noun

    def data(self, state: State, key: str) -> bytes | None:
        """The message as stored."""
        return state.get(self._prefix + key.encode())

    def find(self, state: State, key: str) -> M | None:
        data = self.data(state, key)
        return None if data is None else self._message.FromString(data)

    def get(self, state: State, key: str) -> M:
        """Raises NotFound."""
        value = self.find(state, key)
        if value is None:
            raise NotFound(f"there is no {self._noun} {key!a}", hint=f"check the {self._noun}'s name or id")
        return value

    def put(self, state: State, key: str, value: M) -> None:
        state.put(self._prefix + key.encode(), value.SerializeToString(deterministic=True))

    def delete(self, state: State, key: str) -> None:
        state.delete(self._prefix + key.encode())

    def scan(self, state: State, prefix: str = "", *, after: str = "") -> Iterator[M]:
        """Values whose key begins with ``prefix``, ascending by key; from behind ``prefix`` + ``after`` on."""
        start = self._prefix + f"{prefix}{after}\0".encode() if after else b""
        return (self._message.FromString(data) for _, data in state.scan(self._prefix + prefix.encode(), start=start))


class Index:
    """A set of keys made of text parts, in order; listing those under some first parts costs what it yields."""

    def __init__(self, name: str) -> None:
        self._prefix = _prefix(name)

    def add(self, state: State, *parts: str) -> None:
        state.put(self._prefix + "\0".join(parts).encode(), b"")

    def remove(self, state: State, *parts: str) -> None:
        state.delete(self._prefix + "\0".join(parts).encode())

    def contains(self, state: State, *parts: str) -> bool:
        return state.get(self._prefix + "\0".join(parts).encode()) is not None

    def entries(self, state: State) -> Iterator[list[str]]:
        """Every key, as its parts, ascending."""
        start = len(self._prefix)
        return (key[start:].decode().split("\0") for key, _ in state.scan(self._prefix))

    def under(self, state: State, *parts: str, beginning: str = "") -> Iterator[str]:
        """The last part of every key that begins with these parts, and the next one so, ascending."""
        prefix = self._prefix + "".join(part + "\0" for part in parts).encode() + beginning.encode()
        return (key.rpartition(b"\0")[2].decode() for key, _ in state.scan(prefix))

    def count_under(self, state: State, *parts: str, beginning: str = "", at_most: int) -> int:
        """How many there are, counting no further than ``at_most``."""
        return sum(1 for _ in islice(self.under(state, *parts, beginning=beginning), at_most))


class CountedIndex(Index):
    """An Index that knows how many keys begin with each first part, so that a bound on them costs one read."""

    def add(self, state: State, *parts: str) -> None:
        super().add(state, *parts)
        self._count(state, parts[0], 1)

    def remove(self, state: State, *parts: str) -> None:
        super().remove(state, *parts)
        self._count(state, parts[0], -1)

    def entries(self, state: State) -> Iterator[list[str]]:
        return (parts for parts in super().entries(state) if len(parts) > 1)

    def under(self, state: State, *parts: str, beginning: str = "") -> Iterator[str]:
        if not self.count(state, parts[0]):
            return iter(())  # a read is less than a scan
        return super().under(state, *parts, beginning=beginning)

    def count(self, state: State, first: str) -> int:
        data = state.get(self._prefix + first.encode())
        return 0 if data is None else int.from_bytes(data, "big")

    def _count(self, state: State, first: str, change: int) -> None:
        state.put(self._prefix + first.encode(), (self.count(state, first) + change).to_bytes(8, "big"))


class Schedule:
    """A set of ids in order of a time."""

    def __init__(self, name: str) -> None:
        self._prefix = _prefix(name)

    def _key(self, time_ms: int, item: bytes) -> bytes:
        return self._prefix + time_ms.to_bytes(8, "big") + item

    def add(self, state: State, time_ms: int, item: bytes) -> None:
        state.put(self._key(time_ms, item), b"")

    def remove(self, state: State, time_ms: int, item: bytes) -> None:
        state.delete(self._key(time_ms, item))

    def contains(self, state: State, time_ms: int, item: bytes) -> bool:
        return state.get(self._key(time_ms, item)) is not None

    def all(self, state: State) -> Iterator[tuple[int, bytes]]:
        """(time, id), ascending."""
        start = len(self._prefix)
        for key, _ in state.scan(self._prefix):
            yield int.from_bytes(key[start : start + 8], "big"), key[start + 8 :]

    def behind(self, state: State, place: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(place, id), ascending from behind a place on; all of them for none."""
        first = len(self._prefix)
        start = self._prefix + place + b"\0" if place else b""
        return ((key[first:], key[first + 8 :]) for key, _ in state.scan(self._prefix, start=start))

    def last(self, state: State) -> bytes:
        """The last place; empty where there is none."""
        return next((key[len(self._prefix) :] for key, _ in state.scan(self._prefix, reverse=True)), b"")

    def pop_due(self, state: State, now_ms: int, *, at_most: int | None = None) -> list[bytes]:
        """Remove and return the ids whose time is at or before ``now_ms``, in order of time; ``at_most`` so many."""
        due = []
        for time_ms, item in islice(self.all(state), at_most):
            if time_ms > now_ms:
                break
            due.append((time_ms, item))
        for time_ms, item in due:
            self.remove(state, time_ms, item)
        return [item for _, item in due]


class SeenIds:
    """The transactions that each block decided, until all of them have expired: for whoever joins by a snapshot.

    One entry per block, because its ids come and go together. Members who execute blocks look ids up elsewhere
    (node.application), and read these when they start.
    """

    _prefix = _prefix("seen")

    def put(self, state: State, expires_at_ms: int, height: int, ids: Iterable[bytes]) -> None:
        """``expires_at_ms`` is when the last of them does."""
        state.put(self._prefix + expires_at_ms.to_bytes(8, "big") + height.to_bytes(8, "big"), b"".join(ids))

    def forget_due(self, state: State, now_ms: int) -> None:
        """Forget blocks of which everything has expired."""
        due = []
        for key, _ in state.scan(self._prefix):
            if key > self._prefix + now_ms.to_bytes(8, "big") + b"\xff" * 8:
                break
            due.append(key)
        for key in due:
            state.delete(key)

    def read(self, key: bytes, value: bytes) -> tuple[int, list[bytes]] | None:
        """Height and ids of an entry of the state; None if it is none of these."""
        if not key.startswith(self._prefix):
            return None
        return int.from_bytes(key[-8:], "big"), self._ids(value)

    def all(self, state: State) -> Iterator[list[bytes]]:
        """Ids, by block."""
        return (self._ids(value) for _, value in state.scan(self._prefix))

    def _ids(self, value: bytes) -> list[bytes]:
        return [value[start - HASH_BYTES : start] for start in range(HASH_BYTES, len(value) + 1, HASH_BYTES)]


class KeyOwners:
    """Who registered an Ed25519 key. Entries stay for ever: an old key's signatures remain accountable."""

    _prefix = _prefix("key")

    def find(self, state: State, public_key: bytes) -> str | None:
        """Person or institution id."""
        owner = state.get(self._prefix + public_key)
        return None if owner is None else owner.decode()

    def put(self, state: State, public_key: bytes, owner: str) -> None:
        state.put(self._prefix + public_key, owner.encode())


class Times:
    """A time by name."""

    def __init__(self, name: str) -> None:
        self._prefix = _prefix(name)

    def find(self, state: State, name: str) -> int | None:
        data = state.get(self._prefix + name.encode())
        return None if data is None else int.from_bytes(data, "big")

    def put(self, state: State, name: str, time_ms: int) -> None:
        state.put(self._prefix + name.encode(), time_ms.to_bytes(8, "big"))


IDENTITY = tuple(_prefix(name) for name in ("key", "person", "institution"))
"""Prefixes of what is read for every transaction and seldom written."""

PARAMETERS = Table("parameters", Parameters, "parameters")
INSTITUTIONS = Table("institution", Institution, "institution")
PEOPLE = Table("person", Person, "person")
KEY_OWNERS = KeyOwners()
KEYS = Table("owned-key", KeyRecord, "key")
OWNER_KEYS = Index("owner-key")
VALIDATOR_KEYS = Index("validator-key")
RESERVED_KEYS = Index("reserved-key")
LAST_SIGNS = Times("last-sign")
DEPARTURES = Schedule("departure")  # by height
EXCLUSIONS = Table("exclusion", Exclusion, "exclusion")
OPERATORS = Index("operator")
DATASETS = Table("dataset", Dataset, "dataset")
SUPERSEDED = Table("superseded-dataset", Dataset, "version of a dataset")
REQUESTS = Table("request", AccessRequest, "access request")
OPEN_REQUESTS = CountedIndex("open-request")
REQUEST_DEADLINES = Schedule("request-deadline")
TAXONOMY = Table("taxonomy", Taxonomy, "taxonomy")
DEMANDS = Table("demand", Demand, "demand")
OPEN_DEMANDS = CountedIndex("open-demand")
DEMAND_TERMS = CountedIndex("demand-term")
DEMAND_EXPIRIES = Schedule("demand-expiry")
DISPUTES = Table("dispute", Dispute, "dispute")
OPEN_DISPUTES = CountedIndex("open-dispute")
FROZEN_BY = Index("frozen-by")
FROZEN_ONCE = Index("frozen-once")
WAIVED = Index("waived")
DISPUTE_DEADLINES = Schedule("dispute-deadline")
TOKENS = Table("token", Token, "token")
ACTIVE_TOKENS = CountedIndex("active-token")
TOKEN_EXPIRIES = Schedule("token-expiry")
TASKS = Table("task", Task, "task")
ASKER_TASKS = Index("asker-task")
TOKEN_TASKS = Index("token-task")
TASK_DEADLINES = Schedule("task-deadline")
READINGS = Table("reading", Reading, "reading")
READING_EXPIRIES = Schedule("reading-expiry")
SEEN = SeenIds()
EVIDENCE = Index("evidence")
ACCOUNTS = Table("account", Account, "account")
SUPPLY = Table("supply", Supply, "supply")
ESCROWS = Table("escrow", Escrow, "escrow")
ESCROW_DUES = Schedule("escrow-due")
TOKEN_ESCROWS = Index("token-escrow")
UNIONS = Table("union", DataUnion, "data union")
INSTITUTION_UNIONS = CountedIndex("institution-union")
UNION_MEMBERS = Table("union-member", UnionMembership, "member of the data union")
CONSTITUTION = Table("constitution", Constitution, "constitution")
WEIGHTS = Table("ballot-weight", MemberWeight, "ballot weight")
PROPOSALS = Table("proposal", GovernanceProposal, "proposal")
PENDING_PROPOSALS = Index("pending-proposal")
PROPOSAL_TIMES = Schedule("proposal-time")
APPLICATIONS = Table("application", Application, "application")
OPEN_APPLICATIONS = Index("open-application")
PROTOCOL = Table("protocol", Protocol, "protocol")
UPGRADES = Table("upgrade", Upgrade, "upgrade")
