"""Signals of a run, the terminal's job control, and waiting for a child without missing a signal.

While artifacts are transferred, a signal raises :class:`Stopped`, which unwinds and cleans up.
While the command runs, signals are forwarded to it. While the result is put, they wait. Only
SIGKILL ends a run without cleaning up.

Job control: the command has a process group. On a terminal, :class:`Foreground` makes that group
the foreground group, as a shell does. A stop of the command (``^Z``, or a read in the background)
stops cpstage too, and cpstage continues the command when it is continued. Without a terminal,
nothing happens.

Waiting: Python runs a signal handler between two of its own instructions. A signal just before
waitpid(2) would therefore wait for the end of the command. So cpstage blocks in poll(2) on a pipe
that every signal writes to (:func:`signal.set_wakeup_fd`), SIGCHLD included.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from cpstage._posix import SIGNALS, blocked, signals
from cpstage.errors import ConfigurationError, Stopped

Receiver = Callable[[int], object]


class Interrupts:
    """Handles signals during one run; a context manager that can be nested.

    Only the main thread of a process gets signals. A run in another thread gets what is handed to
    :meth:`receive`: its command at once, and the stages of the run between them.
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

    def receive(self, number: int) -> None:
        """Handle a signal, in any thread, as the innermost context decides."""
        if self.first is None:
            self.first = number
        if self._receivers:
            self._receivers[-1](number)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """In this context a signal raises :class:`Stopped`, in the thread that it is in."""
        thread = threading.current_thread()

        def stop(number: int) -> None:
            if threading.current_thread() is thread:
                raise stopped_by(number)

        with self.forwarded(stop):
            yield

    @contextmanager
    def patient(self) -> Iterator[None]:
        """In this context a first signal is noted; a second one raises, as in :meth:`stopping`."""
        thread = threading.current_thread()
        count = 0

        def note(number: int) -> None:
            nonlocal count
            count += 1
            if count > 1 and threading.current_thread() is thread:
                raise stopped_by(number)

        with self.forwarded(note):
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

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.receive(number)


def stopped_by(number: int) -> Stopped:
    """Return what a signal raises."""
    return Stopped(number, signal_name(number))


def signal_name(number: int) -> str:
    """Return the name of a signal; a real-time signal but the first and last has a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_TERMINAL_STOPS = signals("SIGTSTP", "SIGTTIN", "SIGTTOU")

_LONGEST_STOPPING = 1.0
"""Seconds from a stop signal to the stop, on a busy machine."""


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
            self._terminal = None

    def lend(self, group: int) -> None:
        """Give the terminal to a command's process group, if it is ours to give."""
        self._pass_on(self._own, group)

    def take_back(self, group: int) -> None:
        """Take the terminal back, if that group has it."""
        self._pass_on(group, self._own)

    def follow_stop(self, group: int, number: int) -> None:
        """Stop as the command did, and let it go on when we do.

        Args:
            group: The process group of the command, which has been stopped.
            number: By which signal.
        """
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


_MANY = 4096


@contextmanager
def waiting(reap: Callable[[int], object]) -> Iterator[Callable[[int], int]]:
    """Give a function that waits until a child process has ended or stopped.

    It returns the status that waitpid(2) has for it. ``reap`` is called with the process when a
    child of another one has ended. Only the main thread of a process gets
    signals; in any other there is nothing to miss.
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
                os.read(reading, _MANY)
            reap(pid)

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(previous)
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
        os.close(reading)
        os.close(writing)
