"""Single files: replaced in one step, or made for their owner alone.

Until it is whole, a new file is beside its place (``.cpstage-new-*``), and locked (flock(2)). One
that is not locked was left by a process that was killed: the next one that writes a file in the
same directory removes it. What belongs to another user is never touched.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cpstage._posix import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK
from cpstage.errors import WorkspaceUnavailable, local_failures
from cpstage.filesystem.removal import removed_at_end

_HAS_LOCKS = True
try:
    import fcntl
except ImportError:  # Windows, where this module can be imported
    _HAS_LOCKS = False

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | O_CLOEXEC

_PRIVATE = 0o600

_NEW = ".cpstage-new-"
_LEFT = re.compile(re.escape(_NEW) + "[0-9a-f]{16}")


def require_replaceable(path: Path) -> None:
    """Raise WorkspaceUnavailable if a path leads to a device, a directory, a FIFO or a symlink."""
    with local_failures(path, "look at"):
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise WorkspaceUnavailable(
                f"{path} is not a regular file", hint="give the name of a new file"
            )


def require_writable(path: Path) -> None:
    """Check that :func:`replaced_file` can write a file; leave none.

    Raises:
        WorkspaceUnavailable, LocalIOError: Its directory is missing or cannot be written to, or
            something other than a regular file is in its place.
    """
    require_replaceable(path)
    with local_failures(path), tempfile.TemporaryFile(dir=path.parent):
        pass


@contextmanager
def replaced_file(path: Path, mode: int = _PRIVATE) -> Iterator[BinaryIO]:
    """Write a file, which takes its place when the context ends without an error.

    Until then the old file is unchanged. After an error or a signal, nothing of the new one is
    left. ``mode`` are its permission bits.

    Raises:
        WorkspaceUnavailable, LocalIOError: It cannot be written.
    """
    require_replaceable(path)
    with local_failures(path):
        directory = path.parent.resolve()
        _sweep(directory)
        # Without the name of the file, which may be as long as a name can be.
        new = directory / f"{_NEW}{os.urandom(8).hex()}"
        with ExitStack() as stack, removed_at_end(new):
            with os.fdopen(_make_locked(new, stack), "wb") as file:
                yield file
                if mode != _PRIVATE:
                    os.fchmod(file.fileno(), mode)
            new.replace(path)


def _make_locked(new: Path, stack: ExitStack) -> int:
    """Make a file, and return its descriptor; its lock is held until a stack is closed."""
    while True:
        descriptor = os.open(new, _NEW_FILE, _PRIVATE)
        if not _HAS_LOCKS:
            return descriptor
        with suppress(OSError):  # then no other process can lock it, either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.lexists(new):
            stack.callback(os.close, os.dup(descriptor))
            return descriptor
        os.close(descriptor)  # swept before it was locked


def _sweep(directory: Path) -> None:
    """Remove the files of this user that killed processes left, where locks tell which."""
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(directory) if _LEFT.fullmatch(name)]
    for left in (directory / name for name in names if _HAS_LOCKS):
        with suppress(OSError):  # it is gone, in use, or not a file of ours
            descriptor = os.open(left, os.O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    left.unlink()
            finally:
                os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner may read; raise WorkspaceUnavailable or LocalIOError."""
    with local_failures(path), os.fdopen(os.open(path, _NEW_FILE, _PRIVATE), "wb") as file:
        file.write(text.encode(errors="surrogatepass"))
