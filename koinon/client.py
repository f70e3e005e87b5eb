"""The blocking client: ``client = koinon.connect(profile)``.

The same surface as koinon.aio, made from it: each method here runs its awaitable twin on one event loop
in a background thread, shared by every client of the process. Signatures and documentation are the twins' own.
Callbacks such as ``on_progress`` are called on that thread.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from koinon import aio
from koinon.aio.access import Access as AsyncAccess
from koinon.aio.audit import Audit as AsyncAudit
from koinon.aio.catalog import Catalog as AsyncCatalog
from koinon.aio.demand import Demand as AsyncDemand
from koinon.aio.disputes import Disputes as AsyncDisputes
from koinon.aio.governance import Governance as AsyncGovernance
from koinon.aio.members import Members as AsyncMembers
from koinon.aio.points import Points as AsyncPoints
from koinon.aio.session import WRITE_S
from koinon.aio.tasks import Tasks as AsyncTasks
from koinon.errors import InvalidInput
from koinon.key_files import AskPassphrase
from koinon.profile import Profile
from koinon.rpc import unforked
from koinon.submission import OnUndecided

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

_CLEAN_UP_S = 10.0  # longer than cancelling a task on the ledger takes


class _Loop:
    """One event loop in a daemon thread, started with the first client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        """Run to the end from any other thread. An interrupt cancels it, and waits for what it does about that.

        What it says about being cancelled, such as StatusUnknown of a write, becomes the cause of the interrupt.
        """
        try:
            loop = self._running()
        except InvalidInput:
            coroutine.close()
            raise
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise InvalidInput(
                "a callback cannot call a blocking client", hint="call it afterwards, or use koinon.aio throughout"
            )
        ended = threading.Event()
        cause: BaseException | None = None

        async def supervised() -> Answer:
            nonlocal cause
            try:
                return await coroutine
            except asyncio.CancelledError as cancelled:
                cause = cancelled.__cause__
                raise
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(supervised(), loop)
        try:
            return future.result()
        except KeyboardInterrupt as interrupt:
            if future.cancel():
                ended.wait(_CLEAN_UP_S)
            raise interrupt from cause

    def _running(self) -> asyncio.AbstractEventLoop:
        unforked()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="koinon-client", daemon=True)
                self._thread.start()
            return self._loop


_loop = _Loop()


class _Twin:
    """The blocking side of an awaitable object."""

    def __init__(self, twin: Any) -> None:
        self._twin = twin


def _blocking(
    method: Callable[Concatenate[Any, Arguments], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[_Twin, Arguments], Answer]:
    @functools.wraps(method)
    def call(self: _Twin, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return _loop.run(method(self._twin, *args, **kwargs))

    return cast(Callable[Concatenate[_Twin, Arguments], Answer], call)


def _iterating(
    method: Callable[Concatenate[Any, Arguments], AsyncIterator[Answer]],
) -> Callable[Concatenate[_Twin, Arguments], Iterator[Answer]]:
    @functools.wraps(method)
    def call(self: _Twin, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Iterator[Answer]:
        items = method(self._twin, *args, **kwargs)

        async def following() -> tuple[Answer] | None:
            async for item in items:
                return (item,)
            return None

        while found := _loop.run(following()):
            yield found[0]

    return cast(Callable[Concatenate[_Twin, Arguments], Iterator[Answer]], call)


class Catalog(_Twin):
    """``client.catalog``: find datasets, and publish one's own."""

    _twin: AsyncCatalog

    def own_name(self, name: str) -> str:
        """The full name of one's own table; ``collection.table`` gets the institution. Raises InvalidName."""
        return self._twin.own_name(name)

    search = _blocking(AsyncCatalog.search)
    show = _blocking(AsyncCatalog.show)
    history = _blocking(AsyncCatalog.history)
    taxonomy = _blocking(AsyncCatalog.taxonomy)
    verify = _blocking(AsyncCatalog.verify)
    withdraw_verification = _blocking(AsyncCatalog.withdraw_verification)
    named = _blocking(AsyncCatalog.named)
    stage = _blocking(AsyncCatalog.stage)
    publish = _blocking(AsyncCatalog.publish)
    publish_staged = _blocking(AsyncCatalog.publish_staged)
    withdraw = _blocking(AsyncCatalog.withdraw)


class Access(_Twin):
    """``client.access``: ask for access, decide on it, take it back."""

    request = _blocking(AsyncAccess.request)
    requests = _blocking(AsyncAccess.requests)
    tokens = _blocking(AsyncAccess.tokens)
    grant = _blocking(AsyncAccess.grant)
    deny = _blocking(AsyncAccess.deny)
    counter = _blocking(AsyncAccess.counter)
    accept = _blocking(AsyncAccess.accept)
    withdraw = _blocking(AsyncAccess.withdraw)
    show = _blocking(AsyncAccess.show)
    revoke = _blocking(AsyncAccess.revoke)


class Demand(_Twin):
    """``client.demand``: say what is missing from the catalog."""

    post = _blocking(AsyncDemand.post)
    list = _blocking(AsyncDemand.list)
    show = _blocking(AsyncDemand.show)
    withdraw = _blocking(AsyncDemand.withdraw)


class Disputes(_Twin):
    """``client.disputes``: over tokens and tasks."""

    open = _blocking(AsyncDisputes.open)
    answer = _blocking(AsyncDisputes.answer)
    rule = _blocking(AsyncDisputes.rule)
    withdraw = _blocking(AsyncDisputes.withdraw)
    list = _blocking(AsyncDisputes.list)
    show = _blocking(AsyncDisputes.show)


class Tasks(_Twin):
    """``client.tasks``: joint computations."""

    show = _blocking(AsyncTasks.show)
    list = _blocking(AsyncTasks.list)
    cancel = _blocking(AsyncTasks.cancel)
    wait = _blocking(AsyncTasks.wait)
    plan = _blocking(AsyncTasks.plan)
    query = _blocking(AsyncTasks.query)
    unconfirmed = _blocking(AsyncTasks.unconfirmed)


class Audit(_Twin):
    """``client.audit``: read the trail, take proofs from it, follow it live."""

    list = _blocking(AsyncAudit.list)
    stats = _blocking(AsyncAudit.stats)
    prove = _blocking(AsyncAudit.prove)
    case = _blocking(AsyncAudit.case)
    missing = _blocking(AsyncAudit.missing)
    receipt = _blocking(AsyncAudit.receipt)
    verify = _blocking(AsyncAudit.verify)
    header = _blocking(AsyncAudit.header)
    pages = _iterating(AsyncAudit.pages)
    watch = _iterating(AsyncAudit.watch)


class Points(_Twin):
    """``client.points``: balances, transfers, statements, who was paid why, data unions."""

    balance = _blocking(AsyncPoints.balance)
    accounts = _blocking(AsyncPoints.accounts)
    supply = _blocking(AsyncPoints.supply)
    transfer = _blocking(AsyncPoints.transfer)
    statement = _blocking(AsyncPoints.statement)
    explain = _blocking(AsyncPoints.explain)
    unions = _blocking(AsyncPoints.unions)
    union = _blocking(AsyncPoints.union)
    define_union = _blocking(AsyncPoints.define_union)
    union_members = _blocking(AsyncPoints.union_members)
    set_union_members = _blocking(AsyncPoints.set_union_members)
    claim = _blocking(AsyncPoints.claim)


class Members(_Twin):
    """``client.members``: institutions and their people."""

    institutions = _blocking(AsyncMembers.institutions)
    people = _blocking(AsyncMembers.people)
    credential = _blocking(AsyncMembers.credential)
    register = _blocking(AsyncMembers.register)
    revoke = _blocking(AsyncMembers.revoke)
    move = _blocking(AsyncMembers.move)
    preview_leaving = _blocking(AsyncMembers.preview_leaving)
    leave = _blocking(AsyncMembers.leave)
    stay = _blocking(AsyncMembers.stay)
    rotate_key = _blocking(AsyncMembers.rotate_key)
    revoke_key = _blocking(AsyncMembers.revoke_key)
    keys = _blocking(AsyncMembers.keys)


class Governance(_Twin):
    """``client.governance``: propose, cast ballots, see what members decided."""

    proposals = _blocking(AsyncGovernance.proposals)
    show = _blocking(AsyncGovernance.show)
    preview = _blocking(AsyncGovernance.preview)
    propose = _blocking(AsyncGovernance.propose)
    ballot = _blocking(AsyncGovernance.ballot)
    withdraw = _blocking(AsyncGovernance.withdraw)
    constitution = _blocking(AsyncGovernance.constitution)
    applications = _blocking(AsyncGovernance.applications)
    apply = _blocking(AsyncGovernance.apply)
    withdraw_application = _blocking(AsyncGovernance.withdraw_application)


class Client(_Twin):
    """A person at its institution's node. Close it, or use it as a context manager."""

    _twin: aio.Client

    def __init__(self, twin: aio.Client) -> None:
        super().__init__(twin)
        self.catalog = Catalog(twin.catalog)
        self.access = Access(twin.access)
        self.demand = Demand(twin.demand)
        self.tasks = Tasks(twin.tasks)
        self.disputes = Disputes(twin.disputes)
        self.audit = Audit(twin.audit)
        self.points = Points(twin.points)
        self.members = Members(twin.members)
        self.governance = Governance(twin.governance)

    @property
    def profile(self) -> Profile:
        """Who is asking, of which node."""
        return self._twin.profile

    status = _blocking(aio.Client.status)
    why_stalled = _blocking(aio.Client.why_stalled)
    transaction = _blocking(aio.Client.transaction)
    resend = _blocking(aio.Client.resend)
    plan = _blocking(aio.Client.plan)
    query = _blocking(aio.Client.query)
    close = _blocking(aio.Client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def connect(
    profile: Profile | str | os.PathLike[str] | None = None,
    *,
    ask_passphrase: AskPassphrase | None = None,
    write_timeout_s: float = WRITE_S,
    on_undecided: OnUndecided | None = None,
) -> Client:
    """A client for a profile: a file, the name of one, or None for $KOINON_PROFILE; else as koinon.aio.connect."""
    return Client(
        _loop.run(
            aio.connect(
                profile, ask_passphrase=ask_passphrase, write_timeout_s=write_timeout_s, on_undecided=on_undecided
            )
        )
    )
