"""Running one command: its process group, streams, signals and time limit.

cpstage forwards a first signal to the command's process group, and kills the group at the second
one. At the time limit it asks the group to end, and then kills it.

Where last lines are kept, the output of the command is copied as it comes, through a pipe for each
stream. Where both streams go to the same place, they share one pipe, which keeps their order.
"""

from __future__ import annotations

import errno
import os
import re
import select
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from cpstage.errors import (
    CommandFailed,
    CommandNotStarted,
    Reportable,
    UsageError,
    local_reason,
    require_type,
)
from cpstage.runner.signals import (
    Foreground,
    Interrupts,
    Orphans,
    ProcessGroup,
    signal_name,
    stopped_by,
    waiting,
)

TIMED_OUT = 124
"""The exit code of timeout(1)."""

_NOT_FOUND, _NOT_RUN, _SIGNALLED = 127, 126, 128
"""As a shell has them."""

_SHELL = "/bin/sh"
_LONGEST_INTERPRETER = 256
"""Bytes of a script's first line that Linux reads (execve(2))."""

_MOST_KEPT = 20_000
"""Bytes: more than a failure's message can hold."""

_MOST_IN_PIPES = 2 << 20
"""Bytes: fs.pipe-max-size of Linux, twice. Later bytes are from other processes."""

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
        kill_orphans: Whether processes that it leaves behind are killed. ``cpstage run`` and a
            worker also find those that left its process group, as daemons do.
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

    def __post_init__(self) -> None:
        """Refuse values of another type, and a negative number of lines."""
        require_type("tail_lines", self.tail_lines, int)
        if self.tail_lines < 0:
            raise UsageError("tail_lines is below 0")
        for name in ("time_limit", "kill_after"):
            require_type(name, getattr(self, name), int, float, NoneType)


@dataclass(frozen=True)
class Finished:
    """The outcome of a command.

    Attributes:
        argv: The command.
        exit_code: Its exit code; 128 plus the number of the signal that ended it, as in a shell.
        seconds: How long it took.
        timed_out: Whether it took longer than it may.
        stopped_by: The first signal that was forwarded to it.
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
        """Return why it failed; None where it succeeded."""
        name = self.argv[0]
        if self.stopped_by is not None:
            return stopped_by(self.stopped_by)
        if self.timed_out:
            return CommandFailed(f"{name} took longer than it may", TIMED_OUT, hint="see --timeout")
        number = self.exit_code - _SIGNALLED
        # A shell exits with such a code where its own child was ended by a signal.
        if self.signalled or number in {*signal.Signals}:
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


def words_of(command: Sequence[str]) -> tuple[str, ...]:
    """Return a program and its arguments, which may be paths, as text.

    Raises:
        UsageError: There are none.
        TypeError: The command is a string, or an argument is neither a string nor a path.
    """
    if isinstance(command, str | bytes):
        raise TypeError("the command is a string: give a list, such as ['sh', '-c', 'COMMAND']")
    if not command:
        raise UsageError("no command is given", hint="give it after --")
    return tuple(map(os.fsdecode, command))


def execute(
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    options: CommandOptions,
    interrupts: Interrupts,
) -> Finished:
    """Run a command to its end; raise CommandNotStarted if it cannot be started."""
    command = ProcessGroup(options.time_limit, options.kill_after)
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(interrupts.forwarded(command.receive))
        foreground = stack.enter_context(Foreground())
        adopted = Orphans.from_now_on()
        tee = stack.enter_context(_Tee(options)) if options.tail_lines else None
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


def _start(
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    options: CommandOptions,
    tee: _Tee | None,
) -> subprocess.Popen[bytes]:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    stdout = 2 if options.stdout_to_stderr else None
    name = argv[0] or "''"  # of a variable of a shell that is empty

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
    except ValueError as error:
        raise CommandNotStarted(f"cannot start {name}: it holds a NUL", _NOT_RUN) from error
    except OSError as error:
        why, code, hint = local_reason(error), _NOT_RUN, None
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            code = _NOT_FOUND
            if missing := _missing_interpreter(argv[0], directory, environment):
                why, hint = missing, "check the first line of the script"
        raise CommandNotStarted(f"cannot start {name}: {why}", code, hint=hint) from error


def _found(program: str, environment: Mapping[str, str]) -> str:
    """Return the path of a program, looked up as execvp(3) does."""
    return shutil.which(program, path=environment.get("PATH")) or program


def _missing_interpreter(
    program: str, directory: Path, environment: Mapping[str, str]
) -> str | None:
    """Return the missing interpreter that a script names; None for other files."""
    try:
        with open(directory / _found(program, environment), "rb") as script:
            line = script.readline(_LONGEST_INTERPRETER)
    except OSError:
        return None
    # The kernel splits at blanks only: a carriage return is a part of the name.
    shebang = re.match(rb"#![ \t]*([^ \t\n]*)", line)
    if shebang is None:
        return None
    missing = f"its interpreter {os.fsdecode(shebang[1])!r} does not exist"
    is_windows = line.rstrip(b"\n").endswith(b"\r")
    return f"{missing}: the script has Windows line endings" if is_windows else missing


class _Tee:
    """Two pipes, and a thread that reads them; a context in which it runs."""

    def __init__(self, options: CommandOptions) -> None:
        self._lines: deque[bytes] = deque(maxlen=options.tail_lines)
        self._pending: dict[int, bytes] = {}
        self._targets: dict[int, int] = {}
        stdout = 2 if options.stdout_to_stderr else 1
        self.stdout = self._pipe(stdout)
        self.stderr = self.stdout if _is_same(stdout, 2) else self._pipe(2)
        self._writers = {self.stdout, self.stderr}
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    def __enter__(self) -> _Tee:
        return self

    def begin(self) -> None:
        """Read; the command has its ends of the pipes by now, and they are closed here."""
        self._close_writers()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Pass on what is still in the pipes; do not wait for other processes that hold them."""
        self._close_writers()
        os.close(self._end)
        if self._thread.ident is not None:
            self._thread.join()
        for reader in (*self._targets, self._ended):
            with suppress(OSError):
                os.close(reader)
        self._lines.extend(filter(None, self._pending.values()))

    def tail(self) -> str:
        """Return the last lines, of both streams in the order in which they came."""
        return b"\n".join(self._lines)[-_MOST_KEPT:].decode("utf-8", "replace")

    def _pipe(self, target: int) -> int:
        reader, writer = os.pipe()
        self._targets[reader] = target
        self._pending[reader] = b""
        return writer

    def _close_writers(self) -> None:
        while self._writers:
            os.close(self._writers.pop())

    def _pass_on(self) -> None:
        with selectors.DefaultSelector() as selector:
            for reader in (*self._targets, self._ended):
                selector.register(reader, selectors.EVENT_READ)
            open_ones = set(self._targets)
            timeout, left = None, 1
            while open_ones and left > 0:
                ready = [key.fd for key, _ in selector.select(timeout)]
                if self._ended in ready:
                    selector.unregister(self._ended)
                    timeout, left = 0.0, _MOST_IN_PIPES  # what is there now, and no longer
                    ready.remove(self._ended)
                elif not ready:
                    return
                for reader in ready:
                    count = self._pass_on_some(reader)
                    left -= count if timeout is not None else 0
                    if not count:
                        selector.unregister(reader)
                        open_ones.discard(reader)

    def _pass_on_some(self, reader: int) -> int:
        """Pass on some bytes; none at the end of the stream, or where the reader is gone."""
        data = os.read(reader, 1 << 16)
        self._keep(reader, data)
        try:
            _write_all(self._targets[reader], data)
        except OSError:
            os.close(reader)  # so that the command learns of it, as it would have without us
            del self._targets[reader]
            return 0
        return len(data)

    def _keep(self, reader: int, data: bytes) -> None:
        *lines, rest = (self._pending[reader] + data).split(b"\n")
        self._lines.extend(line[-_MOST_KEPT:] for line in lines)
        self._pending[reader] = rest[-_MOST_KEPT:]


def _is_same(one: int, other: int) -> bool:
    """Whether two descriptors lead to the same file, terminal or pipe."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _write_all(target: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(target, left) :]
        except BlockingIOError:  # its owner made it non-blocking
            select.select([], [target], [])
