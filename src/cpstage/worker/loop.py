"""A job worker: poll, acknowledge, run, report, until stopped.

:meth:`Worker.work` runs the loop in its thread. Each job has a process, and a thread that waits for
it. The loop reads one queue, which the threads and the signal handlers write to.

A worker is healthy while its loop turns and its polls are answered; single errors do not count, but
polls that have failed for too long. A file or an HTTP page shows its health.
"""

from __future__ import annotations

import json
import math
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from socketserver import TCPServer
from typing import Any

from cpstage.errors import (
    ConfigurationError,
    CpstageError,
    ServiceUnavailable,
    UsageError,
    printable,
)
from cpstage.filesystem.files import replaced_file
from cpstage.worker.claims import JobQueue, Offer, Pace, Poller, Tell, WorkerEvent, described
from cpstage.worker.job import JobCommand, JobPlaces, WorkingJob

DEFAULT_INTERVAL = 10.0
"""Seconds between two polls that find nothing, on average."""

DEFAULT_GRACE = 30.0
"""Seconds that a stopped job has to end by itself, and then again to report that it was killed."""

_LONGEST_TURN = 30.0
"""Seconds after which the loop says that it is alive, however rarely it polls."""


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works.

    Attributes:
        concurrency: How many jobs at the same time.
        batch: How many jobs a poll brings at most; as many as are free to be worked on, if None.
        most: How many jobs in all; None for no end.
        once: Poll once only.
        interval: Seconds between two polls that find nothing, on average.
        grace: Seconds that a stopped job has to end by itself.
        drain: Seconds that running jobs have after the first signal, before they are stopped; None
            waits for them.
    """

    concurrency: int = 1
    batch: int | None = None
    most: int | None = None
    once: bool = False
    interval: float = DEFAULT_INTERVAL
    grace: float = DEFAULT_GRACE
    drain: float | None = None


@dataclass
class Counts:
    """Counts of the jobs so far."""

    claimed: int = 0
    dropped: int = 0
    succeeded: int = 0
    failed: int = 0
    left: int = 0


class Worker:
    """Works on the jobs of a queue.

    Args:
        queue: The queue of the jobs.
        command: The command for each job.
        places: Where their workspaces are, and what is kept of them.
        options: How many jobs, and how often to poll.
        health: The health of the worker, which is updated.
        health_file: Is replaced whenever the loop turns, and removed at the end.
        tell: Is called with each change of state, from several threads.

    Raises:
        UsageError: The queue's config has a boto3 session.
        WorkspaceUnavailable, LocalIOError: The health file cannot be written.
    """

    def __init__(
        self,
        queue: JobQueue,
        command: JobCommand,
        places: JobPlaces,
        *,
        options: WorkerOptions | None = None,
        health: WorkerHealth | None = None,
        health_file: Path | None = None,
        tell: Tell = lambda _: None,
    ) -> None:
        if queue.config.given_session is not None:
            raise UsageError(
                "a boto3 session cannot be handed to the processes of a worker's jobs",
                hint="give the connection a profile and a region instead of a session",
            )
        self._queue = queue
        self._command = command
        self._places = places
        self._options = options or WorkerOptions()
        self._health = health or WorkerHealth()
        self._health_file = health_file
        self._tell = tell
        self._pace = Pace(self._options.interval)
        self._mail: SimpleQueue[WorkingJob | None] = SimpleQueue()
        self._jobs: dict[str, WorkingJob] = {}
        self._signals = 0
        self._next_poll = time.monotonic()
        self._has_polled = False
        self._has_told = False
        self._next_stop = math.inf
        self._poller = Poller(queue)
        self.counts = Counts()
        self._write_health()

    @property
    def was_stopped(self) -> bool:
        """Whether the running jobs were stopped, and not only waited for."""
        return self._signals > 1

    def stop(self) -> None:
        """Claim nothing new, and end with the jobs that run; a second time, stop them as well.

        May be called in a signal handler.
        """
        self._signals += 1
        self._mail.put(None)
        if self._signals > 1:
            self._next_stop = time.monotonic() + self._options.grace
            # At once, also where the loop waits for an answer of AWS.
            for job in [*self._jobs.values()]:
                job.stop()

    def work(self) -> None:
        """Work until stopped, or until no more jobs are to be claimed.

        Raises:
            AccessDenied, ConfigurationError: The first poll was refused, as others would be.
            WorkspaceUnavailable, LocalIOError: The directory of the workspaces cannot be made.
        """
        self._places.create()
        self._tell(WorkerEvent("polling", message=str(self._queue.action_type)))
        for workspace, left in self._places.sweep():
            self.counts.left += 1
            why = "; ".join(left) or "a worker that was killed left the workspace of this job"
            about = described(workspace.name)
            self._tell(WorkerEvent("left", about, workspace=str(workspace), message=why))
        try:
            while not self._is_done():
                if self._wants_jobs() and time.monotonic() >= self._next_poll:
                    self._poll()
                self._beat()
                if not self._is_done():
                    self._wait()
                self._tell_of_signals()
            self._tell_of_signals()  # of one that came before the first turn
        finally:
            self._abandon()
            if self._health_file:
                with suppress(OSError):
                    self._health_file.unlink()
        ended = f"{self.counts.succeeded} succeeded, {self.counts.failed} failed"
        self._tell(WorkerEvent("stopped", message=ended))

    def _is_done(self) -> bool:
        return not self._jobs and not self._may_claim()

    def _may_claim(self) -> bool:
        options = self._options
        enough = options.most is not None and self.counts.claimed >= options.most
        return not (self._signals or enough or (options.once and self._has_polled))

    def _wants_jobs(self) -> bool:
        return self._may_claim() and len(self._jobs) < self._options.concurrency

    def _poll(self) -> None:
        """Ask for jobs, and claim what comes; settle when to ask again."""
        if not self._has_room():
            return
        options = self._options
        most = min(
            options.concurrency - len(self._jobs),
            sys.maxsize if options.batch is None else options.batch,
            sys.maxsize if options.most is None else options.most - self.counts.claimed,
        )
        began = time.monotonic()
        try:
            offers = self._poller.poll(most)
        except CpstageError as error:
            self._poll_failed(error, time.monotonic() - began)
            return
        self._health.polled()
        self._has_polled = True
        claimed = [self._claim(offer) for offer in offers if not self._signals]
        wait = 0.0 if any(claimed) else self._pace.found_nothing()
        self._next_poll = time.monotonic() + wait

    def _has_room(self) -> bool:
        """Whether jobs can be worked on; where not, health says why, and nothing is claimed."""
        try:
            self._places.check()
        except CpstageError as error:
            if self._options.once:
                raise
            if self._health.problem(str(error)):
                self._tell(WorkerEvent("unwell", message=str(error)))
            self._next_poll = time.monotonic() + self._pace.failed()
            return False
        if self._health.problem(None):
            self._tell(WorkerEvent("well"))
        return True

    def _poll_failed(self, error: CpstageError, seconds: float) -> None:
        """Go on where the error may pass; a refusal of the first poll is a configuration error."""
        may_pass = isinstance(error, ServiceUnavailable) or self._has_polled
        if not may_pass or self._options.once:
            raise error
        if self._health.poll_failed(str(error), seconds):
            self._tell(WorkerEvent("poll-failed", message=str(error)))
        self._next_poll = time.monotonic() + self._pace.failed()

    def _claim(self, offer: Offer) -> bool:
        try:
            claim = self._queue.claim(offer)
        except CpstageError as error:
            self.counts.dropped += 1
            about = described(offer.job_id, offer.document)
            self._tell(WorkerEvent("dropped", about, message=str(error)))
            return False
        self.counts.claimed += 1
        job = WorkingJob(claim, self._command, self._places, self._queue.config, self._tell)
        was_stopped = self.was_stopped
        self._jobs[claim.job_id] = job
        job.start(self._mail.put)
        if was_stopped:  # while the claim was on its way
            job.stop()
        return True

    def _beat(self) -> None:
        status = "polling" if self._wants_jobs() else "working"
        if not self._may_claim():
            status = "draining"
        self._health.beat(status=status, running=len(self._jobs), **vars(self.counts))
        with suppress(CpstageError):  # a full disk shows in the file's age
            self._write_health()

    def _write_health(self) -> None:
        if self._health_file:
            with replaced_file(self._health_file, mode=0o644) as file:
                file.write(_body(self._health.report()[1]))

    def _tell_of_signals(self) -> None:
        """Say once that there was a first one; a handler could not."""
        if self._signals and not self._has_told:
            self._has_told = True
            self._tell(WorkerEvent("draining", message=f"{len(self._jobs)} running"))
            if self._options.drain is not None:
                self._next_stop = time.monotonic() + self._options.drain
                if self.was_stopped:  # by a second signal, which came meanwhile
                    self._next_stop = time.monotonic() + self._options.grace

    def _wait(self) -> None:
        """Wait for mail, or until there is something to do without."""
        now = time.monotonic()
        until = min(now + min(self._options.interval, _LONGEST_TURN), self._next_stop)
        if self._wants_jobs():
            until = min(until, self._next_poll)
        with suppress(Empty):
            self._receive(self._mail.get(timeout=max(0.0, until - now)))
        if time.monotonic() >= self._next_stop:
            self.stop()  # the drain time is over, or jobs that were stopped have not ended

    def _receive(self, job: WorkingJob | None) -> None:
        """Count a job that has ended; None only wakes the loop."""
        if job:
            self._jobs.pop(job.job_id)
            self.counts.succeeded += job.succeeded
            self.counts.failed += not job.succeeded

    def _abandon(self) -> None:
        """Stop what still runs when an error ended the loop."""
        for job in self._jobs.values():
            job.stop()
        while self._jobs:
            self._receive(self._mail.get())


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
