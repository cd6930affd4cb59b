"""Signals held back while a command is loaded that has to answer for what becomes of them.

What would end Python by its default, before there is anybody to report it, waits for its receiver.
"""

from __future__ import annotations

import signal

from cpstage.posix import signals

SIGNALS = signals("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
"""Those that stop a run."""

_held: set[signal.Signals] = set()


def hold_signals() -> None:
    """Let the signals wait that somebody has not held back already; not where that cannot be."""
    if hasattr(signal, "pthread_sigmask"):
        _held.update({*SIGNALS} - signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))


def release_signals() -> None:
    """Let those through that wait, and those to come; children have them as we were given them."""
    if _held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _held)
        _held.clear()
