"""What the client port offers."""

from __future__ import annotations

from collections.abc import Callable

from koinon.v1.session_pb2 import SealedOutput
from node.application import Application
from node.changes import Changes
from node.datasets import DatasetStore
from node.peers import Peers
from node.pool import Pool
from node.read_model import ReadModel
from node.receipts import Receipts
from node.report import Report
from node.rpc.access import AccessService
from node.rpc.audit import AuditService
from node.rpc.catalog import CatalogService, DatasetService
from node.rpc.demand import DemandService
from node.rpc.disputes import DisputeService
from node.rpc.events import EventService
from node.rpc.governance import GovernanceService
from node.rpc.members import MemberService, NodeService
from node.rpc.points import PointsService
from node.rpc.tasks import QueryService, TaskService
from node.rpc.trail import Trail
from node.rpc.transactions import TransactionService


def services(
    institution: str,
    *,
    application: Application,
    read_model: ReadModel,
    report: Report,
    pool: Pool,
    peers: Peers,
    datasets: DatasetStore,
    receipts: Receipts,
    changes: Changes,
    sealed_output: Callable[[str], SealedOutput | None],
) -> dict[str, object]:
    """Every service of one institution's node, by the names of services.proto."""
    visible = Trail(application, read_model)
    return {
        "NodeService": NodeService(report),
        "TransactionService": TransactionService(pool, application, changes),
        "MemberService": MemberService(application),
        "CatalogService": CatalogService(application, read_model),
        "DatasetService": DatasetService(institution, application, datasets),
        "AccessService": AccessService(read_model),
        "DemandService": DemandService(read_model),
        "DisputeService": DisputeService(read_model),
        "GovernanceService": GovernanceService(application, read_model),
        "QueryService": QueryService(application, read_model, institution, peers),
        "TaskService": TaskService(application, read_model, institution, peers, sealed_output, changes),
        "PointsService": PointsService(application, read_model),
        "AuditService": AuditService(
            application,
            read_model,
            visible,
            receipts,
            changes,
        ),
        "EventService": EventService(read_model, visible, changes),
    }
