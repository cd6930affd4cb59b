"""Writing zip (PKWARE APPNOTE 6.3.10) as a stream of bytes that depends on the tree alone.

Small files are written with their sizes in the local header; larger ones carry a data descriptor
(4.3.9), since a stream cannot go back.

A file with a descriptor is always of method 8, and what does not get smaller of it is in stored
blocks of DEFLATE: the end of such a file is found by all who read from a pipe, while a file of
method 0 before a descriptor has no end that they could know of, and many refuse it.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

from cpstage.archive.zip.fields import DEFLATED
from cpstage.archive.zip.headers import Record, end_records, moved, record
from cpstage.archive.zip.packed import PackedBlock, PackedGroup
from cpstage.deflate import crc32_combine

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from cpstage.archive.portions import Block, PackingList
    from cpstage.archive.zip.packer import ZipPacker
    from cpstage.walk import Entry


def zip_stream(
    entries: PackingList, packer: ZipPacker, consumed: Callable[[int], object]
) -> Generator[bytes, None, None]:
    """Pack entries.

    Args:
        entries: What to pack, in this order.
        packer: What reads and deflates them.
        consumed: Is told of the bytes of files as they are read.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    archive = _Archive()
    with closing(packer.packed(entries)) as done:
        for portion, packed in zip(entries.portions(), done, strict=True):
            consumed(portion.size)
            if isinstance(packed, PackedGroup):
                yield archive.add_group(packed)
            else:
                yield from archive.add_block(cast("Block", portion), packed)
    yield from archive.directory(len(entries))


class _Archive:
    """What was packed becomes an archive, in order: offsets, sums and the directory."""

    def __init__(self) -> None:
        self._offset = 0
        self._headers: list[bytes] = []
        self._crc = self._packed = self._start = 0

    def add_group(self, group: PackedGroup) -> bytes:
        """Add small entries, and return their bytes."""
        self._headers.append(moved(group.directory, self._offset, len(group.data)))
        return self._written(group.data)

    def add_block(self, portion: Block, block: PackedBlock) -> Iterator[bytes]:
        """Add a part of a large file, and yield its bytes."""
        if portion.is_first:
            self._crc, self._packed, self._start = 0, 0, self._offset
            yield self._written(self._large(portion.entry).local_header())
        self._crc = crc32_combine(self._crc, block.crc, portion.size)
        self._packed += len(block.data)
        yield self._written(block.data)
        if portion.is_last:
            described = self._large(portion.entry)
            self._headers.append(described.directory_header(self._start))
            yield self._written(described.descriptor())

    def _large(self, entry: Entry) -> Record:
        """Return what is known by now of the file that is being added."""
        return record(entry, DEFLATED, self._crc, self._packed, entry.size, is_streamed=True)

    def _written(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data

    def directory(self, count: int) -> Iterator[bytes]:
        """Return the directory, and end records that say how many headers it has."""
        yield from self._headers
        yield end_records(count, self._offset, sum(map(len, self._headers)))
