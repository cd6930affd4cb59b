"""Writing zip (PKWARE APPNOTE 6.3.10) as a stream of bytes that depends on the tree alone.

All times are the first that zip can express, 1980-01-01, and modes are 0644 or 0755, so that the
same tree gives the same bytes on every machine and day. Files that fit into memory are written
with their sizes in the local header; larger ones carry a data descriptor (4.3.9), since a stream
cannot go back.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

from cpstage.walk import Entry, read_file

_LOCAL = struct.Struct("<4s5H3L2H")
_DIRECTORY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")

_STORED, _DEFLATED = 0, 8
_DESCRIPTOR_FOLLOWS, _UTF8_NAME = 0x0008, 0x0800
_UNIX = 3 << 8
_VERSION, _VERSION64 = 20, 45
_TIME, _DATE = 0, (1 << 5) | 1
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_MSDOS_DIRECTORY = 0x10

_IN_MEMORY = 8 << 20
_ZIP64_FROM = _MAX32 - (64 << 20)
"""Files from this size on get zip64 fields: deflate makes what it cannot pack a little longer."""


@dataclass(frozen=True)
class _Record:
    """One entry, as its local header and its directory record describe it."""

    entry: Entry
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    streamed: bool = False

    @property
    def name(self) -> bytes:
        """The name, which for a directory ends in a slash (4.4.17.1)."""
        return (self.entry.path + "/" * (self.entry.kind == "directory")).encode()

    @property
    def length(self) -> int:
        """How many bytes the entry takes up before the directory."""
        descriptor = len(self.descriptor()) if self.streamed else 0
        return len(self.local_header()) + self.packed + descriptor

    @property
    def _is_large(self) -> bool:
        return self.size >= _ZIP64_FROM

    @property
    def _flags(self) -> int:
        utf8 = 0 if self.name.isascii() else _UTF8_NAME
        return utf8 | (_DESCRIPTOR_FOLLOWS if self.streamed else 0)

    def local_header(self) -> bytes:
        """Write the local file header (4.3.7)."""
        sizes = (0, 0, 0) if self.streamed else (self.crc, self.packed, self.size)
        extra = b""
        if self._is_large:
            sizes = (0, _MAX32, _MAX32)
            extra = struct.pack("<2H2Q", 1, 16, 0, 0)
        version = _VERSION64 if self._is_large else _VERSION
        fixed = (version, self._flags, self.method, _TIME, _DATE, *sizes)
        return _LOCAL.pack(b"PK\3\4", *fixed, len(self.name), len(extra)) + self.name + extra

    def descriptor(self) -> bytes:
        """Write the data descriptor (4.3.9), its sizes of 8 bytes where zip64 is in use."""
        layout = "<4sL2Q" if self._is_large else "<4s3L"
        return struct.pack(layout, b"PK\7\10", self.crc, self.packed, self.size)

    def directory_header(self) -> bytes:
        """Write the central directory header (4.3.12), and zip64 fields (4.5.3) where needed."""
        large: list[int] = []
        size, packed = self.size, self.packed
        if self._is_large:
            large, size, packed = [size, packed], _MAX32, _MAX32
        if self.offset >= _MAX32:
            large.append(self.offset)
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = _VERSION64 if large else _VERSION
        fixed = (_UNIX | version, version, self._flags, self.method, _TIME, _DATE)
        lengths = (len(self.name), len(extra), 0, 0, 0)
        place = (self._attributes(), min(self.offset, _MAX32))
        header = _DIRECTORY.pack(b"PK\1\2", *fixed, self.crc, packed, size, *lengths, *place)
        return header + self.name + extra

    def _attributes(self) -> int:
        """Return the mode in the upper half, as Info-ZIP does, and DOS attributes below."""
        if self.entry.kind == "directory":
            return (stat.S_IFDIR | 0o755) << 16 | _MSDOS_DIRECTORY
        if self.entry.kind == "link":
            return (stat.S_IFLNK | 0o777) << 16
        return (stat.S_IFREG | (0o755 if self.entry.executable else 0o644)) << 16


def zip_stream(
    entries: Iterable[Entry], level: int, consumed: Callable[[int], object]
) -> Iterator[bytes]:
    """Pack entries, deflated at a level of 0 (not at all) to 9.

    Args:
        entries: What to pack, in this order.
        level: How hard to try.
        consumed: Is told of the bytes of files as they are read.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    records: list[_Record] = []
    offset = 0
    for entry in entries:
        content = read_file(entry, consumed) if entry.kind == "file" else iter(())
        write = _write_large if entry.size > _IN_MEMORY else _write_small
        record = yield from write(entry, content, level, offset)
        records.append(record)
        offset += record.length
    yield from _central_directory(records, offset)


def _write_small(
    entry: Entry, content: Iterator[bytes], level: int, offset: int
) -> Generator[bytes, None, _Record]:
    """Write an entry whose sizes are known before its local header."""
    data = entry.target.encode() if entry.kind == "link" else b"".join(content)
    packed = _deflate(data, level) if entry.kind == "file" and level else data
    deflated = len(packed) < len(data)
    body = packed if deflated else data
    method = _DEFLATED if deflated else _STORED
    record = _Record(entry, method, zlib.crc32(data), len(body), len(data), offset)
    yield record.local_header() + body
    return record


def _write_large(
    entry: Entry, content: Iterator[bytes], level: int, offset: int
) -> Generator[bytes, None, _Record]:
    """Write an entry as it is read: sizes and CRC follow the data."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    crc = packed = 0
    yield _Record(entry, _DEFLATED, 0, 0, entry.size, offset, streamed=True).local_header()
    for chunk in content:
        crc = zlib.crc32(chunk, crc)
        piece = compressor.compress(chunk)
        packed += len(piece)
        yield piece
    piece = compressor.flush()
    yield piece
    packed += len(piece)
    record = _Record(entry, _DEFLATED, crc, packed, entry.size, offset, streamed=True)
    yield record.descriptor()
    return record


def _deflate(data: bytes, level: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def _central_directory(records: list[_Record], start: int) -> Iterator[bytes]:
    """Write the directory and its end records (4.3.12 to 4.3.16)."""
    size = 0
    for record in records:
        header = record.directory_header()
        size += len(header)
        yield header
    count = len(records)
    if count >= _MAX16 or start + size >= _MAX32:
        versions = (_UNIX | _VERSION64, _VERSION64)
        yield _END64.pack(
            b"PK\6\6", _END64.size - 12, *versions, 0, 0, count, count, size, start
        ) + _LOCATOR64.pack(b"PK\6\7", 0, start + size, 1)
    counts = (min(count, _MAX16),) * 2
    yield _END.pack(b"PK\5\6", 0, 0, *counts, min(size, _MAX32), min(start, _MAX32), 0)
