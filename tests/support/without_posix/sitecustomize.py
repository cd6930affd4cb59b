"""Takes from Python what only POSIX systems have; loaded at its start where this is on its path.

The standard library is loaded first: it uses other ways on other systems.
"""

from __future__ import annotations

import asyncio  # noqa: F401
import os
import signal
import sys

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
OS_NAMES = (
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK"),
    *("fork", "register_at_fork", "killpg", "setsid", "getsid", "setpgid", "getpgid", "getpgrp"),
    *("getuid", "geteuid", "tcgetpgrp", "tcsetpgrp", "fchmod", "mkfifo", "statvfs", "sendfile"),
    *("pread", "preadv", "pwritev", "posix_fallocate", "sched_getaffinity"),
)
SIGNALS = (
    *("SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP"),
    *("SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGWINCH", "pthread_sigmask"),
)

for module in MODULES:
    sys.modules[module] = None  # type: ignore[assignment]
for name in OS_NAMES:
    if hasattr(os, name):
        delattr(os, name)
for name in SIGNALS:
    delattr(signal, name)
