"""Tar and gzip byte by byte (POSIX.1-2017, pax; GNU tar manual; RFC 1952): any field can be wrong.

What is not given is right: sizes, checksums and CRCs follow from the data. A field that is given
as bytes is written as it stands.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any

BLOCK = 512
END = bytes(2 * BLOCK)

POSIX, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)
FILE, OLD_FILE, HARD_LINK, LINK = b"0", b"\0", b"1", b"2"
CHARACTERS, BLOCKS, DIRECTORY, FIFO, CONTIGUOUS = b"3", b"4", b"5", b"6", b"7"
PAX, GLOBAL, SOLARIS_PAX, LONG_NAME, LONG_LINK = b"x", b"g", b"X", b"L", b"K"
SPARSE, VOLUMES, LABEL, DUMP, OLD_NAMES = b"S", b"M", b"V", b"D", b"N"

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s167s")

FIELDS = {
    "name": slice(0, 100),
    "mode": slice(100, 108),
    "uid": slice(108, 116),
    "gid": slice(116, 124),
    "size": slice(124, 136),
    "mtime": slice(136, 148),
    "checksum": slice(148, 156),
    "kind": slice(156, 157),
    "link": slice(157, 257),
    "magic": slice(257, 265),
    "uname": slice(265, 297),
    "gname": slice(297, 329),
    "devices": slice(329, 345),
    "rest": slice(345, 512),
}
"""Where a header has its fields; in the rest, POSIX has the prefix of the name."""

Text = str | bytes
Number = int | bytes


def header(
    name: Text = "file",
    *,
    size: Number = 0,
    kind: bytes = FILE,
    link: Text = b"",
    magic: bytes = POSIX,
    rest: Text = b"",
    mode: Number = 0o644,
    uid: Number = 0,
    gid: Number = 0,
    mtime: Number = 1_000_000_000,
    uname: bytes = b"",
    gname: bytes = b"",
    devices: tuple[Number, Number] = (0, 0),
    checksum: Number | None = None,
) -> bytes:
    """A header, with the checksum that it has to have unless one is given."""
    before = (
        encoded(name),
        number(mode, 8),
        number(uid, 8),
        number(gid, 8),
        number(size, 12),
        number(mtime, 12),
    )
    owners = (uname, gname, *(number(device, 8) for device in devices))
    after = (kind, encoded(link), magic, *owners, encoded(rest))
    if checksum is None:
        checksum = sum(_HEADER.pack(*before, b" " * 8, *after))
    if isinstance(checksum, int):
        checksum = b"%06o\0 " % checksum
    return _HEADER.pack(*before, checksum, *after)


def member(name: Text = "file", data: Text = b"", **fields: Any) -> bytes:
    """A header and its data."""
    content = encoded(data)
    return header(name, **{"size": len(content), **fields}) + padded(content)


def tar(*members: bytes, end: bytes = END) -> bytes:
    """An archive."""
    return b"".join(members) + end


def directory(name: Text, **fields: Any) -> bytes:
    return member(name, kind=DIRECTORY, **{"mode": 0o755, **fields})


def link(name: Text, target: Text, **fields: Any) -> bytes:
    return member(name, kind=LINK, link=target, **fields)


def hard_link(name: Text, target: Text, **fields: Any) -> bytes:
    return member(name, kind=HARD_LINK, link=target, **fields)


def pax(*records: bytes, kind: bytes = PAX, **fields: Any) -> bytes:
    """An extended header of records, which stands before its member."""
    return member("pax-header", b"".join(records), kind=kind, **fields)


def record(key: Text, value: Text) -> bytes:
    """A record of a pax header, which begins with its own length."""
    rest = b" %s=%s\n" % (encoded(key), encoded(value))
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def long_name(name: Text, **fields: Any) -> bytes:
    return member("././@LongLink", encoded(name) + b"\0", kind=LONG_NAME, magic=GNU, **fields)


def long_link(target: Text, **fields: Any) -> bytes:
    return member("././@LongLink", encoded(target) + b"\0", kind=LONG_LINK, magic=GNU, **fields)


Extents = Iterable[tuple[Number, Number]]


def sparse(
    name: Text,
    extents: Extents,
    data: bytes,
    real_size: Number,
    more: Iterable[Extents] = (),
    **fields: Any,
) -> bytes:
    """A sparse file of old GNU tar: up to 4 extents in the header, 21 in each block after it."""
    others = [_extents(one) for one in more]
    rest = bytes(41) + _extents(extents).ljust(96, b"\0")
    rest += bytes([bool(others)]) + number(real_size, 12)
    chosen = {"kind": SPARSE, "magic": GNU, "size": len(data), **fields}
    blocks = [
        one.ljust(504, b"\0") + bytes([index < len(others)]) + bytes(7)
        for index, one in enumerate(others, 1)
    ]
    return header(name, rest=rest, **chosen) + b"".join(blocks) + padded(data)


def _extents(extents: Extents) -> bytes:
    return b"".join(number(offset, 12) + number(length, 12) for offset, length in extents)


def number(value: Number, width: int) -> bytes:
    """A number in octal digits, or in GNU's base 256 where those are too few; bytes as they are."""
    if isinstance(value, bytes):
        return value
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return base256(value, width)


def base256(value: int, width: int) -> bytes:
    return (b"\xff" if value < 0 else b"\x80") + value.to_bytes(width, "big", signed=True)[1:]


def signed_sum(block: bytes) -> int:
    """The checksum of a header by historic writers, to whom characters were signed."""
    others = block[: FIELDS["checksum"].start] + b" " * 8 + block[FIELDS["checksum"].stop :]
    return sum(byte - 256 * (byte > 127) for byte in others)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def encoded(text: Text) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


TEXT_FLAG, CRC_FLAG, EXTRA_FLAG, NAME_FLAG, COMMENT_FLAG = 1, 2, 4, 8, 16
_GZIP_HEADER = struct.Struct("<2sBBLBB")


def gzip(
    data: bytes,
    *,
    extra: bytes | None = None,
    name: bytes | None = None,
    comment: bytes | None = None,
    header_crc: bool | bytes = False,
    flags: int = 0,
    magic: bytes = b"\x1f\x8b",
    method: int = 8,
    mtime: int = 0,
    hints: int = 0,
    system: int = 255,
    crc: int | None = None,
    size: int | None = None,
    level: int = 6,
) -> bytes:
    """A member of gzip; a name and a comment are written with the zero that ends them."""
    flags |= EXTRA_FLAG * (extra is not None) | NAME_FLAG * (name is not None)
    flags |= COMMENT_FLAG * (comment is not None) | CRC_FLAG * bool(header_crc)
    start = _GZIP_HEADER.pack(magic, method, flags, mtime, hints, system)
    if extra is not None:
        start += struct.pack("<H", len(extra)) + extra
    start += b"".join(text + b"\0" for text in (name, comment) if text is not None)
    if isinstance(header_crc, bytes):
        start += header_crc
    elif header_crc:
        start += struct.pack("<H", zlib.crc32(start) & 0xFFFF)
    encoder = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    crc = zlib.crc32(data) if crc is None else crc
    size = len(data) & 0xFFFFFFFF if size is None else size
    return start + encoder.compress(data) + encoder.flush() + struct.pack("<2L", crc, size)
