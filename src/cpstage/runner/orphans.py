"""Processes that a command leaves behind when it ends: found, ended, and reaped.

A process of the command is found by its process group. One that left the group (setsid(2), as
daemons do) is adopted by cpstage, which is a subreaper while the command runs (prctl(2),
PR_SET_CHILD_SUBREAPER), or process 1 of a container. An adopted process that has ended is a zombie
until it is reaped. Without ``/proc`` (Linux) nothing is found.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOMENT = 0.3
"""Seconds."""

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


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
