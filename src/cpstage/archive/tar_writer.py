"""Writing tar and tar.gz (POSIX.1-2017 ustar with pax headers; RFC 1952) as a stream of bytes.

Owners are 0, modes 0644 or 0755, and all times 1980-01-01 (GNU tar warns of older ones), so that
the same tree gives the same bytes.
"""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import NamedTuple

from cpstage._deflate import crc32, crc32_combine, deflated_piece
from cpstage.archive.packing_list import AHEAD, Batch, FilePart, PackingList
from cpstage.archive.workers import in_order
from cpstage.walk import Entry, Kind, read

_TIME = 315_532_800
_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
}
_GZIP_HEADER = struct.pack("<2s2BL2B", b"\x1f\x8b", 8, 0, 0, 0, 255)
"""RFC 1952, 2.3: deflate, no flags, no time, no extra flags, an unknown system."""

_USTAR = struct.Struct("100s8s16s12s12s8sc100s8s247x")
"""Name, mode, owners, size, time, checksum, type, target and magic; the rest is empty."""

_USTAR_SIZES = 8 << 30


class _Piece(NamedTuple):
    """A piece of a tar stream.

    Attributes:
        read: How many bytes of files are in it.
        size: How many bytes it has, not deflated.
        crc: The CRC-32 of those.
        data: The bytes to write.
    """

    read: int
    size: int
    crc: int
    data: bytes


def tar_stream(
    entries: PackingList, consumed: Callable[[int], object]
) -> Generator[bytes, None, None]:
    """Pack entries.

    Args:
        entries: What to pack, in this order.
        consumed: Is told of the bytes of files as they are read.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    length = 0
    # One thread: several only wait for the interpreter's lock, and read slower than one (measured).
    with closing(in_order(_plain, entries.portions(), threads=1, ahead=AHEAD)) as pieces:
        for piece in pieces:
            consumed(piece.read)
            length += piece.size
            yield piece.data
    yield _end(length)


def gzip_stream(
    entries: PackingList, level: int, consumed: Callable[[int], object], threads: int
) -> Generator[bytes, None, None]:
    """Pack entries, and compress them into one gzip member without a name and a time.

    Args:
        entries: What to pack, in this order.
        level: From 0 (not compressed) to 9.
        consumed: Is told of the bytes of files as they are read.
        threads: How many to read and deflate with.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    crc = length = 0
    work = partial(_compressed, level=level)
    yield _GZIP_HEADER
    ahead = threads + AHEAD
    with closing(in_order(work, entries.portions(), threads=threads, ahead=ahead)) as pieces:
        for piece in pieces:
            consumed(piece.read)
            crc = crc32_combine(crc, piece.crc, piece.size)
            length += piece.size
            yield piece.data
    end = _end(length)
    crc, length = crc32(end, crc), length + len(end)
    yield deflated_piece(end, level, last=True) + struct.pack("<2L", crc, length & 0xFFFFFFFF)


def _compressed(portion: Batch | FilePart, level: int) -> _Piece:
    data = _tar(portion)
    return _Piece(portion.size, len(data), crc32(data), deflated_piece(data, level, last=False))


def _plain(portion: Batch | FilePart) -> _Piece:
    data = _tar(portion)
    return _Piece(portion.size, len(data), 0, data)


def _tar(portion: Batch | FilePart) -> bytes:
    if isinstance(portion, Batch):
        return b"".join(map(_member, portion.entries))
    header = _header(portion.entry) if portion.is_first else b""
    padding = _padding(portion.entry) if portion.is_last else b""
    return header + read(portion.entry, portion.offset, portion.size) + padding


def _member(entry: Entry) -> bytes:
    data = read(entry, 0, entry.size) if entry.kind == "file" else b""
    return _header(entry) + data + _padding(entry)


def _padding(entry: Entry) -> bytes:
    return bytes(-entry.size % tarfile.BLOCKSIZE)


def _end(length: int) -> bytes:
    """Return the end of an archive: two blocks of zeros, and more to fill a record."""
    length += 2 * tarfile.BLOCKSIZE
    return bytes(2 * tarfile.BLOCKSIZE + -length % tarfile.RECORDSIZE)


def _header(entry: Entry) -> bytes:
    name = entry.path + "/" * (entry.kind == "directory")
    texts = (name, entry.target)
    if entry.size < _USTAR_SIZES and all(len(text) <= 100 and text.isascii() for text in texts):
        return _ustar_header(entry, name)
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.size = entry.size
    info.mtime = _TIME
    info.linkname = entry.target
    info.mode = _mode(entry)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _ustar_header(entry: Entry, name: str) -> bytes:
    """Write a header that needs no pax records, in a quarter of the time that tarfile takes."""
    before = (
        name.encode(),
        b"%07o\0" % _mode(entry),
        b"0000000\0" * 2,
        b"%011o\0" % entry.size,
        b"%011o\0" % _TIME,
    )
    after = (_TYPES[entry.kind], entry.target.encode(), b"ustar\x0000")
    # The sum is that of a header with spaces in its own place (pax, "ustar Interchange Format").
    checksum = sum(_USTAR.pack(*before, b" " * 8, *after))
    return _USTAR.pack(*before, b"%06o\0 " % checksum, *after)


def _mode(entry: Entry) -> int:
    return 0o755 if entry.executable or entry.kind == "directory" else 0o644
