"""What every part of a client shares: who it is, its key, and the connection to its node."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from koinon import envelope, submission
from koinon.aio.headers import Headers
from koinon.errors import InvalidInput, KoinonError, NotFound, Refused
from koinon.keys import SigningKey
from koinon.limits import MAX_PAGE_SIZE
from koinon.profile import Profile
from koinon.rpc import Connection, Unary
from koinon.submission import OnUndecided
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.services_pb2 import TransactionInfo
from koinon.v1.transaction_pb2 import Operation

Item = TypeVar("Item")
PagedRequestT = TypeVar("PagedRequestT", bound="PagedRequest")
PagedResponseT = TypeVar("PagedResponseT", bound="PagedResponse")
Page = Callable[[int, str], Awaitable[tuple[Sequence[Item], str]]]
"""Fetches one page: (page size, page token) to (items, token of the next page, empty at the end)."""


class PagedRequest(Protocol):
    """Asks for one page of a list."""

    page_size: int
    page_token: str


class PagedResponse(Protocol):
    """One page, in a field that each list names its own way."""

    next_page_token: str


DEFAULT_LIMIT = 1_000
WRITE_S = 60.0
"""How long a write waits for the ledger unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Session:
    """A person at a node. The key signs here and is never sent."""

    profile: Profile
    key: SigningKey
    chain_id: str
    genesis: Genesis
    connection: Connection
    headers: Headers
    write_timeout_s: float = WRITE_S
    on_undecided: OnUndecided | None = None

    @property
    def person(self) -> str:
        return str(self.profile.person)

    async def submit(self, *operations: Operation, timeout_s: float | None = None, max_fee: int = 0) -> TransactionInfo:
        """Sign the operations as one transaction, all or none, and wait until it is committed.

        Its time is up by this machine's clock, or by the ledger's if that is proved to be ahead. Fees of more than
        ``max_fee`` points are refused by the ledger (rule max-fee). Raises the typed error of the rule that refused it;
        StatusUnknown if it was sent and not decided in time.
        """
        timeout_s = self.write_timeout_s if timeout_s is None else timeout_s
        give_up = time.monotonic() + timeout_s
        signed = submission.sign(self.chain_id, operations, self.key, max_fee)
        try:
            return await self.resend(signed, timeout_s=timeout_s)
        except Refused as refused:
            reached_ms = await self._time_beyond(signed) if refused.rule == "transaction-expired" else None
            if reached_ms is None:
                raise
        signed = submission.sign(self.chain_id, operations, self.key, max_fee, since_ms=reached_ms)
        return await self.resend(signed, timeout_s=give_up - time.monotonic())

    async def _time_beyond(self, signed: bytes) -> int | None:
        """The ledger's time, if a quorum signed one at which the envelope can no longer commit.

        The node's word is not enough: it could keep the envelope, and both would count.
        """
        try:
            reached_ms = int((await self.headers.header()).header.time_ms)
        except KoinonError:
            return None
        return reached_ms if reached_ms >= submission.expiry_ms(signed) else None

    async def resend(self, signed: bytes, *, timeout_s: float | None = None) -> TransactionInfo:
        """Send a signed envelope, also one sent before: it counts once. Raises as ``submit``."""
        timeout_s = self.write_timeout_s if timeout_s is None else timeout_s
        name = envelope.identify(signed)
        return await submission.send(self.connection, signed, name, timeout_s, self.on_undecided)

    async def pages(
        self,
        method: Unary[PagedRequestT, PagedResponseT],
        request: PagedRequestT,
        items: Callable[[PagedResponseT], Sequence[Item]],
        limit: int,
    ) -> list[Item]:
        """Up to ``limit`` of what a node lists; which page ``request`` asks for is set here. Raises KoinonError."""

        async def page(size: int, token: str) -> tuple[Sequence[Item], str]:
            request.page_size, request.page_token = size, token
            response = await self.connection.call(method, request)
            return items(response), response.next_page_token

        return await collect(page, limit)


async def collect(page: Page[Item], limit: int = DEFAULT_LIMIT) -> list[Item]:
    """Up to ``limit`` items, page after page."""
    return [item async for found in paged(page, limit) for item in found]


async def paged(page: Page[Item], limit: int) -> AsyncIterator[Sequence[Item]]:
    """The same, a page at a time. A page may be empty and not the last: some items are not for everyone."""
    count, token, before = 0, "", None
    while count < limit and token != before:
        found, following = await page(min(limit - count, MAX_PAGE_SIZE), token)
        yield found[: limit - count]
        count += len(found)
        if not following:
            return
        token, before = following, token


_LISTS = {"request": "access", "token": "access", "proposal": "gov"}
"""Groups of commands that list things, where they are not called as what they list."""


def single(found: Sequence[Item], kind: str, prefix: str) -> Item:
    """The one item that a beginning of an id means. Raises NotFound, or InvalidInput if it fits several."""
    if not found:
        shown_by = f"koinon {_LISTS.get(kind, kind)} list"
        raise NotFound(f"there is no {kind} {prefix!r}", hint=f"{shown_by} shows the ids there are")
    if len(found) > 1:
        raise InvalidInput(
            f"more than one {kind} begins with {prefix!r}", rule="ambiguous-id", hint="give more digits of the id"
        )
    return found[0]
