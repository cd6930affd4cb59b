"""A job worker: poll, acknowledge, run, report, until stopped.

:meth:`Worker.work` runs the loop in its thread. Each job has a process, and a thread that waits for
it. The loop reads one queue, which the threads and the signal handlers write to.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from cpstage.errors import CpstageError, ServiceUnavailable, UsageError
from cpstage.filesystem.files import replaced_file
from cpstage.worker.claims import JobQueue, Offer, Pace, Poller, Tell, WorkerEvent, described
from cpstage.worker.health import WorkerHealth, health_body
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
        self._note_health()
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
        self._poller.stop()
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
        if self._signals:
            return
        self._health.polled()
        self._has_polled = True
        claimed = [self._claim(offer) for offer in offers if not self._signals]
        wait = self._pace.found_jobs() if any(claimed) else self._pace.found_nothing()
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
        self._note_health()
        with suppress(CpstageError):  # a full disk shows in the file's age
            self._write_health()

    def _note_health(self) -> None:
        status = "polling" if self._wants_jobs() else "working"
        if not self._may_claim():
            status = "draining"
        self._health.beat(status=status, running=len(self._jobs), **vars(self.counts))

    def _write_health(self) -> None:
        if self._health_file:
            with replaced_file(self._health_file, mode=0o644) as file:
                file.write(health_body(self._health.report()[1]))

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
