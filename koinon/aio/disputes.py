"""Disputes over tokens and tasks: open, answer, rule."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from koinon.aio.access import Access
from koinon.aio.session import DEFAULT_LIMIT, Session, single
from koinon.aio.tasks import Tasks
from koinon.errors import InvalidInput
from koinon.files import digest
from koinon.v1.dispute_pb2 import (
    AnswerDispute,
    Dispute,
    DisputeStatus,
    OpenDispute,
    Remedy,
    RuleDispute,
    WithdrawDispute,
)
from koinon.v1.services_pb2 import ListDisputesRequest
from koinon.v1.transaction_pb2 import Operation
from koinon.words import number, numbers

Evidence = Iterable[bytes | str | os.PathLike[str]]
"""What one could show: files, or their bytes. Only digests leave this process."""


class Disputes:
    """``client.disputes``."""

    def __init__(self, session: Session, access: Access, tasks: Tasks) -> None:
        self._session = session
        self._access = access
        self._tasks = tasks

    async def open(
        self,
        *,
        claim: str,
        remedies: Collection[str],
        token: str = "",
        task: str = "",
        respondent: str = "",
        evidence: Evidence = (),
    ) -> Dispute:
        """Dispute a token or a task, by a unique beginning of its id, with the institution on its other side.

        ``remedies`` (words: refund, payout, revocation, suspension) are what is sought. ``respondent`` may be left
        out where there is only one it can be. The claim is public to members. Raises NotFound, InvalidInput, Refused.
        """
        if bool(token) == bool(task):
            raise InvalidInput("a dispute is about one token or one task", hint="name one of the two")
        opened = OpenDispute(
            claim=claim,
            evidence_digests=[digest(item) for item in evidence],
            remedies=numbers(Remedy, remedies, "remedy"),
        )
        own = self._session.profile.institution
        if token:
            found = single(await self._access.tokens(id_prefix=token, limit=2), "token", token)
            opened.token_id = found.id
            sides = {found.holder.partition("/")[0], found.dataset.partition(".")[0]}
        else:
            disputed = await self._tasks.show(task)
            opened.task_id = disputed.id
            home = disputed.asker.partition("/")[0]
            sides = set(disputed.submitted.committee) if own == home else {home}
        opened.respondent = respondent or _only(sides - {own})
        info = await self._session.submit(Operation(open_dispute=opened))
        return await self.show(info.created[0])

    async def answer(
        self, dispute_id: str, statement: str, *, evidence: Evidence = (), concede: bool = False
    ) -> Dispute:
        """Tell the respondent's side, once; or concede. The statement is public to members. Raises as ``open``."""
        dispute = await self.show(dispute_id)
        answer = AnswerDispute(
            dispute_id=dispute.id,
            statement=statement,
            evidence_digests=[digest(item) for item in evidence],
            concede=concede,
        )
        await self._session.submit(Operation(answer_dispute=answer))
        return await self.show(dispute.id)

    async def rule(self, dispute_id: str, remedies: Collection[str], reason: str) -> Dispute:
        """Rule as an arbiter: order what was sought or part of it, or nothing, which dismisses. Raises as ``open``."""
        dispute = await self.show(dispute_id)
        ordered = numbers(Remedy, remedies, "remedy")
        ruling = RuleDispute(dispute_id=dispute.id, remedies=ordered, reason=reason)
        await self._session.submit(Operation(rule_dispute=ruling))
        return await self.show(dispute.id)

    async def withdraw(self, dispute_id: str, reason: str = "") -> Dispute:
        """Let one's own claim, or one's institution's, rest. Raises as ``open``."""
        dispute = await self.show(dispute_id)
        withdrawal = WithdrawDispute(dispute_id=dispute.id, reason=reason)
        await self._session.submit(Operation(withdraw_dispute=withdrawal))
        return await self.show(dispute.id)

    async def list(
        self,
        *,
        institution: str = "",
        subject: str = "",
        status: str = "",
        id_prefix: str = "",
        limit: int = DEFAULT_LIMIT,
    ) -> Sequence[Dispute]:
        """Disputes of an institution (a side or an arbiter), over a token or task, in a state; empty means any."""
        connection = self._session.connection
        wanted = number(DisputeStatus, status, "status of a dispute")
        request = ListDisputesRequest(institution=institution, subject=subject, status=wanted, id_prefix=id_prefix)
        return await self._session.pages(connection.disputes.ListDisputes, request, lambda page: page.disputes, limit)

    async def show(self, dispute_id: str) -> Dispute:
        """One dispute, by a unique beginning of its id. Raises NotFound, InvalidInput."""
        return single(await self.list(id_prefix=dispute_id, limit=2) if dispute_id else [], "dispute", dispute_id)


def _only(sides: set[str]) -> str:
    if len(sides) != 1:
        raise InvalidInput(
            f"the other side may be any of {', '.join(sorted(sides)) or 'nobody'}",
            hint="name the one that the claim is against: --against INSTITUTION",
        )
    return sides.pop()
