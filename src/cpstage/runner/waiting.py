"""Waiting for a process of ours, without missing a signal meanwhile.

Python runs the handler of a signal between two steps of its own. One that comes after the last of
these and before waitpid(2) blocks would be heeded when that returns: when the command has ended,
which the signal was to bring about. So there is nothing to block in but a pipe that every signal
writes to (:func:`signal.set_wakeup_fd`), the end of a child among them.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cpstage.errors import ConfigurationError

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
