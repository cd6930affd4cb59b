"""The file system below one directory: safe writes by descriptor.

Every name is opened component by component from the root's descriptor with ``O_NOFOLLOW``, and
created with ``O_EXCL``: whatever the disk holds, nothing is written outside, through a link, or
over something else. This module knows nothing of archives or AWS; it trusts a
:data:`RelativePath` and takes no other name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NewType

from cpstage.errors import LocalIOError, WorkspaceUnavailable

RelativePath = NewType("RelativePath", str)
"""A path below a tree: components joined by ``/``, none of them empty, ``.`` or ``..``."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """A directory that files, directories and links are created in, and nothing else.

    Args:
        root: An existing directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with local_failures(root):
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent: tuple[str, int] | None = None

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._forget_parent()
        os.close(self._root)

    def make_directory(self, path: RelativePath) -> None:
        """Create a directory and its parents; one that exists is fine."""
        with local_failures(self.root / path):
            os.close(self._descend(path))

    def write_file(self, path: RelativePath, chunks: Iterable[bytes], *, executable: bool) -> int:
        """Create a file, 0755 or 0644 under the umask, and return how many bytes it has.

        Raises:
            WorkspaceUnavailable: Something of that name, or a link on the way, is there.
            LocalIOError: The disk is full, or it failed.
        """
        written = 0
        with local_failures(self.root / path):
            parent, name = self._open_parent(path)
            descriptor = os.open(name, _NEW_FILE, 0o755 if executable else 0o644, dir_fd=parent)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for chunk in chunks:
                with local_failures(self.root / path):
                    _write_all(file.fileno(), chunk)
                written += len(chunk)
        return written

    def make_link(self, path: RelativePath, target: str) -> None:
        """Create a symbolic link; the target is the caller's to check."""
        with local_failures(self.root / path):
            parent, name = self._open_parent(path)
            os.symlink(target, name, dir_fd=parent)

    def make_hard_link(self, path: RelativePath, existing: RelativePath) -> None:
        """Give a regular file of this tree a second name."""
        with local_failures(self.root / path):
            source = self._descend(existing.rpartition("/")[0])
            try:
                parent, name = self._open_parent(path)
                os.link(
                    existing.rpartition("/")[2],
                    name,
                    src_dir_fd=source,
                    dst_dir_fd=parent,
                    follow_symlinks=False,
                )
            finally:
                os.close(source)

    def remove_file(self, path: RelativePath) -> None:
        """Remove a file that was written before."""
        with local_failures(self.root / path):
            parent, name = self._open_parent(path)
            os.unlink(name, dir_fd=parent)

    def _open_parent(self, path: RelativePath) -> tuple[int, str]:
        """Open the directory of a path, and keep it: the next path is often its neighbour."""
        directory, _, name = path.rpartition("/")
        if self._parent is None or self._parent[0] != directory:
            descriptor = self._descend(directory)
            self._forget_parent()
            self._parent = (directory, descriptor)
        return self._parent[1], name

    def _descend(self, directory: str) -> int:
        """Open a directory below the root, creating what is missing on the way."""
        current = os.dup(self._root)
        for name in filter(None, directory.split("/")):
            parent = current
            try:
                current = _enter(parent, name)
            finally:
                os.close(parent)
        return current

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None


def _enter(parent: int, name: str) -> int:
    """Open a directory below an open one, creating it where it is missing."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)


def _write_all(descriptor: int, chunk: bytes) -> None:
    """Write a chunk whole: a full disk may first take a part of it."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


_TAKEN = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def local_failures(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn an OSError of the file system into one of our errors, naming the path.

    Args:
        path: What is used.
        doing: What is done with it.

    Raises:
        WorkspaceUnavailable: Something else is in the place, or it may not be written to.
        LocalIOError: The disk is full or broken, or the name is too long for it.
    """
    try:
        yield
    except OSError as error:
        what = f"cannot {doing} {path}: {os.strerror(error.errno or 0)}"
        if error.errno in _TAKEN:
            raise WorkspaceUnavailable(what, hint="something else is in its place") from error
        if error.errno in _FORBIDDEN:
            raise WorkspaceUnavailable(what, hint="check the owner and mode of it") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LocalIOError(what, hint="free some space, or give another --workspace") from error
        raise LocalIOError(what) from error
