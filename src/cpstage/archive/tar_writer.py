"""Writing tar and tar.gz (POSIX.1-2017 ustar with pax headers; RFC 1952) as a stream of bytes.

Owners are 0. An mtime has a pax record where it has a fraction of a second, or is before 1970.
"""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable, Generator
from contextlib import closing
from functools import cache
from typing import NamedTuple

from cpstage._deflate import crc32, crc32_combine, deflated_piece
from cpstage.archive.options import MtimeRule
from cpstage.archive.packing_list import Batch, FilePart, PackingList, PackingPool
from cpstage.archive.tar_headers import sum_of
from cpstage.filesystem.walk import Entry, Kind, read

_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
}
_GZIP_HEADER = struct.pack("<2s2BL2B", b"\x1f\x8b", 8, 0, 0, 0, 255)
"""RFC 1952, 2.3: deflate, no flags, no time, no extra flags, an unknown system."""

_USTAR = struct.Struct("100s8s16s12s12s8sc100s8s80x155s12x")
"""Name, mode, owners, size, time, checksum, type, target, magic and prefix; the rest is empty."""

_NAME_BYTES, _PREFIX_BYTES = 100, 155

_USTAR_SIZES = _USTAR_TIMES = 8 << 30


class Piece(NamedTuple):
    """A piece of a tar stream.

    Attributes:
        read: How many bytes of files are in it.
        size: How many bytes it has, not deflated.
        crc: The CRC-32 of those, where they are deflated.
        data: The bytes to write.
    """

    read: int
    size: int
    crc: int
    data: bytes


def tar_stream(
    entries: PackingList,
    pool: PackingPool[Piece],
    consumed: Callable[[int], object],
    level: int | None,
) -> Generator[bytes, None, None]:
    """Pack entries by a pool that calls :func:`tar_piece`; tell of the bytes of files read.

    With a level, all is compressed into one gzip member without a name and a time.
    """
    crc = length = 0
    if level is not None:
        yield _GZIP_HEADER
    with closing(pool.packed(entries)) as pieces:
        for piece in pieces:
            consumed(piece.read)
            if level is not None:
                crc = crc32_combine(crc, piece.crc, piece.size)
            length += piece.size
            yield piece.data
    end = _end(length)
    if level is None:
        yield end
        return
    crc, length = crc32(end, crc), length + len(end)
    yield deflated_piece(end, level, last=True) + struct.pack("<2L", crc, length & 0xFFFFFFFF)


def tar_piece(unit: Batch | FilePart, level: int | None, rule: MtimeRule) -> Piece:
    """Read a unit, with the headers of its entries; with a level, compress it."""
    data = _tar(unit, rule)
    if level is None:
        return Piece(unit.size, len(data), 0, data)
    return Piece(unit.size, len(data), crc32(data), deflated_piece(data, level, last=False))


def _tar(unit: Batch | FilePart, rule: MtimeRule) -> bytes:
    if isinstance(unit, Batch):
        return b"".join([_member(entry, rule) for entry in unit.entries])
    header = _header(unit.entry, rule) if unit.is_first else b""
    padding = _padding(unit.entry) if unit.is_last else b""
    return header + read(unit.entry, unit.offset, unit.size) + padding


def _member(entry: Entry, rule: MtimeRule) -> bytes:
    data = read(entry, 0, entry.size) if entry.kind == "file" else b""
    return _header(entry, rule) + data + _padding(entry)


def _padding(entry: Entry) -> bytes:
    return bytes(-entry.size % tarfile.BLOCKSIZE)


def _end(length: int) -> bytes:
    """Return the end of an archive: two blocks of zeros, and more to fill a record."""
    length += 2 * tarfile.BLOCKSIZE
    return bytes(2 * tarfile.BLOCKSIZE + -length % tarfile.RECORDSIZE)


def _header(entry: Entry, rule: MtimeRule) -> bytes:
    name = (entry.path + "/" * (entry.kind == "directory")).encode()
    target = entry.target.encode()
    seconds, fraction = divmod(rule.apply(entry.mtime_ns), 10**9)
    place = _split(name)
    is_plain = place and len(target) <= _NAME_BYTES and name.isascii() and target.isascii()
    if place and is_plain and entry.size < _USTAR_SIZES and 0 <= seconds < _USTAR_TIMES:
        before = _mtime_record(rule.apply(entry.mtime_ns)) if fraction else b""
        return before + _ustar_header(entry, place, target, seconds)
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.size = entry.size
    info.mtime = min(max(seconds, 0), _USTAR_TIMES - 1)
    if fraction or info.mtime != seconds:
        info.pax_headers = {"mtime": _decimal(rule.apply(entry.mtime_ns))}
    info.linkname = entry.target
    info.mode = entry.mode
    with_records = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    if entry.size >= _USTAR_SIZES:
        return with_records
    # Readers that skip pax records (PHP, Perl, RubyGems) would read "?" for letters beyond ASCII.
    header = _ustar_header(entry, place or (_cut(name), b""), _cut(target), int(info.mtime))
    return with_records[: -tarfile.BLOCKSIZE] + header


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Return the name and the prefix of a ustar header, or None if a path does not fit."""
    if len(name) <= _NAME_BYTES:
        return name, b""
    cut = name.find(b"/", len(name) - 1 - _NAME_BYTES, len(name) - 1)
    return (name[cut + 1 :], name[:cut]) if 0 < cut <= _PREFIX_BYTES else None


def _cut(text: bytes) -> bytes:
    """Return as many whole characters as a ustar header has room for."""
    return text[:_NAME_BYTES].decode(errors="ignore").encode()


def _ustar_header(entry: Entry, place: tuple[bytes, bytes], target: bytes, mtime: int) -> bytes:
    """Write a header that needs no pax records, in a quarter of the time that tarfile takes."""
    name, prefix = place
    before = (
        name,
        b"%07o\0" % entry.mode,
        b"0000000\0" * 2,
        b"%011o\0" % entry.size,
        b"%011o\0" % mtime,
    )
    after = (_TYPES[entry.kind], target, b"ustar\x0000", prefix)
    # The sum is that of a header with spaces in its own place (pax, "ustar Interchange Format").
    checksum = sum_of(_USTAR.pack(*before, b" " * 8, *after))
    return _USTAR.pack(*before, b"%06o\0 " % checksum, *after)


def _mtime_record(mtime_ns: int) -> bytes:
    """Write an extended header with an mtime, in a tenth of the time that tarfile takes."""
    text = f" mtime={_decimal(mtime_ns)}\n".encode()
    record = b"%d%b" % (len(text) + 2, text)  # the length counts its own two digits
    return _extended_header(len(record)) + record.ljust(tarfile.BLOCKSIZE, b"\0")


@cache
def _extended_header(size: int) -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size, info.mode = tarfile.XHDTYPE, size, 0
    return info.tobuf(tarfile.USTAR_FORMAT)


def _decimal(mtime_ns: int) -> str:
    """Return an mtime as a pax record has it: seconds, and a fraction where there is one."""
    seconds, fraction = divmod(abs(mtime_ns), 10**9)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{'-' * (mtime_ns < 0)}{seconds}{digits}"
