"""One job in its own process: the worker survives whatever the job does.

The process does what :func:`cpstage.run` does, and reports the result. What it is to do, the job's
secrets included, goes to it through a pipe, and what came of it comes back through another; nothing
of it is in an argument, a variable or a file.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from cpstage._posix import make_no_core_file, reuse_freed_memory
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.errors import FailureType, UsageError
from cpstage.job import parse_job
from cpstage.job.masking import secret
from cpstage.job.result import Details
from cpstage.runner.command import CommandOptions
from cpstage.runner.processes import KILL_AFTER
from cpstage.runner.run import run
from cpstage.transfer.options import FetchOptions, PushOptions
from cpstage.worker.claims import Claim
from cpstage.workspace.leftovers import note_ending

_PROGRAM = "import sys; from cpstage.worker.process import main; main(*map(int, sys.argv[1:]))"

_BEGINS, _ENDS = b"<", b">"
"""What the process of a job writes when its command begins and ends."""

_SPARE_SECONDS = 30.0
"""After the deadline that the process of a job itself has for its command."""

_TURN_MILLISECONDS = 1000

_NOT_FOR_THE_JOB = ("CPSTAGE_JOB_ID", "CPSTAGE_CLIENT_TOKEN", "CPSTAGE_WORKSPACE")
"""Variables of ours that a command would take for its job's."""


@dataclass(frozen=True)
class JobCommand:
    """What is done with every job: the arguments of :func:`cpstage.run`.

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
        if not self.command:
            raise UsageError("no command is given", hint="give it after --")


@dataclass(frozen=True)
class Outcome:
    """What came of a job, as its process tells it.

    Attributes:
        exit_code: What ``cpstage run`` would exit with.
        failure_type: Of the result that was put, or would have been; None for success.
        message: What went wrong.
        unreported: Why the result could not be put; None where it was.
        warnings: What a person should know besides.
    """

    exit_code: int
    failure_type: FailureType | None = None
    message: str | None = None
    unreported: str | None = None
    warnings: tuple[str, ...] = ()


class _Collecting(logging.Handler):
    """Collects warnings of the log, which the worker tells as events."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one line."""
        self._warnings.append(record.getMessage().removeprefix("warning: "))


@dataclass(frozen=True)
class _Order:
    """What a process is to do; it goes through a pipe, with the secrets in plain."""

    document: Mapping[str, Any] = field(repr=False)
    client_token: str | None = field(repr=False)
    command: JobCommand
    workspace: Path
    config: AwsConfig


class JobProcess:
    """The running process of a job.

    It leads a new session, so that a signal to the worker's group is not one to the job.
    It starts in the directory that holds the workspaces, and not where the worker was started.

    Args:
        workspace: The job's own directory.
        output: Where its output goes; the worker's stdout if None.
        lock: The descriptor of the lock that it shares with the worker.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, workspace: Path, output: BinaryIO | None, lock: int) -> None:
        self._workspace = workspace
        self.is_overdue = False
        self._answer, answer = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 (ourselves)
                [sys.executable, "-c", _PROGRAM, str(answer), str(lock)],
                stdin=subprocess.PIPE,
                stdout=output,
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

    def work_on(self, claim: Claim, command: JobCommand, config: AwsConfig) -> Outcome | int:
        """Hand the job over, and wait for the end of the process.

        Returns:
            What came of it, or less than zero: the signal that ended the process, which then has
            reported nothing; zero is an end without a word.
        """
        assert self._process.stdin is not None  # noqa: S101 (it was asked for)
        token = claim.client_token.reveal() if claim.client_token else None
        order = _Order(claim.document, token, command, self._workspace, config)
        with self._process, os.fdopen(self._answer, "rb", buffering=0) as answer:
            with suppress(BrokenPipeError), self._process.stdin as stdin:
                pickle.dump(order, stdin)
            told = self._listen(answer.fileno(), _longest(command.options))
        if not told:
            return min(self._process.returncode, 0)
        outcome: Outcome = pickle.loads(told)  # noqa: S301 (it comes from ourselves)
        return outcome

    def _listen(self, answer: int, longest: float | None) -> bytes:
        """Read what the process says until it ends, and end it where its command takes too long.

        The command may have stopped the process (SIGSTOP), which then holds no deadline any more.

        Args:
            answer: The descriptor to read from.
            longest: Seconds from the start of the command to its end; None for no limit.

        Returns:
            The outcome, or None.
        """
        said, deadline = b"", None
        ready = select.poll()
        ready.register(answer, select.POLLIN)
        while True:
            if ready.poll(_TURN_MILLISECONDS):
                some = os.read(answer, 1 << 16)
                if not some:
                    return said.lstrip(_BEGINS + _ENDS)
                said += some
                deadline = deadline or (longest and time.monotonic() + longest)
            if said.lstrip(_BEGINS) != b"":  # the command has ended
                deadline = None
            self._go_on()
            if deadline and said and time.monotonic() >= deadline:
                self.is_overdue, deadline = True, None
                self.kill()

    def _go_on(self) -> None:
        """Let the process go on where it was stopped."""
        with suppress(OSError):
            if os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG):
                os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop; the first time it asks its command to, the second time it kills it."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, and all that it has started, as far as the system tells what that is."""
        for pid in (self._process.pid, *_session_of(self._process.pid)):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _longest(options: CommandOptions) -> float | None:
    """Return how long the process of a job may wait for its command to end."""
    if options.time_limit is None:
        return None
    kill_after = KILL_AFTER if options.kill_after is None else options.kill_after
    return options.time_limit + kill_after + _SPARE_SECONDS


def _session_of(leader: int) -> list[int]:
    """Return the processes of a session, where there is a /proc (proc(5)); the leader may be gone.

    A command has another process group, but shares the session.
    """
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name of the program, in brackets, may hold anything.
            if int(stat.read_text(errors="replace").rpartition(")")[2].split()[3]) == leader:
                found.append(int(stat.parent.name))
    return found


def main(answer: int, lock: int) -> None:
    """Do what an order on stdin says: the program of a job's process.

    Args:
        answer: The descriptor that the outcome is written to.
        lock: The descriptor that holds the lock of the workspace, to the end of the process.
    """
    make_no_core_file()
    reuse_freed_memory()
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
        commanding=lambda begins: os.write(answer, _BEGINS if begins else _ENDS),
    )
    if result.error is None:
        note_ending(order.workspace, succeeded=True)
    failure, unreported = result.failure, result.report_failure
    outcome = Outcome(
        exit_code=result.error.exit_code if result.error else 0,
        failure_type=failure.failure_type if failure else None,
        message=str(failure) if failure else None,
        unreported=str(unreported) if unreported else None,
        warnings=tuple(warnings),
    )
    with os.fdopen(answer, "wb") as pipe:
        pickle.dump(outcome, pipe)
