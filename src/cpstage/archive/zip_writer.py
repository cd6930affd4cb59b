"""Writing zip (PKWARE APPNOTE 6.3.10) as a stream of bytes that depends on the tree alone.

Portions of the packing list are read and deflated by worker processes where there are many files,
else by threads, and joined in the order of the list.

A file up to 16 MiB of compressed data has its sizes in the local file header. A longer one has a
data descriptor (4.3.9), which some streaming readers refuse. Such a file is always of
method 8, and incompressible data is in stored blocks of DEFLATE: streaming readers find the end of
such a file. A file of method 0 with a descriptor has no end that they could find.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import NamedTuple, TypeAlias, cast

from cpstage._deflate import crc32, crc32_combine, deflated, deflated_piece
from cpstage.archive.options import MtimeRule
from cpstage.archive.packing_list import Batch, FilePart, PackingList
from cpstage.archive.packing_pool import PackingPool
from cpstage.archive.zip_format import DEFLATED, STORED
from cpstage.archive.zip_headers import Record, end_records, moved, record, small_headers
from cpstage.filesystem.walk import Entry, read


class PackedBatch(NamedTuple):
    """Small entries.

    Attributes:
        data: Their local headers and data.
        directory: Their directory headers, with offsets from the start of the group.
    """

    data: bytes
    directory: bytes


class PackedPart(NamedTuple):
    """A part of a large file, and the CRC-32 of what it was."""

    data: bytes
    crc: int


Packed: TypeAlias = "PackedBatch | PackedPart"


def pack_portion(portion: Batch | FilePart, level: int, rule: MtimeRule) -> Packed:
    """Read and deflate a portion.

    Args:
        portion: What of the list.
        level: How hard to deflate, from 0 (not at all) to 9.
        rule: Which mtimes are written.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    if isinstance(portion, Batch):
        return _packed_group(portion, level, rule)
    data = read(portion.entry, portion.offset, portion.size)
    packed = deflated_piece(data, level, last=portion.is_last)
    return PackedPart(packed, crc32(data))


def _packed_group(group: Batch, level: int, rule: MtimeRule) -> PackedBatch:
    pieces: list[bytes] = []
    directory = []
    offset = 0
    for entry in group.entries:
        data = _content(entry)
        packed = deflated(data, level) if entry.kind == "file" else None
        method, body = (STORED, data) if packed is None else (DEFLATED, packed)
        sizes = (crc32(data), len(body), len(data))
        described = record(entry, rule, method, *sizes)
        local, header = small_headers(described, offset)
        pieces += (local, body)
        directory.append(header)
        offset += len(local) + len(body)
    return PackedBatch(b"".join(pieces), b"".join(directory))


def _content(entry: Entry) -> bytes:
    return read(entry, 0, entry.size) if entry.kind == "file" else entry.target.encode()


def zip_stream(
    entries: PackingList,
    pool: PackingPool[Packed],
    consumed: Callable[[int], object],
    rule: MtimeRule,
) -> Generator[bytes, None, None]:
    """Pack entries.

    Args:
        entries: What to pack, in this order.
        pool: What calls :func:`pack_portion` for each portion.
        consumed: Is told of the bytes of files as they are read.
        rule: Which mtimes are written.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    archive = _Archive(rule)
    with closing(pool.packed(entries)) as done:
        for portion, packed in zip(entries.portions(), done, strict=True):
            consumed(portion.size)
            if isinstance(packed, PackedBatch):
                yield archive.add_batch(packed)
            else:
                yield from archive.add_part(cast("FilePart", portion), packed)
    yield from archive.directory(len(entries))


_MOST_HELD = 16 << 20
"""Bytes of one compressed file that wait for its sizes."""


class _Archive:
    """What was packed becomes an archive, in order: offsets, sums and the directory."""

    def __init__(self, rule: MtimeRule) -> None:
        self._rule = rule
        self._offset = 0
        self._headers: list[bytes] = []
        self._crc = self._packed = self._start = 0
        self._is_streamed = False
        self._held: list[bytes] = []

    def add_batch(self, group: PackedBatch) -> bytes:
        """Add small entries, and return their bytes."""
        self._headers.append(moved(group.directory, self._offset, len(group.data)))
        return self._written(group.data)

    def add_part(self, portion: FilePart, block: PackedPart) -> Iterator[bytes]:
        """Add a part of a large file, and yield the bytes that are complete.

        Up to a bound, the data is held back until its sizes are known for the local file header.
        """
        if portion.is_first:
            self._crc, self._packed, self._start = 0, 0, self._offset
            self._is_streamed, self._held = False, []
        self._crc = crc32_combine(self._crc, block.crc, portion.size)
        self._packed += len(block.data)
        self._held.append(block.data)
        if not (portion.is_last or self._is_streamed or self._packed > _MOST_HELD):
            return
        if not self._is_streamed:
            self._is_streamed = not portion.is_last
            yield self._written(self._large(portion.entry).local_header())
        held, self._held = self._held, []
        yield from map(self._written, held)
        if portion.is_last:
            described = self._large(portion.entry)
            self._headers.append(described.directory_header(self._start))
            if self._is_streamed:
                yield self._written(described.descriptor())

    def _large(self, entry: Entry) -> Record:
        """Return what is known by now of the file that is being added."""
        sizes = (self._crc, self._packed, entry.size)
        return record(entry, self._rule, DEFLATED, *sizes, is_streamed=self._is_streamed)

    def _written(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data

    def directory(self, count: int) -> Iterator[bytes]:
        """Return the directory, and end records that say how many headers it has."""
        yield from self._headers
        yield end_records(count, self._offset, sum(map(len, self._headers)))
