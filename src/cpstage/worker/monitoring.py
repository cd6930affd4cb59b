"""The health of a worker, in a file or on an HTTP page, and its events.

A worker is healthy while its loop turns and its polls are answered; single errors do not count, but
polls that have failed for too long. An event for each change of state holds no secret.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from cpstage.errors import ConfigurationError, CpstageError, printable
from cpstage.filesystem.files import replaced_file

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


class HealthFile:
    """A file with the worker's health; its mtime is when the loop last turned.

    It is replaced atomically, and removed when the worker ends.

    Raises:
        WorkspaceUnavailable, LocalIOError: It cannot be written.
    """

    def __init__(self, path: Path, health: WorkerHealth) -> None:
        self._path = path
        self._health = health
        self._write()

    def write(self) -> None:
        """Write it again; a full disk shows in the file's age."""
        with suppress(CpstageError):
            self._write()

    def remove(self) -> None:
        """Remove it, where it is still there."""
        with suppress(OSError):
            self._path.unlink()

    def _write(self) -> None:
        with replaced_file(self._path, mode=0o644) as file:
            file.write(_body(self._health.report()[1]))


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
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"cannot listen on {printable(host)} port {port}: {why}",
            hint="give another --health-port or --health-host",
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
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
        body = _body(document)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: stderr is the worker's log."""


def _body(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Subject:
    """The job that an event is about, and where in which pipeline it runs."""

    job_id: str
    pipeline: str | None = None
    stage: str | None = None
    action: str | None = None


@dataclass(frozen=True)
class WorkerEvent:
    """One change of state.

    Attributes:
        name: What happened: of the worker ``polling``, ``health``, ``poll-failed``, ``unwell``,
            ``well``, ``left``, ``draining`` or ``stopped``; of a job ``dropped``, or ``claimed``,
            ``started``, ``warning``, ``reported`` or ``report-failed``, and ``succeeded`` or
            ``failed``.
        about: The job.
        seconds: How long it took.
        exit_code: Of the job's process.
        workspace: What is kept of it.
        message: More about it, for people.
        time: When, in UTC.
    """

    name: str
    about: Subject | None = None
    seconds: float | None = None
    exit_code: int | None = None
    workspace: str | None = None
    message: str | None = None
    time: str = field(default_factory=_now)

    def members(self) -> dict[str, Any]:
        """Return the members that have a value, in a fixed order."""
        found = {
            "time": self.time,
            "event": self.name,
            **(vars(self.about) if self.about else {}),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "exit_code": self.exit_code,
            "workspace": self.workspace,
            "message": self.message,
        }
        return {name: value for name, value in found.items() if value is not None}

    def text(self) -> str:
        """Return it as a line for a person: the time, the event, and the rest by name."""
        members = self.members()
        head = f"{members.pop('time')} {members.pop('event')}"
        message = members.pop("message", "")
        rest = " ".join(f"{name}={value}" for name, value in members.items())
        return printable(" ".join(filter(None, (head, rest, message))))


Tell = Callable[[WorkerEvent], object]


def described(job_id: str, document: Mapping[str, Any]) -> Subject:
    """Describe a job by its document, which is not validated yet."""

    def name(*path: str) -> str | None:
        found: Any = document
        for member in ("data", "pipelineContext", *path):
            found = found.get(member) if isinstance(found, dict) else None
        return found if isinstance(found, str) else None

    return Subject(job_id, name("pipelineName"), name("stage", "name"), name("action", "name"))
