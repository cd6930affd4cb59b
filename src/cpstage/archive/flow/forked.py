"""Work in child processes, for what consists of many small steps of Python.

Threads share one interpreter lock: to create a file releases and takes it again several times,
and two threads that do so spend more time handing it over than they win. Measured with 20,000
files on two processors, two threads took 1.4 times as long as one, and two processes 0.6 times.

A child gets all that a unit of work takes through a pipe: what is said of it, and its bytes. It is
forked before its parent has read or listed much, and never looks at what the parent has: to look
at an object of Python writes to its count of references, and so to a copy of its page. This module
knows nothing of archive formats, nor of what the work is.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from cpstage._posix import blocked
from cpstage.errors import (
    NO_ROOM_HINT,
    InternalError,
    LocalIOError,
    Reportable,
    local_reason,
    reportable,
)

Work = Callable[[bytes, "memoryview | bytes"], "bytes | memoryview"]
"""What to do with a unit: what is said of it, and its bytes, which are gone afterwards. What comes
of it is bytes, too."""

_REQUEST = struct.Struct("<QQ")
"""The lengths of what is said of a unit, and of its bytes."""

_REPLY = struct.Struct("<?Q")
"""Whether it went well, and the length of what follows: the result, or what went wrong."""

_PIPE_BYTES = 1 << 20
"""What an unprivileged process may ask for (pipe(7)); a unit then goes through in one step."""

_CAN_FORK = sys.platform == "linux"
"""Elsewhere libraries of the system do not bear a fork of a process that has threads."""

_OURS: set[int] = set()
"""Our ends of the pipes to all children, which none of them may keep open for us."""

_MANY = 1000
"""Files from which on processes are worth the 20 ms that it takes to start them."""


class _Child:
    """A child process, as its parent has it.

    Args:
        work: What it does.
        signals: The signals that it is to block.
    """

    def __init__(self, work: Work, signals: set[signal.Signals | int]) -> None:
        their_requests, self._requests = _pipe()
        self._replies, their_replies = _pipe()
        _OURS.update((self._requests, self._replies))
        try:
            with warnings.catch_warnings():
                # The child takes no lock that another thread can hold: it computes, and reads and
                # writes files.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
            if not self._pid:
                _serve(work, their_requests, their_replies, signals)
        except OSError as error:
            self.let_go()
            what = f"the system starts no more processes: {local_reason(error)}"
            raise LocalIOError(what, hint=NO_ROOM_HINT) from error
        finally:
            os.close(their_requests)
            os.close(their_replies)

    def do(self, note: bytes, data: memoryview | bytes) -> memoryview:
        """Have a unit worked on, and wait for what comes of it.

        Raises:
            Reportable: What the work raised.
            InternalError: The child has gone.
        """
        try:
            _write(self._requests, _REQUEST.pack(len(note), len(data)) + note)
            _write(self._requests, data)
            good, length = _REPLY.unpack(_read(self._replies, _REPLY.size))
            reply = _read(self._replies, length)
        except (BrokenPipeError, EOFError) as error:
            raise InternalError(
                "a child process that did some of the work has gone",
                hint="it may have been killed for want of memory: try again",
            ) from error
        if good:
            return reply
        kind, message, hint = pickle.loads(bytes(reply))  # noqa: S301 (our own child's)
        raise kind(message, hint=hint)

    def let_go(self) -> None:
        """Tell it that there is no more to do."""
        _OURS.difference_update((self._requests, self._replies))
        os.close(self._requests)
        os.close(self._replies)

    def wait(self) -> None:
        """Wait until it has exited."""
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def is_worth_forking(files: int) -> bool:
    """Tell whether work on so many files is done sooner by child processes."""
    return _CAN_FORK and files >= _MANY


@contextmanager
def forked(work: Work, count: int) -> Iterator[Work]:
    """Give a function that does the work in one of some child processes.

    It may be called by as many threads at once; each call waits for its unit.

    Args:
        work: What to do; what it changes in memory is not seen here.
        count: How many processes.

    Raises:
        LocalIOError: The system has no room for more processes.
    """
    children: list[_Child] = []
    idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()

    def do(note: bytes, data: memoryview | bytes) -> memoryview:
        child = idle.get()
        try:
            return child.do(note, data)
        finally:
            idle.put(child)

    try:
        # A child that had the handlers of its parent yet would clean up for it.
        with blocked(signal.valid_signals()) as before:
            for _ in range(count):
                children.append(_Child(work, before))
                idle.put(children[-1])
        yield do
    finally:
        for child in children:
            child.let_go()
        for child in children:
            child.wait()


def _serve(work: Work, requests: int, replies: int, signals: set[signal.Signals | int]) -> NoReturn:
    """Be the child: work on units until the parent closes the pipe, however it comes to that."""
    code = 1
    gc.disable()  # what the parent has to clean up is not the child's
    try:
        for pipe in _OURS:
            os.close(pipe)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the parent to handle
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        while True:
            said, length = _REQUEST.unpack(_read(requests, _REQUEST.size))
            note = bytes(_read(requests, said))
            good, reply = _outcome(work, note, _read(requests, length))
            _write(replies, _REPLY.pack(good, len(reply)))
            _write(replies, reply)
    except (EOFError, BrokenPipeError):
        code = 0
    finally:
        os._exit(code)


def _outcome(work: Work, note: bytes, data: memoryview) -> tuple[bool, bytes | memoryview]:
    try:
        return True, work(note, data)
    except (Reportable, Exception) as error:
        found = reportable(error)
        return False, pickle.dumps((type(found), found.message, found.hint))


def _pipe() -> tuple[int, int]:
    import fcntl

    reading, writing = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return reading, writing


def _write(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _read(descriptor: int, length: int) -> memoryview:
    data = memoryview(bytearray(length))
    done = 0
    while done < length:
        count = os.readv(descriptor, [data[done:]])
        if not count:
            raise EOFError
        done += count
    return data
