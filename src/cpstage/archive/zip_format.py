"""Records of zip (PKWARE APPNOTE 6.3.10): signatures, extra fields, entries, local file headers.

A local file header, and the data descriptor behind the data, have to agree with the central
directory record of their entry: else the archive is refused, by :class:`ArtifactRejected`.
"""

from __future__ import annotations

import stat
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

from cpstage._deflate import crc32
from cpstage.archive.members import MemberKind, bytes_of, text_of
from cpstage.archive.paths import refused
from cpstage.errors import ArtifactRejected
from cpstage.filesystem.tree import RelativePath

LOCAL_BYTES = 30
"""The fixed part of a local file header."""

LOCAL, RECORD, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
"""How a local file header (4.3.7), a record of the directory (4.3.12) and the EOCD (4.3.16)
begin."""

SIGNATURES = (LOCAL, RECORD, END)
"""Bytes without one of them have no header and no record."""

DESCRIPTOR, END64, LOCATOR64 = b"PK\7\10", b"PK\6\6", b"PK\6\7"
"""A data descriptor (4.3.9), the zip64 EOCD (4.3.14) and its locator (4.3.15)."""

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
    **dict.fromkeys((2, 3, 4, 5), "Reduce"),
    6: "Implode",
    9: "Deflate64 (Windows Explorer, above 2 GB)",
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

HAS_MTIME, _NTFS_TIMES = 1, 1
"""A flag of the extended timestamp, and the tag of the NTFS attribute that has times (4.5.5)."""

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
    """The parts of an extra field (4.5.1) by their ids, and the mtime that one of them has."""

    parts: Mapping[int, bytes]
    mtime_ns: int | None


NO_EXTRA = ExtraFields({}, None)


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
    return ExtraFields(parts, _mtime_of(parts))


def _mtime_of(parts: Mapping[int, bytes]) -> int | None:
    timestamp, ntfs = parts.get(TIMESTAMP, b""), parts.get(NTFS, b"")
    unix = parts.get(INFOZIP_UNIX, b"") or parts.get(UNIX_TIMES, b"")
    if len(timestamp) >= 5 and timestamp[0] & HAS_MTIME:
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
    """Return fields of an entry with the values of those that are in its zip64 extra field (4.5.3).

    A field, in the order of the specification, is its value, the value that stands for "see the
    extra field", and its length there, in bytes.
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


@dataclass(slots=True)
class ZipEntry:
    """One entry, as its directory record describes it.

    Attributes:
        name: The name; bytes that are not text as surrogates.
        other_name: The bytes that the archive has for it, where they are not those of the name.
        mode: Its permission bits; 0 where the archive has no permission bits.
        mtime_ns: Its mtime, in nanoseconds since the epoch, where an extra field has one.
        dos_time: Its DOS date and time, in one number.
        packed: Bytes of its data in the archive.
        offset: Where its local file header is, from the start of the blob.
        end: Where the next entry, or the directory, begins; while the directory is read, where it
            ends at least.
        place: Where it is extracted to; set by the caller of the reader.
        fault: Why it cannot be read, in a directory that was read tolerantly.
    """

    name: str
    other_name: bytes | None
    kind: MemberKind
    mode: int
    mtime_ns: int | None
    dos_time: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    end: int
    place: RelativePath | None = None
    fault: str = ""

    @property
    def executable(self) -> bool:
        """Whether its owner may execute it."""
        return bool(self.mode & stat.S_IXUSR)

    @property
    def mtime(self) -> int | None:
        """Its mtime, in nanoseconds since the epoch: of an extra field, else the DOS time."""
        if self.mtime_ns is not None:
            return self.mtime_ns
        return dos_mtime(self.dos_time >> 16, self.dos_time & MAX16)

    @property
    def raw_name(self) -> bytes:
        """The bytes that the archive has for its name, which the local header must have too."""
        return bytes_of(self.name) if self.other_name is None else self.other_name


_LOCAL = struct.Struct("<4s5H3L2H")
_FLAGS_THAT_COUNT = ENCRYPTED | DESCRIPTOR_FOLLOWS | PATCHED | UTF8_NAME
LONGEST_DESCRIPTOR = 24


def data_start(entry: ZipEntry, head: bytes | memoryview) -> int:
    """Compare a local file header with the central directory, and return where the data begins.

    ``head`` is the header, and may have bytes of what follows.
    """
    if len(head) < LOCAL_BYTES:
        raise refused(entry.name, "has no room for a local file header")
    signature, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack_from(head)
    if signature != LOCAL:
        raise refused(entry.name, "has no local file header where the directory says")
    start: int = LOCAL_BYTES + name + extra
    if head[LOCAL_BYTES : LOCAL_BYTES + name] != entry.raw_name:
        raise refused(entry.name, "has another name in its local file header")
    differing = (flags ^ entry.flags) & _FLAGS_THAT_COUNT
    if differing == UTF8_NAME and entry.raw_name.isascii():
        differing = 0  # an ASCII name is the same with and without it
    if differing or method != entry.method:
        raise refused(entry.name, "has other flags or another method in its local file header")
    parts = _extra_parts(entry, bytes(head[start - extra : start])) if extra else NO_EXTRA.parts
    if UNICODE_PATH in parts and not flags & UTF8_NAME:
        other = unicode_path(entry.raw_name, parts)
        if other is not None and other.replace("\\", "/") != entry.name.replace("\\", "/"):
            raise refused(entry.name, "has another name in an extra field of its local file header")
    if (crc, packed, size) != (entry.crc, entry.packed, entry.size):
        if MAX32 in (packed, size):
            size, packed = large_values(entry.name, parts, ((size, MAX32, 8), (packed, MAX32, 8)))
        declared = ((crc, entry.crc), (packed, entry.packed), (size, entry.size))
        later = bool(flags & DESCRIPTOR_FOLLOWS)
        if any(value != known and (value or not later) for value, known in declared):
            raise refused(entry.name, "has other sizes or another CRC-32 in its local file header")
    if start + entry.packed > entry.end - entry.offset:
        raise refused(entry.name, "overlaps what follows it")
    return start


def _extra_parts(entry: ZipEntry, extra: bytes) -> Mapping[int, bytes]:
    """Take the extra field of a local header apart; an mtime that only it has is the entry's."""
    try:
        parts, mtime_ns = extra_fields(extra)
    except ValueError as error:
        raise refused(entry.name, str(error)) from None
    if entry.mtime_ns is None:
        entry.mtime_ns = mtime_ns
    return parts


def check_end(entry: ZipEntry, after: bytes | memoryview) -> None:
    """Check what follows the data of an entry: its descriptor if it has one, and no other entry."""
    length = _descriptor_length(entry, after) if entry.flags & DESCRIPTOR_FOLLOWS else 0
    if len(after) > length:
        refuse_hidden(bytes(after[length:]), f"after the entry {entry.name!r}")


def refuse_hidden(gap: bytes, where: str) -> None:
    """Check that bytes which belong to no entry hold none that the directory leaves out."""
    if any(signature in gap for signature in SIGNATURES) and not _is_virtual(gap):
        raise ArtifactRejected(f"the archive hides records of another archive {where}")


def _is_virtual(gap: bytes) -> bool:
    """Whether a gap is zipflinger's padding: nameless local headers whose extra fields fill it."""
    at = 0
    while at + LOCAL_BYTES <= len(gap):
        signature, _, flags, method, _, _, *sizes, name, extra = _LOCAL.unpack_from(gap, at)
        end = at + LOCAL_BYTES + extra
        if signature != LOCAL or flags or method or any(sizes) or name:
            return False
        if gap[at + LOCAL_BYTES : end].strip(b"\0"):
            return False
        at = end
    return at == len(gap)


def _descriptor_length(entry: ZipEntry, after: bytes | memoryview) -> int:
    """Return how long a descriptor is: with or without signature, of 32 or 64 bits (4.3.9)."""
    for layout in ("<2L", "<2Q"):
        if layout == "<2L" and max(entry.packed, entry.size) > MAX32:
            continue
        sizes = struct.pack("<L", entry.crc) + struct.pack(layout, entry.packed, entry.size)
        for descriptor in (DESCRIPTOR + sizes, sizes):
            if after[: len(descriptor)] == descriptor:
                return len(descriptor)
    raise refused(entry.name, "has a data descriptor that disagrees with the directory, or none")


def damaged(why: str) -> ArtifactRejected:
    """Return the error for an archive whose own records cannot be believed."""
    return ArtifactRejected(f"the archive is damaged: {why}")
