"""A claimed job on its way to its end: a fresh workspace, its process, and the clearing up.

The process of the job reports by itself. Where it could not, because it was killed or never
started, that is done here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from cpstage.aws.config import AwsConfig
from cpstage.aws.job_result import report_failure
from cpstage.errors import (
    CommandFailed,
    InternalError,
    LocalIOError,
    Reportable,
    Stopped,
    reportable,
)
from cpstage.filesystem.removal import remove_tree
from cpstage.filesystem.tree import local_failures
from cpstage.job import parse_job
from cpstage.runner.command import TIMED_OUT
from cpstage.runner.signals import signal_name
from cpstage.worker.claims import Claim
from cpstage.worker.monitoring import Tell, WorkerEvent, described
from cpstage.worker.process import JobCommand, JobProcess, Outcome
from cpstage.workspace.layout import Workspace
from cpstage.workspace.leftovers import (
    left_workspaces,
    locked_workspace,
    note_ending,
    remove_secrets,
)

_PROBE_BYTES = 64 << 10
_LEAST_FREE_BYTES = 1 << 20
"""Bytes on the disk below which a worker claims no job."""

Keep = Literal["failed", "always", "never"]
Output = Literal["file", "stdout"]


@dataclass(frozen=True)
class JobPlaces:
    """Where the workspaces of jobs are.

    Attributes:
        root: The directory that each job has its own in, named by its id; made (0700) where it is
            missing.
        keep: Of which jobs the workspace stays.
        output: Where the output of jobs goes: ``.cpstage/output.log`` in the workspace, or the
            worker's stdout.
    """

    root: Path
    keep: Keep = "failed"
    output: Output = "file"

    def create(self) -> None:
        """Make the root.

        Raises:
            WorkspaceUnavailable, LocalIOError: It cannot be made.
        """
        Workspace(self.root).create()

    def check(self) -> None:
        """Check that the root can be written to, and has room.

        Raises:
            WorkspaceUnavailable, LocalIOError: It cannot, or has not: no job would succeed.
        """
        root = self.root.resolve()
        with local_failures(root, "write to"):
            with tempfile.TemporaryFile(dir=root) as probe:
                probe.write(bytes(_PROBE_BYTES))
                probe.flush()
            free = shutil.disk_usage(root).free
        if free < _LEAST_FREE_BYTES:
            raise LocalIOError(
                f"the disk of {root} has {free:,} bytes left, and jobs need {_LEAST_FREE_BYTES:,}",
                hint="free some space, or give another --workspace-root",
            )

    def sweep(self) -> Iterator[tuple[Path, list[str]]]:
        """Remove workspaces of killed workers whose jobs ended well, and yield the others, once."""
        return left_workspaces(self.root.resolve(), keeps_success=self.keeps(True))

    def keeps(self, succeeded: bool) -> bool:
        """Whether the workspace of a job stays."""
        return self.keep == "always" or (self.keep == "failed" and not succeeded)


@dataclass(frozen=True)
class Ending:
    """The end of a job."""

    job_id: str
    succeeded: bool


class WorkingJob:
    """A job that is being worked on.

    Args:
        claim: The job.
        command: What is done with it.
        places: Where its workspace is to be.
        config: How to reach AWS, to report what its process could not.
        tell: Is told each change of its state.
    """

    def __init__(
        self,
        claim: Claim,
        command: JobCommand,
        places: JobPlaces,
        config: AwsConfig,
        tell: Tell,
    ) -> None:
        self._claim = claim
        self._command = command
        self._places = places
        self._config = config
        self._tell = tell
        self._about = described(claim.job_id, claim.document)
        self._began = time.monotonic()
        self._workspace = places.root.resolve() / claim.job_id
        self._process: JobProcess | None = None
        self._has_workspace = False
        self._stops = 0
        self._stopping = threading.RLock()  # a signal may come while it is held

    def start(self, ended: Callable[[Ending], object]) -> None:
        """Work on it in a thread.

        Args:
            ended: Is called at the end, whatever it is.
        """
        self._event("claimed")
        thread = threading.Thread(target=self._work, args=(ended,), name=self._claim.job_id)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more of them
            self._conclude(
                self._report(
                    LocalIOError(
                        "the worker can start no more threads", hint="give a smaller --concurrency"
                    )
                )
            )
            ended(Ending(self._claim.job_id, succeeded=False))

    def stop(self) -> None:
        """Stop it; twice, kill its command; three times, kill everything at once.

        May be called in a signal handler.
        """
        with self._stopping:
            self._stops += 1
            if self._process:
                self._process.kill() if self._stops > 2 else self._process.stop()

    def _work(self, ended: Callable[[Ending], object]) -> None:
        outcome = Outcome(InternalError.exit_code)
        try:
            try:
                outcome = self._run()
            except (Reportable, Exception) as error:  # whatever it is, it is this job's
                outcome = self._report(reportable(error))
            self._conclude(outcome)
        finally:
            ended(Ending(self._claim.job_id, outcome.exit_code == 0))

    def _run(self) -> Outcome:
        """Give the job a workspace and a process, and return what that says of it.

        Raises:
            ConfigurationError: The job document is malformed.
            Stopped: A signal ended the process, which could not report any more.
            InternalError: It ended without a word.
            WorkspaceUnavailable, LocalIOError: The workspace cannot be made.
        """
        claim = self._claim
        parse_job(claim.document)
        state = self._workspace / ".cpstage"
        with local_failures(self._workspace, "create"):
            self._workspace.mkdir(mode=0o700)
            self._has_workspace = True
            state.mkdir(mode=0o700)
        with (
            locked_workspace(self._workspace) as lock,
            self._output(state / "output.log") as output,
        ):
            process = JobProcess(self._workspace, output, lock)
            with self._stopping:
                self._process = process
                if self._stops:  # before there was anything to stop
                    process.stop()
            self._event("started")
            outcome = process.work_on(claim, self._command, self._config)
        if isinstance(outcome, Outcome):
            return outcome
        process.kill()  # what it has left
        if process.is_overdue:
            raise CommandFailed(
                "the job took longer than it may, and did not end when it was asked to",
                TIMED_OUT,
                hint="see --timeout",
            )
        if outcome < 0:
            raise Stopped(-outcome, signal_name(-outcome))
        raise InternalError("the process of the job ended without a word")

    @contextmanager
    def _output(self, file: Path) -> Iterator[BinaryIO | None]:
        if self._places.output == "stdout":
            yield None
            return
        with local_failures(file):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            yield output

    def _report(self, error: Reportable) -> Outcome:
        """Report the job as failed: its process has not done so."""
        outcome = Outcome(error.exit_code, error.failure_type, str(error))
        try:
            report_failure(
                self._claim.job_id,
                str(error),
                failure_type=error.failure_type,
                client_token=self._claim.client_token,
                config=self._config,
            )
        except (Reportable, Exception) as failure:  # the job has to come to its end all the same
            return replace(outcome, unreported=str(reportable(failure)))
        return outcome

    def _conclude(self, outcome: Outcome) -> None:
        """Clear up, and say how it went."""
        succeeded = outcome.exit_code == 0
        kept = self._has_workspace and self._places.keeps(succeeded)
        if kept:
            note_ending(self._workspace, succeeded=succeeded, kept=True)
        left: list[str] = []
        if self._has_workspace:
            left = remove_secrets(self._workspace) if kept else remove_tree(self._workspace)
        warnings = [*outcome.warnings, *(f"cannot remove {one}" for one in left)]
        for warning in warnings:
            self._event("warning", message=warning)
        if outcome.unreported is None:
            self._event("reported", message=outcome.failure_type or "Succeeded")
        else:
            self._event("report-failed", message=outcome.unreported)
        self._event(
            "succeeded" if succeeded else "failed",
            seconds=time.monotonic() - self._began,
            exit_code=outcome.exit_code,
            workspace=str(self._workspace) if kept else None,
            message=outcome.message,
        )

    def _event(self, name: str, **members: Any) -> None:
        self._tell(WorkerEvent(name, self._about, **members))
