"""An HTTP proxy on loopback: absolute URLs, CONNECT, and a login."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from certificates import hand_on
from http_messages import Head, Stream, answer_body, read_head, request_body

if TYPE_CHECKING:
    from collections.abc import Iterator

FORBIDDEN = b"HTTP/1.1 407 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Proxy:
    """What came to a proxy.

    Attributes:
        url: Where it is, without a login.
        heads: The heads of the requests.
        login: The Proxy-Authorization that it wants, if any.
    """

    url: str
    login: str | None = None
    heads: list[Head] = field(default_factory=list)

    @property
    def targets(self) -> list[str]:
        return [" ".join(head.first_line[:2]) for head in self.heads]


@contextmanager
def proxy_server(login: str | None = None) -> Iterator[Proxy]:
    """Serve; with a login, those only who have it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    proxy = Proxy(f"127.0.0.1:{listener.getsockname()[1]}", login)

    def listen() -> None:
        with suppress(OSError):  # it is closed in the end
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client:
            stream = Stream(client)
            while (head := read_head(stream)) is not None:
                proxy.heads.append(head)
                if proxy.login not in (None, head.headers.get("proxy-authorization")):
                    quoted = head.headers.get("proxy-authorization", "who are you")
                    stream.send(FORBIDDEN % quoted.encode())
                    return
                if head.first_line[0] == "CONNECT":
                    _tunnel(stream, head.first_line[1])
                    return
                _forward(stream, head)

    with listener:
        threading.Thread(target=listen, daemon=True).start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts


def _tunnel(client: Stream, authority: str) -> None:
    host, _, port = authority.rpartition(":")
    with socket.create_connection((host, int(port))) as upstream:
        client.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        hand_on(client.sock, upstream)


def _forward(client: Stream, head: Head) -> None:
    """Pass on a request for an absolute URL, and its answer."""
    url = urlsplit(head.first_line[1])
    with socket.create_connection((url.hostname or "", url.port or 80)) as sock:
        upstream = Stream(sock)
        origin = f"{url.scheme}://{url.netloc}".encode()
        upstream.send(head.raw.replace(origin, b"", 1))
        for piece in request_body(client, head):
            upstream.send(piece)
        answer = read_head(upstream)
        assert answer is not None
        client.send(answer.raw)
        for piece in answer_body(upstream, answer, head.first_line[0]):
            client.send(piece)
