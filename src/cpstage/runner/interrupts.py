"""The signals that stop a run, and what they do while it goes through its stages.

While artifacts move they raise :class:`Stopped`, which unwinds and cleans up; while the command
runs they are its own; while the result is put they wait, since a result that is half put helps
nobody. Nothing but SIGKILL ends a run without that. This module knows nothing of what is run.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cpstage._posix import SIGNALS
from cpstage.errors import Stopped

Receiver = Callable[[int], object]


class Interrupts:
    """What becomes of signals during one run; a context, also within itself, in which they come.

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
        """Take a signal, in any thread: the innermost context decides what becomes of it."""
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
