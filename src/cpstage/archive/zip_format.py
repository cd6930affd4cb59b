"""Records of zip (PKWARE APPNOTE 6.3.10): signatures, extra fields, and the end of the archive.

Other readers search for the end of central directory record (EOCD) backwards and take the first
that they find; here there has to be exactly one, and all that it says has to agree.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import NamedTuple

from cpstage._deflate import crc32
from cpstage.archive.paths import refused, text_of
from cpstage.errors import ArtifactRejected

LOCAL, RECORD, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
"""How a local header (4.3.7), a record of the directory (4.3.12) and the end record (4.3.16)
begin."""

SIGNATURES = (LOCAL, RECORD, END)
"""Bytes without one of them have no header and no record."""

DESCRIPTOR, END64, LOCATOR64 = b"PK\7\10", b"PK\6\6", b"PK\6\7"
"""A data descriptor (4.3.9), the zip64 end record (4.3.14) and its locator (4.3.15)."""

END_FIELDS = struct.Struct("<4s4H2LH")
END64_FIELDS = struct.Struct("<4sQ2H2L4Q")
LOCATOR64_FIELDS = struct.Struct("<4sLQL")

MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
"""What stands in a field whose value is in a zip64 one."""

STORED, DEFLATED, DEFLATE64, BZIP2, LZMA = 0, 8, 9, 12, 14
"""Compression methods (4.4.5) that are read; of them, the first two are written."""

HAS_DEFLATE64 = find_spec("inflate64") is not None
READABLE_METHODS = {STORED, DEFLATED, BZIP2, LZMA} | ({DEFLATE64} if HAS_DEFLATE64 else set())

METHOD_NAMES = {
    1: "Shrink",
    2: "Reduce",
    3: "Reduce",
    4: "Reduce",
    5: "Reduce",
    6: "Implode",
    9: "Deflate64 (Windows Explorer, above 2 GB; install cpstage[deflate64])",
    93: "zstd",
    95: "xz",
    98: "PPMd",
    99: "AES encryption",
}
"""Names of methods that are not read (4.4.5)."""

ENCRYPTED, DESCRIPTOR_FOLLOWS, PATCHED, UTF8_NAME = 0x1 | 0x40 | 0x2000, 0x8, 0x20, 0x800
"""General purpose bits (4.4.4): 0, 6 and 13 all mean some kind of encryption."""

ZIP64, UNICODE_PATH = 0x0001, 0x7075
"""Extra fields (4.5.3, 4.6.9)."""

NTFS, UNIX_TIMES, INFOZIP_UNIX, TIMESTAMP = 0x000A, 0x000D, 0x5855, 0x5455
"""Extra fields with times (4.5.5, 4.5.7; Info-ZIP's extrafld.txt for the last two)."""

_TIMESTAMP_HAS_MTIME = 0x1
_NTFS_TIMES = 1
"""The tag of the attribute that has the times (4.5.5)."""

_NTFS_EPOCH = 116_444_736_000_000_000
"""1970-01-01 in units of 100 ns since 1601."""

WINDOWS_HOSTS = frozenset((0, 6, 10, 11, 14))
"""FAT, HPFS, NTFS in both numberings, and VFAT (4.4.2.2): their tools write backslashes."""

UNIX, OS_X = 3, 19
"""Systems (4.4.2.2) whose external attributes hold a mode."""

DOS_DIRECTORY = 0x10
"""In the external attributes (4.4.15)."""


_EXTRA = struct.Struct("<2H")


class ExtraFields(NamedTuple):
    """An extra field (4.5.1), taken apart.

    Attributes:
        parts: The data of its parts, by their ids.
        mtime_ns: The mtime that it has, in nanoseconds since the epoch; None without one.
    """

    parts: Mapping[int, bytes]
    mtime_ns: int | None


NO_EXTRA = ExtraFields(MappingProxyType({}), None)


@lru_cache(4096)  # most hold times, and files of one tree have been written in the same seconds
def extra_fields(extra: bytes) -> ExtraFields:
    """Take an extra field apart (4.5.1).

    Raises:
        ValueError: A part is cut off, or one that counts is there twice.
    """
    parts: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        if at + 4 + length > len(extra):
            if kind in (ZIP64, UNICODE_PATH):
                raise ValueError("has an extra field that is cut off")
            break  # other readers skip the rest too
        at += 4 + length
        if kind in (ZIP64, UNICODE_PATH) and kind in parts:
            raise ValueError(f"has the extra field {kind:#06x} twice")
        parts[kind] = extra[at - length : at]
    return ExtraFields(MappingProxyType(parts), _mtime_of(parts))


def _mtime_of(parts: Mapping[int, bytes]) -> int | None:
    timestamp, ntfs = parts.get(TIMESTAMP, b""), parts.get(NTFS, b"")
    unix = parts.get(INFOZIP_UNIX, b"") or parts.get(UNIX_TIMES, b"")
    if len(timestamp) >= 5 and timestamp[0] & _TIMESTAMP_HAS_MTIME:
        return _signed(timestamp[1:5]) * 10**9
    at = 4
    while at + 4 <= len(ntfs):
        tag, length = _EXTRA.unpack_from(ntfs, at)
        if tag == _NTFS_TIMES and length >= 8 and at + 12 <= len(ntfs):
            ticks = int.from_bytes(ntfs[at + 4 : at + 12], "little")
            return (ticks - _NTFS_EPOCH) * 100 if ticks else None
        at += 4 + length
    return _signed(unix[4:8]) * 10**9 if len(unix) >= 8 else None


def _signed(field: bytes) -> int:
    return int.from_bytes(field, "little", signed=True)


@lru_cache(4096)
def dos_mtime(date: int, time_of_day: int) -> int | None:
    """Return a DOS date and time (4.4.6), which are local, in nanoseconds since the epoch.

    A date of zero, which many writers leave, is 1979-11-30, as in Info-ZIP and libarchive.
    """
    year, month, day = 1980 + (date >> 9), date >> 5 & 0xF, date & 0x1F
    hour, minute, second = time_of_day >> 11, time_of_day >> 5 & 0x3F, (time_of_day & 0x1F) * 2
    try:
        return int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1))) * 10**9
    except (OverflowError, ValueError):
        return None


def large_values(
    name: str, parts: Mapping[int, bytes], fields: tuple[tuple[int, int, int], ...]
) -> list[int]:
    """Return fields with the values of those that are in the zip64 extra field (4.5.3).

    Args:
        name: The entry, for messages.
        parts: Its extra field.
        fields: For each field in the order of the specification: its value, the value that stands
            for "see the extra field", and its length there, in bytes.

    Raises:
        ArtifactRejected: A value is missing there.
    """
    large, at, values = parts.get(ZIP64, b""), 0, []
    for value, most, length in fields:
        if value != most:
            values.append(value)
            continue
        if at + length > len(large):
            raise refused(name, "has no zip64 value for a field that needs one")
        values.append(int.from_bytes(large[at : at + length], "little"))
        at += length
    return values


def unicode_path(raw: bytes, parts: Mapping[int, bytes]) -> str | None:
    """Return the name that the extra field of Info-ZIP has (4.6.9), where it is for this name."""
    path = parts.get(UNICODE_PATH, b"")
    if path[:1] == b"\1" and path[1:5] == crc32(raw).to_bytes(4, "little"):
        return text_of(path[5:])
    return None


_MOST_COMMENT = MAX16
_PADDING = b"\0\r\n\t "
"""What may follow the EOCD: padding, and the line end of an editor or a shell."""


@dataclass(frozen=True)
class Ends:
    """What the end records say, in places from the start of the archive.

    Attributes:
        count: Records of the directory.
        size: Bytes of it.
        start: Where it begins.
        shift: How much later everything is than the archive says, behind a self-extractor.
    """

    count: int
    size: int
    start: int
    shift: int


def read_ends(tail: bytes, offset: int) -> Ends:
    """Find the end record (4.3.16), and the zip64 ones (4.3.14, 4.3.15) where there are any.

    Args:
        tail: The last bytes of the archive.
        offset: Where they begin in it.

    Raises:
        ArtifactRejected: There is none or more than one, or they contradict themselves.
    """
    at = tail.rfind(END, max(0, len(tail) - END_FIELDS.size - _MOST_COMMENT - END_FIELDS.size))
    if at < 0 or at + END_FIELDS.size > len(tail):
        raise damaged("it has no end record: it is cut off, or no zip")
    _, disk, first_disk, here, count, size, start, comment = END_FIELDS.unpack_from(tail, at)
    after = at + END_FIELDS.size + comment
    if tail[after:].strip(_PADDING) or after > len(tail):
        raise damaged("there is data after its end record, or the record's comment is cut off")
    _refuse_another_end(tail, at)
    end, shift = at, None
    if tail[max(0, at - LOCATOR64_FIELDS.size) : at].startswith(LOCATOR64):
        large, end, shift = _read_end64(tail, offset, at)
        small = (disk, first_disk, here, count, size, start)
        limits = (MAX16,) * 4 + (MAX32,) * 2
        if any(s not in (value, most) for s, value, most in zip(small, large, limits, strict=True)):
            raise damaged("its end record and its zip64 end record disagree")
        disk, first_disk, here, count, size, start = large
    if disk or first_disk or here != count:
        raise damaged("it is one volume of several")
    begin = offset + end - size
    if begin < start or shift not in (None, begin - start):
        raise damaged("its directory is not where its end record says")
    return Ends(count, size, begin, begin - start)


def _read_end64(tail: bytes, offset: int, at: int) -> tuple[tuple[int, ...], int, int]:
    """Read the zip64 locator and the record it points to.

    Returns:
        Disk, first disk, two counts, size and start of the directory; where the record begins in
        the tail; and how much less than that, from the start of the blob, the locator says.
    """
    locator = at - LOCATOR64_FIELDS.size
    _, disk, said, disks = LOCATOR64_FIELDS.unpack_from(tail, locator)
    record = said - offset
    if tail[max(0, record) : record + 4] != END64 or record < 0:
        # Behind a self-extractor that was put before an archive, places have shifted.
        record = locator - END64_FIELDS.size
    is_there = record >= 0 and tail[record : record + 4] == END64
    if disk or disks > 1 or not is_there or record + END64_FIELDS.size > len(tail):
        raise damaged("its zip64 locator does not point at its record")
    _, length, _, _, *values = END64_FIELDS.unpack_from(tail, record)
    if record + 12 + length != locator or length != END64_FIELDS.size - 12:
        raise damaged("its zip64 end record has a wrong length")
    return tuple(values), record, offset + record - said


def _refuse_another_end(tail: bytes, at: int) -> None:
    """Refuse a second end record that reaches to the end too: readers would differ."""
    other = tail.find(END, max(0, len(tail) - END_FIELDS.size - _MOST_COMMENT))
    while 0 <= other < at:
        if other + END_FIELDS.size <= len(tail):
            comment = END_FIELDS.unpack_from(tail, other)[-1]
            if other + END_FIELDS.size + comment == len(tail):
                raise damaged("it has several end records")
        other = tail.find(END, other + 1)


def damaged(why: str) -> ArtifactRejected:
    """Return the error for an archive whose own records cannot be believed."""
    return ArtifactRejected(f"the archive is damaged: {why}")
