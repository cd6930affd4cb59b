"""One command, from its start to its end: its streams, its signals, its time.

It runs in a new process group. cpstage forwards a first signal to that group, and kills the group
at the second one. At the time limit it asks the group to end, and then kills it.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpstage.errors import CommandFailed, CommandNotStarted, Reportable, local_reason
from cpstage.runner.orphans import adopting
from cpstage.runner.signals import Foreground, Interrupts, signal_name, stopped_by, waiting
from cpstage.runner.tee import Tee

TIMED_OUT = 124
"""The exit code of timeout(1)."""

_NOT_FOUND, _NOT_RUN, _SIGNALLED = 127, 126, 128
"""As a shell has them."""

_SHELL = "/bin/sh"
_LONGEST_INTERPRETER = 256
"""Bytes of a script's first line that Linux reads (execve(2))."""

KILL_AFTER = 10.0
"""Seconds from the end of the time limit to SIGKILL."""

_NEW_GROUP: dict[str, Any] = (
    {"process_group": 0} if sys.version_info >= (3, 11) else {"preexec_fn": os.setpgrp}
)


@dataclass(frozen=True)
class CommandOptions:
    """How a command runs.

    Attributes:
        directory: Its working directory: the name of an input artifact, or a path from the
            workspace.
        pass_configuration: Whether it gets the action's configuration, secrets included.
        pass_credentials: Whether it keeps the caller's AWS credential variables.
        codebuild: Whether it gets the variables that AWS CodeBuild has for input artifacts.
        time_limit: Seconds that it may take; None is without end.
        kill_after: Seconds from the signal that asks it to end to the one that makes it; where it
            is None, 10 after the time is over, and no end after a signal that came from outside.
        tail_lines: How many of the last lines that it prints are kept. Where any are, it prints
            into pipes, also on a terminal.
        stdout_to_stderr: Whether its stdout goes to our stderr.
        kill_orphans: Whether processes that it leaves behind are killed.
    """

    directory: str = "."
    pass_configuration: bool = False
    pass_credentials: bool = False
    codebuild: bool = False
    time_limit: float | None = None
    kill_after: float | None = None
    tail_lines: int = 0
    stdout_to_stderr: bool = False
    kill_orphans: bool = False


@dataclass(frozen=True)
class Finished:
    """What became of a command.

    Attributes:
        argv: The command.
        exit_code: Its exit code; 128 plus the number of the signal that ended it, as in a shell.
        seconds: How long it took.
        timed_out: Whether it took longer than it may.
        stopped_by: The first signal from outside that it was handed.
        tail: The last lines that it printed, where they were wanted.
        signalled: Whether a signal ended it.
        orphans: Processes that it left behind when it ended by itself; killed where asked for.
    """

    argv: tuple[str, ...]
    exit_code: int
    seconds: float
    timed_out: bool = False
    stopped_by: int | None = None
    tail: str = field(default="", repr=False)
    signalled: bool = False
    orphans: tuple[int, ...] = ()

    def failure(self) -> Reportable | None:
        """Return what there is to say of it; None of a command that did what it should."""
        name = self.argv[0]
        if self.stopped_by is not None:
            return stopped_by(self.stopped_by)
        if self.timed_out:
            return CommandFailed(f"{name} took longer than it may", TIMED_OUT, hint="see --timeout")
        number = self.exit_code - _SIGNALLED
        if self.signalled or number in _NUMBERS:  # a shell exits so when its own child was ended
            return CommandFailed(f"{name} was ended by {signal_name(number)}", self.exit_code)
        if self.exit_code:
            return CommandFailed(f"{name} failed with exit code {self.exit_code}", self.exit_code)
        return None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "argv": list(self.argv),
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 3),
            "timed_out": self.timed_out,
            "stopped_by": signal_name(self.stopped_by) if self.stopped_by else None,
        }


_NUMBERS = {*signal.Signals}


def execute(
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    options: CommandOptions,
    interrupts: Interrupts,
) -> Finished:
    """Run a command to its end.

    Args:
        argv: The command and its arguments.
        directory: Its working directory.
        environment: All of its environment.
        options: How to run it.
        interrupts: Where signals come from.

    Raises:
        CommandNotStarted: It cannot be started.
    """
    command = _Command(options)
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(interrupts.forwarded(command.receive))
        foreground = stack.enter_context(Foreground())
        adopted = stack.enter_context(adopting())
        tee = stack.enter_context(_tee(options))
        wait = stack.enter_context(waiting(adopted.reap))
        process = _start(argv, directory, environment, options, tee)
        command.began(process.pid)
        stack.callback(command.ended)
        foreground.lend(process.pid)
        if tee:
            tee.begin()
        while os.WIFSTOPPED(status := wait(process.pid)):
            foreground.follow_stop(process.pid, os.WSTOPSIG(status))
        process.returncode = os.waitstatus_to_exitcode(status)
        foreground.take_back(process.pid)
        has_been_stopped = command.timed_out or command.signals
        orphans = [] if has_been_stopped else adopted.settled(process.pid)
        if options.kill_orphans or has_been_stopped:
            adopted.kill(process.pid)
        adopted.reap(None)
    code = process.returncode
    return Finished(
        argv=tuple(argv),
        exit_code=_SIGNALLED - code if code < 0 else code,
        seconds=time.monotonic() - began,
        timed_out=command.timed_out,
        stopped_by=command.signals[0] if command.signals else None,
        tail=tee.tail() if tee else "",
        signalled=code < 0,
        orphans=tuple(orphans),
    )


class _Command:
    """A running command's process group, and who wants it to end."""

    def __init__(self, options: CommandOptions) -> None:
        self._options = options
        self._group: int | None = None
        self._timers: list[threading.Timer] = []
        self.signals: list[int] = []
        self.timed_out = False

    def receive(self, number: int) -> None:
        """Take a signal for it: the first is handed on, any other kills."""
        self.signals.append(number)
        if self._group is not None:
            self._deliver(number)

    def began(self, group: int) -> None:
        """Note that it runs: its time begins, and it gets what came before."""
        self._group = group
        if self._options.time_limit is not None:
            self._later(self._options.time_limit, self._expire)
        for number in [*self.signals]:
            self._deliver(number)

    def ended(self) -> None:
        """Note that it runs no more. What it left behind is ended with it if it was made to."""
        if self.timed_out or self.signals:
            self._kill()
        self._group = None
        for timer in self._timers:
            timer.cancel()

    def _deliver(self, number: int) -> None:
        if len(self.signals) > 1 or self.timed_out:
            self._kill()
        else:
            self._send(number)
            if self._options.kill_after is not None:
                self._later(self._options.kill_after, self._kill)

    def _expire(self) -> None:
        self.timed_out = True
        self._send(signal.SIGTERM)
        kill_after = self._options.kill_after
        self._later(KILL_AFTER if kill_after is None else kill_after, self._kill)

    def _kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        group = self._group
        if group is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                os.killpg(group, signal.SIGCONT)  # one that is stopped cannot end

    def _later(self, seconds: float, what: Any) -> None:
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), what)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()


@contextmanager
def _tee(options: CommandOptions) -> Iterator[Tee | None]:
    if not options.tail_lines:
        yield None
        return
    stdout = 2 if options.stdout_to_stderr else 1
    with Tee(options.tail_lines, stdout, 2) as tee:
        yield tee


def _start(
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    options: CommandOptions,
    tee: Tee | None,
) -> subprocess.Popen[bytes]:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    stdout = 2 if options.stdout_to_stderr else None

    def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 (what the user asked for)
            command,
            cwd=directory,
            env=environment,
            stdout=tee.stdout if tee else stdout,
            stderr=tee.stderr if tee else None,
            **_NEW_GROUP,
        )

    try:
        try:
            return start(argv)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without an interpreter's line is for the shell (POSIX, execvp).
            return start([_SHELL, _found(argv[0], environment), *argv[1:]])
    except (OSError, ValueError) as error:
        why = local_reason(error) if isinstance(error, OSError) else "it holds a NUL"
        absent = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR)
        missing = _missing_interpreter(argv[0], directory, environment) if absent else None
        code = _NOT_FOUND if absent else _NOT_RUN
        hint = "check the first line of the script" if missing else None
        raise CommandNotStarted(
            f"cannot start {argv[0]}: {missing or why}", code, hint=hint
        ) from error


def _found(program: str, environment: Mapping[str, str]) -> str:
    """Return the path of a program, looked up as execvp(3) does."""
    if "/" in program:
        return program
    return shutil.which(program, path=environment.get("PATH")) or program


def _missing_interpreter(
    program: str, directory: Path, environment: Mapping[str, str]
) -> str | None:
    """Say which interpreter a script asks for that does not exist; None of another file."""
    try:
        with open(directory / _found(program, environment), "rb") as script:
            line = script.readline(_LONGEST_INTERPRETER)
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    # The kernel splits at blanks only: a carriage return is a part of the name.
    words = line[2:].rstrip(b"\n").strip(b" \t").replace(b"\t", b" ").split(b" ")
    why = "the script has Windows line endings" if line.rstrip(b"\n").endswith(b"\r") else ""
    interpreter = os.fsdecode(words[0])
    said = f"its interpreter {interpreter!r} does not exist"
    return f"{said}: {why}" if why else said
