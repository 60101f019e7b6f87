"""Plain HTTP for the kubelet and Prometheus, in threads: answers even if the loop is stuck."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_common.port import listening_host

TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: bytes
    content_type: str = TEXT


Routes = Mapping[str, Callable[[], Answer]]


class Endpoint:
    """Serves GET of the routes on HOST:PORT until closed.

    Raises InvalidInputError for a malformed address, UnavailableError if it cannot be bound.
    """

    def __init__(self, address: str, routes: Routes) -> None:
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            raise InvalidInputError(f"{address!r} is not HOST:PORT")
        try:
            host = listening_host(host)
            server = _DualStackServer if ":" in host else _Server
            self._server = server((host, int(port)), _handler(routes))
        except OSError as error:
            raise UnavailableError(f"cannot listen on {address}: {error.strerror}") from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name=address, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # An open connection must not delay the process's exit.
    block_on_close = False


class _DualStackServer(_Server):
    address_family = socket.AF_INET6


def _handler(routes: Routes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_SECONDS

        def do_GET(self) -> None:
            route = routes.get(self.path.partition("?")[0])
            answer = Answer(404, b"not found\n") if route is None else route()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing: probes come every few seconds."""

    return Handler
