"""GovernanceService: proposals with their ballots, the rules in force, applications; and what a proposal would do."""

from __future__ import annotations

from typing import Any

from grpc import aio

from governance import constitution
from koinon.errors import InvalidInput
from koinon.v1 import governance_pb2, services_pb2, services_pb2_grpc
from node.application import Application
from node.rpc.bounds import page_size

Context = aio.ServicerContext[Any, Any]


class GovernanceService(services_pb2_grpc.GovernanceServiceServicer):
    """Answers from the ledger itself; deciding is done by transactions."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def ListProposals(
        self, request: services_pb2.ListProposalsRequest, context: Context
    ) -> services_pb2.ListProposalsResponse:
        found = [
            proposal
            for proposal in self._application.proposals()
            if request.status in (0, proposal.status) and proposal.id.startswith(request.id_prefix)
        ]
        start, size = _start(found, request.page_token), page_size(request.page_size)
        page = found[start : start + size]
        return services_pb2.ListProposalsResponse(
            proposals=page,
            next_page_token=page[-1].id if start + size < len(found) else "",
            members=self._members(),
        )

    async def PreviewProposal(
        self, request: services_pb2.PreviewProposalRequest, context: Context
    ) -> services_pb2.PreviewProposalResponse:
        constitution.validate(request.proposal)
        policy = constitution.policy_for(self._application.constitution(), request.proposal)
        effects, refusal = self._application.preview(request.proposal)
        return services_pb2.PreviewProposalResponse(
            effects=effects,
            refusal=refusal,
            policy=policy,
            closes_at_ms=self._application.time_ms + policy.voting_period_ms,
            members=self._members(),
        )

    async def GetConstitution(
        self, request: services_pb2.GetConstitutionRequest, context: Context
    ) -> services_pb2.GetConstitutionResponse:
        application = self._application
        return services_pb2.GetConstitutionResponse(
            constitution=application.constitution(),
            digest=application.constitution_digest(),
            members=self._members(),
            parameters=application.parameters(),
            protocol=application.protocol(),
        )

    async def ListApplications(
        self, request: services_pb2.ListApplicationsRequest, context: Context
    ) -> services_pb2.ListApplicationsResponse:
        found = self._application.applications()
        return services_pb2.ListApplicationsResponse(
            applications=[each for each in found if request.status in (0, each.status)]
        )

    def _members(self) -> list[services_pb2.MemberStanding]:
        return [
            services_pb2.MemberStanding(institution=institution, weight=weight)
            for institution, weight in self._application.ballot_weights().items()
        ]


def _start(found: list[governance_pb2.GovernanceProposal], page_token: str) -> int:
    """Where a page begins: after the proposal that ended the one before. Raises InvalidInput."""
    if not page_token:
        return 0
    for index, proposal in enumerate(found):
        if proposal.id == page_token:
            return index + 1
    raise InvalidInput("the page token is not one this node gave out", hint="start again from the first page")
