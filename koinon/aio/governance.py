"""Governance: propose, cast ballots, see what members decided and by which rules."""

from __future__ import annotations

from koinon.aio.session import DEFAULT_LIMIT, Session, single
from koinon.errors import NotFound
from koinon.v1.governance_pb2 import (
    APPLICATION_STATUS_OPEN,
    Application,
    ApplicationStatus,
    ApplyForMembership,
    CastBallot,
    Choice,
    GovernanceProposal,
    ProposalStatus,
    Propose,
    WithdrawApplication,
    WithdrawProposal,
)
from koinon.v1.identity_pb2 import InstitutionDescriptor
from koinon.v1.services_pb2 import (
    GetConstitutionRequest,
    GetConstitutionResponse,
    ListApplicationsRequest,
    ListProposalsRequest,
    PreviewProposalRequest,
    PreviewProposalResponse,
)
from koinon.v1.transaction_pb2 import Operation
from koinon.words import number


class Governance:
    """``client.governance``. Proposals are made with koinon.proposals, or as messages of governance.proto."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def proposals(
        self, *, status: str = "", id_prefix: str = "", limit: int = DEFAULT_LIMIT
    ) -> list[GovernanceProposal]:
        """Proposals in a state (empty: any), newest first, with their ballots."""
        connection = self._session.connection
        wanted = number(ProposalStatus, status, "status of a proposal")
        request = ListProposalsRequest(status=wanted, id_prefix=id_prefix)
        return await self._session.pages(
            connection.governance.ListProposals, request, lambda page: page.proposals, limit
        )

    async def show(self, proposal_id: str) -> GovernanceProposal:
        """One proposal, by its id or a unique beginning. Raises NotFound, InvalidInput."""
        found = await self.proposals(id_prefix=proposal_id, limit=2) if proposal_id else []
        return single(found, "proposal", proposal_id)

    async def preview(self, proposal: Propose) -> PreviewProposalResponse:
        """What would change if the proposal were accepted now, or why it would fail; who decides, until when.

        Nothing is sent to the ledger. Raises InvalidInput, NotFound.
        """
        connection = self._session.connection
        request = PreviewProposalRequest(proposal=await self._complete(proposal))
        return await connection.call(connection.governance.PreviewProposal, request)

    async def propose(self, proposal: Propose) -> GovernanceProposal:
        """Propose to the members; an admission without a descriptor takes the open application's. Operators only.

        Raises InvalidInput, NotFound, Refused.
        """
        info = await self._session.submit(Operation(propose=await self._complete(proposal)))
        return await self.show(info.created[0])

    async def ballot(self, proposal_id: str, choice: str, reason: str = "") -> GovernanceProposal:
        """Cast one's institution's ballot (yes, no, abstain), or replace it. Operators only. Raises as ``propose``."""
        proposal = await self.show(proposal_id)
        ballot = CastBallot(proposal_id=proposal.id, choice=number(Choice, choice, "choice"), reason=reason)
        await self._session.submit(Operation(cast_ballot=ballot))
        return await self.show(proposal.id)

    async def withdraw(self, proposal_id: str, reason: str) -> GovernanceProposal:
        """Take a proposal of one's own institution back. Raises as ``propose``."""
        proposal = await self.show(proposal_id)
        await self._session.submit(
            Operation(withdraw_proposal=WithdrawProposal(proposal_id=proposal.id, reason=reason))
        )
        return await self.show(proposal.id)

    async def constitution(self) -> GetConstitutionResponse:
        """The rules in force: constitution, ballot weights, parameters, protocol."""
        connection = self._session.connection
        return await connection.call(connection.governance.GetConstitution, GetConstitutionRequest())

    async def applications(
        self, *, status: str = "", institution: str = "", limit: int = DEFAULT_LIMIT
    ) -> list[Application]:
        """Applications for membership in a state, or of one institution (empty: any), ascending by institution."""
        connection = self._session.connection
        wanted = number(ApplicationStatus, status, "status of an application")
        request = ListApplicationsRequest(status=wanted, institution=institution)
        return await self._session.pages(
            connection.governance.ListApplications, request, lambda page: page.applications, limit
        )

    async def apply(self, descriptor: InstitutionDescriptor, motivation: str) -> Application:
        """Hand in a would-be member's descriptor, as its sponsor. Operators only. Raises as ``propose``."""
        apply = ApplyForMembership(descriptor=descriptor, motivation=motivation)
        await self._session.submit(Operation(apply_for_membership=apply))
        return await self._application(descriptor.id)

    async def withdraw_application(self, institution: str, reason: str) -> Application:
        """Take back an application that one's own institution sponsors. Raises as ``propose``."""
        withdraw = WithdrawApplication(institution=institution, reason=reason)
        await self._session.submit(Operation(withdraw_application=withdraw))
        return await self._application(institution)

    async def _application(self, institution: str) -> Application:
        for application in await self.applications(institution=institution):
            return application
        raise NotFound(f"{institution} has not applied", hint="koinon member applications lists who has")

    async def _complete(self, proposal: Propose) -> Propose:
        """The proposal, with descriptors of those who applied: what members decide on names every key."""
        complete = Propose()
        complete.CopyFrom(proposal)
        for action in complete.actions:
            if action.HasField("admit") and not action.admit.HasField("descriptor"):
                application = await self._application(action.admit.institution)
                if application.status != APPLICATION_STATUS_OPEN:
                    raise NotFound(
                        f"{action.admit.institution} has no open application",
                        hint="give its descriptor's file, or let it be handed in with koinon member apply",
                    )
                action.admit.descriptor.CopyFrom(application.descriptor)
        return complete
