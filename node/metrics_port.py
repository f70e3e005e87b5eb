"""The HTTP port of the metrics: one thread, one request at a time, nothing but GET /metrics.

It knows no authentication, and says who the members are and how much they do: bind it to this machine, or to a
network of your monitoring's own.
"""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from node.config import Address

_PATIENCE_S = 2.0  # for one request: who is slower loses its turn
_POLL_S = 0.1  # how soon a wish to stop is noticed
_WAITING = 8  # connections, beside the one served


class MetricsPort:
    """Serves until ``stop``."""

    def __init__(self, listen: Address, registry: CollectorRegistry) -> None:
        """Listen and serve. Raises OSError when the port cannot be bound."""
        self._server = _server(listen, registry)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when no request is being served any more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _server(listen: Address, registry: CollectorRegistry) -> HTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            body = generate_latest(registry)
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE_LATEST)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Who asked what is no event of this node."""

    class Server(HTTPServer):
        address_family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        request_queue_size = _WAITING

        def handle_error(self, *_: object) -> None:
            """A client that went away is no event either."""

    return Server((listen.host.strip("[]"), listen.port), Handler)
