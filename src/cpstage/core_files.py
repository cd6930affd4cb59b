"""Core files: a process that has a job's session in memory leaves none of it on a disk."""

from __future__ import annotations

import sys
from contextlib import suppress

_PR_SET_DUMPABLE = 4


def make_no_core_file() -> None:
    """Let the system write no core file of this process, nor of those that it forks.

    On Linux that is a property of the process which execve(2) takes away again, so that a program
    which it starts has what it would have by itself; and it holds where core files are piped into
    a program as well, which a limit does not (prctl(2), core(5)). Other users' processes, and other
    processes of the same user, can then not look into this one through ``/proc`` either.

    Elsewhere it is the soft limit, which programs inherit, and may raise again.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(AttributeError, OSError):
            if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0:
                return
    import resource

    with suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
