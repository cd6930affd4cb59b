"""HTTP/1.1 on the loopback address, for one function from request to reply.

werkzeug's server listens and reads the requests. Its request handler closes the connection after
every answer; the handler here keeps the connection open, as AWS does and boto3 expects.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.exceptions import ClientDisconnected
from werkzeug.serving import ThreadedWSGIServer
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Response
from werkzeug.wsgi import get_input_stream

from cpstage.local.wire import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LOOPBACK = "127.0.0.1"


class _Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "cpstage-local"
    # The reply goes out at once, not when the client has acknowledged the one before.
    disable_nagle_algorithm = True

    def handle(self) -> None:
        # A request that the client has cut off is dropped without a word.
        with suppress(ClientDisconnected, OSError):
            super().handle()

    def run_wsgi(self) -> None:
        body, status, headers = run_wsgi_app(self.server.app, self.make_environ(), buffered=True)
        code, _, phrase = status.partition(" ")
        self.send_response(int(code), phrase)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.writelines(body)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing: the record of calls says more."""


class LoopbackServer(ThreadedWSGIServer):
    """A server in a thread of its own, on 127.0.0.1 only.

    Args:
        port: The port; 0 for a free one.
        answer: Answers each request; called in many threads at once.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, port: int, answer: Callable[[Request], Reply]) -> None:
        def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            # The whole body is read, so that the next request can follow.
            reply = answer(Request.from_environ(environ, get_input_stream(environ).read()))
            # As a list, the body leaves the Content-Length of an answer to HEAD alone.
            return Response([reply.body], reply.status, list(reply.headers))(environ, start)

        self._connections: WeakSet[socket.socket] = WeakSet()
        with socket.socket() as listening:
            # werkzeug would exit the process if the port is taken.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((LOOPBACK, port))
            listening.listen(self.request_queue_size)
            super().__init__(LOOPBACK, port, application, _Handler, fd=listening.fileno())
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, and handle its requests in a new thread."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def stop(self) -> None:
        """Stop listening, and cut the open connections."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with suppress(OSError):  # the connection has just ended
                connection.shutdown(socket.SHUT_RDWR)
