"""Threads and worker processes that unpack and pack, with a bounded number of units in progress.

Threads share one interpreter lock: creating a file releases and takes it again several times, and
two threads that do so lose more time to the handover than they win. Measured with 20,000 files on
two processors, two threads took 1.4 times as long as one, and two processes 0.6 times. So many
small files are written and read by forked worker processes (:func:`forked`), few or large ones by
threads (:func:`in_order`, :func:`ahead`).

A worker process gets all that a unit takes through a pipe: a message about it, and its bytes. It is
forked before its parent has read or listed much, and never looks at the parent's objects: looking
at one writes to its reference count, and so copies its memory page.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import select
import signal
import struct
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from typing import Generic, NoReturn, TypeVar

from cpstage._posix import blocked
from cpstage.errors import (
    NO_ROOM_HINT,
    LocalIOError,
    Reportable,
    local_reason,
    reportable,
)

Work = Callable[[bytes, "memoryview | bytes"], "bytes | memoryview"]
"""What to do with a unit: what is said of it, and its bytes, which are gone afterwards. What comes
of it is bytes, too."""

_REQUEST = struct.Struct("<QQ")
"""The lengths of the message about a unit, and of its bytes."""

_END = _REQUEST.pack((1 << 64) - 1, 0)
"""Ends a child. The end of the pipe cannot: a process that the host program forked meanwhile keeps
it open."""

_REPLY = struct.Struct("<?Q")
"""Whether the work succeeded, and the length of what follows: the result, or the error."""

_PIPE_BYTES = 1 << 20
"""What an unprivileged process may ask for (pipe(7)); a unit then goes through in one step."""

_LOOK_SECONDS = 1.0
"""After so long without a byte, a process looks whether the other one is still alive."""

_CAN_FORK = sys.platform == "linux"
"""Elsewhere libraries of the system do not bear a fork of a process that has threads."""

_OURS: set[int] = set()
"""Our ends of the pipes to all children, which none of them may keep open for us."""

_MANY = 1000
"""Files from which on processes are worth the 20 ms that it takes to start them."""

Alive = Callable[[], bool]


class _Child:
    """A child process, as its parent has it.

    Args:
        work: What it does.
        signals: The signals that it is to block.

    Raises:
        LocalIOError: The system gives no more processes or descriptors.
    """

    def __init__(self, work: Work, signals: set[signal.Signals | int]) -> None:
        with ExitStack() as theirs, ExitStack() as ours:
            parent = os.getpid()
            try:
                their_requests, self._requests = _pipe(theirs, ours)
                their_replies, self._replies = _pipe(ours, theirs)[::-1]
                _OURS.update((self._requests, self._replies))
                with warnings.catch_warnings():
                    # The child takes no lock that another thread can hold: it computes, and reads
                    # and writes files.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    self._pid = os.fork()
                if not self._pid:
                    _serve(work, their_requests, their_replies, signals, parent)
            except OSError as error:
                what = f"cannot start a child process: {local_reason(error)}"
                raise LocalIOError(what, hint=NO_ROOM_HINT) from error
            os.set_blocking(self._requests, False)
            os.set_blocking(self._replies, False)
            self._ours = ours.pop_all()
        self._is_between_units = True

    def do(self, note: bytes, data: memoryview | bytes) -> memoryview:
        """Have a unit worked on, and wait for its result.

        Raises:
            Reportable: What the work raised.
            LocalIOError: The child was killed.
        """
        self._is_between_units = False
        try:
            _write(self._requests, _REQUEST.pack(len(note), len(data)) + note, self._lives)
            _write(self._requests, data, self._lives)
            good, length = _REPLY.unpack(_read(self._replies, _REPLY.size, self._lives))
            reply = _read(self._replies, length, self._lives)
        except (BrokenPipeError, EOFError) as error:
            raise LocalIOError(
                "a child process of cpstage was killed, or got no more memory",
                hint=NO_ROOM_HINT,
            ) from error
        self._is_between_units = True
        if good:
            return reply
        kind, message, hint = pickle.loads(bytes(reply))  # noqa: S301 (our own child's)
        raise kind(message, hint=hint)

    def end(self) -> None:
        """Tell it to exit; one that is in the middle of a unit is killed."""
        try:
            if not self._is_between_units:
                raise BrokenPipeError
            _write(self._requests, _END, self._lives)
        except BrokenPipeError:
            if self._lives():
                os.kill(self._pid, signal.SIGKILL)
        _OURS.difference_update((self._requests, self._replies))
        self._ours.close()

    def wait(self) -> None:
        """Wait until it has exited."""
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _lives(self) -> bool:
        """Whether it has not exited; one that the host program has reaped has."""
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False


def is_worth_forking(files: int) -> bool:
    """Whether work on so many files is done sooner by child processes."""
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
            child.end()
        for child in children:
            child.wait()


def _serve(
    work: Work, requests: int, replies: int, signals: set[signal.Signals | int], parent: int
) -> NoReturn:
    """Be the child: work on units until the parent ends it, or is gone."""

    def lives() -> bool:
        return os.getppid() == parent

    code = 1
    gc.disable()  # what the parent has to clean up is not the child's
    try:
        for pipe in _OURS:
            os.close(pipe)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the parent to handle
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        os.set_blocking(requests, False)
        os.set_blocking(replies, False)
        while (head := _read(requests, _REQUEST.size, lives)) != _END:
            said, length = _REQUEST.unpack(head)
            note = bytes(_read(requests, said, lives))
            good, reply = _outcome(work, note, _read(requests, length, lives))
            _write(replies, _REPLY.pack(good, len(reply)), lives)
            _write(replies, reply, lives)
        code = 0
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


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Make a pipe, and let each end be closed with the stack of the process that has it."""
    import fcntl

    reading, writing = os.pipe()
    reader.callback(os.close, reading)
    writer.callback(os.close, writing)
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return reading, writing


def _write(descriptor: int, data: bytes | memoryview, lives: Alive) -> None:
    """Write all to a pipe that does not block.

    Raises:
        BrokenPipeError: The other process is gone.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            if not _ready(descriptor, select.POLLOUT) and not lives():
                raise BrokenPipeError from None


def _read(descriptor: int, length: int, lives: Alive) -> memoryview:
    """Read so many bytes from a pipe that does not block.

    Raises:
        EOFError: The other process is gone.
    """
    data = memoryview(bytearray(length))
    done = 0
    while done < length:
        try:
            count = os.readv(descriptor, [data[done:]])
        except BlockingIOError:
            # What was written before the other process exited is still to be read.
            if not _ready(descriptor, select.POLLIN) and not lives():
                if _ready(descriptor, select.POLLIN, 0):
                    continue
                raise EOFError from None
            continue
        if not count:
            raise EOFError
        done += count
    return data


def _ready(descriptor: int, event: int, seconds: float = _LOOK_SECONDS) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(seconds * 1000))


Unit = TypeVar("Unit")
Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)

_MOST_THREADS = 8
"""Beyond that, threads wait for the interpreter's lock more than they work."""


def thread_count() -> int:
    """Return how many threads keep this process's processors busy; at least two."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        processors = os.cpu_count() or 1
    return min(max(processors, 2), _MOST_THREADS)


def in_order(
    work: Callable[[Unit], Result], units: Iterable[Unit], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Do work on units in threads, and yield the results in the order of the units.

    The units are taken one by one by the caller's thread. When a unit fails, when taking one
    fails, or when the caller stops, what has not begun is dropped and what has is waited for, so
    that nothing is done after the iterator has ended.

    Args:
        work: What to do; it must come to an end by itself.
        units: What to do it on.
        threads: How many at a time.
        ahead: How many units may be under way or done before the first of them is taken.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cpstage-work")
    under_way: deque[Future[Result]] = deque()
    try:
        for unit in units:
            under_way.append(pool.submit(work, unit))
            if len(under_way) >= ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


Item = TypeVar("Item")


class _End:
    """Comes after the last item.

    Args:
        error: What the iterator raised, if it did not end by itself.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextmanager
def ahead(items: Iterator[Item], most: int) -> Iterator[Iterator[Item]]:
    """Run an iterator in a thread until it ends, or until the context is left.

    The context does not wait for the thread, which may be in a long read. The thread ends after its
    current item, which is dropped. The queues are
    the ones that a signal handler may interrupt at any place by an exception.

    Args:
        items: What to run. What it raises is raised in its consumer.
        most: How many items may wait for their consumer.
    """
    ready: SimpleQueue[Item | _End] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()
    left = threading.Event()

    def work() -> None:
        end = _End()
        try:
            for item in items:
                room.get()
                if left.is_set():
                    return
                ready.put(item)
        except BaseException as error:
            end.error = error
        ready.put(end)

    def taken() -> Iterator[Item]:
        while not isinstance(item := ready.get(), _End):
            room.put(None)
            yield item
        if item.error is not None:
            raise item.error

    for _ in range(most):
        room.put(None)
    try:
        threading.Thread(target=work, name="cpstage-ahead", daemon=True).start()
        yield taken()
    finally:
        left.set()
        room.put(None)


class Early(Generic[Key, Result]):
    """Does work on units, on some of them in threads before they are asked for.

    Args:
        work: What to do.
        threads: How many may do it early at a time.
        ahead: How many units may be under way at once.
        most: How much may come of units before anybody asks for them.
        size: How much that is of one.
    """

    def __init__(
        self,
        work: Callable[[Key], Result],
        *,
        threads: int,
        ahead: int,
        most: int,
        size: Callable[[Result], int],
    ) -> None:
        self._work = work
        self._ahead = ahead
        self._left = most
        self._size = size
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="cpstage-early")
        self._begun: dict[Key, Future[Result]] = {}
        self._under_way: deque[Future[Result]] = deque()

    def begin(self, unit: Key) -> None:
        """Begin to work on a unit, if there is room for its result.

        Raises:
            Exception: What work raised that was begun before.
        """
        while self._under_way and self._under_way[0].done():
            self._left -= self._size(self._under_way.popleft().result())
        if len(self._under_way) < self._ahead and self._left > 0:
            begun = self._begun[unit] = self._threads.submit(self._work, unit)
            self._under_way.append(begun)

    def __call__(self, unit: Key) -> Result:
        """Return the result of a unit, which is worked on now if it was not begun."""
        begun = self._begun.pop(unit, None)
        return begun.result() if begun else self._work(unit)

    def close(self) -> None:
        """Drop what was not asked for; what is under way is waited for."""
        self._threads.shutdown(cancel_futures=True)
