"""A list of entries cut into portions of work: many small files together, a large one in blocks.

How they are cut depends on the list alone, and with it every byte of an archive; which thread
works on which portion, and how many there are, does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cpstage.walk import Entry

BLOCK = 1 << 20
"""Bytes of the files of a group, at most, and of a block of a larger file."""

AHEAD = 3
"""Portions that may be done or under way besides one for each thread. More are no faster, since
who takes them has buffers of its own."""

_ENTRY = 4 << 10
"""An entry without data takes about as long as these many bytes."""


@dataclass(frozen=True)
class Group:
    """Entries that are worked on together.

    Attributes:
        entries: In the order of the list.
        size: How many bytes their files have together.
    """

    entries: tuple[Entry, ...]
    size: int


@dataclass(frozen=True)
class Block:
    """A part of a large file.

    Attributes:
        entry: The file.
        offset: Where in it the part begins.
        size: How many bytes it has.
    """

    entry: Entry
    offset: int
    size: int

    @property
    def is_first(self) -> bool:
        """Tell whether the file begins with it."""
        return self.offset == 0

    @property
    def is_last(self) -> bool:
        """Tell whether the file ends with it."""
        return self.offset + self.size == self.entry.size


def portions(entries: Iterable[Entry]) -> Iterator[Group | Block]:
    """Cut a list of entries; the order stays."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        if group and size + entry.size + len(group) * _ENTRY > BLOCK:
            yield Group(tuple(group), size)
            group, size = [], 0
        if entry.size > BLOCK:
            yield from _blocks(entry)
        else:
            group.append(entry)
            size += entry.size
    if group:
        yield Group(tuple(group), size)


def _blocks(entry: Entry) -> Iterator[Block]:
    for offset in range(0, entry.size, BLOCK):
        yield Block(entry, offset, min(BLOCK, entry.size - offset))
