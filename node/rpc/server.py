"""The client port itself: TLS with the node's pinned certificate, the gate, and every service behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from koinon.limits import (
    HANDSHAKE_MS,
    IDLE_MS,
    MAX_CONNECTIONS,
    MAX_RPC_MESSAGE_BYTES,
    MAX_STREAMS,
    MAX_UNREAD,
    RPC_KEEPALIVE_MS,
)
from koinon.v1 import services_pb2, services_pb2_grpc
from node import tls
from node.auth import Gate
from node.config import Address
from node.rpc.meter import Meter

ADD: Mapping[str, Callable[[Any, aio.Server], None]] = {
    "NodeService": services_pb2_grpc.add_NodeServiceServicer_to_server,
    "TransactionService": services_pb2_grpc.add_TransactionServiceServicer_to_server,
    "MemberService": services_pb2_grpc.add_MemberServiceServicer_to_server,
    "CatalogService": services_pb2_grpc.add_CatalogServiceServicer_to_server,
    "DatasetService": services_pb2_grpc.add_DatasetServiceServicer_to_server,
    "AccessService": services_pb2_grpc.add_AccessServiceServicer_to_server,
    "GovernanceService": services_pb2_grpc.add_GovernanceServiceServicer_to_server,
    "DemandService": services_pb2_grpc.add_DemandServiceServicer_to_server,
    "DisputeService": services_pb2_grpc.add_DisputeServiceServicer_to_server,
    "QueryService": services_pb2_grpc.add_QueryServiceServicer_to_server,
    "TaskService": services_pb2_grpc.add_TaskServiceServicer_to_server,
    "PointsService": services_pb2_grpc.add_PointsServiceServicer_to_server,
    "AuditService": services_pb2_grpc.add_AuditServiceServicer_to_server,
    "EventService": services_pb2_grpc.add_EventServiceServicer_to_server,
}
"""How each service of services.proto is added to a server."""


class RpcServer:
    """Listens for clients from ``start`` to ``stop``."""

    def __init__(self, identity: tls.Identity, gate: Gate, meter: Meter, services: Mapping[str, object]) -> None:
        """``services`` are servicers by the names of ``ADD``."""
        self._identity = identity
        self._gate = gate
        self._meter = meter
        self._services = services
        self._health = health.aio.HealthServicer()
        self._server: aio.Server | None = None

    async def start(self, listen: Address) -> None:
        """Raises RuntimeError when the port cannot be bound."""
        server = aio.server(
            interceptors=(self._meter, self._gate),
            maximum_concurrent_rpcs=MAX_UNREAD,
            options=(
                ("grpc.max_receive_message_length", MAX_RPC_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_RPC_MESSAGE_BYTES),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", RPC_KEEPALIVE_MS // 2),
                ("grpc.so_reuseport", 0),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.max_connection_idle_ms", IDLE_MS),
                ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
            ),
        )
        for name, servicer in self._services.items():
            ADD[name](servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*self._names(), health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        pair = (self._identity.key, self._identity.certificate)
        server.add_secure_port(str(listen), grpc.ssl_server_credentials([pair]))
        await self.set_serving(False)
        await server.start()
        self._server = server

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers: SERVING while the node follows the ledger."""
        status = health_pb2.HealthCheckResponse
        for name in ("", *self._names()):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Answer no new calls; those under way get so long to end."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    def _names(self) -> list[str]:
        file = services_pb2.DESCRIPTOR
        return [file.services_by_name[name].full_name for name in self._services]
