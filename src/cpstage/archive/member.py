"""One member of an archive, as every reader gives it to the unpacker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MemberKind = Literal["file", "directory", "link", "hard link"]

CHUNK = 256 << 10
"""Bytes that go from a decoder to a file at a time: they stay in the processor's cache, and their
memory is used again; with 1 MiB the system spent twice as long on fresh pages."""


@dataclass(frozen=True)
class Member:
    """What an archive says of one member; nothing of it has been checked.

    Attributes:
        name: The name, bytes that are not UTF-8 as surrogates.
        kind: What it is. Readers refuse what is none of the four.
        chunks: Reads the data once, in pieces; only files have any.
        size: The declared size of the data, in bytes.
        executable: Whether its owner may execute it.
        target: Where a symbolic link leads, bytes that are not UTF-8 as surrogates, or the name of
            the earlier member that a hard link stands for.
    """

    name: str
    kind: MemberKind
    chunks: Callable[[], Iterator[bytes]]
    size: int = 0
    executable: bool = False
    target: str = ""
