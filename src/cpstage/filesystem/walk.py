"""Reading a directory tree in a fixed order: what of it goes into an artifact.

The order is that of the names' bytes, a directory before what is in it, on every machine and in
every locale. This module decides what is listed, by globs and by what the entry is, and reads
files as they were listed or not at all. It does not depend on the archive format.

Globs are those of ``--include`` and ``--exclude``: ``*`` and ``?`` stay within a component, ``**``
crosses them, ``[…]`` is a set. A pattern without a slash is looked for at every depth, as in
``.gitignore``; one that matches a directory takes all that is in it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

from cpstage._posix import DIRECTORY, O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK
from cpstage.errors import (
    ArtifactRejected,
    LocalIOError,
    UsageError,
    listing,
    local_reason,
    refuse_text,
    shortened,
)
from cpstage.filesystem.tree import RelativePath


@dataclass(frozen=True)
class Globs:
    """What is listed: all that an include matches, or all without one, less the excludes."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a single string."""
        refuse_text("include", self.include)
        refuse_text("exclude", self.exclude)

    def takes(self, path: str) -> bool:
        """Whether a path is included; :meth:`prunes` says whether it is excluded."""
        return not self.include or any(_matches(glob, path) for glob in self.include)

    def prunes(self, path: str) -> bool:
        """Whether a path, with everything below it, is excluded."""
        return any(_matches(glob, path) for glob in self.exclude)


def _matches(glob: str, path: str) -> bool:
    return _compiled(glob).fullmatch(path) is not None


@cache
def _compiled(glob: str) -> re.Pattern[str]:
    pattern = glob.strip("/")
    if "/" not in glob.rstrip("/"):
        pattern = f"**/{pattern}"
    try:
        return re.compile(_expression(pattern) + "(/.*)?", re.DOTALL)
    except re.error as error:
        # Without its place, which is one in our expression, not in the glob.
        why = f"the glob {glob!r} is malformed: {error.msg}"
        raise UsageError(why, hint="look at its set") from error


def _expression(pattern: str) -> str:
    """Translate a glob into a regular expression, one token at a time."""
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)
    return "".join(_TOKENS.get(token) or _set_or_literal(token) for token in tokens)


_OUTSIDE_RANGES = re.compile(r"[\\\[\]&|~^]|-(?![A-Za-z0-9])|(?<![A-Za-z0-9])-")
"""What means something in a set of a regular expression, and nothing in one of a glob."""

_TOKENS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _set_or_literal(token: str) -> str:
    if len(token) < 3:
        return re.escape(token)
    negated = token[1] == "!"
    members = _OUTSIDE_RANGES.sub(r"\\\g<0>", token[2 if negated else 1 : -1])
    return f"(?!/)[{'^' if negated else ''}{members}]"


Kind = Literal["file", "directory", "link"]

Symlinks = Literal["keep", "follow", "follow-outside"]

Inode = tuple[int, int]
"""The device and inode of a directory."""

_CHUNK = 1 << 20

_READ = os.O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
"""Without O_NONBLOCK, opening a FIFO that took a file's place would wait for a writer."""

_BY_NAME = attrgetter("name")
"""Code points have the order of their UTF-8 bytes, and a name that is not UTF-8 is not listed."""


class Entry(NamedTuple):
    """One entry of a tree; a tuple, which is made in a quarter of a frozen dataclass's time.

    A followed link is what it points to. Inode and device tell what took its place from it.

    Attributes:
        path: Where it stands below the root.
        source: Where to read it.
        size: Bytes of a file, else 0.
        mode: Its permission bits.
        target: The text of a link, else empty.
        mtime_ns: Its mtime, in nanoseconds since the epoch.
    """

    path: RelativePath
    kind: Kind
    source: str
    size: int = 0
    mode: int = 0
    target: str = ""
    inode: int = 0
    mtime_ns: int = 0
    device: int = 0

    @property
    def executable(self) -> bool:
        """Whether its owner may execute it."""
        return bool(self.mode & stat.S_IXUSR)


Report = Callable[[str], object]


def walk(
    root: Path, globs: Globs, symlinks: Symlinks = "keep", report: Report = lambda _: None
) -> Iterator[Entry]:
    """List what is below a directory and passes the globs.

    Args:
        root: The directory.
        globs: What to list.
        symlinks: ``keep`` lists symlinks as such; ``follow`` lists what they point to, which
            has to be below the root; ``follow-outside`` may list what is elsewhere too.
        report: Is told of what is left out, and of what is read from outside, a line each.

    Raises:
        ArtifactRejected: A device; a name that is not UTF-8; a followed symlink that leaves the
            tree or leads back to a directory that it is in.
        LocalIOError: A directory or file cannot be read.
    """
    # A stack and not recursion: a tree may be deeper than the interpreter's own.
    walker = _Walker(os.path.realpath(root), globs, symlinks, report)
    above = walker.above
    stack = [iter(walker.listed(""))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            above.pop()
            continue
        if not globs.include or globs.takes(entry.path):
            yield entry
        if entry.kind == "directory":
            above.append((entry.source, (entry.device, entry.inode)))
            stack.append(iter(walker.listed(f"{entry.path}/")))
    if walker.misnamed:
        raise _not_utf8(walker.misnamed)
    if walker.outside:
        shown = listing(f"{path!r} to {real!r}" for path, real in walker.outside)
        raise ArtifactRejected(
            f"symlinks lead out of {walker.root}: {shown}",
            hint="copy what they point to with --symlinks follow-outside, or leave them out with "
            "--exclude; nothing was packed",
        )


class _Walker:
    """Lists the directories of one tree, whose root has no symlinks in its path."""

    def __init__(self, root: str, globs: Globs, symlinks: Symlinks, report: Report) -> None:
        self.root = root
        self.above: list[tuple[str, Inode | None]] = [(root, None)]
        self.outside: list[tuple[str, str]] = []
        self.misnamed: list[tuple[str, str]] = []
        self._globs = globs
        self._symlinks = symlinks
        self._report = report

    def listed(self, prefix: str) -> list[Entry]:
        """List the last of the directories in the order of its names, less what is excluded.

        It is read through a descriptor: one that a symlink or another directory replaced is not.
        """
        directory, expected = self.above[-1]
        try:
            descriptor = os.open(directory, DIRECTORY)
            try:
                status = os.fstat(descriptor)
                if expected not in (None, (status.st_dev, status.st_ino)):
                    raise LocalIOError(
                        f"{directory} was replaced while it was listed",
                        hint="wait until the build has ended, then try again",
                    )
                self.above[-1] = (directory, (status.st_dev, status.st_ino))
                with os.scandir(descriptor) as scanned:
                    inside = sorted(scanned, key=_BY_NAME)
                return [*self._entries(inside, prefix, directory, descriptor)]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unreadable(directory, error) from error

    def _entries(
        self, inside: list[os.DirEntry[str]], prefix: str, directory: str, descriptor: int
    ) -> Iterator[Entry]:
        for found in inside:
            path = RelativePath(prefix + found.name)
            if self._globs.exclude and self._globs.prunes(path):
                continue
            if not _is_utf8(found.name):
                self.misnamed.append((found.name, directory))
                continue
            source = f"{directory}/{found.name}"
            try:
                entry = self._entry(found, path, source, descriptor)
            except OSError as error:
                raise _unreadable(source, error) from error
            if entry is not None:
                yield entry

    def _entry(
        self, found: os.DirEntry[str], path: RelativePath, source: str, descriptor: int
    ) -> Entry | None:
        """List one entry of a directory, unless it is left out."""
        status = found.stat(follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            return self._plain(path, source, status)
        if self._symlinks != "keep":
            return self._followed(path, source)
        target = os.readlink(found.name, dir_fd=descriptor)
        if not _is_utf8(target):
            self.misnamed.append((target, source))
            return None
        return Entry(path, "link", source, 0, 0o777, target, 0, status.st_mtime_ns)

    def _plain(self, path: RelativePath, source: str, status: os.stat_result) -> Entry | None:
        if stat.S_ISREG(status.st_mode):  # as most are
            return _file(source, path, status)
        if stat.S_ISDIR(status.st_mode):
            identity = (status.st_ino, status.st_mtime_ns, status.st_dev)
            return Entry(path, "directory", source, 0, status.st_mode & 0o777, "", *identity)
        if stat.S_ISSOCK(status.st_mode) or stat.S_ISFIFO(status.st_mode):
            what = "socket" if stat.S_ISSOCK(status.st_mode) else "FIFO"
            self._report(f"the {what} {path!r} was left out")
            return None
        return _file(source, path, status)

    def _followed(self, path: RelativePath, source: str) -> Entry | None:
        """List what a symlink points to, which is not a directory that the symlink is in."""
        try:
            real = os.path.realpath(source, strict=True)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ArtifactRejected(
                    f"the symlink {path!r} leads in a circle", hint="leave it out with --exclude"
                ) from error
            if error.errno == errno.ENOENT and self._symlinks == "follow-outside":
                self._report(f"the symlink {path!r} points to nothing and was left out")
                return None
            if error.errno == errno.ENOENT:
                hint = "it is a symlink to nothing: leave it out with --exclude, or give "
                raise _unreadable(source, error, f"{hint}--symlinks keep") from error
            raise
        if os.path.commonpath([real, self.root]) != self.root:
            if self._symlinks == "follow":
                self.outside.append((path, real))
                return None
            self._report(f"the symlink {path!r} was replaced by what is outside, at {real!r}")
        status = os.lstat(real)
        if any(identity == (status.st_dev, status.st_ino) for _, identity in self.above):
            raise ArtifactRejected(
                f"the symlink {path!r} leads back to {real!r}, which it is in",
                hint="leave it out with --exclude, or keep symlinks with --symlinks keep",
            )
        return self._plain(path, real, status)


def single(path: Path) -> Entry:
    """List one regular file, under its own name.

    Raises:
        LocalIOError: It cannot be read.
        ArtifactRejected: It is not a regular file, or its name is not UTF-8.
    """
    if not _is_utf8(path.name):
        raise _not_utf8([(path.name, str(path.parent))])
    source = os.path.realpath(path)
    try:
        return _file(source, RelativePath(path.name), os.lstat(source))
    except OSError as error:
        raise _unreadable(source, error) from error


def _is_utf8(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_utf8(misnamed: list[tuple[str, str]]) -> ArtifactRejected:
    shown = listing(f"{os.fsencode(name)!r} in {place}" for name, place in misnamed)
    what, are = ("the name", "is") if len(misnamed) == 1 else ("the names", "are")
    return ArtifactRejected(
        f"{what} {shown} {are} not UTF-8",
        hint="rename them, or leave them out with --exclude; nothing was packed",
    )


def _file(source: str, path: RelativePath, status: os.stat_result) -> Entry:
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactRejected(
            f"{source} is neither a file, a directory nor a link",
            hint="leave it out with --exclude; nothing was packed",
        )
    if not _is_readable(source, status):
        raise LocalIOError(f"cannot read {source}: Permission denied", hint="nothing was packed")
    identity = (status.st_ino, status.st_mtime_ns, status.st_dev)
    return Entry(path, "file", source, status.st_size, status.st_mode & 0o777, "", *identity)


def _is_readable(source: str, status: os.stat_result) -> bool:
    """Whether a file can be opened; of the caller's own files, its mode says so."""
    if status.st_mode & stat.S_IRUSR and status.st_uid == os.geteuid():
        return True
    effective = os.access in os.supports_effective_ids
    return os.access(source, os.R_OK, effective_ids=effective)


def read_file(entry: Entry, consumed: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
    """Read a listed file in pieces, as :func:`read` does, and count the bytes."""
    for offset in range(0, max(entry.size, 1), _CHUNK):
        piece = read(entry, offset, min(_CHUNK, entry.size - offset))
        consumed(len(piece))
        yield piece


def read(entry: Entry, offset: int, length: int) -> bytes:
    """Read a part of a listed file, and make sure that the file is as it was listed.

    It is looked at after the last byte: a file that has its inode, size and time of writing then
    has had them all the while.

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
        raise _unreadable(entry.source, error, hint="try again when it can be read") from error
    if status.st_size != entry.size:
        raise _changed(entry, "its size ")
    found = (status.st_ino, status.st_mtime_ns, status.st_dev, len(data))
    if found != (entry.inode, entry.mtime_ns, entry.device, length):
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
        hint="wait until the build has ended, then try again",
    )


def _unreadable(path: str, error: OSError, hint: str = "nothing was packed") -> LocalIOError:
    if error.errno == errno.ENAMETOOLONG:
        hint = "leave its directory out with --exclude; nothing was packed"
    return LocalIOError(f"cannot read {shortened(path)}: {local_reason(error)}", hint=hint)
