"""Asking the node that runs on this home, with its own key."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import grpc

from koinon import genesis as genesis_file
from koinon import ticket
from koinon.keys import SigningKey
from koinon.names import tls_name
from koinon.v1 import services_pb2 as pb
from koinon.v1 import services_pb2_grpc
from koinon.v1.identity_pb2 import Genesis, InstitutionDescriptor
from node import listening, tls
from node.config import NodeConfig

_PATIENCE_S = 5.0
_TICKET_MS = 60_000


@dataclass(frozen=True, slots=True)
class Live:
    """What the running node says."""

    status: pb.GetStatusResponse
    stall: pb.DiagnoseStallResponse
    members: tuple[InstitutionDescriptor, ...]


def ask(config: NodeConfig, genesis: Genesis, node_key: SigningKey) -> Live | str:
    """The node's own view of itself, or why it gives none."""
    pem = config.home.certificate.read_bytes()
    expires_at_ms = time.time_ns() // 1_000_000 + _TICKET_MS
    proof = ticket.make(genesis_file.chain_id(genesis), tls.pem_to_der(pem), node_key, expires_at_ms)
    metadata = ((ticket.METADATA_KEY, proof),)
    with grpc.secure_channel(
        str(listening.dialled(config.rpc)),
        grpc.ssl_channel_credentials(pem),
        options=(
            ("grpc.ssl_target_name_override", tls_name(config.institution)),
            ("grpc.enable_http_proxy", 0),
        ),
    ) as channel:
        node = services_pb2_grpc.NodeServiceStub(channel)
        members = services_pb2_grpc.MemberServiceStub(channel)
        try:
            return Live(
                node.GetStatus(pb.GetStatusRequest(), timeout=_PATIENCE_S, metadata=metadata),
                node.DiagnoseStall(pb.DiagnoseStallRequest(), timeout=_PATIENCE_S, metadata=metadata),
                tuple(
                    item.descriptor
                    for item in members.ListInstitutions(
                        pb.ListInstitutionsRequest(), timeout=_PATIENCE_S, metadata=metadata
                    ).institutions
                ),
            )
        except grpc.RpcError as error:
            call: Any = error  # what is raised is also a grpc.Call, which its type does not say
            return str(call.details())
