"""A proxy on loopback between cpstage and AWS, through which a test makes the network fail.

It hands on the bytes of requests and answers as they are, since requests are signed: their Host is
the proxy's, and what checks the signature has to see that. What goes wrong is in `faults`, with
which requests in `fault_plans`; everything else gets through.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from werkzeug.test import create_environ

from cpstage.local.access import Request as LocalRequest
from cpstage.local.backend import s3_operation
from fault_connection import Connection, Exchange, Sockets
from fault_plans import Plan, Rule, Rules
from faults import Request

if TYPE_CHECKING:
    from http_messages import Head


class FaultProxy:
    """Listens while it is used as a context manager.

    Args:
        upstream: The URL of what answers.
        plan: What goes wrong; nothing where none is given.

    Attributes:
        connections: How many connections clients have made.
    """

    def __init__(self, upstream: str, plan: Plan | Sequence[Rule] = ()) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname
        self._upstream = (parts.hostname, parts.port or 80)
        self._plan = Rules(plan) if isinstance(plan, Sequence) else plan
        self._exchanges: list[Exchange] = []
        self._sockets = Sockets()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def log(self) -> list[Exchange]:
        """Every request so far, in the order in which they came."""
        with self._lock:
            return list(self._exchanges)

    @property
    def operations(self) -> list[str]:
        """The names of the requests so far."""
        return [exchange.request.operation for exchange in self.log]

    @property
    def stalled(self) -> threading.Event:
        """Is set when a fault has made a connection stall."""
        return self._sockets.stalled

    def release(self) -> None:
        """Let go on what is stalled, and stall no more."""
        self._sockets.release()

    def __enter__(self) -> FaultProxy:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._start(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.closing.set()
        with socket.create_connection(self._listener.getsockname()):
            self._threads[0].join()  # it is woken by that
        self._listener.close()
        self._sockets.end_all()
        for thread in self._threads:
            thread.join()
        self._sockets.close(self._sockets.released)

    def _listen(self) -> None:
        while not self._sockets.closing.is_set():
            sock, _ = self._listener.accept()
            self.connections += 1
            connection = Connection(sock, self._upstream, self._arrived, self._sockets)
            self._start(connection.serve)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name="fault-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _arrived(self, head: Head) -> Exchange:
        """Note a request, and what the plan has for it."""
        request = _understand(head)
        with self._lock:
            exchange = Exchange(request, self._plan.choose(request))
            self._exchanges.append(exchange)
        return exchange


def _understand(head: Head) -> Request:
    method, target, _ = head.first_line
    path, _, query = target.partition("?")
    _, is_json, operation = head.headers.get("x-amz-target", "").partition(".")
    environ = create_environ(method=method, headers=head.headers)
    environ |= {"RAW_URI": target, "QUERY_STRING": query}
    s3 = s3_operation(LocalRequest(environ, populate_request=False))
    return Request(
        method=method,
        path=path,
        query=query,
        operation=operation or s3.operation,
        key="" if is_json else s3.key or "",
        byte_range=head.headers.get("range"),
        is_json=bool(is_json),
    )
