"""Single files: replaced in one step, or made for their owner alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cpstage._posix import O_CLOEXEC, O_NOFOLLOW
from cpstage.errors import WorkspaceUnavailable, local_failures
from cpstage.filesystem.removal import removed_at_end

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | O_CLOEXEC

_PRIVATE = 0o600


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
        # Without the name of the file, which may be as long as a name can be.
        new = path.parent.resolve() / f".cpstage-new-{os.urandom(8).hex()}"
        with removed_at_end(new):
            with os.fdopen(os.open(new, _NEW_FILE, _PRIVATE), "wb") as file:
                yield file
                if mode != _PRIVATE:
                    os.fchmod(file.fileno(), mode)
            new.replace(path)


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner may read; raise WorkspaceUnavailable or LocalIOError."""
    with local_failures(path), os.fdopen(os.open(path, _NEW_FILE, _PRIVATE), "wb") as file:
        file.write(text.encode(errors="surrogatepass"))
