"""A claimed job of a worker: its workspace, its process, and the removal of both.

The process calls :func:`cpstage.run`, which reports the result. The order, the job's secrets
included, goes to the process through a pipe, and the outcome comes back through another. Neither is
in an argument, an environment variable or a file. Where the process could not report, because it
was killed or never started, the worker does.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cpstage._posix import make_no_core_file, reuse_freed_memory
from cpstage.aws.codepipeline import report_failure
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.errors import (
    CommandFailed,
    FailureType,
    InternalError,
    LocalIOError,
    Reportable,
    local_failures,
    reportable,
)
from cpstage.filesystem.removal import remove_tree
from cpstage.job import parse_job
from cpstage.job.model import secret
from cpstage.job.result import Details
from cpstage.runner.command import TIMED_OUT, CommandOptions, words_of
from cpstage.runner.run import run
from cpstage.runner.signals import KILL_AFTER, adopt_orphans, processes, stopped_by
from cpstage.transfer.options import FetchOptions, PushOptions
from cpstage.worker.claims import Claim, Tell, WorkerEvent, described
from cpstage.workspace.layout import Workspace
from cpstage.workspace.lock import left_workspaces, lock_new_directory, note_ending, remove_secrets

_PROGRAM = "import sys; from cpstage.worker.job import main; main(*map(int, sys.argv[1:]))"

_BEGINS, _ENDS = b"<", b">"
"""Bytes that the process of a job writes when its command begins and ends."""

_SPARE_SECONDS = 30.0
"""After the deadline that the process of a job itself has for its command."""

_TURN_MILLISECONDS = 1000

_STDOUT = 1
"""Python has no stdout where it is closed; the descriptor is open in any case."""

_NOT_FOR_THE_JOB = ("CPSTAGE_JOB_ID", "CPSTAGE_CLIENT_TOKEN", "CPSTAGE_WORKSPACE")
"""Variables of the worker that a command would take for its job's."""

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
        """Make the root; raise WorkspaceUnavailable or LocalIOError if it cannot be made."""
        Workspace(self.root).create()

    def check(self) -> None:
        """Check that the root can be written to, and has room: else no job would succeed.

        Raises:
            WorkspaceUnavailable, LocalIOError: It cannot be written to, or has no room.
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
class JobCommand:
    """The arguments of :func:`cpstage.run` for every job.

    Raises:
        UsageError: The command is empty.
    """

    command: Sequence[str]
    fetch_options: FetchOptions = field(default_factory=FetchOptions)
    options: CommandOptions = field(default_factory=CommandOptions)
    push_options: PushOptions = field(default_factory=PushOptions)
    report: Details = field(default_factory=Details)
    credentials_max_age: float = DEFAULT_MAX_AGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", words_of(self.command))


@dataclass(frozen=True)
class _Order:
    """The order for a process; it goes through a pipe, with the secrets in plain."""

    document: Mapping[str, Any] = field(repr=False)
    client_token: str | None = field(repr=False)
    command: JobCommand
    workspace: Path
    config: AwsConfig


@dataclass(frozen=True)
class _Outcome:
    """The outcome of a job, from its process; ``exit_code`` is that of ``cpstage run``."""

    exit_code: int
    failure_type: FailureType | None = None
    message: str | None = None
    unreported: str | None = None  # why the result could not be put
    warnings: tuple[str, ...] = ()


class WorkingJob:
    """A job that is being worked on; ``config`` is to report what its process could not."""

    def __init__(
        self, claim: Claim, command: JobCommand, places: JobPlaces, config: AwsConfig, tell: Tell
    ) -> None:
        self.job_id = claim.job_id
        self.succeeded = False
        self._claim = claim
        self._command = command
        self._places = places
        self._config = config
        self._tell = tell
        self._about = described(claim.job_id, claim.document)
        self._began = time.monotonic()
        self._workspace = places.root.resolve() / claim.job_id
        self._process: _JobProcess | None = None
        self._has_workspace = False
        self._stops = 0
        self._stopping = threading.RLock()  # a signal may come while it is held

    def start(self, ended: Callable[[WorkingJob], object]) -> None:
        """Work on it in a thread, and call a function at the end, also after a failure."""
        self._event("claimed")
        thread = threading.Thread(target=self._work, args=(ended,), name=self.job_id)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more of them
            why, hint = "the worker can start no more threads", "give a smaller --concurrency"
            self._conclude(self._report(LocalIOError(why, hint=hint)))
            ended(self)

    def stop(self) -> None:
        """Stop it; twice, kill its command; three times, kill everything at once.

        May be called in a signal handler.
        """
        with self._stopping:
            self._stops += 1
            if self._process:
                self._process.kill() if self._stops > 2 else self._process.stop()

    def _work(self, ended: Callable[[WorkingJob], object]) -> None:
        try:
            try:
                outcome = self._run()
            except (Reportable, Exception) as error:
                outcome = self._report(reportable(error))
            self._conclude(outcome)
        finally:
            ended(self)

    def _run(self) -> _Outcome:
        """Give the job a workspace and a process, and return the outcome."""
        parse_job(self._claim.document)
        state = self._workspace / ".cpstage"
        with local_failures(self._workspace, "create"):
            self._workspace.mkdir(mode=0o700)
            self._has_workspace = True
            state.mkdir(mode=0o700)
        lock = lock_new_directory(self._workspace)
        output: int | None = None
        try:
            if self._places.output == "file":
                log = state / "output.log"
                with local_failures(log):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                    output = os.open(log, flags, 0o600)
            process = _JobProcess(self._workspace, output, lock)
            with self._stopping:
                self._process = process
                if self._stops:  # before there was anything to stop
                    process.stop()
            self._event("started")
            return process.work_on(self._claim, self._command, self._config)
        finally:
            os.close(lock)
            if output is not None:
                os.close(output)

    def _report(self, error: Reportable) -> _Outcome:
        """Report the job as failed: its process has not done so."""
        outcome = _Outcome(error.exit_code, error.failure_type, str(error))
        try:
            report_failure(
                self.job_id,
                str(error),
                failure_type=error.failure_type,
                client_token=self._claim.client_token,
                config=self._config,
            )
        except (Reportable, Exception) as failure:  # the job has to come to its end all the same
            return replace(outcome, unreported=str(reportable(failure)))
        return outcome

    def _conclude(self, outcome: _Outcome) -> None:
        """Clear up, and say how it went."""
        self.succeeded = outcome.exit_code == 0
        kept = self._has_workspace and self._places.keeps(self.succeeded)
        if kept:
            note_ending(self._workspace, succeeded=self.succeeded, kept=True)
        left: list[str] = []
        if self._has_workspace:
            left = remove_secrets(self._workspace) if kept else remove_tree(self._workspace)
        for warning in [*outcome.warnings, *(f"cannot remove {one}" for one in left)]:
            self._event("warning", message=warning)
        if outcome.unreported is None:
            self._event("reported", message=outcome.failure_type or "Succeeded")
        else:
            self._event("report-failed", message=outcome.unreported)
        self._event(
            "succeeded" if self.succeeded else "failed",
            seconds=time.monotonic() - self._began,
            exit_code=outcome.exit_code,
            workspace=str(self._workspace) if kept else None,
            message=outcome.message,
        )

    def _event(self, name: str, **members: Any) -> None:
        self._tell(WorkerEvent(name, self._about, **members))


class _JobProcess:
    """The running process of a job.

    It leads a new session, so that a signal to the worker's group is not one to the job. It starts
    in the directory of the workspaces. It shares the lock with the worker, and stdout if no output.
    """

    def __init__(self, workspace: Path, output: int | None, lock: int) -> None:
        self._workspace = workspace
        self._is_overdue = False
        self._answer, answer = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 (ourselves)
                [sys.executable, "-c", _PROGRAM, str(answer), str(lock)],
                stdin=subprocess.PIPE,
                stdout=_STDOUT if output is None else output,
                stderr=subprocess.STDOUT,
                pass_fds=[answer, lock],
                cwd=workspace.parent,
                env={name: os.environ[name] for name in os.environ if name not in _NOT_FOR_THE_JOB},
                start_new_session=True,
            )
        except BaseException:
            os.close(self._answer)
            raise
        finally:
            os.close(answer)

    def work_on(self, claim: Claim, command: JobCommand, config: AwsConfig) -> _Outcome:
        """Hand the job over, wait for the end of the process, and return the outcome.

        Raises:
            CommandFailed: The command took too long, and the process could not end it.
            Stopped: A signal ended the process, which has reported nothing.
            InternalError: It ended without a word.
        """
        assert self._process.stdin is not None  # noqa: S101 (it was asked for)
        token = claim.client_token.reveal() if claim.client_token else None
        order = _Order(claim.document, token, command, self._workspace, config)
        with self._process, os.fdopen(self._answer, "rb", buffering=0) as answer:
            with suppress(BrokenPipeError), self._process.stdin as stdin:
                pickle.dump(order, stdin)
            answered = self._listen(answer.fileno(), _longest(command.options))
        if answered:
            outcome: _Outcome = pickle.loads(answered)  # noqa: S301 (it comes from ourselves)
            return outcome
        self.kill()  # what it has left
        if self._is_overdue:
            raise CommandFailed(
                "the job took longer than it may, and did not end when it was asked to",
                TIMED_OUT,
                hint="see --timeout",
            )
        if self._process.returncode < 0:
            raise stopped_by(-self._process.returncode)
        raise InternalError("the process of the job ended without a word")

    def _listen(self, answer: int, longest: float | None) -> bytes:
        """Read the outcome until the process ends, and end it where its command takes too long.

        The command may have stopped the process (SIGSTOP), which then holds no deadline any more.
        The longest time is in seconds from the start of the command to its end.
        """
        received, deadline = b"", None
        ready = select.poll()
        ready.register(answer, select.POLLIN)
        while True:
            if ready.poll(_TURN_MILLISECONDS):
                chunk = os.read(answer, 1 << 16)
                if not chunk:
                    return received.lstrip(_BEGINS + _ENDS)
                received += chunk
                deadline = deadline or (longest and time.monotonic() + longest)
            if received.lstrip(_BEGINS) != b"":  # the command has ended
                deadline = None
            with suppress(OSError):  # let it go on where it was stopped
                if os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG):
                    os.kill(self._process.pid, signal.SIGCONT)
            if deadline and received and time.monotonic() >= deadline:
                self._is_overdue, deadline = True, None
                self.kill()

    def stop(self) -> None:
        """Ask it to stop; the first time it asks its command to, the second time it kills it."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, and all of its session, as far as the system tells what that is.

        A command has another process group, but shares the session.
        """
        session = [one.pid for one in processes() if one.session == self._process.pid]
        for pid in (self._process.pid, *session):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _longest(options: CommandOptions) -> float | None:
    """Return the seconds that the process of a job may wait for its command to end."""
    if options.time_limit is None:
        return None
    kill_after = KILL_AFTER if options.kill_after is None else options.kill_after
    return options.time_limit + kill_after + _SPARE_SECONDS


class _Collecting(logging.Handler):
    """Collects the warnings of the log, which become events of the worker."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one line."""
        self._warnings.append(record.getMessage().removeprefix("warning: "))


def main(answer: int, lock: int) -> None:
    """Run the order on stdin: the program of a job's process.

    The descriptors are the pipe for the outcome and the workspace's lock, which is held to the end.
    """
    make_no_core_file()
    reuse_freed_memory()
    adopt_orphans()
    os.set_inheritable(answer, False)
    os.set_inheritable(lock, False)
    order: _Order = pickle.load(sys.stdin.buffer)  # noqa: S301 (it comes from ourselves)
    warnings: list[str] = []
    logging.getLogger("cpstage").addHandler(_Collecting(warnings))
    command = order.command
    result = run(
        replace(parse_job(order.document), client_token=secret(order.client_token)),
        command.command,
        order.workspace,
        fetch_options=command.fetch_options,
        command_options=command.options,
        push_options=command.push_options,
        report=command.report,
        config=order.config,
        credentials_max_age=command.credentials_max_age,
        warn=warnings.append,
        commanding=lambda begins: _tell_worker(answer, _BEGINS if begins else _ENDS),
    )
    if result.error is None:
        note_ending(order.workspace, succeeded=True)
    failure, unreported = result.failure, result.report_failure
    outcome = _Outcome(
        exit_code=result.error.exit_code if result.error else 0,
        failure_type=failure.failure_type if failure else None,
        message=str(failure) if failure else None,
        unreported=str(unreported) if unreported else None,
        warnings=tuple(warnings),
    )
    _tell_worker(answer, pickle.dumps(outcome))
    os.close(answer)


def _tell_worker(answer: int, words: bytes) -> None:
    """Write to the worker; one that was killed needs no answer, and its job goes on."""
    left = memoryview(words)
    with suppress(BrokenPipeError):
        while left:
            left = left[os.write(answer, left) :]
