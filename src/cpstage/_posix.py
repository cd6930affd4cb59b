"""The operating system: what only POSIX has, signals, streams, core files, and the allocator.

cpstage stages on POSIX systems alone, and says so elsewhere: it needs locks that end with their
process, access below directory descriptors, and permission bits. On Windows every module can be
imported, and commands that stage nothing work. So flags and signals that a module needs when it is
loaded come from here.
"""

from __future__ import annotations

import _thread
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from cpstage.errors import ConfigurationError

O_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)
O_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
O_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
O_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
O_PATH: int = getattr(os, "O_PATH", 0)

DIRECTORY = os.O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
"""Flags that open a directory, and nothing that a symlink leads to."""

NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
"""What a system or a file system says that does not have a call."""

_STDERR = 2

_SOON_SECONDS = 0.001

_PR_SET_DUMPABLE = 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Numbers of glibc's mallopt(3)."""

_KEPT_BYTES = 64 << 20
_LARGEST_BYTES = 32 << 20
"""The most that glibc takes for the threshold of mmap(2) on 64 bits; buffers are of 8 MiB."""


def require_posix() -> None:
    """Raise ConfigurationError on a system that cannot stage."""
    try:
        import fcntl  # noqa: F401 (it is there, or it is not)
    except ImportError:
        raise ConfigurationError(
            "this system is not POSIX: it lacks the locks and directory descriptors to stage with",
            hint="run cpstage on Linux or macOS; on Windows, in WSL or a container",
        ) from None


@contextmanager
def blocked(numbers: Iterable[int]) -> Iterator[set[signal.Signals | int]]:
    """Block signals in this thread; the context's value are those that were blocked before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return the signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def handle_signals(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], None] | signal.Handlers
) -> None:
    """Handle signals, unless the caller ignores them, as nohup(1) does."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


SIGNALS = signals("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
"""The signals that stop a run."""

_held: set[signal.Signals] = set()


def hold_signals() -> None:
    """Block the signals that stop a run, unless they are blocked already."""
    if hasattr(signal, "pthread_sigmask"):
        _held.update({*SIGNALS} - signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))


def release_signals() -> None:
    """Unblock what :func:`hold_signals` blocked: children inherit the mask of our start."""
    if _held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _held)
        _held.clear()


_LOCKING = {"__enter__", "__exit__", "_acquire_restore", "_release_save"}
"""Functions of :class:`threading.Condition`, which events, semaphores, futures and queues use."""


def is_postponed(number: int, frame: FrameType | None) -> bool:
    """Whether a signal came where an exception does harm; its handler is then called again soon.

    While a lock is taken or released, an exception would leave it taken, and cleaning up would wait
    for it without end, or leave it released, and the lock's next step would fail. While a context
    is entered or left, what it has made would not be removed.
    """
    if frame is None or not _is_delicate(frame):
        return False
    try:
        _thread.start_new_thread(_send_soon, (number,))
    except RuntimeError:  # the system starts no more threads
        return False
    return True


def _is_delicate(frame: FrameType) -> bool:
    module, code = frame.f_globals.get("__name__"), frame.f_code
    if module == "contextlib":
        return True
    # Condition.wait() cleans up after an exception only from its "gotit = False" on.
    is_releasing = "gotit" in code.co_varnames and "gotit" not in frame.f_locals
    return module == "threading" and (code.co_name in _LOCKING or is_releasing)


def _send_soon(number: int) -> None:
    time.sleep(_SOON_SECONDS)
    if callable(signal.getsignal(number)):  # after the first signal, a second one kills
        os.kill(os.getpid(), number)


def open_missing_streams() -> None:
    """Open ``/dev/null`` in the place of a closed stdin, stdout or stderr.

    Else the next file or connection gets its number, and what a command of a run prints goes there.
    """
    with suppress(OSError):
        while (opened := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            os.set_inheritable(opened, True)
        os.close(opened)


def make_no_core_file() -> None:
    """Let the system write no core file of this process, nor of those that it forks.

    On Linux that is a property of the process which execve(2) resets, so a program that it starts
    is not affected. It also holds where core files are piped into a program, which a limit does
    not (prctl(2), core(5)). Other processes of the same user cannot read this one through ``/proc``
    either. Elsewhere it is the soft limit, which programs inherit, and may raise again.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(AttributeError, OSError):
            if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0:
                return
    with suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def reuse_freed_memory() -> None:
    """Reuse freed buffers in any thread, instead of giving them back to the system.

    glibc maps a large buffer anew each time, and the system clears each page of it: 120,000 page
    faults and a fifth of all processor time in a fetch of one file of 2 GiB; with this 24,000. It
    also gives each thread a separate heap: that fetch peaks at 98 MB with one heap, at 123 with
    many. With other C libraries this does nothing.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with suppress(AttributeError, OSError):  # another C library, as musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
