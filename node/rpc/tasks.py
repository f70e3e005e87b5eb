"""QueryService and TaskService: what a query would do, and how those that were submitted fare."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from grpc import aio

from koinon.errors import NotFound, PermissionRefused, Refused, Unavailable
from koinon.names import DatasetName, PersonId, TableName
from koinon.v1 import services_pb2, services_pb2_grpc
from koinon.v1.access_pb2 import Token, TokenStatus
from koinon.v1.catalog_pb2 import Dataset, DatasetStatus
from koinon.v1.identity_pb2 import MemberStatus, Parameters
from koinon.v1.session_pb2 import SealedOutput
from koinon.v1.task_pb2 import Task, TaskStatus
from node.application import Application
from node.auth import caller
from node.changes import Changes
from node.peers import Peers
from node.read_model import ReadModel
from node.rpc.bounds import page_size, wait_ms
from node.rpc.points import explained

Context = aio.ServicerContext[Any, Any]


class QueryService(services_pb2_grpc.QueryServiceServicer):
    """Plans for the caller, with the caller's tokens. Nothing is written and nothing reserved."""

    def __init__(self, application: Application, read_model: ReadModel, institution: str, peers: Peers) -> None:
        self._application = application
        self._read_model = read_model
        self._institution = institution
        self._peers = peers

    async def PlanQuery(
        self, request: services_pb2.PlanQueryRequest, context: Context
    ) -> services_pb2.PlanQueryResponse:
        # Hostile SQL may take a while to parse and compile: consensus must not wait for it.
        named = await asyncio.to_thread(_named_table, request.sql)
        asker = PersonId.parse(caller().person)
        candidates = self._candidates(named, asker)
        response = await asyncio.to_thread(
            _compile, request, candidates, self._available(), asker.institution, self._application.parameters()
        )
        terms = self._application.terms(response.task, str(asker), self._application.time_ms)
        if terms.sources:
            response.terms.CopyFrom(terms)
            response.payouts.extend(explained(terms))
        return response

    def _available(self) -> list[str]:
        """Who could compute now. Helpers are taken from here, so that a node that is down is not asked to."""
        connected = {peer.institution for peer in self._peers.status() if peer.connected} | {self._institution}
        return [
            item.descriptor.id
            for item in self._application.institutions()
            if item.status == MemberStatus.MEMBER_STATUS_ACTIVE and item.descriptor.id in connected
        ]

    def _candidates(self, named: DatasetName | TableName, holder: PersonId) -> list[tuple[Dataset, list[Token]]]:
        """The datasets behind a query's table with the holder's tokens for each, the best first.

        A table named without institution means every institution's, as far as the holder was ever granted a
        token. Where all those have ended the last one is given, and refused by name: a query must not
        silently cover fewer institutions than it did the day before.
        """
        if isinstance(named, DatasetName):
            datasets = [self._application.dataset(str(named))]
        else:
            datasets = [
                dataset
                for dataset in self._application.datasets_of_table(named)
                if dataset.status == DatasetStatus.DATASET_STATUS_PUBLISHED
            ]
            if not datasets:
                raise NotFound(f"no institution publishes {named}", hint="koinon catalog search lists what exists")
        found = []
        for dataset in datasets:
            name = dataset.published.name
            if tokens := self._application.active_tokens(holder, name) or self._last_token(holder, name):
                found.append((dataset, tokens))
        return found

    def _last_token(self, holder: PersonId, dataset: str) -> list[Token]:
        """The holder's newest token for a dataset, which has ended. Raises Refused when it is used up."""
        tokens, _ = self._read_model.tokens(holder=str(holder), dataset=dataset, page_size=1)
        if tokens and tokens[0].status == TokenStatus.TOKEN_STATUS_USED_UP:
            raise Refused(
                f"token {tokens[0].id} for {dataset} is used up ({tokens[0].uses_granted} of {tokens[0].uses_granted})",
                rule="token-used-up",
                hint=f"koinon access request {dataset} asks for a new one",
            )
        return tokens


def _named_table(sql: str) -> DatasetName | TableName:
    from mpc.sql import referenced_table  # late, as below: the SQL parser is slow to import, and a node starts often

    return referenced_table(sql)


def _compile(
    request: services_pb2.PlanQueryRequest,
    candidates: list[tuple[Dataset, list[Token]]],
    members: list[str],
    asker: str,
    parameters: Parameters,
) -> services_pb2.PlanQueryResponse:
    """The plan, with the first token for each dataset that covers the query; if none does, the last says why.

    Raises as compile_plan; Refused with rule ``token-purpose`` when no purpose is stated and the tokens leave a choice.
    """
    from mpc.plan import Source, compile_plan, plan_hash, task_for

    shared = _shared_purposes(candidates)
    purpose = request.purpose or (shared[0] if len(shared) == 1 else "")
    compile_with = partial(
        compile_plan,
        request.sql,
        members=members,
        asker=asker,
        purpose=purpose,
        min_committee=parameters.min_committee,
        max_committee=parameters.max_committee,
    )
    sources = []
    for dataset, tokens in candidates:
        *alternatives, chosen = tokens
        for token in alternatives:
            try:
                compile_with([Source(dataset, token)])
            except Refused as error:
                if error.rule in ("token-columns", "token-operations", "token-purpose"):
                    continue
            chosen = token
            break
        sources.append(Source(dataset, chosen))
    plan = compile_with(sources)
    if not purpose:
        raise Refused(
            "the tokens for the query do not say for which one purpose it is",
            rule="token-purpose",
            hint=f"state one with --purpose: {'; '.join(shared)}"
            if shared
            else "ask for access to all its datasets for one purpose, in the same words",
        )
    return services_pb2.PlanQueryResponse(plan=plan, plan_hash=plan_hash(plan), task=task_for(plan, purpose))


def _shared_purposes(candidates: list[tuple[Dataset, list[Token]]]) -> list[str]:
    """What the query could be for: purposes for which there is a token for each of its datasets. Ascending."""
    granted = [{purpose for token in tokens for purpose in token.purposes} for _, tokens in candidates]
    return sorted(set.intersection(*granted)) if granted else []


class TaskService(services_pb2_grpc.TaskServiceServicer):
    """Tasks are the members' common knowledge; their outputs are sealed to whoever asked."""

    def __init__(
        self,
        application: Application,
        read_model: ReadModel,
        institution: str,
        peers: Peers,
        own_output: Callable[[str], SealedOutput | None],
        changes: Changes,
    ) -> None:
        self._application = application
        self._read_model = read_model
        self._institution = institution
        self._peers = peers
        self._own_output = own_output
        self._changes = changes

    async def GetTask(self, request: services_pb2.GetTaskRequest, context: Context) -> services_pb2.GetTaskResponse:
        task_id = self._read_model.task_id(request.id)
        if request.unless:
            await self._changes.until(
                lambda: self._application.task(task_id).status != request.unless, wait_ms(request.wait_ms)
            )
        return services_pb2.GetTaskResponse(task=self._application.task(task_id))

    async def ListTasks(
        self, request: services_pb2.ListTasksRequest, context: Context
    ) -> services_pb2.ListTasksResponse:
        tasks, next_page_token = self._read_model.tasks(
            asker=request.asker,
            institution=request.institution,
            status=request.status,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return services_pb2.ListTasksResponse(tasks=tasks, next_page_token=next_page_token)

    async def FetchOutputs(
        self, request: services_pb2.FetchOutputsRequest, context: Context
    ) -> services_pb2.FetchOutputsResponse:
        task = self._application.task(request.task_id)
        if task.asker != caller().person:
            raise PermissionRefused(
                f"task {task.id} was asked by {task.asker}",
                hint="only the asker can open its outputs, and fetches them",
            )
        if task.status != TaskStatus.TASK_STATUS_COMPLETED:
            raise Refused(
                f"task {task.id} is {TaskStatus.Name(task.status).removeprefix('TASK_STATUS_').lower()}",
                rule="wrong-state",
                hint="outputs exist once the task is completed",
            )
        outputs = await asyncio.gather(*(self._fetch(task, party.institution) for party in task.parties))
        return services_pb2.FetchOutputsResponse(outputs=[output for output in outputs if output is not None])

    async def _fetch(self, task: Task, institution: str) -> SealedOutput | None:
        """One party's output; None where it cannot be had, for enough others may suffice."""
        if institution == self._institution:
            return self._own_output(task.id)
        try:
            return await self._peers.fetch_output(institution, task.id)
        except (NotFound, Unavailable):
            return None
