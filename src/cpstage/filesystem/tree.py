"""The file system below one directory: safe writes by descriptor, permission bits and mtimes.

Every name is opened component by component from the root's descriptor with ``O_NOFOLLOW``, and
created with ``O_EXCL``: whatever the disk holds, nothing is written outside, through a link, or
over something else. This module trusts a :data:`RelativePath` and takes no other name.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NewType

from cpstage._posix import DIRECTORY, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW
from cpstage.errors import LocalIOError, WorkspaceUnavailable, local_reason
from cpstage.filesystem.fingerprint import hash_directory, hash_files

RelativePath = NewType("RelativePath", str)
"""A path below a tree: components joined by ``/``, none of them empty, ``.`` or ``..``."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | O_CLOEXEC

FILE_MODE, DIRECTORY_MODE = 0o644, 0o755
"""Permission bits where an archive has none, before the umask takes some away."""

_MOST_OPEN = 64
"""Directories that a thread keeps open; ulimit(1) often allows 1,024 descriptors in all."""

_PROBE = "cpstage-\u00e9".encode()
_SAME_PROBE = ("CPSTAGE-\u00c9".encode(), "cpstage-e\u0301".encode())
"""The probe's name in capitals, and in the decomposed form (Unicode NFD), whatever the locale."""


class Tree:
    """A directory that files, directories and links are created in, and nothing else.

    Several threads may write to it at once.

    Args:
        root: An existing directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read_at = time.time_ns()
        self._umask: int | None = None
        with local_failures(root, "open"):
            self._root = os.open(root, os.O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        self._local = threading.local()
        self._caches: list[_OpenDirectories] = []

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        for cache in self._caches:
            cache.close()
        os.close(self._root)

    def make_directory(self, path: RelativePath) -> None:
        """Create a directory and its parents; one that exists is fine."""
        try:
            self._open(path)
        except OSError as error:
            raise local_failure(error, self.root / path, "create") from error

    def write_file(
        self,
        path: RelativePath,
        chunks: Iterable[bytes | memoryview],
        *,
        mode: int = FILE_MODE,
        mtime_ns: int | None = None,
    ) -> int:
        """Create a file of some chunks, and return its size in bytes.

        The umask takes some bits of the mode away. The mtime is in nanoseconds since the epoch.

        Raises:
            WorkspaceUnavailable: Something of that name, or a link on the way, is there.
            LocalIOError: The disk is full, or it failed.
        """
        written = 0
        directory, _, name = path.rpartition("/")
        try:
            file = os.open(name, _NEW_FILE, mode, dir_fd=self._open(directory))
            try:
                for chunk in chunks:
                    written += write_all(file, chunk)
                if mtime_ns is not None:
                    _set_mtime(file, self._read_at, mtime_ns)
            finally:
                os.close(file)
        except (OSError, UnicodeEncodeError) as error:
            raise local_failure(error, self.root / path) from error
        return written

    def make_link(self, path: RelativePath, target: str, mtime_ns: int | None = None) -> None:
        """Create a symlink; the caller checks its target."""
        directory, _, name = path.rpartition("/")
        with local_failures(self.root / path, "create"):
            parent = self._open(directory)
            os.symlink(os.fsencode(target), name, dir_fd=parent)
            if mtime_ns is not None and os.utime in os.supports_follow_symlinks:
                times = (self._read_at, mtime_ns)
                with suppress(OSError, OverflowError):  # some file systems have no times of links
                    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def finish_directory(
        self, path: RelativePath, mode: int, mtime_ns: int | None, *, hashes: bool = False
    ) -> int:
        """Give a directory its mode and mtime, when nothing more is created in it.

        The path of the root is empty. Where its owner may not enter a directory afterwards,
        directories below it are finished before it.

        Returns:
            Its part of the tree's fingerprint: the sum of the hashes of it and of what is in it,
            without its subdirectories. 0 where it is not to be hashed.
        """
        with local_failures(self.root / path, "set the mode and mtime of"):
            directory = self._open(path)
            hashed = hash_files(directory, path) if hashes else 0
            if mode != DIRECTORY_MODE:
                special = stat.S_IMODE(os.fstat(directory).st_mode) & ~0o777
                os.fchmod(directory, special | (mode & ~self._find_umask()))
            if mtime_ns is not None:
                _set_mtime(directory, self._read_at, mtime_ns)
            return hashed + hash_directory(directory, path) if hashes and path else hashed

    def _find_umask(self) -> int:
        """Return the process's umask by a file: umask(2) would change it for other threads."""
        if self._umask is None:
            file = os.open(_PROBE, _NEW_FILE, 0o777, dir_fd=self._root)
            try:
                self._umask = 0o777 & ~os.fstat(file).st_mode
            finally:
                os.close(file)
                os.unlink(_PROBE, dir_fd=self._root)
        return self._umask

    def make_hard_link(self, path: RelativePath, existing: RelativePath) -> None:
        """Give a regular file of this tree a second name."""
        there, _, old = existing.rpartition("/")
        here, _, new = path.rpartition("/")
        with local_failures(self.root / path, "create"):
            source = os.dup(self._open(there))  # which opening the other may close
            try:
                parent = self._open(here)
                os.link(old, new, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)

    def remove_file(self, path: RelativePath) -> None:
        """Remove a file that was written before."""
        directory, _, name = path.rpartition("/")
        with local_failures(self.root / path, "remove"):
            os.unlink(name, dir_fd=self._open(directory))

    def folds_names(self) -> bool:
        """Whether names that differ in case, or in the form of an accent, are one file here.

        Raises:
            WorkspaceUnavailable, LocalIOError: It cannot be tried.
        """
        with local_failures(self.root, "write to"):
            os.close(os.open(_PROBE, _NEW_FILE, 0o600, dir_fd=self._root))
            try:
                return any(os.access(name, os.F_OK, dir_fd=self._root) for name in _SAME_PROBE)
            finally:
                os.unlink(_PROBE, dir_fd=self._root)

    def _open(self, directory: str) -> int:
        """Open a directory below the root, creating what is missing; it is not the caller's."""
        cache: _OpenDirectories | None = getattr(self._local, "cache", None)
        if cache is None:
            cache = self._local.cache = _OpenDirectories(self._root)
            self._caches.append(cache)
        return cache.open(directory)


class _OpenDirectories:
    """Directories that a thread has open below a root: what it writes next is often a neighbour."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: dict[str, int] = {}

    def open(self, directory: str) -> int:
        """Open a directory, component by component, each one from its parent."""
        if not directory:
            return self._root
        found = self._open.get(directory)
        if found is not None:
            return found
        above, _, name = directory.rpartition("/")
        missing = [name]
        while above and above not in self._open:
            above, _, name = above.rpartition("/")
            missing.append(name)
        current = self._open.get(above, self._root)
        while missing:
            name = missing.pop()
            current = _enter(current, name)
            above = f"{above}/{name}" if above else name
            self._open[above] = current
            if len(self._open) > _MOST_OPEN:
                self._forget_all_but(above)
        return current

    def close(self) -> None:
        """Close them all."""
        self._forget_all_but("")

    def _forget_all_but(self, directory: str) -> None:
        kept = self._open.pop(directory, None)
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open = {} if kept is None else {directory: kept}


def _enter(parent: int, name: str) -> int:
    """Open a directory below an open one, creating it where it is missing."""
    with suppress(FileExistsError):  # most are not there, and a look first would be a step more
        os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
    return os.open(name, DIRECTORY, dir_fd=parent)


def _set_mtime(descriptor: int, atime_ns: int, mtime_ns: int) -> None:
    """Set the mtime of an open file; one that the file system cannot have is left out."""
    try:  # noqa: SIM105 (suppress() takes longer than the call)
        os.utime(descriptor, ns=(atime_ns, mtime_ns))
    except (OSError, OverflowError):
        pass


def write_all(descriptor: int, chunk: bytes | memoryview) -> int:
    """Write a chunk whole, and return its length: a full disk may first take a part of it."""
    written = os.write(descriptor, chunk) if chunk else 0
    while written < len(chunk):
        written += os.write(descriptor, memoryview(chunk)[written:])
    return written


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner may read.

    Raises:
        WorkspaceUnavailable, LocalIOError: It is there already, or cannot be written.
    """
    with local_failures(path), os.fdopen(os.open(path, _NEW_FILE, 0o600), "wb") as file:
        file.write(text.encode(errors="surrogatepass"))


_TAKEN = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def local_failures(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn a failure of the file system into one of our errors, which says what was done to a path.

    Raises:
        WorkspaceUnavailable: Something else is in the place, or it may not be written to.
        LocalIOError: The disk is full or broken, or the name is too long for it, or has characters
            that file names do not have in this locale.
    """
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        raise local_failure(error, path, doing) from error


def local_failure(
    error: OSError | UnicodeEncodeError, path: Path, doing: str = "write"
) -> WorkspaceUnavailable | LocalIOError:
    """Return our error for one of the file system; see :func:`local_failures`."""
    if isinstance(error, UnicodeEncodeError):
        return LocalIOError(
            f"cannot {doing} {path}: file names are in {error.encoding} here, and lack a character",
            hint="use a UTF-8 locale, or set PYTHONUTF8=1",
        )
    what = f"cannot {doing} {path}: {local_reason(error)}"
    if error.errno in _TAKEN:
        return WorkspaceUnavailable(what, hint="something else is in its place")
    if error.errno in _FORBIDDEN:
        return WorkspaceUnavailable(what, hint="check the owner and mode of it")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LocalIOError(what, hint="free some space, or give another --workspace")
    if error.errno == errno.ENOENT:
        return LocalIOError(what, hint="check that its directory is there")
    return LocalIOError(what)
