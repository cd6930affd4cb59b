"""Signals and processes of a run: interrupts, job control, the command's process group, orphans.

While artifacts are transferred, a signal raises :class:`Stopped`, which unwinds and cleans up.
While the command runs, signals are forwarded to it. While the result is put, the first one waits.
Only SIGKILL ends a run without cleaning up.

Job control: the command has a process group. On a terminal, :class:`Foreground` makes that group
the foreground group, as a shell does. A stop of the command (``^Z``, or a read in the background)
stops cpstage too, and cpstage continues the command when it is continued. Without a terminal,
nothing happens.

Waiting: Python runs a signal handler between two bytecode instructions. A signal just before
waitpid(2) would therefore wait for the end of the command. So cpstage blocks in poll(2) on a pipe
that every signal writes to (:func:`signal.set_wakeup_fd`), SIGCHLD included.

Orphans: a process that the command leaves behind is found by its process group. One that left the
group (setsid(2), as daemons do) is adopted by cpstage, whose process is a subreaper
(:func:`adopt_orphans`). An adopted process that has ended is a zombie until it is reaped. Without
``/proc`` (Linux) nothing is found. A Python program that calls cpstage adopts nothing: it may start
processes in other threads, and run several commands at once.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from cpstage._posix import SIGNALS, blocked, is_postponed, signals
from cpstage.errors import ConfigurationError, Stopped

KILL_AFTER = 10.0
"""Seconds from the end of the time limit to SIGKILL."""

_SETTLING_SECONDS = 0.3
_LONGEST_STOPPING = 1.0
"""Seconds from a stop signal to the stop, on a busy machine."""

_TERMINAL_STOPS = signals("SIGTSTP", "SIGTTIN", "SIGTTOU")
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37

Receiver = Callable[[int], object]


class Interrupts:
    """Handles signals during one run; a context manager that can be nested.

    Only the main thread of a process gets signals. A run in another thread gets those of
    :meth:`receive`: its command at once, and the steps of the run between them.
    """

    def __init__(self) -> None:
        self._receivers: list[Receiver] = []
        self._handlers: dict[int, Any] = {}
        self._depth = 0
        self.first: int | None = None

    def __enter__(self) -> Interrupts:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # One that is ignored stays so, as nohup(1) wants it.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        while self._depth == 0 and self._handlers:
            signal.signal(*self._handlers.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not is_postponed(number, frame):
            self.receive(number)

    def receive(self, number: int) -> None:
        """Handle a signal, in any thread, as the innermost context decides."""
        if self.first is None:
            self.first = number
        if self._receivers:
            self._receivers[-1](number)

    @contextmanager
    def stopping(self, *, spared: int = 0) -> Iterator[None]:
        """In this context a signal after the spared ones raises Stopped, in this thread."""
        thread = threading.current_thread()
        count = 0

        def stop(number: int) -> None:
            nonlocal count
            count += 1
            if count > spared and threading.current_thread() is thread:
                raise stopped_by(number)

        with self.forwarded(stop):
            yield

    @contextmanager
    def forwarded(self, receiver: Receiver) -> Iterator[None]:
        """In this context signals are a receiver's."""
        self._receivers.append(receiver)
        try:
            yield
        finally:
            self._receivers.pop()

    def check(self) -> None:
        """Raise :class:`Stopped` if there was a signal."""
        if self.first is not None:
            raise stopped_by(self.first)


def stopped_by(number: int) -> Stopped:
    """Return the error for a signal."""
    return Stopped(number, signal_name(number))


def signal_name(number: int) -> str:
    """Return the name of a signal; a real-time signal but the first and last has a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Foreground:
    """The controlling terminal, if there is one; a context in which it is open."""

    def __init__(self) -> None:
        self._terminal: int | None = None
        self._own = os.getpgrp()

    def __enter__(self) -> Foreground:
        with suppress(OSError):
            self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal is not None:
            os.close(self._terminal)

    def lend(self, group: int) -> None:
        """Give the terminal to a command's process group, if it is ours to give."""
        self._pass_on(self._own, group)

    def take_back(self, group: int) -> None:
        """Take the terminal back, if that group has it."""
        self._pass_on(group, self._own)

    def follow_stop(self, group: int, number: int) -> None:
        """Stop as a command's group did, by which signal, and let it go on when we do."""
        if self._terminal is None or number not in _TERMINAL_STOPS:
            return  # another process stopped it, and will let it go on
        if number == signal.SIGTSTP or not self._is_in_front(self._own, group):
            self.take_back(group)
            if not self._stop(number) and number != signal.SIGTSTP:
                return  # no process can let it go on: it would want the terminal again and again
        # Else it was faster than we, and wanted the terminal before it had it.
        self.lend(group)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)

    def _stop(self, number: int) -> bool:
        """Stop until a shell continues us; return False where the signal stopped nothing.

        The kernel discards it where no shell waits for our process group. With several threads,
        kill(2) returns before the process has stopped, so only a SIGCONT tells that it had.
        """
        if threading.current_thread() is not threading.main_thread():
            os.killpg(self._own, number)
            return False
        continued: list[int] = []
        before = signal.signal(signal.SIGCONT, lambda got, _: continued.append(got))
        try:
            os.killpg(self._own, number)
            until = time.monotonic() + _LONGEST_STOPPING
            while not continued and time.monotonic() < until:
                time.sleep(0.01)
        finally:
            signal.signal(signal.SIGCONT, before)
        return bool(continued)

    def _is_in_front(self, *groups: int) -> bool:
        if self._terminal is None:
            return False
        try:
            return os.tcgetpgrp(self._terminal) in groups
        except OSError:  # it has hung up
            return False

    def _pass_on(self, giver: int, taker: int) -> None:
        if self._terminal is not None and self._is_in_front(giver):
            # In the background, setting the terminal would stop us.
            with blocked({signal.SIGTTOU}), suppress(OSError):  # the taker may have ended already
                os.tcsetpgrp(self._terminal, taker)


@contextmanager
def waiting(reap: Receiver) -> Iterator[Callable[[int], int]]:
    """Give a function that waits until a child process has ended or stopped.

    It returns the status that waitpid(2) has for it. ``reap`` is called with the process when a
    child of another one has ended. Only the main thread of a process gets signals; in any other
    there is nothing to miss.
    """
    if threading.current_thread() is not threading.main_thread():
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            raise ConfigurationError(
                "this process ignores SIGCHLD, and so the system discards exit codes of commands",
                hint="call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first",
            )
        yield lambda pid: os.waitpid(pid, os.WUNTRACED)[1]
        return
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    written = select.poll()
    written.register(reading, select.POLLIN)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)  # one that does nothing writes, too
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def wait(pid: int) -> int:
        while True:
            found, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
            if found:
                return status
            written.poll()
            with suppress(BlockingIOError):
                os.read(reading, 4096)
            reap(pid)

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(previous)
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
        os.close(reading)
        os.close(writing)


class ProcessGroup:
    """A running command's process group, and who wants it to end; seconds as in CommandOptions."""

    def __init__(self, time_limit: float | None, kill_after: float | None) -> None:
        self._time_limit = time_limit
        self._kill_after = kill_after
        self._group: int | None = None
        self._timers: list[threading.Timer] = []
        self.signals: list[int] = []
        self.timed_out = False

    def receive(self, number: int) -> None:
        """Take a signal for it: the first is forwarded, any other kills."""
        self.signals.append(number)
        if self._group is not None:
            self._deliver(number)

    def began(self, group: int) -> None:
        """Note that it runs: its time begins, and it gets what came before."""
        self._group = group
        if self._time_limit is not None:
            self._later(self._time_limit, self._expire)
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
            if self._kill_after is not None:
                self._later(self._kill_after, self._kill)

    def _expire(self) -> None:
        self.timed_out = True
        self._send(signal.SIGTERM)
        self._later(KILL_AFTER if self._kill_after is None else self._kill_after, self._kill)

    def _kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        group = self._group
        if group is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                os.killpg(group, signal.SIGCONT)  # one that is stopped cannot end

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), what)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()


class Process(NamedTuple):
    """A process as ``/proc`` shows it (proc(5)), with its process group and session."""

    pid: int
    state: str
    parent: int
    group: int
    session: int


def processes() -> list[Process]:
    """Return the processes that the system shows; none without ``/proc``."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name of the program, in brackets, may hold anything.
            state, *ids = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
            parent, group, session = map(int, ids)
            found.append(Process(int(stat.parent.name), state, parent, group, session))
    return found


class Orphans(NamedTuple):
    """The processes that a command leaves behind.

    Attributes:
        others: The children that this process has already; None for a process that adopts nothing.
    """

    others: frozenset[int] | None

    @classmethod
    def from_now_on(cls) -> Orphans:
        """Return those of a command that is about to start."""
        if not _is_subreaper():
            return cls(None)
        return cls(frozenset(one.pid for one in processes() if one.parent == os.getpid()))

    def settled(self, group: int) -> list[int]:
        """Return the IDs of those that still run a moment after the command, if any do."""
        until = time.monotonic() + _SETTLING_SECONDS
        while (found := self._find(group)) and time.monotonic() < until:
            time.sleep(_SETTLING_SECONDS / 10)
        return found

    def reap(self, command: int | None) -> None:
        """Reap those that have ended, but not the command itself."""
        for one in processes() if self.others is not None else ():
            if one.state == "Z" and self._is_adopted(one, command):
                with suppress(ChildProcessError):
                    os.waitpid(one.pid, os.WNOHANG)

    def kill(self, group: int) -> None:
        """Kill all of them; those that they start meanwhile as well."""
        killed: list[int] = []
        while found := [pid for pid in self._find(group) if pid not in killed]:
            for pid in found:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            killed += found
        for pid in killed:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _find(self, group: int) -> list[int]:
        for _ in range(2):  # a process that is created during a scan is only in the next one
            found = [
                one.pid
                for one in processes()
                if one.state not in "ZX" and (one.group == group or self._is_adopted(one, group))
            ]
            if found:
                break
        return found

    def _is_adopted(self, one: Process, command: int | None) -> bool:
        if self.others is None or one.parent != os.getpid() or one.pid in (command, *self.others):
            return False
        # A command has a process group. What botocore starts (credential_process) has ours.
        return one.group != os.getpgrp()


def adopt_orphans() -> None:
    """Adopt what the commands of this process leave behind.

    For a process that runs one command, and starts no others.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _is_subreaper() -> bool:
    import ctypes

    answer = ctypes.c_int(0)
    if sys.platform == "linux":
        _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer))
    return bool(answer.value)


def _prctl(operation: int, argument: Any) -> None:
    import ctypes

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(operation, argument, 0, 0, 0)
