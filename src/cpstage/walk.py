"""Reading a directory tree in a fixed order: what of it goes into an artifact.

The order is that of the names' bytes, a directory before what is in it, on every machine and in
every locale. This module decides what is listed, by globs and by what the entry is, and reads
files as they were listed or not at all; it knows nothing of the archive that the list is for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

from cpstage._posix import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK
from cpstage.errors import ArtifactRejected, LocalIOError, local_reason
from cpstage.filesystem import RelativePath
from cpstage.globs import Globs

Symlinks = Literal["keep", "follow"]
Kind = Literal["file", "directory", "link"]

_CHUNK = 1 << 20

_READ = os.O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
"""Without O_NONBLOCK, opening a FIFO that took a file's place would wait for a writer."""

_BY_NAME = attrgetter("name")
"""Code points have the order of their UTF-8 bytes, and a name that is not UTF-8 is not listed."""


class Entry(NamedTuple):
    """One entry of a tree; a tuple, which is made in a quarter of a frozen dataclass's time.

    Attributes:
        path: Where it stands below the root.
        kind: What it is; a followed link is what it points to.
        source: Where to read it.
        size: Bytes of a file, else 0.
        executable: Whether its owner may execute it.
        target: The text of a link, else empty.
        inode: The number of a file, which one that took its place does not have.
        mtime_ns: When a file was last written.
    """

    path: RelativePath
    kind: Kind
    source: str
    size: int = 0
    executable: bool = False
    target: str = ""
    inode: int = 0
    mtime_ns: int = 0


def walk(root: Path, globs: Globs, symlinks: Symlinks = "keep") -> Iterator[Entry]:
    """List what is below a directory and passes the globs.

    Args:
        root: The directory.
        globs: What to list.
        symlinks: ``keep`` lists links as links; ``follow`` lists what they point to, which
            has to be below the root.

    Raises:
        ArtifactRejected: A socket, fifo or device; a name that is not UTF-8; a followed link
            that leaves the tree or leads back to a directory it is in.
        LocalIOError: A directory or file cannot be read.
    """
    # A stack and not recursion: a tree may be deeper than the interpreter's own.
    above = [os.path.realpath(root)]
    stack = [iter(_listed(above, "", globs, symlinks))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            above.pop()
            continue
        if not globs.include or globs.takes(entry.path):
            yield entry
        if entry.kind == "directory":
            above.append(entry.source)
            stack.append(iter(_listed(above, f"{entry.path}/", globs, symlinks)))


def _listed(above: list[str], prefix: str, globs: Globs, symlinks: Symlinks) -> list[Entry]:
    """List the last of some directories in the order of its names, less what is excluded."""
    directory = above[-1]
    try:
        with os.scandir(directory) as scanned:
            inside = sorted(scanned, key=_BY_NAME)
    except OSError as error:
        raise _unreadable(directory, error) from error
    entries = []
    for found in inside:
        path = RelativePath(prefix + found.name)
        if not globs.exclude or not globs.prunes(path):
            _require_utf8(found.name, directory)
            entries.append(_entry(found, path, symlinks, above))
    return entries


def single(path: Path) -> Entry:
    """List one regular file, under its own name.

    Raises:
        LocalIOError: It cannot be read.
        ArtifactRejected: It is no regular file, or its name is not UTF-8.
    """
    _require_utf8(path.name, str(path.parent))
    source = os.path.realpath(path)
    try:
        return _file(source, RelativePath(path.name), os.lstat(source))
    except OSError as error:
        raise _unreadable(source, error) from error


def _require_utf8(name: str, directory: str) -> None:
    if name.isascii():
        return
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ArtifactRejected(
            f"the name {os.fsencode(name)!r} in {directory} is not UTF-8",
            hint="rename it, or leave it out with --exclude; nothing was uploaded",
        ) from None


def _entry(
    found: os.DirEntry[str], path: RelativePath, symlinks: Symlinks, above: list[str]
) -> Entry:
    """List what a directory holds; links and directories are known from it without a look."""
    try:
        if found.is_symlink():
            return _link(found.path, path) if symlinks == "keep" else _followed(found, path, above)
        if found.is_dir(follow_symlinks=False):
            return Entry(path, "directory", found.path)
        return _file(found.path, path, found.stat(follow_symlinks=False))
    except OSError as error:
        raise _unreadable(found.path, error) from error


def _file(source: str, path: RelativePath, status: os.stat_result) -> Entry:
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactRejected(
            f"{source} is neither a file, a directory nor a link",
            hint="leave it out with --exclude; nothing was uploaded",
        )
    if not _is_readable(source, status):
        raise LocalIOError(f"cannot read {source}: Permission denied", hint="nothing was uploaded")
    executable = bool(status.st_mode & stat.S_IXUSR)
    inode, mtime_ns = status.st_ino, status.st_mtime_ns
    return Entry(path, "file", source, status.st_size, executable, "", inode, mtime_ns)


def _is_readable(source: str, status: os.stat_result) -> bool:
    """Tell whether a file can be opened; of the caller's own files, its mode says so."""
    if status.st_mode & stat.S_IRUSR and status.st_uid == os.geteuid():
        return True
    effective = os.access in os.supports_effective_ids
    return os.access(source, os.R_OK, effective_ids=effective)


def _link(source: str, path: RelativePath) -> Entry:
    target = os.readlink(source)
    _require_utf8(target, source)
    return Entry(path, "link", source, target=target)


def _followed(found: os.DirEntry[str], path: RelativePath, above: list[str]) -> Entry:
    """List what a link points to, which is neither outside nor a directory the link is in."""
    try:
        real = os.path.realpath(found.path, strict=True)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ArtifactRejected(
            f"the link {path} leads in a circle", hint="leave it out with --exclude"
        ) from error
    if os.path.commonpath([real, above[0]]) != above[0]:
        raise ArtifactRejected(
            f"the link {path} leads out of {above[0]}, to {real}",
            hint="copy what it points to, or leave it out with --exclude; nothing was uploaded",
        )
    if real in above:
        raise ArtifactRejected(
            f"the link {path} leads back to {real}, which it is in",
            hint="leave it out with --exclude, or keep links with --symlinks keep",
        )
    status = os.lstat(real)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, "directory", real)
    return _file(real, path, status)


def read_file(entry: Entry, consumed: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
    """Read a listed file in pieces.

    Args:
        entry: The file.
        consumed: Is told of the bytes as they are read.

    Raises:
        LocalIOError: It cannot be read, or it is not as it was listed.
    """
    for offset in range(0, max(entry.size, 1), _CHUNK):
        piece = read(entry, offset, min(_CHUNK, entry.size - offset))
        consumed(len(piece))
        yield piece


def read(entry: Entry, offset: int, length: int) -> bytes:
    """Read a part of a listed file, and make sure that the file is as it was listed.

    It is looked at after the last byte: a file that has its inode, size and time of writing then
    has had them all the while.

    Args:
        entry: The file.
        offset: Where the part begins.
        length: How long it is; it lies inside the file.

    Raises:
        LocalIOError: The file cannot be read, or it was replaced or written to.
    """
    try:
        descriptor = os.open(entry.source, _READ)
        try:
            data = _pread(descriptor, length, offset)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(entry.source, error, hint="push again when it can be read") from error
    if status.st_size != entry.size:
        raise _changed(entry, "its size ")
    if (status.st_ino, status.st_mtime_ns, len(data)) != (entry.inode, entry.mtime_ns, length):
        raise _changed(entry)
    return data


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    """Read a part whole as far as there is one: FUSE may give less at a time."""
    data = os.pread(descriptor, length, offset)
    while left := length - len(data):
        more = os.pread(descriptor, left, offset + len(data))
        if not more:
            break
        data += more
    return data


def _changed(entry: Entry, what: str = "") -> LocalIOError:
    return LocalIOError(
        f"{entry.source} changed {what}while it was read",
        hint="wait until the build has ended, then push again",
    )


def _unreadable(path: str, error: OSError, hint: str = "nothing was uploaded") -> LocalIOError:
    return LocalIOError(f"cannot read {path}: {local_reason(error)}", hint=hint)
