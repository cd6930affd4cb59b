"""Whether a staged tree is still what was staged: cheaply by its metadata, or by its contents.

The fingerprint of a tree covers the name, kind, permission bits, size and modification time of
each entry, and the targets of symlinks. The manifest keeps it. A tree that was edited, or of which
a part was deleted, has another one. It reads no file: an edit that restores size and modification
time needs the comparison of contents, and so does a tree that was written before the last boot,
since a loss of power can take away data and leave the metadata.

It is the sum of a hash of each entry, so that several processes can each add up a part of a tree,
in any order.

Nothing here recurses: a build can make trees that are deeper than the interpreter's stack.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cpstage._posix import DIRECTORY, O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK
from cpstage.progress import Advance, counted

_FILE = os.O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC

_KIND, _PERMISSIONS = 0o170000, 0o7777
"""Bits of ``st_mode`` (inode(7))."""

_CHUNK = 1 << 20

_MOST_NAMED = 5
"""Differences that are looked for."""

_MODULUS = 1 << 256
"""Sums have as many bits as hashes."""

_DEEPEST = 256
"""Levels; archives have 128 by default, and each level is an open descriptor."""


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
            open(os.open(one, _FILE), "rb", buffering=0) as first,
            open(os.open(other, _FILE), "rb", buffering=0) as second,
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
