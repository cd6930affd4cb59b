"""Writing tar and tar.gz (POSIX.1-2017 ustar with pax headers; RFC 1952) as a stream of bytes.

Owners are 0, modes 0644 or 0755, and all times 1980-01-01 (GNU tar warns of older ones), so that
the same tree gives the same bytes.
"""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator

from cpstage.walk import Entry, Kind, read_file

_TIME = 315_532_800
_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
}
_GZIP_HEADER = struct.pack("<2s2BL2B", b"\x1f\x8b", 8, 0, 0, 0, 255)
"""RFC 1952, 2.3: deflate, no flags, no time, no extra flags, an unknown system."""


def tar_stream(entries: Iterable[Entry], consumed: Callable[[int], object]) -> Iterator[bytes]:
    """Pack entries.

    Args:
        entries: What to pack, in this order.
        consumed: Is told of the bytes of files as they are read.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    length = 0
    for entry in entries:
        header = _header(entry)
        length += len(header)
        yield header
        if entry.kind == "file":
            yield from read_file(entry, consumed)
            padding = -entry.size % tarfile.BLOCKSIZE
            yield bytes(padding)
            length += entry.size + padding
    length += 2 * tarfile.BLOCKSIZE
    yield bytes(2 * tarfile.BLOCKSIZE + -length % tarfile.RECORDSIZE)


def gzip_stream(chunks: Iterable[bytes], level: int) -> Iterator[bytes]:
    """Compress a stream into one gzip member without a name and a time."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    crc = size = 0
    yield _GZIP_HEADER
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
        yield compressor.compress(chunk)
    yield compressor.flush() + struct.pack("<2L", crc, size & 0xFFFFFFFF)


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.size = entry.size
    info.mtime = _TIME
    info.linkname = entry.target
    info.mode = 0o755 if entry.executable or entry.kind == "directory" else 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
