"""Writing zip (PKWARE APPNOTE 6.3.10) as a stream of bytes that depends on the tree alone.

All times are the first that zip can express, 1980-01-01, and modes are 0644 or 0755, so that the
same tree gives the same bytes on every machine and day. Small files are written with their sizes
in the local header; larger ones carry a data descriptor (4.3.9), since a stream cannot go back.

A file with a descriptor is always of method 8, and what does not get smaller of it is in stored
blocks of DEFLATE: the end of such a file is found by all who read from a pipe, while a file of
method 0 before a descriptor has no end that they could know of, and many refuse it.
"""

from __future__ import annotations

import pickle
import stat
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple, cast

from cpstage.archive.compression import deflated, deflated_piece
from cpstage.archive.flow.forked import forked, is_worth_forking
from cpstage.archive.flow.ordered import in_order
from cpstage.archive.portions import AHEAD, Block, Group, PackingList
from cpstage.deflate import crc32, crc32_combine
from cpstage.walk import Entry, read

_COMMON = struct.Struct("<5H3L2H")
"""What both headers of an entry say in the same order: from the version needed to the length of
the extra field."""

_REST = struct.Struct("<3H2L")
"""What follows in the directory: comment, disk, attributes, and where the local header begins."""

_LENGTH_AND_OFFSET = struct.Struct("<H12xL")
_OFFSET = struct.Struct("<L")
_COMMON_AT, _LENGTH_AT, _REST_AT, _OFFSET_AT, _NAME_AT = 6, 28, 32, 42, 46
"""Where a directory header has all that."""

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

_LOCAL = b"PK\3\4"
_DIRECTORY, _DIRECTORY64 = b"PK\1\2\x14\3", b"PK\1\2\x2d\3"
"""How headers begin; of the directory's, also by what version and system they were made."""

_ZIP64_FROM = _MAX32 - (64 << 20)
"""Files from this size on get zip64 fields: deflate makes what it cannot pack a little longer."""


class _Record(NamedTuple):
    """One entry, as its local header and its directory header describe it."""

    name: bytes
    attributes: int
    method: int
    crc: int
    packed: int
    size: int
    is_streamed: bool = False

    @property
    def _is_large(self) -> bool:
        return self.size >= _ZIP64_FROM

    def local_header(self) -> bytes:
        """Write the local file header (4.3.7) of a file whose sums are in a descriptor."""
        version, extra = _VERSION, b""
        sizes = (0, 0, 0)
        if self._is_large:
            version, extra = _VERSION64, struct.pack("<2H2Q", 1, 16, 0, 0)
            sizes = (0, _MAX32, _MAX32)
        return _LOCAL + self._common(version, sizes, extra) + self.name + extra

    def descriptor(self) -> bytes:
        """Write the data descriptor (4.3.9), its sizes of 8 bytes where zip64 is in use."""
        layout = "<4sL2Q" if self._is_large else "<4s3L"
        return struct.pack(layout, b"PK\7\10", self.crc, self.packed, self.size)

    def directory_header(self, offset: int) -> bytes:
        """Write the central directory header (4.3.12), and zip64 fields (4.5.3) where needed."""
        large: list[int] = []
        size, packed = self.size, self.packed
        if self._is_large:
            large, size, packed = [size, packed], _MAX32, _MAX32
        if offset >= _MAX32:
            large.append(offset)
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = _VERSION64 if large else _VERSION
        return b"".join(
            (
                _DIRECTORY if version == _VERSION else _DIRECTORY64,
                self._common(version, (self.crc, packed, size), extra),
                _REST.pack(0, 0, 0, self.attributes, min(offset, _MAX32)),
                self.name,
                extra,
            )
        )

    def _common(self, version: int, sizes: tuple[int, int, int], extra: bytes) -> bytes:
        flags = 0 if self.name.isascii() else _UTF8_NAME
        if self.is_streamed:
            flags |= _DESCRIPTOR_FOLLOWS
        lengths = (len(self.name), len(extra))
        return _COMMON.pack(version, flags, self.method, _TIME, _DATE, *sizes, *lengths)


class _PackedGroup(NamedTuple):
    """Small entries: their local headers and data, and their directory headers.

    The offsets in these are from the start of the group, for nobody knows yet where that will be.
    """

    count: int
    data: bytes
    directory: bytes

    def directory_from(self, start: int) -> bytes:
        """Return the directory headers of a group that begins at an offset of the archive."""
        if start + len(self.data) >= _MAX32:
            records = _records(self.directory)
            return b"".join(record.directory_header(start + at) for record, at in records)
        moved = bytearray(self.directory)
        at = 0
        while at < len(moved):
            length, offset = _LENGTH_AND_OFFSET.unpack_from(moved, at + _LENGTH_AT)
            _OFFSET.pack_into(moved, at + _OFFSET_AT, start + offset)
            at += _NAME_AT + length
        return moved


def _records(directory: bytes) -> Iterator[tuple[_Record, int]]:
    """Read directory headers of small entries, and the offsets in them."""
    at = 0
    while at < len(directory):
        fields = _COMMON.unpack_from(directory, at + _COMMON_AT)
        _, _, method, _, _, crc, packed, size, length, _ = fields
        *_, attributes, offset = _REST.unpack_from(directory, at + _REST_AT)
        at += _NAME_AT + length
        yield _Record(directory[at - length : at], attributes, method, crc, packed, size), offset


class _PackedBlock(NamedTuple):
    """A part of a large file, and the CRC-32 of what it was."""

    data: bytes
    crc: int


def zip_stream(
    entries: PackingList, level: int, consumed: Callable[[int], object], threads: int
) -> Generator[bytes, None, None]:
    """Pack entries, deflated at a level of 0 (not at all) to 9.

    Args:
        entries: What to pack, in this order.
        level: How hard to try.
        consumed: Is told of the bytes of files as they are read.
        threads: How many to read and deflate with.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    archive = _Archive()
    ahead = threads + AHEAD
    with (
        _packers(level, len(entries), threads) as packer,
        closing(in_order(packer, entries.portions(), threads=threads, ahead=ahead)) as done,
    ):
        for unit, packed in zip(entries.portions(), done, strict=True):
            consumed(unit.size)
            if isinstance(packed, _PackedGroup):
                yield archive.add_group(packed)
            else:
                yield from archive.add_block(cast("Block", unit), packed)
    yield from archive.directory()


@contextmanager
def _packers(
    level: int, entries: int, count: int
) -> Iterator[Callable[[Group | Block], _PackedGroup | _PackedBlock]]:
    """Let processes read and deflate where there are many files, and threads where there are few.

    With 20,000 files on two processors, two threads took no less time than one.
    """
    if not is_worth_forking(entries):
        yield lambda unit: _packed(unit, level)
        return

    def pack(note: bytes, _: bytes | memoryview) -> bytes:
        return pickle.dumps(_packed(pickle.loads(note), level))  # noqa: S301 (our own parent's)

    with forked(pack, count) as do:
        yield lambda unit: pickle.loads(do(pickle.dumps(unit), b""))  # noqa: S301 (our own child's)


def _packed(portion: Group | Block, level: int) -> _PackedGroup | _PackedBlock:
    if isinstance(portion, Group):
        return _packed_group(portion, level)
    data = read(portion.entry, portion.offset, portion.size)
    packed = deflated_piece(data, level, last=portion.is_last)
    return _PackedBlock(packed, crc32(data))


def _packed_group(group: Group, level: int) -> _PackedGroup:
    pieces: list[bytes] = []
    directory = []
    offset = 0
    for entry in group.entries:
        data, packed = _content(entry), None
        if entry.kind == "file":
            packed = deflated(data, level)
        method, body = (_STORED, data) if packed is None else (_DEFLATED, packed)
        record = _Record(
            _name(entry), _attributes(entry), method, crc32(data), len(body), len(data)
        )
        header = record.directory_header(offset)
        local = _LOCAL + header[_COMMON_AT:_REST_AT] + record.name
        pieces += (local, body)
        directory.append(header)
        offset += len(local) + len(body)
    return _PackedGroup(len(directory), b"".join(pieces), b"".join(directory))


def _content(entry: Entry) -> bytes:
    return read(entry, 0, entry.size) if entry.kind == "file" else entry.target.encode()


def _name(entry: Entry) -> bytes:
    """Return the name, which for a directory ends in a slash (4.4.17.1)."""
    return (entry.path + "/" * (entry.kind == "directory")).encode()


def _attributes(entry: Entry) -> int:
    """Return the mode in the upper half, as Info-ZIP does, and DOS attributes below."""
    if entry.kind == "directory":
        return (stat.S_IFDIR | 0o755) << 16 | _MSDOS_DIRECTORY
    if entry.kind == "link":
        return (stat.S_IFLNK | 0o777) << 16
    return (stat.S_IFREG | (0o755 if entry.executable else 0o644)) << 16


class _Archive:
    """What was packed becomes an archive, in order: offsets, sums and the directory."""

    def __init__(self) -> None:
        self._offset = 0
        self._count = 0
        self._headers: list[bytes | bytearray] = []
        self._crc = self._packed = self._start = 0

    def add_group(self, group: _PackedGroup) -> bytes:
        """Add small entries, and return their bytes."""
        self._headers.append(group.directory_from(self._offset))
        self._count += group.count
        self._offset += len(group.data)
        return group.data

    def add_block(self, portion: Block, block: _PackedBlock) -> Iterator[bytes]:
        """Add a part of a large file, and yield its bytes."""
        if portion.is_first:
            self._crc, self._packed, self._start = 0, 0, self._offset
            yield self._written(self._large(portion.entry).local_header())
        self._crc = crc32_combine(self._crc, block.crc, portion.size)
        self._packed += len(block.data)
        yield self._written(block.data)
        if portion.is_last:
            record = self._large(portion.entry)
            self._headers.append(record.directory_header(self._start))
            self._count += 1
            yield self._written(record.descriptor())

    def _large(self, entry: Entry) -> _Record:
        """Return what is known by now of the file that is being added."""
        name, attributes = _name(entry), _attributes(entry)
        return _Record(name, attributes, _DEFLATED, self._crc, self._packed, entry.size, True)

    def _written(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data

    def directory(self) -> Iterator[bytes]:
        """Write the directory and its end records (4.3.12 to 4.3.16)."""
        start, count = self._offset, self._count
        size = sum(map(len, self._headers))
        yield from self._headers
        if count >= _MAX16 or start + size >= _MAX32:
            versions = (_UNIX | _VERSION64, _VERSION64)
            yield _END64.pack(
                b"PK\6\6", _END64.size - 12, *versions, 0, 0, count, count, size, start
            ) + _LOCATOR64.pack(b"PK\6\7", 0, start + size, 1)
        counts = (min(count, _MAX16),) * 2
        yield _END.pack(b"PK\5\6", 0, 0, *counts, min(size, _MAX32), min(start, _MAX32), 0)
