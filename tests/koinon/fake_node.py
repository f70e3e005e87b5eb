"""A node to test clients against: real TLS, real tickets and signatures, scripted answers.

Its transactions are verified as a node would, then decided by ``decide``; everything else answers what a test put into
``answers``: a response, an exception, or a function of the request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from koinon import envelope, genesis, key_files, ticket
from koinon.errors import KoinonError
from koinon.keys import SealingKey, SigningKey
from koinon.rpc import GO_AHEAD_KEY, HINT_KEY, RULE_KEY
from koinon.v1 import services_pb2 as services
from koinon.v1.identity_pb2 import InstitutionDescriptor, Person, Role
from koinon.v1.transaction_pb2 import Refusal, TransactionBody, TransactionStatus
from node import tls
from tests.koinon import header_chain

CLIENT_STREAMING = {"DatasetService/StageDataset"}
SERVER_STREAMING = {"EventService/Subscribe"}

Decide = Callable[[bytes, TransactionBody], services.TransactionInfo]


def committed(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
    """Commits everything."""
    return services.TransactionInfo(
        transaction_id=transaction_id,
        status=TransactionStatus.TRANSACTION_STATUS_COMMITTED,
        height=7,
        created=[f"{index:032x}" for index, _ in enumerate(body.operations, 1)],
    )


def rejected(rule: str, message: str, hint: str = "") -> Decide:
    """Rejects everything for the same reason."""

    def decide(transaction_id: bytes, body: TransactionBody) -> services.TransactionInfo:
        return services.TransactionInfo(
            transaction_id=transaction_id,
            status=TransactionStatus.TRANSACTION_STATUS_REJECTED,
            refusal=Refusal(rule=rule, message=message, hint=hint),
        )

    return decide


class FakeNode(grpc.GenericRpcHandler):
    """One institution, ``um``, with one person, ``um/analyst``, whose profile is ``profile``."""

    def __init__(self, directory: Path) -> None:
        self.answers: dict[str, Any] = {}
        self.decide: Decide = committed
        self.received: list[TransactionBody] = []
        self.submissions = 0
        self.node_key = SigningKey.generate()
        self.person_key = SigningKey.generate()
        self._decided: dict[bytes, services.TransactionInfo] = {}
        self._lock = threading.Lock()
        identity = tls.create_identity("um")
        self.certificate = tls.pem_to_der(identity.certificate)
        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[self])
        credentials = grpc.ssl_server_credentials([(identity.key, identity.certificate)])
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.chain_id = self._write_files(directory, identity.certificate)
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.stop(None).wait()

    def _write_files(self, directory: Path, certificate: bytes) -> str:
        descriptor = InstitutionDescriptor(
            id="um",
            title="University of Michigan",
            validator_key=header_chain.key("um").public_key,
            node_key=self.node_key.public_key,
            sealing_key=SealingKey.generate().public_key,
            tls_certificate=self.certificate,
            peer_address="127.0.0.1:7401",
            rpc_address=f"127.0.0.1:{self.port}",
            mpc_address="127.0.0.1:7402",
            power=1,
            people=[Person(id="um/analyst", public_key=self.person_key.public_key, roles=[Role.ROLE_OPERATOR])],
        )
        self.genesis = genesis.join("test", 1_700_000_000_000, [descriptor])
        genesis.save(directory / "genesis.json", self.genesis)
        key_files.save(directory / "analyst.key", self.person_key, None)
        (directory / "certificate.pem").write_bytes(certificate)
        self.profile = directory / "analyst.toml"
        self.profile.write_text(
            'institution = "um"\nperson = "um/analyst"\nkey_file = "analyst.key"\n'
            f'rpc_address = "127.0.0.1:{self.port}"\nnode_certificate = "certificate.pem"\ngenesis = "genesis.json"\n'
        )
        return genesis.chain_id(self.genesis)

    # --- serving

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = str(handler_call_details.method).removeprefix("/koinon.v1.")
        name = method.partition("/")[2]
        request_type: type[Message] = getattr(services, f"{name}Request")

        def encode(message: Message) -> bytes:
            return message.SerializeToString()

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                self._authenticate(context)
                if method in CLIENT_STREAMING and callable(self.answers[method]):
                    context.send_initial_metadata(((GO_AHEAD_KEY, "1"),))
                return self._answer(method, request)
            except KoinonError as error:
                self._abort(context, error)
                raise

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            self._authenticate(context)
            try:
                yield from self._answer(method, request)
            except KoinonError as error:
                self._abort(context, error)

        if method in CLIENT_STREAMING:
            return grpc.stream_unary_rpc_method_handler(unary, request_type.FromString, encode)
        if method in SERVER_STREAMING:
            return grpc.unary_stream_rpc_method_handler(stream, request_type.FromString, encode)
        return grpc.unary_unary_rpc_method_handler(unary, request_type.FromString, encode)

    def _authenticate(self, context: grpc.ServicerContext) -> None:
        sent = dict(context.invocation_metadata())[ticket.METADATA_KEY]
        key = ticket.verify(self.chain_id, self.certificate, bytes(sent), time.time_ns() // 1_000_000)  # type: ignore[arg-type]
        assert key == self.person_key.public_key

    def _answer(self, method: str, request: Any) -> Any:
        if method in self.answers:
            answer = self.answers[method]
            answer = answer(request) if callable(answer) else answer
            if isinstance(answer, Exception):
                raise answer
            return answer
        if method == "TransactionService/Submit":
            infos = [self._submit(data) for data in request.envelopes]
            return services.SubmitResponse(transactions=infos)
        if method == "TransactionService/GetTransactions":
            return services.GetTransactionsResponse(transactions=[self._status(i) for i in request.transaction_ids])
        raise AssertionError(f"no answer for {method}")

    def _submit(self, data: bytes) -> services.TransactionInfo:
        signed = envelope.verify(self.chain_id, data)
        with self._lock:
            self.submissions += 1
            if signed.id not in self._decided:
                self.received.append(signed.body)
                self._decided[signed.id] = self.decide(signed.id, signed.body)
            return self._decided[signed.id]

    def _status(self, transaction_id: bytes) -> services.TransactionInfo:
        unknown = TransactionStatus.TRANSACTION_STATUS_UNKNOWN
        with self._lock:
            return self._decided.get(transaction_id) or services.TransactionInfo(
                transaction_id=transaction_id, status=unknown
            )

    @staticmethod
    def _abort(context: grpc.ServicerContext, error: KoinonError) -> None:
        context.set_trailing_metadata(((RULE_KEY, error.rule.encode()), (HINT_KEY, error.hint.encode())))
        context.abort(grpc.StatusCode[error.status], error.message)
