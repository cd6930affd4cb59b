"""Members of archives: how an archive describes them, and counts of what was unpacked."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

MemberKind = Literal["file", "directory", "link", "hard link"]

CHUNK = 256 << 10
"""Bytes that go from a decoder to a file at a time: they stay in the processor's cache, and their
memory is used again; with 1 MiB the system spent twice as long on fresh pages."""


class Member(NamedTuple):
    """One member as the archive describes it, not validated yet.

    Bytes of names and targets that are not UTF-8 are surrogates.

    Attributes:
        kind: Its type. Readers refuse all other types.
        chunks: Reads the data once, in pieces; only files have any.
        size: The declared size of the data, in bytes.
        mode: Its permission bits; 0 where the archive has no permission bits.
        mtime_ns: Its mtime, in nanoseconds since the epoch, where the archive has one.
        target: Where a symlink leads, or the earlier member that a hard link stands for.
        fault: Why it cannot be unpacked, in an archive that is read tolerantly.
    """

    name: str
    kind: MemberKind
    chunks: Callable[[], Iterable[bytes]]
    size: int = 0
    mode: int = 0
    mtime_ns: int | None = None
    target: str = ""
    fault: str = ""

    @property
    def executable(self) -> bool:
        """Whether its owner may execute it."""
        return bool(self.mode & stat.S_IXUSR)


class UnsafeLink(NamedTuple):
    """A symlink that leaves the tree, with its target, and whether it was left out or created."""

    path: str
    target: str
    handling: Literal["skipped", "kept"]


@dataclass
class Contents:
    """Counts of what was unpacked from one archive.

    Attributes:
        size: How many bytes the files have together.
        notes: What differs from the archive, a line each.
        unsafe_links: Symlinks that leave the tree, which were left out or created on request.
    """

    files: int = 0
    directories: int = 0
    links: int = 0
    size: int = 0
    notes: list[str] = field(default_factory=list)
    unsafe_links: list[UnsafeLink] = field(default_factory=list)

    def count(self, kind: MemberKind, size: int, *, there: bool) -> None:
        """Count a member, unless it is in the place of another one."""
        self.size += size
        if not there:
            self.directories += kind == "directory"
            self.links += kind == "link"
            self.files += kind in ("file", "hard link")


def text_of(name: bytes) -> str:
    """Return a name, bytes that are not UTF-8 as surrogates."""
    return name.decode("utf-8", "surrogateescape")


def bytes_of(name: str) -> bytes:
    """Return the bytes of a name, those that are not UTF-8 from their surrogates."""
    return name.encode("utf-8", "surrogateescape")


def printable_text(name: str) -> str:
    """Return a name with bytes that are not UTF-8 as escapes."""
    return bytes_of(name).decode("utf-8", "backslashreplace")


_COUNTS = ("files", "directories", "links", "unpacked_size")


def contents_document(contents: Contents | None) -> dict[str, Any]:
    """Return counts and unsafe links as JSON has them; null counts where nothing was unpacked."""
    if contents is None:
        return {**dict.fromkeys(_COUNTS), "unsafe_links": []}
    counts = (contents.files, contents.directories, contents.links, contents.size)
    unsafe = [
        {name: printable_text(value) for name, value in link._asdict().items()}
        for link in contents.unsafe_links
    ]
    return {**dict(zip(_COUNTS, counts, strict=True)), "unsafe_links": unsafe}


def read_contents(document: Mapping[str, Any]) -> Contents | None:
    """Read contents back from JSON.

    Raises:
        KeyError, TypeError, ValueError: A member is missing, or no number.
    """
    counts = [document[name] for name in _COUNTS]
    if counts[0] is None:
        return None
    files, directories, links, size = map(int, counts)
    unsafe = [UnsafeLink(**link) for link in document.get("unsafe_links", ())]
    return Contents(files, directories, links, size, unsafe_links=unsafe)
