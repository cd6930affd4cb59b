"""HTTP/1.1 on the loopback, for one function from request to reply.

werkzeug reads the requests; connections stay open between them, as boto3 expects of AWS, which
werkzeug's own loop does not offer. It knows nothing of AWS.
"""

from __future__ import annotations

import http
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler

from cpstage.local.wire import Reply, Request

LOOPBACK = "127.0.0.1"


class _Handler(MotoRequestHandler):
    """Reads each request to its end before it is answered, so that the next can follow."""

    protocol_version = "HTTP/1.1"
    server_version = "cpstage-local"
    # The reply goes out at once, not when the client has acknowledged the one before.
    disable_nagle_algorithm = True
    # werkzeug names its own server class; this one has all that the handler uses of it.
    server: _Server  # type: ignore[assignment]

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        body = self._read_body(environ)
        reply = self.server.answer(Request.from_environ(environ, body))
        has_body = reply.status >= 200 and reply.status not in (204, 304)
        headers = [h for h in reply.headers if h[0].lower() not in ("connection", "content-length")]
        length = str(len(reply.body))
        if self.command == "HEAD":
            length = reply.header("content-length") or "0"
        self.send_response(reply.status, http.HTTPStatus(reply.status).phrase)
        for name, value in headers:
            self.send_header(name, value)
        if has_body:
            self.send_header("Content-Length", length)
        self.end_headers()
        if has_body and self.command != "HEAD":
            self.wfile.write(reply.body)

    def _read_body(self, environ: dict[str, Any]) -> bytes:
        stream = environ["wsgi.input"]
        if environ.get("wsgi.input_terminated"):
            return bytes(stream.read())
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = bytes(stream.read(length))
        if len(body) < length:
            raise ConnectionAbortedError("the client went away in the middle of a body")
        return body

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: the record tells more."""


class _Server(socketserver.ThreadingTCPServer):
    """Keeps track of open connections, so that stopping ends them too."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    # What werkzeug's handler asks of its server.
    multithread = True
    multiprocess = False
    ssl_context = None

    def __init__(self, port: int, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self._connections: set[socket.socket] = set()
        super().__init__((LOOPBACK, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away; show anything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def end_connections(self) -> None:
        """Cut every open connection."""
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # It ended by itself meanwhile.
                continue


class LoopbackServer:
    """A server in a thread of its own, on 127.0.0.1 and nowhere else.

    Args:
        port: The port; 0 for a free one.
        answer: Answers each request; called in many threads at once.
    """

    def __init__(self, port: int, answer: Callable[[Request], Reply]) -> None:
        self._server = _Server(port, answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening, and cut the open connections."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.end_connections()
