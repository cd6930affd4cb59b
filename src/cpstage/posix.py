"""What only POSIX systems have. cpstage stages on these alone, and says so elsewhere.

Its promises rest on locks that end with their process, access below directory descriptors, and
modes. Windows has none of them as they are meant; but all of cpstage can be imported there, and
what stages nothing works. So the names of flags and signals come from here where a module needs
them when it is loaded, and who is about to stage asks first.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cpstage.errors import ConfigurationError

O_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)
O_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
O_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
O_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)

NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
"""What a system or a file system says that does not have a call."""


def require_posix() -> None:
    """Check that this is a system to stage on.

    Raises:
        ConfigurationError: It is not.
    """
    try:
        import fcntl  # noqa: F401 (it is there, or it is not)
    except ImportError:
        raise ConfigurationError(
            "this system is not POSIX: it lacks the locks and directory descriptors to stage with",
            hint="run cpstage on Linux or macOS; on Windows, in WSL or a container",
        ) from None


@contextmanager
def blocked(numbers: Iterable[int]) -> Iterator[set[signal.Signals | int]]:
    """Let signals wait in this thread, and give those that were blocked before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return those signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))
