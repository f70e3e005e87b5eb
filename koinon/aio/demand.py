"""Demand: say what is missing from the catalog, and see what comes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from koinon.aio.session import DEFAULT_LIMIT, Session, single
from koinon.descriptor import DAY_MS
from koinon.v1.demand_pb2 import Demand as DemandMessage
from koinon.v1.demand_pb2 import DemandStatus, PostDemand, WithdrawDemand
from koinon.v1.services_pb2 import ListDemandsRequest
from koinon.v1.transaction_pb2 import Operation
from koinon.words import number


class Demand:
    """``client.demand``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def post(
        self,
        title: str,
        *,
        purpose: str,
        columns: Collection[str] = (),
        themes: Collection[str] = (),
        budget: int = 0,
        days: int = 90,
    ) -> DemandMessage:
        """Ask for data with all these columns, of one of these themes; all of it is public to members.

        For ``days`` the ledger matches it with what is published. ``budget`` is in points; 0 says nothing.
        Raises InvalidInput, Refused.
        """
        posted = PostDemand(
            title=title,
            columns=sorted(columns),
            themes=sorted(themes),
            purpose=purpose,
            budget=budget,
            duration_ms=days * DAY_MS,
        )
        info = await self._session.submit(Operation(post_demand=posted))
        return await self.show(info.created[0])

    async def list(
        self,
        *,
        demander: str = "",
        matched_institution: str = "",
        status: str = "",
        id_prefix: str = "",
        limit: int = DEFAULT_LIMIT,
    ) -> Sequence[DemandMessage]:
        """Demands of a person, matched by some dataset of an institution, in a state; empty means any. Newest first."""
        connection = self._session.connection
        wanted = number(DemandStatus, status, "status of a demand")
        request = ListDemandsRequest(
            demander=demander,
            matched_institution=matched_institution,
            status=wanted,
            id_prefix=id_prefix,
        )
        return await self._session.pages(connection.demand.ListDemands, request, lambda page: page.demands, limit)

    async def show(self, demand_id: str) -> DemandMessage:
        """One demand with its matches, by a unique beginning of its id. Raises NotFound, InvalidInput."""
        return single(await self.list(id_prefix=demand_id, limit=2) if demand_id else [], "demand", demand_id)

    async def withdraw(self, demand_id: str, reason: str = "") -> DemandMessage:
        """End a demand of one's own or of one's institution. Raises NotFound, InvalidInput, Refused."""
        demand = await self.show(demand_id)
        withdrawal = WithdrawDemand(demand_id=demand.id, reason=reason)
        await self._session.submit(Operation(withdraw_demand=withdrawal))
        return await self.show(demand.id)
