"""The awaitable client: ``client = await koinon.aio.connect(profile)``.

::

    async with await koinon.aio.connect("analyst.toml") as client:
        for dataset in await client.catalog.search("pancreatitis"):
            print(dataset.published.name, dataset.published.title)
        result = await client.query("SELECT rx, COUNT(*) AS n FROM ercp.indo_rct GROUP BY rx")

``koinon.connect`` gives the same, blocking. What comes from the ledger are the messages of koinon/v1;
every failure is a koinon.errors.KoinonError.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from koinon import genesis as genesis_file
from koinon import key_files, profile, submission
from koinon.aio.access import Access
from koinon.aio.audit import Audit
from koinon.aio.catalog import Catalog
from koinon.aio.demand import Demand
from koinon.aio.disputes import Disputes
from koinon.aio.governance import Governance
from koinon.aio.headers import Headers
from koinon.aio.members import Members
from koinon.aio.points import Points
from koinon.aio.session import WRITE_S, Session
from koinon.aio.tasks import QUERY_S, OnProgress, Progress, Tasks
from koinon.errors import InvalidInput, StatusUnknown
from koinon.key_files import AskPassphrase
from koinon.planned import PlannedQuery
from koinon.profile import Profile
from koinon.result import Result
from koinon.rpc import Connection
from koinon.submission import OnUndecided
from koinon.v1.services_pb2 import (
    DiagnoseStallRequest,
    DiagnoseStallResponse,
    GetStatusRequest,
    GetStatusResponse,
    TransactionInfo,
)

__all__ = ["Client", "Progress", "connect"]


class Client:
    """A person at its institution's node. Close it, or use it as an async context manager."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.catalog = Catalog(session)
        self.access = Access(session, self.catalog)
        self.demand = Demand(session)
        self.tasks = Tasks(session)
        self.disputes = Disputes(session, self.access, self.tasks)
        self.audit = Audit(session)
        self.points = Points(session)
        self.members = Members(session, self.audit)
        self.governance = Governance(session)

    @property
    def profile(self) -> Profile:
        """Who is asking, of which node."""
        return self._session.profile

    async def status(self) -> GetStatusResponse:
        """What the node is doing: height, peers, validators. Raises Unavailable."""
        connection = self._session.connection
        return await connection.call(connection.node.GetStatus, GetStatusRequest())

    async def why_stalled(self) -> DiagnoseStallResponse:
        """Whether decisions have stopped, who is missing and what to do, as the node sees it. Raises Unavailable."""
        connection = self._session.connection
        return await connection.call(connection.node.DiagnoseStall, DiagnoseStallRequest())

    async def transaction(self, transaction_id: bytes | str, *, wait_ms: int = 0) -> TransactionInfo:
        """What became of a transaction, by its id (hex or bytes); waits up to ``wait_ms`` until it is final."""
        if isinstance(transaction_id, str):
            try:
                transaction_id = bytes.fromhex(transaction_id)
            except ValueError:
                raise InvalidInput(f"{transaction_id!a} is not a transaction id", hint="give 64 hex digits") from None
        return await submission.status(self._session.connection, transaction_id, wait_ms=wait_ms)

    async def resend(self, unknown: StatusUnknown) -> TransactionInfo:
        """Send a transaction of unknown status again; it counts once. Raises Refused, StatusUnknown."""
        return await self._session.resend(unknown.envelope)

    async def plan(self, sql: str, *, purpose: str = "") -> PlannedQuery:
        """A dry run: what the query would do, what it costs, who learns what. Raises as ``tasks.plan``."""
        return await self.tasks.plan(sql, purpose=purpose)

    async def query(
        self,
        sql: str,
        *,
        purpose: str = "",
        max_price: int = 0,
        on_progress: OnProgress | None = None,
        timeout_s: float = QUERY_S,
    ) -> Result:
        """Run a joint query for at most ``max_price`` points, and open its result here. Raises as ``tasks.query``."""
        return await self.tasks.query(
            sql, purpose=purpose, max_price=max_price, on_progress=on_progress, timeout_s=timeout_s
        )

    async def close(self) -> None:
        """Close the connection once the ledger was told which results were received; calls under way end."""
        try:
            await self.tasks.unconfirmed()
        finally:
            await self._session.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


async def connect(
    profile_or_path: Profile | str | os.PathLike[str] | None = None,
    *,
    ask_passphrase: AskPassphrase | None = None,
    write_timeout_s: float = WRITE_S,
    on_undecided: OnUndecided | None = None,
) -> Client:
    """A client for a profile: a file, the name of one, or None for $KOINON_PROFILE.

    Reads the profile, the key file and the genesis; the node is first contacted by the first call. The
    passphrase of an encrypted key comes from $KOINON_PASSPHRASE or ``ask_passphrase``. A write waits
    ``write_timeout_s`` for the ledger before it raises StatusUnknown; ``on_undecided`` is called once for each that
    the ledger has not decided after ten seconds. Raises NotFound, InvalidFile.
    """
    chosen = profile_or_path if isinstance(profile_or_path, Profile) else profile.load(profile_or_path)
    key = key_files.load_signing_key(chosen.key_file, ask_passphrase)
    genesis = genesis_file.load(chosen.genesis)
    chain_id = genesis_file.chain_id(genesis)
    connection = Connection(chosen, key, chain_id)
    headers = Headers(connection, genesis)
    return Client(Session(chosen, key, chain_id, genesis, connection, headers, write_timeout_s, on_undecided))
