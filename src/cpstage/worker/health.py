"""The health of a job worker, and the page and the document that show it.

A worker is healthy while its loop turns and its polls are answered; single errors do not count, but
polls that have failed for too long.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from cpstage.errors import ConfigurationError, printable

DEFAULT_PATIENCE = 300.0
"""Seconds for which polling may fail before the worker counts as unwell."""

_STANDSTILL = 150.0
"""Seconds in which the loop of a worker turns at least once, also when AWS does not answer."""


class WorkerHealth:
    """The health of a worker; safe to use in several threads.

    Args:
        patience: Seconds for which polling may fail.
    """

    def __init__(self, patience: float = DEFAULT_PATIENCE) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._alive = time.monotonic()
        self._failing: float | None = None
        self._failure: str | None = None
        self._last_poll: str | None = None
        self._problem: str | None = None
        self._facts: dict[str, Any] = {}

    def polled(self) -> None:
        """Note a poll that was answered."""
        with self._lock:
            self._failing = self._failure = None
            self._last_poll = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def poll_failed(self, message: str, seconds: float = 0.0) -> bool:
        """Note why a poll was not answered, after how many seconds; return if it is a first."""
        with self._lock:
            is_first = self._failing is None
            if is_first:
                self._failing = time.monotonic() - seconds
            self._failure = message
            return is_first

    def problem(self, message: str | None) -> bool:
        """Note why no job can be worked on, or None if jobs can be; return whether it is new."""
        with self._lock:
            is_new = (message is None) != (self._problem is None)
            self._problem = message
            return is_new

    def beat(self, **facts: Any) -> None:
        """Note that the loop turns, and facts for the report."""
        with self._lock:
            self._alive = time.monotonic()
            self._facts = facts

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the worker is well, and the document that says it."""
        with self._lock:
            now = time.monotonic()
            failing = 0.0 if self._failing is None else now - self._failing
            turns = now - self._alive <= _STANDSTILL
            well = self._problem is None and failing <= self._patience and turns
            return well, {
                "healthy": well,
                **self._facts,
                "last_poll": self._last_poll,
                "failing_seconds": round(failing, 1),
                "problem": self._problem or self._failure,
            }


@contextmanager
def health_page(health: WorkerHealth, host: str, port: int) -> Iterator[int]:
    """Answer ``GET /healthz`` with 200 while the worker is healthy, and 503 while it is not.

    Args:
        health: The worker's health.
        host: The address to listen on.
        port: The port; 0 for a free one.

    Yields:
        The port.

    Raises:
        ConfigurationError: The port is not available.
    """
    try:
        server = _HealthServer((host, port), health)
    except (OSError, TypeError, UnicodeError) as error:  # what the socket says of a bad host name
        why = getattr(error, "strerror", None) or "the host name is malformed"
        raise ConfigurationError(
            f"cannot listen on {printable(host)} port {port}: {why}",
            hint="give another --health-port or --health-host",
        ) from error
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _HealthServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], health: WorkerHealth) -> None:
        self.health = health
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _HealthHandler)

    def server_bind(self) -> None:
        """Bind, and do not ask for the name of the host as an HTTPServer does: it may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnected."""


class _HealthHandler(BaseHTTPRequestHandler):
    server: _HealthServer
    server_version = "cpstage"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        """Answer with the worker's health, at its one address."""
        if self.path.partition("?")[0] == "/healthz":
            is_well, document = self.server.health.report()
            status = 200 if is_well else 503
        else:
            status, document = 404, {"message": "ask for /healthz"}
        body = health_body(document)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: stderr is the worker's log."""


def health_body(document: Mapping[str, Any]) -> bytes:
    """Return the document about a worker's health as the page and the file have it."""
    return json.dumps(document).encode() + b"\n"
