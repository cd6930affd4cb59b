"""Reading zip: first all that the directory says, then the data of all entries in one pass.

The bytes of the archive come in order and once. Entries that are close together are handed on as
groups, each with its own bytes, for threads to decode; the data of a large one is decoded as it
comes. What may be written, and where, is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cpstage.archive.blob import READ_SIZE, Blob, ReadAhead
from cpstage.archive.members import Budget
from cpstage.archive.paths import LONGEST_TARGET, check_target_length, text_of
from cpstage.archive.zip_directory import (
    LOCAL_BYTES,
    ZipDirectory,
    ZipEntry,
    ZipTail,
    read_directory,
    read_tail,
)
from cpstage.archive.zip_format import SIGNATURES
from cpstage.archive.zip_members import (
    LONGEST_DESCRIPTOR,
    check_end,
    data_start,
    decoded,
    refuse_hidden,
)
from cpstage.errors import ArtifactRejected
from cpstage.progress import Advance

_GROUP = 1 << 20
"""Bytes of one unit of work: milliseconds of it, a hundred times what handing it over costs."""

_LONGEST_LINK = LOCAL_BYTES + 2 * 0xFFFF + LONGEST_TARGET

_NEAR = 256 << 10
"""Links that lie no further apart than this are read at once."""

_MANY = 50_000
"""Entries that take so much memory (0.5 KB each) that blocks of the archive have to be smaller."""

_OVERLAP = len(SIGNATURES[0]) - 1


class EntryGroup(NamedTuple):
    """Neighbours, and all their bytes.

    Attributes:
        entries: One or more.
        data: From the local header of the first to the end of the last.
    """

    entries: list[ZipEntry]
    data: memoryview

    def slots(self) -> Iterator[tuple[ZipEntry, memoryview]]:
        """Share the bytes out to the entries."""
        start = self.entries[0].offset
        for entry in self.entries:
            yield entry, self.data[entry.offset - start : entry.end - start]


class ZipReader:
    """An archive whose end has been read; then its directory is, then its entries.

    Args:
        stream: The archive, from its first byte.
        budget: Its limits.

    Attributes:
        count: How many entries it says it has.

    Raises:
        ArtifactRejected: It is not a zip, is cut, or is over a limit.
    """

    def __init__(self, stream: ReadAhead, budget: Budget) -> None:
        self._stream = stream
        if stream.is_far():
            stream.fetch_ahead()
        self._tail: ZipTail | None = read_tail(stream.blob, budget)
        self.count = self._tail.ends.count
        self._directory = ZipDirectory(0, 0, [])

    def read_directory(self, advance: Advance | None = None) -> list[ZipEntry]:
        """Read the directory once, begin to fetch what is before it, and return its entries.

        Args:
            advance: Is told of entries as they are read.

        Raises:
            ArtifactRejected: It is damaged or ambiguous.
        """
        if self.count >= _MANY:
            self._stream.read_size = READ_SIZE // 2
        self._stream.fetch_ahead()  # nearby not before: the directory waits for the end alone
        if self._tail:
            self._directory = read_directory(self._stream.blob, self._tail, advance=advance)
            self._tail = None
        return self._directory.entries

    def targets(self) -> Iterator[tuple[ZipEntry, str]]:
        """Read the targets of all links, which are needed before anything is written.

        Raises:
            ArtifactRejected: One is damaged, or too long.
        """
        return link_targets(self._stream.blob, self._directory.entries)

    def groups(self) -> Iterator[EntryGroup | ZipEntry]:
        """Go through the archive: groups of entries with their bytes, and large entries alone.

        What :meth:`chunks` returns for a large entry has to be used up before the next step.

        Raises:
            ArtifactRejected: Bytes that belong to no entry hold records of another archive.
        """
        _pass_over(self._stream, self._directory.start, "before the first entry")
        entries = self._directory.entries
        first, count = 0, len(entries)
        while first < count:
            start = entries[first].offset
            if entries[first].end - start > READ_SIZE:
                yield entries[first]
                first += 1
                continue
            last = first
            while last + 1 < count and entries[last + 1].end - start <= _GROUP:
                last += 1
            data = self._stream.take(entries[last].end - start)
            yield EntryGroup(entries[first : last + 1], data)
            first = last + 1

    def chunks(self, entry: ZipEntry) -> Iterator[bytes | memoryview]:
        """Return the data of a large entry, as it comes.

        Raises:
            ArtifactRejected: It is not as the directory says.
        """
        return entry_chunks(self._stream, entry)


def entry_chunks(stream: ReadAhead, entry: ZipEntry) -> Iterator[bytes | memoryview]:
    """Return the data of an entry, as it comes.

    Args:
        stream: The archive, at the local header of the entry.
        entry: The entry, as the directory has it.

    Raises:
        ArtifactRejected: It is not as the directory says.
    """
    take = stream.take
    head = bytes(take(LOCAL_BYTES))
    head += take(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"))
    start = data_start(entry, head)
    yield from decoded(entry, stream.pieces(entry.packed))
    rest = entry.end - entry.offset - start - entry.packed
    after = bytes(take(rest if rest <= READ_SIZE else LONGEST_DESCRIPTOR))
    check_end(entry, after)
    where = f"after the entry {entry.name!r}"
    _pass_over(stream, rest - len(after), where, after[-_OVERLAP:])


def link_targets(blob: Blob, entries: Iterable[ZipEntry]) -> Iterator[tuple[ZipEntry, str]]:
    """Read the targets of those entries that are links, neighbours at once.

    Raises:
        ArtifactRejected: One is damaged, or too long.
    """
    links = [entry for entry in entries if entry.kind == "link"]
    for entry in links:
        check_target_length(entry.name, max(entry.size, entry.packed))
    for entry, slot in _read_slots(blob, links):
        yield entry, _target(entry, slot)


def readable_targets(blob: Blob, entries: Iterable[ZipEntry]) -> Iterator[tuple[ZipEntry, str]]:
    """Read the targets of links; a link whose target cannot be read gets a ``fault``."""
    links = [one for one in entries if one.kind == "link" and not one.fault]
    for entry in links:
        if max(entry.size, entry.packed) > LONGEST_TARGET:
            entry.fault = f"the link has a target over {LONGEST_TARGET:,} bytes"
    for entry, slot in _read_slots(blob, [one for one in links if not one.fault]):
        try:
            yield entry, _target(entry, slot)
        except ArtifactRejected as error:
            entry.fault = error.message


def _target(entry: ZipEntry, slot: memoryview) -> str:
    start = data_start(entry, slot)
    return text_of(b"".join(decoded(entry, (slot[start : start + entry.packed],))))


def _pass_over(stream: ReadAhead, length: int, where: str, before: bytes = b"") -> None:
    """Pass over bytes that belong to no entry, and look for records in them."""
    for piece in [stream.take(length)] if length <= READ_SIZE else stream.pieces(length):
        gap = before + bytes(piece)
        refuse_hidden(gap, where)
        before = gap[-_OVERLAP:]


def _read_slots(blob: Blob, entries: list[ZipEntry]) -> Iterator[tuple[ZipEntry, memoryview]]:
    """Read the first bytes of some entries, neighbours at once."""
    start, data = 0, memoryview(b"")
    for index, entry in enumerate(entries):
        end = _end_of_link(entry)
        if end > start + len(data):
            for near in entries[index + 1 :]:
                if near.offset > end + _NEAR or _end_of_link(near) > entry.offset + READ_SIZE:
                    break
                end = _end_of_link(near)
            start, data = entry.offset, memoryview(blob.read(entry.offset, end - entry.offset))
        yield entry, data[entry.offset - start : _end_of_link(entry) - start]


def _end_of_link(entry: ZipEntry) -> int:
    return min(entry.end, entry.offset + _LONGEST_LINK)
