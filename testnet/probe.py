"""How a node does, as seen from outside: one question over a connection that is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass

import grpc

from koinon import key_files, ticket
from koinon.names import tls_name
from koinon.profile import Profile
from koinon.v1 import services_pb2, services_pb2_grpc
from node import tls

_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class NodeState:
    """How one node does, as seen from outside."""

    institution: str
    pid: int  # 0: not running
    ready: bool  # decides blocks, and is connected to every other node that runs
    height: int
    peers: int  # connected
    problem: str  # why it is not ready; empty when it is


class Probe:
    """Asks one node how it does, as its operator."""

    def __init__(self, profile: Profile, chain_id: str) -> None:
        """``profile`` is its operator's; the key has no passphrase."""
        self._institution = profile.institution
        self._key = key_files.load_signing_key(profile.key_file)
        self._chain_id = chain_id
        pem = profile.node_certificate.encode("ascii")
        self._certificate = tls.pem_to_der(pem)
        self._channel = grpc.secure_channel(
            profile.rpc_address,
            grpc.ssl_channel_credentials(pem),
            options=(
                ("grpc.ssl_target_name_override", tls_name(profile.institution)),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 100),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ),
        )
        self._stub = services_pb2_grpc.NodeServiceStub(self._channel)

    def look(self, pid: int, others: int) -> NodeState:
        """``others`` is how many other nodes run: a ready node is connected to that many."""
        if not pid:
            return NodeState(self._institution, 0, False, 0, 0, "not running")
        try:
            status = self._ask()
        except grpc.RpcError as error:
            return NodeState(self._institution, pid, False, 0, 0, f"does not answer yet ({error.code().name})")
        peers = sum(1 for peer in status.peers if peer.connected)
        if peers < others:
            problem = f"sees {peers} of {others} others"
        elif status.syncing:
            problem = f"is catching up at height {status.height}"
        else:
            problem = "" if status.height else "has decided no block yet"
        return NodeState(self._institution, pid, not problem, status.height, peers, problem)

    def close(self) -> None:
        self._channel.close()

    def _ask(self) -> services_pb2.GetStatusResponse:
        expires_at_ms = time.time_ns() // 1_000_000 + 60_000
        proof = ticket.make(self._chain_id, self._certificate, self._key, expires_at_ms)
        return self._stub.GetStatus(
            services_pb2.GetStatusRequest(), timeout=_ANSWER_S, metadata=((ticket.METADATA_KEY, proof),)
        )
