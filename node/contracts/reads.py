"""Typed questions to one state: what the node's services, planner and jobs ask of the ledger."""

from __future__ import annotations

from itertools import islice

from koinon.errors import NotFound
from koinon.names import PersonId, TableName
from koinon.v1.access_pb2 import AccessRequest, Token
from koinon.v1.audit_pb2 import Reading
from koinon.v1.catalog_pb2 import Dataset, Taxonomy
from koinon.v1.constitution_pb2 import Constitution
from koinon.v1.demand_pb2 import Demand
from koinon.v1.dispute_pb2 import Dispute
from koinon.v1.governance_pb2 import Application, GovernanceProposal, Protocol
from koinon.v1.identity_pb2 import Institution, KeyRecord, Parameters, Person
from koinon.v1.points_pb2 import Account, DataUnion, Escrow, Supply, Terms, UnionMembership
from koinon.v1.task_pb2 import SubmitTask, Task
from node.contracts import (
    accounts,
    actions,
    catalog,
    classification,
    keys,
    settlement,
    tables,
    unions,
    upgrades,
    weights,
)
from node.contracts.context import Sender, sender_of
from node.ledger.state import State


class Reads:
    """Answers from the state as of one height. Names and ids come from outside; a wrong one is NotFound."""

    def __init__(self, state: State) -> None:
        self._state = state

    def parameters(self) -> Parameters:
        return tables.PARAMETERS.get(self._state, "")

    def institutions(self) -> list[Institution]:
        """Ascending by id; their people are asked for separately."""
        return list(tables.INSTITUTIONS.scan(self._state))

    def institution(self, institution_id: str) -> Institution:
        """Raises NotFound."""
        return tables.INSTITUTIONS.get(self._state, institution_id)

    def people(self, institution_id: str = "") -> list[Person]:
        """Ascending by id; of one institution, or of all. Revoked ones are included."""
        return list(tables.PEOPLE.scan(self._state, f"{institution_id}/" if institution_id else ""))

    def person(self, person_id: str) -> Person:
        """Raises NotFound."""
        return tables.PEOPLE.get(self._state, person_id)

    def sender(self, public_key: bytes) -> Sender:
        """Who asks with this key: a person, or an institution's node. The suspended may look, and change nothing.

        Raises Unauthenticated with rule ``unknown-key``, ``revoked-key`` or ``member-removed``.
        """
        return sender_of(self._state, public_key, reads=True)

    def keys(self, owner: str) -> list[KeyRecord]:
        """Every key that an institution or a person ever had, oldest first. Raises NotFound."""
        found = list(keys.of_owner(self._state, owner))
        if not found:
            raise NotFound(f"nobody is called {owner!a}", hint="koinon member list shows everyone")
        return found

    def dataset(self, name: str, version: int = 0) -> Dataset:
        """The newest version, or the one named. Raises NotFound."""
        dataset = tables.DATASETS.get(self._state, name)
        if version in (0, dataset.version):
            return dataset
        if not 0 < version < dataset.version:
            raise NotFound(f"dataset {name} has no version {version}", hint=f"it has 1 to {dataset.version}")
        return tables.SUPERSEDED.get(self._state, catalog.version_key(name, version))

    def datasets(self, institution: str = "") -> list[Dataset]:
        """The newest version of every dataset, or of every one of an institution, by name; withdrawn ones included."""
        return list(tables.DATASETS.scan(self._state, f"{institution}." if institution else ""))

    def datasets_of_table(self, table: TableName) -> list[Dataset]:
        """Every institution's dataset of this name, ascending by institution; withdrawn ones included."""
        names = [f"{institution.descriptor.id}.{table}" for institution in self.institutions()]
        found = (tables.DATASETS.find(self._state, name) for name in names)
        return [dataset for dataset in found if dataset is not None]

    def taxonomy(self) -> Taxonomy:
        """How the members classify datasets."""
        return classification.current(self._state)

    def demand(self, demand_id: str) -> Demand:
        """Raises NotFound."""
        return tables.DEMANDS.get(self._state, demand_id)

    def dispute(self, dispute_id: str) -> Dispute:
        """Raises NotFound."""
        return tables.DISPUTES.get(self._state, dispute_id)

    def request(self, request_id: str) -> AccessRequest:
        """Raises NotFound."""
        return tables.REQUESTS.get(self._state, request_id)

    def open_requests(self, dataset: str) -> list[AccessRequest]:
        """Ascending by requester."""
        ids = tables.OPEN_REQUESTS.under(self._state, dataset)
        return [tables.REQUESTS.get(self._state, request_id) for request_id in ids]

    def token(self, token_id: str) -> Token:
        """Raises NotFound."""
        return tables.TOKENS.get(self._state, token_id)

    def active_tokens(self, holder: PersonId, dataset: str) -> list[Token]:
        """What this person may use on this dataset, the one that lasts longest first."""
        ids = tables.ACTIVE_TOKENS.under(self._state, dataset, str(holder))
        tokens = [tables.TOKENS.get(self._state, token_id) for token_id in ids]
        return sorted(tokens, key=lambda token: (-token.expires_at_ms, token.id))

    def task(self, task_id: str) -> Task:
        """Raises NotFound."""
        return tables.TASKS.get(self._state, task_id)

    def reading(self, reading_id: str) -> Reading:
        """What a regulator is about to read. Raises NotFound."""
        return tables.READINGS.get(self._state, reading_id)

    def open_tasks(self) -> list[Task]:
        """Submitted and running ones, by deadline."""
        return [
            tables.TASKS.get(self._state, task_id.decode()) for _, task_id in tables.TASK_DEADLINES.all(self._state)
        ]

    def terms(self, task: SubmitTask, asker: str, time_ms: int) -> Terms:
        """What a task would cost if it were submitted now, and who would be paid; empty: free. Raises NotFound."""
        return settlement.terms(self._state, self.parameters(), task, asker, time_ms)

    def accounts(self, after: str = "", at_most: int = 1) -> list[Account]:
        """Accounts that ever had points, ascending by id, behind ``after``."""
        return list(islice(tables.ACCOUNTS.scan(self._state, after=after), at_most))

    def account(self, account: str) -> Account:
        """What somebody can spend now. Raises InvalidName or NotFound."""
        accounts.check_owner(self._state, account)
        return Account(id=account, points=accounts.balance(self._state, account))

    def supply(self) -> Supply:
        return accounts.supply(self._state)

    def check_conservation(self) -> None:
        """Do accounts, escrows and totals add up, by a full scan? Raises Corrupt."""
        accounts.check_conservation(self._state)

    def escrow(self, escrow_id: str) -> Escrow | None:
        return tables.ESCROWS.find(self._state, escrow_id)

    def unions(self, after: str = "", at_most: int = 1) -> list[DataUnion]:
        """Data unions, ascending by name, behind ``after``."""
        return list(islice(tables.UNIONS.scan(self._state, after=after), at_most))

    def union(self, name: str) -> DataUnion:
        """Raises NotFound."""
        return tables.UNIONS.get(self._state, name)

    def union_members(self, union: str, after: str = "", at_most: int = 1) -> list[UnionMembership]:
        """Members of a data union, ascending by account, behind ``after``."""
        return list(islice(tables.UNION_MEMBERS.scan(self._state, f"{union}\0", after=after), at_most))

    def union_member(self, union: str, account: str) -> UnionMembership:
        """Raises NotFound."""
        return unions.membership(self._state, union, account)

    def union_earnings(self, union: str, account: str) -> int:
        """Whole points that a member has earned and not claimed. Raises NotFound."""
        return unions.earned(self._state, union, account)

    def constitution(self) -> Constitution:
        return actions.constitution(self._state)

    def constitution_digest(self) -> bytes:
        """Names the constitution in force."""
        return actions.constitution_digest(self._state)

    def ballot_weights(self) -> dict[str, int]:
        """Of all active members, ascending by institution."""
        return weights.of_all(self._state)

    def protocol(self) -> Protocol:
        """The version of the protocol that the next block follows, and what is scheduled."""
        return upgrades.protocol(self._state)

    def pending_proposals(self) -> list[GovernanceProposal]:
        """Open ones, and accepted ones that are not executed yet."""
        return [tables.PROPOSALS.get(self._state, name) for name in tables.PENDING_PROPOSALS.under(self._state)]

    def proposal(self, proposal_id: str) -> GovernanceProposal:
        """Raises NotFound."""
        return tables.PROPOSALS.get(self._state, proposal_id)

    def application(self, institution: str) -> Application:
        """The last one of a would-be member. Raises NotFound."""
        return tables.APPLICATIONS.get(self._state, institution)
