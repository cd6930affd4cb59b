"""The terminal that cpstage was started on, lent to a command: job control as a shell does it.

A command has a process group of its own, so that signals reach all of it and nothing else. Only the
foreground group of a terminal may read from it and gets what its keys send, so the command's group
is made that, where cpstage's own was. Stopped by ``^Z``, or for reading in the background, it takes
cpstage with it, and goes on when cpstage does. Where there is no terminal, nothing happens.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from cpstage._posix import blocked, signals

_TERMINAL_STOPS = signals("SIGTSTP", "SIGTTIN", "SIGTTOU")


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
            return  # somebody else wants it so, and will let it go on
        if number == signal.SIGTSTP or not self._is_in_front(self._own, group):
            self.take_back(group)
            if not self._stop(number) and number != signal.SIGTSTP:
                return  # nobody can let it go on: it would want the terminal again, and again
        # Else it was faster than we, and wanted the terminal before it had it.
        self.lend(group)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)

    def _stop(self, number: int) -> bool:
        """Stop until a shell lets us go on; False where there is none, and no stop either."""
        with blocked({signal.SIGCONT}):
            os.killpg(self._own, number)
            return signal.SIGCONT in signal.sigpending()

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
