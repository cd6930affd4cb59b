"""A directory tree below one descriptor: safe writes, permission bits, mtimes, and its fingerprint.

Every name is opened component by component from the root's descriptor with ``O_NOFOLLOW``, and
created with ``O_EXCL``: whatever the disk holds, nothing is written outside, through a link, or
over something else. This module trusts a :data:`RelativePath` and takes no other name.

The fingerprint tells whether a staged tree is still what was staged. It covers the name, kind,
permission bits, size and mtime of each entry, and the targets of symlinks, and reads no file: an
edit that restores size and mtime needs the comparison of contents, and so does a tree that was
written before the last boot, since a loss of power can take away data and leave the metadata. It is
the sum of a hash of each entry, so that several processes can each add up a part of a tree.

Nothing here recurses: a build can make trees that are deeper than the interpreter's stack.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NewType

from cpstage._posix import DIRECTORY, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK
from cpstage.errors import local_failure, local_failures
from cpstage.progress import Advance, counted

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

_MOST_TIME = 10**9 << 62
"""Nanoseconds since the epoch: more than most file systems have, and no overflow anywhere."""

_READ = os.O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC

_KIND, _PERMISSIONS = 0o170000, 0o7777
"""Bits of ``st_mode`` (inode(7))."""

_CHUNK = 1 << 20

_MOST_NAMED = 5
"""Differences that are looked for."""

_MODULUS = 1 << 256
"""Sums have as many bits as hashes."""

_DEEPEST = 256
"""Levels; archives have 128 by default, and each level is an open descriptor."""


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
        self._mtimes: tuple[int, int] | None = None
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
        try:
            directory = self._open(path)
            hashed = hash_files(directory, path) if hashes else 0
            if mode != DIRECTORY_MODE:
                special = stat.S_IMODE(os.fstat(directory).st_mode) & ~0o777
                os.fchmod(directory, special | (mode & ~self._find_umask()))
            if mtime_ns is not None:
                _set_mtime(directory, self._read_at, mtime_ns)
            return hashed + hash_directory(directory, path) if hashes and path else hashed
        except (OSError, UnicodeEncodeError) as error:
            doing = "set the mode and mtime of"
            raise local_failure(error, self.root / path, doing) from error

    def nearest_mtime(self, mtime_ns: int) -> int:
        """Return the nearest mtime that the file system has, in nanoseconds since the epoch."""
        if self._mtimes is None:
            with self._probe() as file:
                self._mtimes = (
                    _limit_of_mtimes(file, -_MOST_TIME),
                    _limit_of_mtimes(file, _MOST_TIME),
                )
        oldest, newest = self._mtimes
        return min(max(mtime_ns, oldest), newest)

    def _find_umask(self) -> int:
        """Return the process's umask by a file: umask(2) would change it for other threads."""
        if self._umask is None:
            with self._probe() as file:
                self._umask = 0o777 & ~os.fstat(file).st_mode
        return self._umask

    @contextmanager
    def _probe(self) -> Iterator[int]:
        """Make a file for a while, with a name that no archive and no other process can have."""
        name = f".cpstage-{os.urandom(8).hex()}"
        with local_failures(self.root, "write to"):
            file = os.open(name, _NEW_FILE, 0o777, dir_fd=self._root)
            try:
                yield file
            finally:
                os.close(file)
                os.unlink(name, dir_fd=self._root)

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

    def remove_file(self, path: RelativePath) -> int:
        """Remove a file, and return how many bytes go: none while a hard link still has them."""
        directory, _, name = path.rpartition("/")
        with local_failures(self.root / path, "remove"):
            parent = self._open(directory)
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            os.unlink(name, dir_fd=parent)
        return found.st_size if found.st_nlink == 1 else 0

    def folds_names(self) -> bool:
        """Whether names that differ in case, or in the form of an accent, are one file here."""
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


def _limit_of_mtimes(descriptor: int, extreme_ns: int) -> int:
    """Return what becomes of an extreme mtime: Linux takes the nearest that the file system has."""
    with suppress(OSError, OverflowError):
        os.utime(descriptor, ns=(extreme_ns, extreme_ns))
        return os.fstat(descriptor).st_mtime_ns
    return extreme_ns


def write_all(descriptor: int, chunk: bytes | memoryview) -> int:
    """Write a chunk whole, and return its length: a full disk may first take a part of it."""
    written = os.write(descriptor, chunk) if chunk else 0
    while written < len(chunk):
        written += os.write(descriptor, memoryview(chunk)[written:])
    return written


def fingerprint(root: Path, advance: Advance | None = None) -> str:
    """Return the fingerprint of a tree, in hexadecimal, and count entries as they are read.

    It is ``unreadable`` where the tree cannot be read, is too deep, or is missing.
    """
    try:
        entries = counted(_entries(root), advance)
        return fingerprint_of(sum(_entry_hash(*entry) for entry in entries))
    except OSError:
        return "unreadable"


def fingerprint_of(hashes: int) -> str:
    """Return the fingerprint of a tree by the sum of the hashes of all entries."""
    return f"{hashes % _MODULUS:064x}"


def hash_files(directory: int, path: str) -> int:
    """Return the sum of the hashes of what is in a directory, without its subdirectories.

    Args:
        directory: Its descriptor.
        path: Where it is below the root; empty for the root.
    """
    prefix = os.fsencode(f"{path}/") if path else b""
    hashes = 0
    with os.scandir(directory) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                continue
            is_link = entry.is_symlink()
            target = os.fsencode(os.readlink(entry.name, dir_fd=directory)) if is_link else b""
            status = entry.stat(follow_symlinks=False)
            hashes += _entry_hash(prefix + os.fsencode(entry.name), status, target)
    return hashes


def hash_directory(directory: int, path: str) -> int:
    """Return the hash of a directory itself; the arguments are those of :func:`hash_files`."""
    return _entry_hash(os.fsencode(path), os.fstat(directory), b"")


def _entry_hash(path: bytes, status: os.stat_result, target: bytes) -> int:
    mode = status.st_mode
    kind, permissions = mode & _KIND, mode & _PERMISSIONS
    if kind == stat.S_IFREG:  # one expression: a tree can have 200,000 files
        size, mtime = status.st_size, status.st_mtime_ns
        line = b"%b\0%o\0%o\0%d %d" % (path, kind, permissions, size, mtime)
    elif kind == stat.S_IFLNK:
        line = b"%b\0%o\0%b" % (path, kind, target)
    else:
        line = b"%b\0%o\0%o" % (path, kind, permissions)
    return int.from_bytes(hashlib.sha256(line).digest(), "big")


def differences(found: Path, wanted: Path) -> list[str]:
    """Compare what is in the workspace with what was staged anew, by contents.

    Returns:
        The first paths of what was added, removed or changed; mtimes do not count.

    Raises:
        OSError: The second tree cannot be read; of the first one it is a difference.
    """
    expected = {path: (status, target) for path, status, target in _entries(wanted)}
    different = []
    try:
        for path, status, target in _entries(found):
            other = expected.pop(path, None)
            name = os.fsdecode(path)
            if other is None or not _is_equal(found / name, (status, target), wanted / name, other):
                different.append(name)
                if len(different) == _MOST_NAMED:
                    return different
    except OSError as error:
        different.append(os.fsdecode(error.filename or b"?"))
    return (different + sorted(map(os.fsdecode, expected)))[:_MOST_NAMED]


def boot_id() -> str | None:
    """Return what tells this run of the system from others; None where it does not say (Linux)."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None


_Found = tuple[os.stat_result, bytes]


def _is_equal(path: Path, one: _Found, other_path: Path, other: _Found) -> bool:
    (status, target), (other_status, other_target) = one, other
    if (status.st_mode, target) != (other_status.st_mode, other_target):
        return False
    if not stat.S_ISREG(status.st_mode):
        return True
    return status.st_size == other_status.st_size and _equal_contents(path, other_path)


def _equal_contents(one: Path, other: Path) -> bool:
    """Compare two files byte by byte; one that cannot be read is different."""
    try:
        with (
            open(os.open(one, _READ), "rb", buffering=0) as first,
            open(os.open(other, _READ), "rb", buffering=0) as second,
        ):
            while True:
                left, right = first.read(_CHUNK), second.read(_CHUNK)
                if left != right:
                    return False
                if not left:
                    return True
    except OSError:
        return False


def _entries(root: Path) -> Iterator[tuple[bytes, os.stat_result, bytes]]:
    """Yield path, status and symlink target of each entry below a directory, in a fixed order.

    Raises:
        OSError: A directory cannot be read, or the tree is too deep.
    """
    levels = [(os.open(root, DIRECTORY), b"")]
    try:
        names = [_sorted_names(levels[0][0])]
        while levels:
            descriptor, prefix = levels[-1]
            if not names[-1]:
                os.close(levels.pop()[0])
                names.pop()
                continue
            name = names[-1].pop()
            path = prefix + name
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            is_link = stat.S_ISLNK(status.st_mode)
            yield path, status, os.readlink(name, dir_fd=descriptor) if is_link else b""
            if stat.S_ISDIR(status.st_mode):
                if len(levels) == _DEEPEST:
                    raise OSError(0, "too deep", path)
                below = os.open(name, DIRECTORY, dir_fd=descriptor)
                levels.append((below, path + b"/"))
                names.append(_sorted_names(below))
    finally:
        for descriptor, _ in levels:
            os.close(descriptor)


def _sorted_names(descriptor: int) -> list[bytes]:
    """Return the names in a directory, the first one last."""
    return sorted(map(os.fsencode, os.listdir(descriptor)), reverse=True)
