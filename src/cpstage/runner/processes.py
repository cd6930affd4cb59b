"""The processes of a command: its process group, and those that it leaves behind when it ends.

A process that was left behind is found by its process group. One that left the group (setsid(2), as
daemons do) is adopted by cpstage, which is a subreaper while the command runs (prctl(2),
PR_SET_CHILD_SUBREAPER), or process 1 of a container. An adopted process that has ended is a zombie
until it is reaped. Without ``/proc`` (Linux) nothing is found.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

KILL_AFTER = 10.0
"""Seconds from the end of the time limit to SIGKILL."""

_MOMENT = 0.3
"""Seconds."""

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


class ProcessGroup:
    """A running command's process group, and who wants it to end.

    Args:
        time_limit: Seconds that it may take; None is without end.
        kill_after: Seconds from the signal that asks it to end to the one that makes it; where it
            is None, 10 after the time is over, and no end after a signal that came from outside.
    """

    def __init__(self, time_limit: float | None, kill_after: float | None) -> None:
        self._time_limit = time_limit
        self._kill_after = kill_after
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

    def _later(self, seconds: float, what: Any) -> None:
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), what)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()


class _Process(NamedTuple):
    pid: int
    state: str
    parent: int
    group: int


class Orphans:
    """The processes that a command leaves behind.

    Args:
        others: Children of this process that are not the command's.
    """

    def __init__(self, others: frozenset[int]) -> None:
        self._others = others

    def find(self, group: int) -> list[int]:
        """Return the IDs of those that still run.

        Args:
            group: The process group of the command, which has ended.
        """
        for _ in range(2):  # a process that is created during a scan is only in the next one
            found = [
                one.pid
                for one in _processes()
                if one.state not in "ZX" and (one.group == group or self._is_adopted(one, group))
            ]
            if found:
                break
        return found

    def settled(self, group: int) -> list[int]:
        """Return the IDs of those that still run after a moment: most are about to end."""
        until = time.monotonic() + _MOMENT
        while (found := self.find(group)) and time.monotonic() < until:
            time.sleep(_MOMENT / 10)
        return found

    def reap(self, command: int | None) -> None:
        """Reap those that have ended, but not the command itself."""
        for one in _processes():
            if one.state == "Z" and one.pid != command and self._is_adopted(one, command):
                with suppress(ChildProcessError):
                    os.waitpid(one.pid, os.WNOHANG)

    def kill(self, group: int) -> list[int]:
        """Kill all of them, and return their IDs; those that they start meanwhile as well."""
        killed: list[int] = []
        while found := [pid for pid in self.find(group) if pid not in killed]:
            for pid in found:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            killed += found
        for pid in killed:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        return killed

    def _is_adopted(self, one: _Process, command: int | None) -> bool:
        return one.parent == os.getpid() and one.pid != command and one.pid not in self._others


@contextmanager
def adopting() -> Iterator[Orphans]:
    """Adopt what a command leaves behind, as long as the context lasts."""
    others = frozenset(one.pid for one in _processes() if one.parent == os.getpid())
    was_subreaper = _is_subreaper()
    _set_subreaper(adopt=True)
    try:
        yield Orphans(others)
    finally:
        _set_subreaper(adopt=was_subreaper)


def _processes() -> list[_Process]:
    """Return the processes that the system shows (proc(5))."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name of the program, in brackets, may hold anything.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            pid = int(stat.parent.name)
            found.append(_Process(pid, fields[0], int(fields[1]), int(fields[2])))
    return found


def _is_subreaper() -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    value = ctypes.c_int(0)
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0)
    return bool(value.value)


def _set_subreaper(*, adopt: bool) -> None:
    if sys.platform == "linux":
        import ctypes

        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)
