"""A server on loopback that quotes every request in its answer: what a proxy may do to debug."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message

Form = Literal["json", "xml", "text"]


@contextmanager
def echoing_server(status: int, form: Form) -> Iterator[str]:
    """Answer with a status and all that was asked, and give the URL to ask at."""

    def answer(asked: Asked) -> tuple[int, bytes]:
        return status, _worded(f"{asked.line} {asked.headers!s} {asked.body!r}", form)

    with worded_server(answer) as url:
        yield url


class Asked(NamedTuple):
    """A request."""

    line: str
    headers: Message
    body: bytes


@contextmanager
def worded_server(answer: Callable[[Asked], tuple[int, bytes]]) -> Iterator[str]:
    """Answer each request with a status and a body, and give the URL to ask at."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answer(Asked(self.requestline, self.headers, asked))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 (the base class's names)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _worded(said: str, form: Form) -> bytes:
    """Word an error as the JSON services do, as S3 does, or as nobody does."""
    if form == "json":
        return json.dumps({"__type": "Echo", "message": said}).encode()
    if form == "xml":
        return f"<Error><Code>Echo</Code><Message>{escape(said)}</Message></Error>".encode()
    return said.encode()
