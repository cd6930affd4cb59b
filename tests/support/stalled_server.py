"""A server on loopback that does what AWS does on a bad day: it stops half way, or says nothing."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20


class StallingServer(ThreadingHTTPServer):
    """Tells when a request has come that it will not answer to the end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stalled = threading.Event()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StallingServer

    def do_HEAD(self) -> None:
        """Answer as S3 does for an object of 50 MiB."""
        self._headers(200, 50 * MIB)

    def do_GET(self) -> None:
        """Send the headers and half of the body, and stop; of a short one say nothing."""
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        length = int(last) - int(first) + 1
        if length > KIB:
            self._headers(206, length)
            self.wfile.write(b"PK\x03\x04" + bytes(length // 2))
        self._stall()

    def do_POST(self) -> None:
        """Say nothing."""
        self._stall()

    def do_PUT(self) -> None:
        """Say nothing."""
        self._stall()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _headers(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"etag"')
        self.end_headers()

    def _stall(self) -> None:
        self.server.stalled.set()
        self.server.released.wait()
        self.close_connection = True


@contextmanager
def stalling_server() -> Iterator[StallingServer]:
    with StallingServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
