"""Members of archives: how an archive describes them, and counts of what was unpacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

MemberKind = Literal["file", "directory", "link", "hard link"]

OWNER_EXECUTES = 0o100

CHUNK = 256 << 10
"""Bytes that go from a decoder to a file at a time: they stay in the processor's cache, and their
memory is used again; with 1 MiB the system spent twice as long on fresh pages."""


class Member(NamedTuple):
    """One member as the archive describes it, not validated yet.

    Attributes:
        name: The name, bytes that are not UTF-8 as surrogates.
        kind: Its type. Readers refuse all other types.
        chunks: Reads the data once, in pieces; only files have any.
        size: The declared size of the data, in bytes.
        mode: Its permission bits; 0 where the archive has no permission bits.
        mtime_ns: Its mtime, in nanoseconds since the epoch, where the archive has one.
        target: Where a symbolic link leads, bytes that are not UTF-8 as surrogates, or the name of
            the earlier member that a hard link stands for.
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
        return bool(self.mode & OWNER_EXECUTES)


class UnsafeLink(NamedTuple):
    """A symlink that leaves the tree, with its target, and whether it was left out or created."""

    path: str
    target: str
    handling: Literal["skipped", "kept"]


@dataclass
class Contents:
    """What came out of one archive.

    Attributes:
        files: How many files.
        directories: How many directories.
        links: How many symlinks.
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


def unsafe_links_document(contents: Contents | None) -> list[dict[str, str]]:
    """Return the unsafe links as JSON has them."""
    return [
        {name: printable_text(value) for name, value in link._asdict().items()}
        for link in (contents.unsafe_links if contents else ())
    ]


def printable_text(name: str) -> str:
    """Return a name with bytes that are not UTF-8 as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def contents_document(contents: Contents | None) -> dict[str, int | None]:
    """Return the counts as JSON has them: null where nothing was unpacked."""
    return {
        "files": contents.files if contents else None,
        "directories": contents.directories if contents else None,
        "links": contents.links if contents else None,
        "unpacked_size": contents.size if contents else None,
    }


def read_contents(document: Mapping[str, Any]) -> Contents | None:
    """Read contents back from JSON.

    Raises:
        KeyError, TypeError, ValueError: A member is missing, or no number.
    """
    members = [document[name] for name in contents_document(None)]
    if members[0] is None:
        return None
    files, directories, links, size = map(int, members)
    unsafe = [UnsafeLink(**link) for link in document.get("unsafe_links", ())]
    return Contents(files, directories, links, size, unsafe_links=unsafe)
