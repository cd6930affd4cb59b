"""Threads and forked worker processes that unpack and pack, with bounded work ahead.

Threads share one interpreter lock, which creating a file releases and takes several times. Measured
with 20,000 files on two processors, two threads took 1.4 times as long as one, and two processes
0.6 times. So many small files are written and read by processes, few or large ones by threads.

A process gets a unit through a pipe: a message about it, and its bytes. It is forked before its
parent has read or listed much, and looks at no object of the parent, which would copy a page of
memory. While it works on a unit, the next one is in its pipe.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import struct
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from typing import NamedTuple, NoReturn, TypeVar

from cpstage._posix import blocked
from cpstage.errors import NO_ROOM_HINT, LocalIOError, Reportable, local_reason, reportable

Unit = TypeVar("Unit")
Result = TypeVar("Result")

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

    The caller's thread iterates over the units. When that or a unit fails, or the caller stops,
    work that has begun is waited for, and the rest is dropped: nothing is done after the iterator
    has ended. At most ``ahead`` units are in progress, or done and not yielded.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cpstage-work")
    at_work = threading.Semaphore(threads)
    is_over = False

    def work_unless_over(unit: Unit) -> Result:
        with at_work:
            if is_over:
                raise CancelledError
            return work(unit)

    futures = (pool.submit(work_unless_over, unit) for unit in units)
    try:
        yield from bounded(futures, Future.result, ahead)
    finally:
        is_over = True
        for _ in range(threads):  # the pool may not know a thread: a signal interrupted its start
            at_work.acquire()
        at_work.release(threads)
        pool.shutdown(wait=True, cancel_futures=True)


def bounded(
    begun: Iterable[Unit], result: Callable[[Unit], Result], most: int
) -> Generator[Result, None, None]:
    """Yield the results of work in the order in which it is begun.

    At most ``most`` units of it are in progress, or done and not yielded.
    """
    under_way: deque[Unit] = deque()
    for unit in begun:
        under_way.append(unit)
        if len(under_way) >= most:
            yield result(under_way.popleft())
    while under_way:
        yield result(under_way.popleft())


class _End(NamedTuple):
    """Comes after the last item, with what the iterator raised if it did not end by itself."""

    error: BaseException | None


@contextmanager
def ahead(items: Iterator[Unit], most: int) -> Iterator[Iterator[Unit]]:
    """Run an iterator in a thread until it ends, or until the context is left.

    The context does not wait for the thread, which may be in a long read. The thread ends after its
    current item, which is dropped. A signal's handler may interrupt these queues by an exception.
    What the iterator raises is raised in its consumer, for whom at most ``most`` items wait.
    """
    ready: SimpleQueue[Unit | _End] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()
    left = threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                room.get()
                if left.is_set():
                    return
                ready.put(item)
        except BaseException as raised:
            error = raised
        ready.put(_End(error))

    def consumed() -> Iterator[Unit]:
        while not isinstance(item := ready.get(), _End):
            room.put(None)
            yield item
        if item.error is not None:
            raise item.error

    for _ in range(most):
        room.put(None)
    try:
        threading.Thread(target=work, name="cpstage-ahead", daemon=True).start()
        yield consumed()
    finally:
        left.set()
        room.put(None)


Work = Callable[[bytes, "memoryview | bytes"], bytes]
"""Makes the result of a unit's message, and of its bytes, which are gone afterwards."""

_REQUEST = struct.Struct("<QQ")
"""The lengths of the message about a unit, and of its bytes."""

_REPLY = struct.Struct("<?Q")
"""Whether the work succeeded, and the length of what follows: the result, or the error."""

_PIPE_BYTES = 1 << 20
"""What an unprivileged process may ask for (pipe(7)); a whole unit waits in a pipe."""

_LOOK_SECONDS = 1.0
"""After so long without a byte, a process looks whether the other one is still alive."""

_OURS: set[int] = set()
"""The parent's ends of the pipes to all children. Each child closes its copies of them."""

_MANY = 1000
"""Files from which on processes are worth the few milliseconds that it takes to start them."""

_AHEAD = 3
"""Units for each process that may be in progress, or done while their results wait."""


def is_worth_forking(files: int) -> bool:
    """Whether work on so many files is done sooner by worker processes."""
    # Elsewhere libraries of the system do not bear a fork of a process that has threads.
    return sys.platform == "linux" and files >= _MANY


class Processes:
    """Some processes that work on units; a context, whose end ends them.

    One thread at a time may use them. Between its calls only what the pipes hold is worked on. What
    work changes in memory is not seen here. A call raises LocalIOError if a process was killed.

    Attributes:
        most_ahead: Units that may be in progress, or done while their results wait.

    Raises:
        LocalIOError: The system cannot start more processes.
    """

    def __init__(self, work: Work, count: int) -> None:
        self._children: list[_Child] = []
        self._sent = 0
        self._results: dict[int, memoryview | Reportable] = {}
        self.most_ahead = _AHEAD * count
        try:
            # A child that had the handlers of its parent yet would clean up for it.
            with blocked(signal.valid_signals()) as before:
                for _ in range(count):
                    self._children.append(_Child(work, before))
        except BaseException:
            self.close()
            raise
        self._by_descriptor = {end: one for one in self._children for end in one.pipes}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes; one in the middle of a unit leaves that half done."""
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
        self._children.clear()

    def send(self, note: bytes, data: memoryview | bytes = b"") -> int:
        """Give a unit to the process with the fewest, and return the unit's number.

        Its bytes stay as they are until its result has been returned.
        """
        self._sent += 1
        child = min(self._children, key=lambda one: len(one.units))
        child.put(self._sent, note, data)
        self._move(0)
        return self._sent

    def result(self, number: int) -> memoryview:
        """Wait for the result of a unit, and return it; what the work raised is raised here."""
        while number not in self._results:
            self._move(_LOOK_SECONDS)
        result = self._results.pop(number)
        if isinstance(result, Reportable):
            raise result
        return result

    def in_order(self, numbers: Iterable[int]) -> Generator[memoryview, None, None]:
        """Yield the results of units in their order, with a bounded number of units ahead.

        The iterable may send the unit of its next number: it is asked for it when there is room.
        The error of the first unit that failed is raised.
        """
        return bounded(numbers, self.result, self.most_ahead)

    def _move(self, seconds: float) -> None:
        """Write and read what the pipes take and hold; wait so long for the first of it."""
        poll = select.poll()
        for child in self._children:
            if child.units:
                poll.register(child.replies, select.POLLIN)
            if child.outgoing:
                poll.register(child.requests, select.POLLOUT)
        events = poll.poll(seconds * 1000)
        for descriptor, _ in events:
            child = self._by_descriptor[descriptor]
            if descriptor == child.requests:
                child.write_some()
            else:
                self._results.update(child.read_some())
        if seconds and not events and not all(child.lives() for child in self._children):
            raise _killed()


class _Child:
    """A worker process, as its parent has it; ``signals`` are those that it blocks.

    Attributes:
        pipes: The one to it, for requests, and the one from it, for replies.
        outgoing: What is still to be written to it.
        units: The numbers of units whose results are still to be read.

    Raises:
        LocalIOError: The system gives no more processes or descriptors; later, it was killed.
    """

    def __init__(self, work: Work, signals: set[signal.Signals | int]) -> None:
        with ExitStack() as theirs, ExitStack() as ours:
            parent = os.getpid()
            try:
                their_requests, self.requests = _pipe(theirs, ours)
                self.replies, their_replies = _pipe(ours, theirs)
                self.pipes = (self.requests, self.replies)
                _OURS.update(self.pipes)
                # Closed descriptors may not stay in it, nor after a fork that failed.
                ours.callback(_OURS.difference_update, self.pipes)
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
            for pipe in self.pipes:
                os.set_blocking(pipe, False)
            self._ours = ours.pop_all()
        self.outgoing: deque[memoryview] = deque()
        self.units: deque[int] = deque()
        self._head = self._buffer = memoryview(bytearray(_REPLY.size))
        self._filled = 0
        self._is_good = True

    def put(self, number: int, note: bytes, data: memoryview | bytes) -> None:
        """Queue a unit for it."""
        self.units.append(number)
        self.outgoing.append(memoryview(_REQUEST.pack(len(note), len(data)) + note))
        if data:
            self.outgoing.append(memoryview(data))

    def write_some(self) -> None:
        """Write what its pipe takes."""
        try:
            written = os.writev(self.requests, list(self.outgoing))
        except BlockingIOError:
            return
        except BrokenPipeError as error:
            raise _killed() from error
        while self.outgoing and written >= len(self.outgoing[0]):
            written -= len(self.outgoing.popleft())
        if written:
            self.outgoing[0] = self.outgoing[0][written:]

    def read_some(self) -> dict[int, memoryview | Reportable]:
        """Read what its pipe holds of a result, and return that by its number once it is whole."""
        try:
            count = os.readv(self.replies, [self._buffer[self._filled :]])
        except BlockingIOError:
            return {}
        if not count:
            raise _killed()
        self._filled += count
        if self._filled < len(self._buffer):
            return {}
        whole, self._filled = self._buffer, 0
        if whole is self._head:
            self._is_good, length = _REPLY.unpack(whole)
            whole = self._buffer = memoryview(bytearray(length))
            if length:
                return {}
        self._buffer = self._head
        number = self.units.popleft()
        if self._is_good:
            return {number: whole}
        kind, message, hint = pickle.loads(bytes(whole))  # noqa: S301 (our own child's)
        return {number: kind(message, hint=hint)}

    def lives(self) -> bool:
        """Whether it has not exited; one that the host program has reaped has."""
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def kill(self) -> None:
        """Kill it: it has nothing to clean up."""
        # Closing the pipe would not end it: a process that the host program has forked may hold it.
        if self.lives():
            os.kill(self._pid, signal.SIGKILL)
        self._ours.close()

    def wait(self) -> None:
        """Wait until it has exited."""
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _killed() -> LocalIOError:
    what = "a child process of cpstage was killed, or got no more memory"
    return LocalIOError(what, hint=NO_ROOM_HINT)


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Make a pipe, and let each end be closed with the stack of the process that has it."""
    import fcntl

    reading, writing = os.pipe()
    reader.callback(os.close, reading)
    writer.callback(os.close, writing)
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return reading, writing


def _serve(
    work: Work, requests: int, replies: int, signals: set[signal.Signals | int], parent: int
) -> NoReturn:
    """Be the child: work on units until the parent kills it, or is gone."""
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
        buffer = bytearray(_PIPE_BYTES)  # one for all units: new memory costs a fault a page
        while True:
            said, length = _REQUEST.unpack(_read(requests, bytearray(_REQUEST.size), parent))
            note = bytes(_read(requests, bytearray(said), parent))
            if length > len(buffer):
                buffer = bytearray(length)
            data = _read(requests, memoryview(buffer)[:length], parent)
            good, reply = _outcome(work, note, data)
            _write(replies, _REPLY.pack(good, len(reply)), parent)
            _write(replies, reply, parent)
    finally:
        os._exit(0)  # whatever was raised: the parent sees by the pipe that the child is gone


def _outcome(work: Work, note: bytes, data: memoryview) -> tuple[bool, bytes]:
    try:
        return True, work(note, data)
    except (Reportable, Exception) as error:
        found = reportable(error)
        return False, pickle.dumps((type(found), found.message, found.hint))


def _write(descriptor: int, data: bytes, parent: int) -> None:
    """Write all to a pipe; raise BrokenPipeError when the parent is gone."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            _await(descriptor, select.POLLOUT, parent)


def _read(descriptor: int, buffer: bytearray | memoryview, parent: int) -> memoryview:
    """Fill a buffer from a pipe, and return it; raise EOFError when the parent is gone."""
    left = data = memoryview(buffer)
    while left:
        try:
            count = os.readv(descriptor, [left])
        except BlockingIOError:
            _await(descriptor, select.POLLIN, parent)
            continue
        if not count:
            raise EOFError
        left = left[count:]
    return data


def _await(descriptor: int, event: int, parent: int) -> None:
    """Wait some time for a pipe; raise EOFError when the parent is gone."""
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(_LOOK_SECONDS * 1000) and os.getppid() != parent:
        raise EOFError
