"""A server on loopback that does with each connection what a script says, byte for byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from http_messages import Head, Stream, read_head, request_body

Script = Callable[["Visit"], object]


@dataclass
class Visit:
    """One connection, from the server's side."""

    stream: Stream
    heads: list[Head]

    def hear(self) -> bytes:
        """Read a request to its end, and return its body."""
        head = read_head(self.stream)
        if head is None:
            raise ConnectionError("nothing was asked")
        self.heads.append(head)
        return b"".join(request_body(self.stream, head))

    def say(self, *answers: bytes) -> None:
        """Answer a request each."""
        for answer in answers:
            self.hear()
            self.stream.send(answer)


@dataclass
class Server:
    """What came to the server.

    Attributes:
        url: Where it is.
        heads: Of every request.
        gone: One for each script; is set when its connection is closed.
    """

    url: str
    heads: list[Head] = field(default_factory=list)
    gone: list[threading.Event] = field(default_factory=list)


def says(*answers: bytes) -> Script:
    """Answer so many requests of one connection, and close it."""
    return lambda visit: visit.say(*answers)


@contextmanager
def scripted_server(*scripts: Script) -> Iterator[Server]:
    """Run a script for each connection, the last one for all that come after."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.gone.extend(threading.Event() for _ in scripts)

    def listen() -> None:
        number = 0
        with suppress(OSError):  # it is closed in the end
            while True:
                client, _ = listener.accept()
                at = min(number, len(scripts) - 1)
                arguments = (client, scripts[at], server.gone[at])
                threading.Thread(target=serve, args=arguments, daemon=True).start()
                number += 1

    def serve(client: socket.socket, script: Script, gone: threading.Event) -> None:
        with suppress(OSError), client:
            script(Visit(Stream(client), server.heads))
        gone.set()

    with listener:
        threading.Thread(target=listen, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
