"""GovernanceService: proposals with their ballots, the rules in force, applications; and what a proposal would do."""

from __future__ import annotations

from typing import Any

from grpc import aio

from governance import constitution
from koinon.v1 import services_pb2, services_pb2_grpc
from node.application import Application
from node.read_model import ReadModel
from node.rpc.bounds import page_size

Context = aio.ServicerContext[Any, Any]


class GovernanceService(services_pb2_grpc.GovernanceServiceServicer):
    """Lists from the read model, all else from the ledger itself; deciding is done by transactions."""

    def __init__(self, application: Application, read_model: ReadModel) -> None:
        self._application = application
        self._read_model = read_model

    async def ListProposals(
        self, request: services_pb2.ListProposalsRequest, context: Context
    ) -> services_pb2.ListProposalsResponse:
        proposals, next_page_token = self._read_model.proposals(
            status=request.status,
            id_prefix=request.id_prefix,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return services_pb2.ListProposalsResponse(
            proposals=proposals, next_page_token=next_page_token, members=self._members()
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
        applications, next_page_token = self._read_model.applications(
            status=request.status,
            institution=request.institution,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return services_pb2.ListApplicationsResponse(applications=applications, next_page_token=next_page_token)

    def _members(self) -> list[services_pb2.MemberStanding]:
        return [
            services_pb2.MemberStanding(institution=institution, weight=weight)
            for institution, weight in self._application.ballot_weights().items()
        ]
