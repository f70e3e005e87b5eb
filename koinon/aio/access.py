"""Access: ask for it, decide on it, take it back."""

from __future__ import annotations

from collections.abc import Collection

from koinon.aio.catalog import Catalog
from koinon.aio.session import DEFAULT_LIMIT, Session, single
from koinon.descriptor import DAY_MS
from koinon.v1.access_pb2 import (
    AcceptOffer,
    AccessRequest,
    AccessTerms,
    CounterOffer,
    DenyAccess,
    GrantAccess,
    RequestAccess,
    RequestStatus,
    RevokeToken,
    Token,
    TokenStatus,
    WithdrawRequest,
)
from koinon.v1.catalog_pb2 import TaskOperation
from koinon.v1.points_pb2 import Price
from koinon.v1.services_pb2 import ListRequestsRequest, ListTokensRequest
from koinon.v1.transaction_pb2 import Operation
from koinon.words import number, numbers


class Access:
    """``client.access``."""

    def __init__(self, session: Session, catalog: Catalog) -> None:
        self._session = session
        self._catalog = catalog

    async def request(
        self,
        name: str,
        *,
        purpose: str | Collection[str],
        operations: Collection[str] = (),
        columns: Collection[str] = (),
        days: int = 30,
        uses: int = 10,
        max_fee: int = 0,
    ) -> list[AccessRequest]:
        """Ask for ``uses`` computations within ``days`` of the grant.

        The purpose is public to members, and every query states it word for word; there may be several.
        ``collection.table`` without the institution asks every institution that publishes one, in one
        transaction. Empty ``columns`` means all, empty ``operations`` (words: count, sum, avg, variance, group_by)
        what each policy allows. Returns the requests, in the order of the datasets' names; those that a policy
        granted at once carry their token's id. ``max_fee`` is what all of them may cost, in points, where the members
        voted a fee. Raises NotFound, Refused.
        """
        asked = numbers(TaskOperation, operations, "operation")
        datasets = sorted(await self._catalog.named(name), key=lambda dataset: dataset.published.name)
        wanted = [
            RequestAccess(
                dataset=dataset.published.name,
                columns=sorted(columns),
                operations=asked or dataset.published.policy.operations,
                purposes=_listed(purpose),
                duration_ms=days * DAY_MS,
                uses=uses,
            )
            for dataset in datasets
        ]
        info = await self._session.submit(*(Operation(request_access=one) for one in wanted), max_fee=max_fee)
        return [await self._request(request_id) for request_id in info.created]

    async def requests(
        self,
        *,
        institution: str = "",
        requester: str = "",
        status: str = "",
        id_prefix: str = "",
        limit: int = DEFAULT_LIMIT,
    ) -> list[AccessRequest]:
        """Requests to an institution's datasets, by a person, in a state; empty means any."""
        connection = self._session.connection
        wanted = number(RequestStatus, status, "status of a request")
        request = ListRequestsRequest(institution=institution, requester=requester, status=wanted, id_prefix=id_prefix)
        return await self._session.pages(connection.access.ListRequests, request, lambda page: page.requests, limit)

    async def tokens(
        self,
        *,
        holder: str = "",
        dataset: str = "",
        status: str = "",
        id_prefix: str = "",
        limit: int = DEFAULT_LIMIT,
    ) -> list[Token]:
        """Tokens of a person, for a dataset, in a state; empty means any."""
        connection = self._session.connection
        wanted = number(TokenStatus, status, "status of a token")
        request = ListTokensRequest(holder=holder, dataset=dataset, status=wanted, id_prefix=id_prefix)
        return await self._session.pages(connection.access.ListTokens, request, lambda page: page.tokens, limit)

    async def grant(
        self,
        request_id: str,
        *,
        columns: Collection[str] = (),
        operations: Collection[str] = (),
        days: int = 0,
        uses: int = 0,
        min_cohort: int = 0,
    ) -> Token:
        """Grant a request to one's own dataset, or less than it asks: zero and empty mean as requested.

        ``request_id`` may be a unique beginning. Raises NotFound, InvalidInput, Refused.
        """
        request = await self._request(request_id)
        bids = [offer.number for offer in request.offers if not offer.by_publisher]
        granted = GrantAccess(
            request_id=request.id,
            columns=sorted(columns),
            operations=numbers(TaskOperation, operations, "operation"),
            duration_ms=days * DAY_MS,
            uses=uses,
            min_cohort=min_cohort,
            offer=bids[-1] if bids else 0,
        )
        await self._session.submit(Operation(grant_access=granted))
        return await self._token((await self._request(request.id)).token_id)

    async def deny(self, request_id: str, reason: str) -> AccessRequest:
        """Deny a request to one's own dataset; the reason is public to members. Raises as ``grant``."""
        request = await self._request(request_id)
        await self._session.submit(Operation(deny_access=DenyAccess(request_id=request.id, reason=reason)))
        return await self._request(request.id)

    async def counter(
        self,
        request_id: str,
        *,
        columns: Collection[str] = (),
        operations: Collection[str] = (),
        purpose: str | Collection[str] = "",
        days: int = 0,
        uses: int = 0,
        min_cohort: int = 0,
        price: Price | None = None,
        note: str = "",
    ) -> AccessRequest:
        """Name other terms for an open request, as its requester or as the publisher; the rest stays as it is.

        What is left out is taken from the last offer, or from the request where there is none. A price without a unit
        is free. The note is public to members. Raises as ``grant``.
        """
        request = await self._request(request_id)
        terms = latest_terms(request)
        if columns:
            terms.columns[:] = sorted(columns)
        if operations:
            terms.operations[:] = numbers(TaskOperation, operations, "operation")
        if purpose:
            terms.purposes[:] = _listed(purpose)
        terms.duration_ms = days * DAY_MS or terms.duration_ms
        terms.uses = uses or terms.uses
        terms.min_cohort = min_cohort or terms.min_cohort
        if price is not None:
            terms.price.CopyFrom(price)
            terms.price.SetInParent()
        offered = CounterOffer(request_id=request.id, terms=terms, note=note)
        await self._session.submit(Operation(counter_offer=offered))
        return await self._request(request.id)

    async def accept(self, request_id: str, offer: int = 0) -> Token:
        """Take the publisher's latest offer on one's own request; ``offer`` is the number meant, 0 the latest there is.

        Raises as ``grant``.
        """
        request = await self._request(request_id)
        number = offer or len(request.offers)
        await self._session.submit(Operation(accept_offer=AcceptOffer(request_id=request.id, offer=number)))
        return await self._token((await self._request(request.id)).token_id)

    async def withdraw(self, request_id: str, reason: str = "") -> AccessRequest:
        """End one's own open request. Raises as ``grant``."""
        request = await self._request(request_id)
        withdrawal = WithdrawRequest(request_id=request.id, reason=reason)
        await self._session.submit(Operation(withdraw_request=withdrawal))
        return await self._request(request.id)

    async def show(self, request_id: str) -> AccessRequest:
        """One request with its offers, by a unique beginning of its id. Raises NotFound, InvalidInput."""
        return await self._request(request_id)

    async def revoke(self, token_id: str, reason: str) -> Token:
        """Take a token back, from the next use on; the reason is public to members. Raises as ``grant``."""
        token = await self._token(token_id)
        await self._session.submit(Operation(revoke_token=RevokeToken(token_id=token.id, reason=reason)))
        return await self._token(token.id)

    async def _request(self, prefix: str) -> AccessRequest:
        return single(await self.requests(id_prefix=prefix, limit=2) if prefix else [], "request", prefix)

    async def _token(self, prefix: str) -> Token:
        return single(await self.tokens(id_prefix=prefix, limit=2) if prefix else [], "token", prefix)


def latest_terms(request: AccessRequest) -> AccessTerms:
    """What was offered last on a request, by whichever side; the request's own terms before any offer."""
    terms = AccessTerms()
    if request.offers:
        terms.CopyFrom(request.offers[-1].terms)
        return terms
    asked = request.requested
    return AccessTerms(
        columns=asked.columns,
        operations=asked.operations,
        purposes=asked.purposes,
        duration_ms=asked.duration_ms,
        uses=asked.uses,
    )


def _listed(purpose: str | Collection[str]) -> list[str]:
    return [purpose] if isinstance(purpose, str) else sorted(set(purpose))
