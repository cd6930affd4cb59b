"""Reading a directory tree in a fixed order: what of it goes into an artifact.

The order is that of the names' bytes, a directory before what is in it, on every machine and in
every locale. Files are opened without following links. This module decides what is listed, by
globs and by what the entry is; it knows nothing of the archive that the list is for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cpstage.errors import ArtifactRejected, LocalIOError
from cpstage.globs import Globs
from cpstage.tree import RelativePath

Symlinks = Literal["keep", "follow"]
Kind = Literal["file", "directory", "link"]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One entry of a tree.

    Attributes:
        path: Where it stands below the root.
        kind: What it is; a followed link is what it points to.
        source: Where to read it.
        size: Bytes of a file, else 0.
        executable: Whether its owner may execute it.
        target: The text of a link, else empty.
    """

    path: RelativePath
    kind: Kind
    source: Path
    size: int = 0
    executable: bool = False
    target: str = ""


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
    resolved = root.resolve()
    # A stack and not recursion: a tree may be deeper than the interpreter's own.
    stack: list[tuple[Iterator[tuple[Path, RelativePath]], tuple[Path, ...]]]
    stack = [(_listed(resolved, "", globs), (resolved,))]
    while stack:
        listed, above = stack[-1]
        found = next(listed, None)
        if found is None:
            stack.pop()
            continue
        entry = _entry(*found, symlinks, above)
        if globs.takes(entry.path):
            yield entry
        if entry.kind == "directory":
            inside = _listed(entry.source, f"{entry.path}/", globs)
            stack.append((inside, (*above, entry.source)))


def _listed(directory: Path, prefix: str, globs: Globs) -> Iterator[tuple[Path, RelativePath]]:
    """List a directory in the order of its names' bytes, less what is excluded."""
    for name in _names(directory):
        path = RelativePath(prefix + _utf8(name, directory))
        if not globs.prunes(path):
            yield directory / name, path


def single(path: Path) -> Entry:
    """List one regular file, under its own name.

    Raises:
        LocalIOError: It cannot be read.
        ArtifactRejected: It is no regular file, or its name is not UTF-8.
    """
    real = path.resolve()
    return _entry(real, RelativePath(_utf8(path.name, path.parent)), "keep", (real.parent,))


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory), key=os.fsencode)
    except OSError as error:
        raise _unreadable(directory, error) from error


def _utf8(name: str, directory: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ArtifactRejected(
            f"the name {os.fsencode(name)!r} in {directory} is not UTF-8",
            hint="rename it, or leave it out with --exclude; nothing was uploaded",
        ) from None
    return name


def _entry(source: Path, path: RelativePath, symlinks: Symlinks, above: tuple[Path, ...]) -> Entry:
    try:
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode):
            if symlinks == "keep":
                return Entry(path, "link", source, target=_utf8(os.readlink(source), source))
            source = _followed(source, path, above)
            status = source.lstat()
    except OSError as error:
        raise _unreadable(source, error) from error
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, "directory", source)
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactRejected(
            f"{source} is neither a file, a directory nor a link",
            hint="leave it out with --exclude; nothing was uploaded",
        )
    if not os.access(source, os.R_OK):
        raise LocalIOError(f"cannot read {source}: Permission denied", hint="nothing was uploaded")
    return Entry(path, "file", source, status.st_size, bool(status.st_mode & stat.S_IXUSR))


def _followed(source: Path, path: RelativePath, above: tuple[Path, ...]) -> Path:
    """Return what a link points to, which is neither outside nor a directory the link is in."""
    try:
        real = source.resolve(strict=True)
    except RuntimeError as error:  # what Python before 3.13 says of links in a circle
        raise ArtifactRejected(
            f"the link {path} leads in a circle", hint="leave it out with --exclude"
        ) from error
    if not real.is_relative_to(above[0]):
        raise ArtifactRejected(
            f"the link {path} leads out of {above[0]}, to {real}",
            hint="copy what it points to, or leave it out with --exclude; nothing was uploaded",
        )
    if real in above:
        raise ArtifactRejected(
            f"the link {path} leads back to {real}, which it is in",
            hint="leave it out with --exclude, or keep links with --symlinks keep",
        )
    return real


def read_file(entry: Entry, consumed: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
    """Read a listed file, and make sure that it is still as long as when it was listed.

    Args:
        entry: The file.
        consumed: Is told of the bytes as they are read.

    Raises:
        LocalIOError: It cannot be read, or it changed its size meanwhile.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    left = entry.size
    try:
        with open(os.open(entry.source, flags), "rb", buffering=0) as file:
            while left >= 0 and (chunk := file.read(_CHUNK)):
                left -= len(chunk)
                consumed(len(chunk))
                yield chunk
    except OSError as error:
        raise _unreadable(entry.source, error, hint="push again when it can be read") from error
    if left:
        raise LocalIOError(
            f"{entry.source} changed its size while it was read",
            hint="wait until the build has ended, then push again",
        )


def _unreadable(path: Path, error: OSError, hint: str = "nothing was uploaded") -> LocalIOError:
    return LocalIOError(f"cannot read {path}: {os.strerror(error.errno or 0)}", hint=hint)
