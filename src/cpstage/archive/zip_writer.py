"""Writing zip (PKWARE APPNOTE 6.3.10) as a stream of bytes that depends on the tree alone.

A file up to 16 MiB of compressed data has its sizes in the local file header. A longer one has a
data descriptor (4.3.9), which some streaming readers refuse. Such a file is always of
method 8, and incompressible data is in stored blocks of DEFLATE: streaming readers find the end of
such a file. A file of method 0 with a descriptor has no end that they could find.

An mtime is in the DOS fields, which are local time with two seconds to the unit, and in Info-ZIP's
extended timestamp. The DOS fields are UTC where archives have to be reproducible. Fields of zip64
are there only where the others do not suffice (headers: 4.3.7 to 4.3.16).
"""

from __future__ import annotations

import stat
import struct
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import lru_cache
from typing import NamedTuple, cast

from cpstage._deflate import crc32, crc32_combine, deflated, deflated_piece, inflater
from cpstage.archive.options import MtimeRule
from cpstage.archive.packing_list import UNIT_SIZE, Batch, FilePart, PackingList, PackingPool
from cpstage.archive.zip_format import (
    DEFLATED,
    DESCRIPTOR,
    DESCRIPTOR_FOLLOWS,
    DOS_DIRECTORY,
    END,
    END64,
    END64_FIELDS,
    END_FIELDS,
    HAS_MTIME,
    LOCAL,
    LOCATOR64,
    LOCATOR64_FIELDS,
    MAX16,
    MAX32,
    RECORD,
    STORED,
    TIMESTAMP,
    UNIX,
    UTF8_NAME,
    ZIP64,
)
from cpstage.errors import listing
from cpstage.filesystem.walk import Entry, read

_VERSION, _VERSION64 = 20, 45
"""Of the format (4.4.3.2): deflate and directories, and zip64."""

_DIRECTORY = RECORD + bytes((_VERSION, UNIX))
_DIRECTORY64 = RECORD + bytes((_VERSION64, UNIX))
"""How a header of the directory begins: also by which version and system it was made."""

_COMMON = struct.Struct("<5H3L2H")
"""What both headers of an entry have in common: from the version needed to the length of the extra
field."""

_REST = struct.Struct("<3H2L")
"""What follows in the directory: comment, disk and attributes, and where the local header is."""

_COMMON_AT, _REST_AT, _NAME_AT = 6, 32, 46
"""Where a directory header has that, and its name."""

_LENGTHS_AND_OFFSET, _OFFSET = struct.Struct("<2H10xL"), struct.Struct("<L")
_LENGTH_AT, _OFFSET_AT = 28, 42

_TIMESTAMP = struct.Struct("<2HBl")
_MIN32, _MAX32 = -(1 << 31), (1 << 31) - 1
_FIRST_DOS, _LAST_DOS = (0, (1 << 5) | 1), (0xBF7D, 0xFF9F)
"""Time and date of 1980-01-01 00:00:00 and of 2107-12-31 23:59:58."""

_GROWTH = 85
"""How many bytes longer a unit can become when it is deflated: 17 stored blocks have a header of 5
bytes each."""


class Record(NamedTuple):
    """One entry, as its headers describe it.

    Attributes:
        name: The name; of a directory, with a slash at the end (4.4.17.1).
        attributes: The mode in the upper half, as Info-ZIP has it, and DOS attributes below.
        packed: Bytes of its data in the archive.
        dos: Its DOS time and date.
        timestamp: Its extended timestamp, the same in both headers; empty where it has none.
        is_streamed: Whether sums and sizes are in a descriptor behind the data.
    """

    name: bytes
    attributes: int
    method: int
    crc: int
    packed: int
    size: int
    dos: tuple[int, int]
    timestamp: bytes
    is_streamed: bool = False

    @property
    def _is_large(self) -> bool:
        """Whether it needs zip64 fields; of a streamed entry, whether it can come to need them.

        A zip64 field that is not needed is not harmless: ZipInputStream of JDK 17 expects a data
        descriptor of 32 bits then.
        """
        growth = -(-self.size // UNIT_SIZE) * _GROWTH if self.is_streamed else 0
        return max(self.size + growth, self.packed) >= MAX32

    def local_header(self) -> bytes:
        """Return the local file header (4.3.7), without sums and sizes if the entry is streamed."""
        known = (0, 0, 0) if self.is_streamed else (self.crc, self.packed, self.size)
        version, sizes, extra = _VERSION, known, b""
        if self._is_large:
            version, sizes = _VERSION64, (known[0], MAX32, MAX32)
            extra = struct.pack("<2H2Q", ZIP64, 16, known[2], known[1])
        extra += self.timestamp
        return LOCAL + self._common(version, sizes, extra) + self.name + extra

    def descriptor(self) -> bytes:
        """Return the data descriptor (4.3.9), its sizes of 8 bytes where zip64 is in use."""
        layout = "<4sL2Q" if self._is_large else "<4s3L"
        return struct.pack(layout, DESCRIPTOR, self.crc, self.packed, self.size)

    def directory_header(self, offset: int) -> bytes:
        """Return the central directory header (4.3.12), and zip64 fields (4.5.3) where needed."""
        large: list[int] = []
        size, packed = self.size, self.packed
        if self._is_large:
            large, size, packed = [size, packed], MAX32, MAX32
        if offset >= MAX32:
            large.append(offset)
        extra = struct.pack(f"<2H{len(large)}Q", ZIP64, 8 * len(large), *large) if large else b""
        version, begins = (_VERSION64, _DIRECTORY64) if large else (_VERSION, _DIRECTORY)
        extra += self.timestamp
        common = self._common(version, (self.crc, packed, size), extra)
        rest = _REST.pack(0, 0, 0, self.attributes, min(offset, MAX32))
        return b"".join((begins, common, rest, self.name, extra))

    def small_headers(self, offset: int) -> tuple[bytes, bytes]:
        """Return the local and the central directory header of an entry that needs no zip64."""
        sizes, end = (self.crc, self.packed, self.size), self.name + self.timestamp
        common = self._common(_VERSION, sizes, self.timestamp)
        rest = _REST.pack(0, 0, 0, self.attributes, offset)
        return LOCAL + common + end, b"".join((_DIRECTORY, common, rest, end))

    def _common(self, version: int, sizes: tuple[int, int, int], extra: bytes) -> bytes:
        flags = 0 if self.name.isascii() else UTF8_NAME
        if self.is_streamed:
            flags |= DESCRIPTOR_FOLLOWS
        lengths = (len(self.name), len(extra))
        return _COMMON.pack(version, flags, self.method, *self.dos, *sizes, *lengths)


def record(  # noqa: PLR0917 (keywords would be slower)
    entry: Entry,
    rule: MtimeRule,
    method: int,
    crc: int,
    packed: int,
    size: int,
    *,
    is_streamed: bool = False,
) -> Record:
    """Describe an entry, whose data has a CRC-32, and a size before and after it was packed."""
    name = (entry.path + "/" * (entry.kind == "directory")).encode()
    dos, timestamp = _times(rule.apply(entry.mtime_ns) // 10**9, rule.is_reproducible)
    attributes = _attributes(entry)
    return Record(name, attributes, method, crc, packed, size, dos, timestamp, is_streamed)


def mtime_notes(entries: PackingList, rule: MtimeRule) -> list[str]:
    """Return what a zip changes of the mtimes of entries, in a list of one line or none."""
    if all(_holds_mtime(one, rule) for one in entries.mtimes):
        return []
    changed = (repr(one.path) for one in entries if not _holds_mtime(one.mtime_ns, rule))
    return [
        "mtimes that a zip cannot have (before 1901-12-13 or after 2107) are changed to the "
        f"nearest that it can; a tar keeps them: {listing(changed)}"
    ]


def _holds_mtime(mtime_ns: int, rule: MtimeRule) -> bool:
    seconds = rule.apply(mtime_ns) // 10**9
    return seconds >= _MIN32 and _times(seconds, rule.is_reproducible)[0] != _LAST_DOS


@lru_cache(4096)
def _times(seconds: int, is_utc: bool) -> tuple[tuple[int, int], bytes]:
    """Return the DOS time and date (4.4.6) of an mtime, and its extended timestamp."""
    timestamp = b""
    if seconds <= _MAX32:
        timestamp = _TIMESTAMP.pack(TIMESTAMP, 5, HAS_MTIME, max(seconds, _MIN32))
    try:
        found = time.gmtime(seconds) if is_utc else time.localtime(seconds)
    except (OverflowError, ValueError, OSError):
        return (_FIRST_DOS if seconds < 0 else _LAST_DOS), timestamp
    if not 1980 <= found.tm_year <= 2107:
        return (_FIRST_DOS if found.tm_year < 1980 else _LAST_DOS), timestamp
    date = (found.tm_year - 1980) << 9 | found.tm_mon << 5 | found.tm_mday
    second = min(found.tm_sec, 59)
    return (found.tm_hour << 11 | found.tm_min << 5 | second // 2, date), timestamp


def _attributes(entry: Entry) -> int:
    if entry.kind == "directory":
        return (stat.S_IFDIR | entry.mode) << 16 | DOS_DIRECTORY
    if entry.kind == "link":
        return (stat.S_IFLNK | 0o777) << 16
    return (stat.S_IFREG | entry.mode) << 16


def _moved(directory: bytes, start: int, length: int) -> bytes:
    """Move the offsets of directory headers, without zip64 fields yet, behind a start.

    Their entries follow one another from there, and take so many bytes.
    """
    if start + length >= MAX32:
        entries = _records(directory)
        return b"".join(entry.directory_header(start + offset) for entry, offset in entries)
    headers = bytearray(directory)
    at = 0
    while at < len(headers):
        name, extra, offset = _LENGTHS_AND_OFFSET.unpack_from(headers, at + _LENGTH_AT)
        _OFFSET.pack_into(headers, at + _OFFSET_AT, start + offset)
        at += _NAME_AT + name + extra
    return bytes(headers)


def _records(directory: bytes) -> Iterator[tuple[Record, int]]:
    at = 0
    while at < len(directory):
        fields = _COMMON.unpack_from(directory, at + _COMMON_AT)
        _, _, method, *dos, crc, packed, size, length, extra = fields
        *_, attributes, offset = _REST.unpack_from(directory, at + _REST_AT)
        name_at = at + _NAME_AT
        at = name_at + length + extra
        name, timestamp = directory[name_at : name_at + length], directory[at - extra : at]
        sizes = (method, crc, packed, size)
        yield Record(name, attributes, *sizes, (dos[0], dos[1]), timestamp), offset


def _end_records(count: int, start: int, size: int) -> bytes:
    """Return what follows a directory of so many headers and bytes (4.3.14 to 4.3.16)."""
    large = b""
    if count >= MAX16 or start + size >= MAX32:
        versions = (UNIX << 8 | _VERSION64, _VERSION64)
        numbers = (0, 0, count, count, size, start)
        large = END64_FIELDS.pack(END64, END64_FIELDS.size - 12, *versions, *numbers)
        large += LOCATOR64_FIELDS.pack(LOCATOR64, 0, start + size, 1)
    counts = (min(count, MAX16),) * 2
    places = (min(size, MAX32), min(start, MAX32))
    return large + END_FIELDS.pack(END, 0, 0, *counts, *places, 0)


class PackedBatch(NamedTuple):
    """Small entries: local headers and data, and directory headers with offsets from its start."""

    data: bytes
    directory: bytes


class PackedPart(NamedTuple):
    """A part of a large file, and the CRC-32 of what it was."""

    data: bytes
    crc: int


def pack_unit(unit: Batch | FilePart, level: int, rule: MtimeRule) -> PackedBatch | PackedPart:
    """Read a unit of the list, and deflate it at a level from 0 (not at all) to 9."""
    if isinstance(unit, Batch):
        return _packed_batch(unit, level, rule)
    data = read(unit.entry, unit.offset, unit.size)
    packed = deflated_piece(data, level, last=unit.is_last)
    return PackedPart(packed, crc32(data))


def _packed_batch(batch: Batch, level: int, rule: MtimeRule) -> PackedBatch:
    pieces: list[bytes] = []
    directory = []
    offset = 0
    for entry in batch.entries:
        is_file = entry.kind == "file"
        data = read(entry, 0, entry.size) if is_file else entry.target.encode()
        packed = deflated(data, level) if is_file else None
        method, body = (STORED, data) if packed is None else (DEFLATED, packed)
        described = record(entry, rule, method, crc32(data), len(body), len(data))
        local, header = described.small_headers(offset)
        pieces += (local, body)
        directory.append(header)
        offset += len(local) + len(body)
    return PackedBatch(b"".join(pieces), b"".join(directory))


def zip_stream(
    entries: PackingList,
    pool: PackingPool[PackedBatch | PackedPart],
    consumed: Callable[[int], object],
    rule: MtimeRule,
) -> Generator[bytes, None, None]:
    """Pack entries by a pool that calls :func:`pack_unit`; tell of the bytes of files read."""
    archive = _Archive(rule)
    with closing(pool.packed(entries)) as done:
        for unit, packed in zip(entries.units(), done, strict=True):
            consumed(unit.size)
            if isinstance(packed, PackedBatch):
                yield archive.add_batch(packed)
            else:
                yield from archive.add_part(cast("FilePart", unit), packed)
    yield from archive.directory(len(entries))


_MOST_HELD = 16 << 20
"""Bytes of one compressed file that wait for its sizes."""

_MOST_PLAIN = 4 << 20
"""Bytes of directory headers that wait as they are; those of very many entries wait deflated."""


class _Archive:
    """What was packed becomes an archive, in order: offsets, sums and the directory."""

    def __init__(self, rule: MtimeRule) -> None:
        self._rule = rule
        self._offset = 0
        self._headers: list[bytes] = []
        self._deflated_headers: list[bytes] = []
        self._directory_size = 0
        self._crc = self._packed = self._start = 0
        self._is_streamed = False
        self._held: list[bytes] = []

    def add_batch(self, batch: PackedBatch) -> bytes:
        """Add small entries, and return their bytes."""
        self._keep(_moved(batch.directory, self._offset, len(batch.data)))
        return self._written(batch.data)

    def add_part(self, part: FilePart, packed: PackedPart) -> Iterator[bytes]:
        """Add a part of a large file, and yield the bytes that are complete.

        Up to a bound, the data is held back until its sizes are known for the local file header.
        """
        if part.is_first:
            self._crc, self._packed, self._start = 0, 0, self._offset
            self._is_streamed, self._held = False, []
        self._crc = crc32_combine(self._crc, packed.crc, part.size)
        self._packed += len(packed.data)
        self._held.append(packed.data)
        if not (part.is_last or self._is_streamed or self._packed > _MOST_HELD):
            return
        if not self._is_streamed:
            self._is_streamed = not part.is_last
            yield self._written(self._large(part.entry).local_header())
        held, self._held = self._held, []
        yield from map(self._written, held)
        if part.is_last:
            described = self._large(part.entry)
            self._keep(described.directory_header(self._start))
            if self._is_streamed:
                yield self._written(described.descriptor())

    def _large(self, entry: Entry) -> Record:
        """Return what is known by now of the file that is being added."""
        sizes = (self._crc, self._packed, entry.size)
        return record(entry, self._rule, DEFLATED, *sizes, is_streamed=self._is_streamed)

    def _written(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data

    def _keep(self, headers: bytes) -> None:
        """Keep headers for the directory."""
        self._directory_size += len(headers)
        if self._directory_size <= _MOST_PLAIN:
            self._headers.append(headers)
        else:
            self._deflated_headers.append(deflated_piece(headers, 1, last=True))

    def directory(self, count: int) -> Iterator[bytes]:
        """Return the directory, and the EOCD, which says how many headers it has."""
        yield from self._headers
        for headers in self._deflated_headers:
            yield inflater().decompress(headers)
        yield _end_records(count, self._offset, self._directory_size)
