"""The central directory of a zip archive (PKWARE APPNOTE 6.3.10, sections 4.3.12 to 4.3.16).

It is read and validated before anything else of the archive: end records, counts, names, methods,
sizes, and where each entry lies. An archive that two readers could understand differently is
refused. Names are validated elsewhere (:mod:`cpstage.archive.paths`).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from cpstage.archive.blob import Blob
from cpstage.archive.members import OWNER_EXECUTES, ZIP_RECORD_ROOM, Budget, MemberKind
from cpstage.archive.paths import bytes_of, is_utf8, refused, text_of
from cpstage.archive.zip_format import (
    DESCRIPTOR_FOLLOWS,
    DOS_DIRECTORY,
    ENCRYPTED,
    MAX16,
    MAX32,
    METHOD_NAMES,
    NO_EXTRA,
    OS_X,
    PATCHED,
    READABLE_METHODS,
    RECORD,
    STORED,
    UNICODE_PATH,
    UNIX,
    UTF8_NAME,
    WINDOWS_HOSTS,
    Ends,
    damaged,
    dos_mtime,
    extra_fields,
    large_values,
    read_ends,
    unicode_path,
)
from cpstage.errors import ArtifactRejected
from cpstage.filesystem.tree import RelativePath
from cpstage.progress import Advance, counted

LOCAL_BYTES = 30
"""The fixed part of a local header."""

_RECORD = struct.Struct("<4s6H3L5H2L")
_SMALLEST_DESCRIPTOR = 12

_SHORTEST_TAIL, _LONGEST_TAIL = 256 << 10, 4 << 20
_TAIL_SHARE = 20
"""What is read at once from the end, and what share of the archive: with small files, as source
code has them, the directory is some twentieth of it."""

_UNIX_HOSTS = {UNIX, OS_X}


@dataclass(slots=True)
class ZipEntry:
    """One entry, as its directory record describes it.

    Attributes:
        name: The name; bytes that are not text as surrogates.
        other_name: The bytes that the archive has for it, where they are not those of the name.
        kind: What it is.
        mode: Its permission bits, or 0 where the archive has none of them.
        mtime_ns: Its mtime, in nanoseconds since the epoch, where an extra field has one.
        dos_time: Its DOS date and time, in one number.
        flags: General purpose bits.
        method: How it is packed.
        crc: CRC-32 of its data.
        packed: Bytes of its data in the archive.
        size: Bytes of its data.
        offset: Where its local header is, from the start of the blob.
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
        return bool(self.mode & OWNER_EXECUTES)

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


@dataclass(frozen=True)
class ZipDirectory:
    """A directory that has been checked.

    Attributes:
        start: Where the first entry begins; before it there may be a self-extractor.
        end: Where the entries end, and the directory begins.
        entries: In the order of their data, which do not overlap.
    """

    start: int
    end: int
    entries: list[ZipEntry]


@dataclass(frozen=True)
class ZipTail:
    """The end of an archive.

    Attributes:
        offset: Where it begins.
        data: Its bytes.
        ends: What the end records in it say.
    """

    offset: int
    data: bytes
    ends: Ends


def read_tail(blob: Blob, budget: Budget) -> ZipTail:
    """Read the end of an archive, as much as its directory is likely to take.

    Args:
        blob: The archive.
        budget: Its limits.

    Raises:
        ArtifactRejected: It is not a zip, is cut, or has more entries or longer headers than the
            limits allow.
    """
    length = min(max(blob.size // _TAIL_SHARE, _SHORTEST_TAIL), _LONGEST_TAIL, blob.size)
    offset = blob.size - length
    data = blob.read(offset, length)
    ends = read_ends(data, offset)
    budget.expect_entries(ends.count)
    budget.check_header(ends.size - ends.count * ZIP_RECORD_ROOM)
    return ZipTail(offset, data, ends)


def read_directory(
    blob: Blob, tail: ZipTail, *, is_tolerant: bool = False, advance: Advance | None = None
) -> ZipDirectory:
    """Read the central directory of a zip archive, and validate it.

    Args:
        blob: The archive.
        tail: Its end.
        is_tolerant: Whether an entry that cannot be read gets a ``fault``, instead of an error.
        advance: Is told of entries as they are read.

    Raises:
        ArtifactRejected: It is damaged or ambiguous; an entry is encrypted, packed by an unknown
            method, overlaps another one, or is not a file, directory or link.
    """
    offset, data, ends = tail.offset, tail.data, tail.ends
    missing = max(0, offset - ends.start)
    records = blob.read(ends.start, min(missing, ends.size)) if missing else b""
    begin = max(0, ends.start - offset)
    records += data[begin : begin + ends.size - len(records)]
    make = _tolerated if is_tolerant else _entry
    found = counted(_entries(records, ends, make), advance)
    entries = sorted(found, key=attrgetter("offset"))
    return _laid_out(entries, ends.start, is_tolerant=is_tolerant)


_Make = Callable[[tuple[Any, ...], bytes, bytes, Ends, "_Shared"], ZipEntry]


def _entries(records: bytes, ends: Ends, make: _Make) -> Iterator[ZipEntry]:
    at, length, shared = 0, len(records), _Shared()
    for _ in range(ends.count):
        fields = _RECORD.unpack_from(records, at) if at + _RECORD.size <= length else (b"",)
        if fields[0] != RECORD:
            raise damaged("its directory has fewer records than its end record says, or others")
        name_at = at + _RECORD.size
        extra_at = name_at + fields[10]
        comment_at = extra_at + fields[11]
        at = comment_at + fields[12]
        if at > length:
            raise damaged("a record of its directory is cut off")
        yield make(fields, records[name_at:extra_at], records[extra_at:comment_at], ends, shared)
    if at != length:
        raise damaged("its directory has more records than its end record says")


class _Shared(dict[int, int]):
    """Equal numbers as one object: 100,000 entries with their own take 15 MB more."""

    _MOST = 20_000

    def __missing__(self, number: int) -> int:
        if len(self) < self._MOST:
            self[number] = number
        return number


def _tolerated(
    fields: tuple[Any, ...], raw_name: bytes, extra: bytes, ends: Ends, shared: _Shared
) -> ZipEntry:
    """Describe an entry; one that is refused as far as its record can be understood."""
    try:
        return _entry(fields, raw_name, extra, ends, shared)
    except ArtifactRejected as error:
        made_by, _, flags, method, dos_time, dos_date, crc, packed, size = fields[1:10]
        name, _ = _name(raw_name, flags & UTF8_NAME, made_by >> 8, {})
        kind: MemberKind = "directory" if name.endswith("/") else "file"
        times = (None, dos_date << 16 | dos_time)
        place = fields[16] + ends.shift
        head = (name, raw_name, kind, 0, *times, flags, method, crc, packed, size, place)
        least = place + _least(raw_name, packed, flags)
        return ZipEntry(*head, least, fault=error.message)


def _entry(
    fields: tuple[Any, ...], raw_name: bytes, extra: bytes, ends: Ends, shared: _Shared
) -> ZipEntry:
    _, made_by, _, flags, method, dos_time, dos_date, crc, packed, size = fields[:10]
    disk, _, attributes, offset = fields[13:]
    host = made_by >> 8
    try:
        parts, mtime_ns = extra_fields(extra) if extra else NO_EXTRA
    except ValueError as error:
        raise refused(text_of(raw_name), str(error)) from None
    if raw_name.isascii() and UNICODE_PATH not in parts and b"\\" not in raw_name:
        name, other_name = raw_name.decode("ascii"), None
    else:
        name, other_name = _name(raw_name, flags, host, parts)
        if not is_utf8(name):
            raise refused(name, "has an unsafe name: it is not UTF-8")
    if MAX32 in (packed, size, offset) or disk == MAX16:
        eight = ((size, MAX32, 8), (packed, MAX32, 8), (offset, MAX32, 8))
        size, packed, offset, disk = large_values(name, parts, (*eight, (disk, MAX16, 4)))
    if disk:
        raise refused(name, "is on another volume")
    # zip names data from a pipe "-"; an empty pipe leaves 7z with the end of a deflate stream.
    from_pipe = size > 0 or packed > 0 or raw_name == b"-"
    try:
        kind, mode = _nature(host, flags, method, attributes, name[-1:] == "/", from_pipe)
    except ValueError as error:
        raise refused(name, str(error)) from None
    if kind == "directory" and size:
        raise refused(name, "is a directory by its name, and has data")
    if method == STORED and packed != size:
        raise refused(name, f"is stored, {size} bytes in {packed}")
    dos, packed, size = shared[dos_date << 16 | dos_time], shared[packed], shared[size]
    place = offset + ends.shift
    least = place + _least(raw_name, packed, flags)
    return ZipEntry(
        name, other_name, kind, mode, mtime_ns, dos, flags, method, crc, packed, size, place, least
    )


def _least(raw_name: bytes, packed: int, flags: int) -> int:
    """Return how many bytes an entry takes at least: its local header may have an extra field."""
    descriptor = _SMALLEST_DESCRIPTOR if flags & DESCRIPTOR_FOLLOWS else 0
    return LOCAL_BYTES + len(raw_name) + packed + descriptor


def _name(
    raw: bytes, flags: int, host: int, parts: Mapping[int, bytes]
) -> tuple[str, bytes | None]:
    """Decode a name, and return it with its bytes where those are not the name's in UTF-8."""
    name = _decoded(raw, flags, host, parts)
    # Names that Windows tools wrote; in a Unicode path, WinZip's.
    if "\\" in name and (host in WINDOWS_HOSTS or (b"/" in raw and b"\\" not in raw)):
        name = name.replace("\\", "/")
    return name, None if raw == bytes_of(name) else raw


def _decoded(raw: bytes, flags: int, host: int, parts: Mapping[int, bytes]) -> str:
    """Decode a name as Info-ZIP does on POSIX (4.4.4 bit 11, 4.6.9, appendix D)."""
    if flags & UTF8_NAME:
        return text_of(raw)
    name = unicode_path(raw, parts)
    if name is not None:
        return name
    if host in _UNIX_HOSTS:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            pass
    return raw.decode("cp437")


_KNOWN_TYPES = (
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
)


@lru_cache(1024)  # most entries of an archive are alike in all of it
def _nature(  # noqa: PLR0917 (keywords would be slower)
    host: int, flags: int, method: int, attributes: int, slash: bool, from_pipe: bool
) -> tuple[MemberKind, int]:
    """Return the kind of an entry, and its permission bits.

    Its name, which may end in a slash, and its mode have to agree on directories.

    Raises:
        ValueError: The entry cannot be read, or its type cannot be unpacked; the text says why.
    """
    if flags & ENCRYPTED:
        raise ValueError("is encrypted, which is not supported")
    if flags & PATCHED:
        raise ValueError("is a patch, which is not supported")
    if method not in READABLE_METHODS:
        what = METHOD_NAMES.get(method, f"method {method}")
        raise ValueError(f"is compressed with {what}, which is not supported")
    mode = attributes >> 16 if host in _UNIX_HOSTS else 0
    kind, permissions = stat.S_IFMT(mode), mode & 0o777
    if kind not in _KNOWN_TYPES:
        kind = 0  # as the directories of plexus-archiver, 0177777
    if kind == stat.S_IFIFO and not slash and from_pipe:
        kind = stat.S_IFREG  # zip and 7z: data that was read from a pipe
    if slash:
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError("is a directory by its name, and something else by its mode")
        return "directory", permissions
    if kind == stat.S_IFLNK:
        return "link", permissions
    if kind == stat.S_IFDIR or (not kind and attributes & DOS_DIRECTORY):
        raise ValueError("is a directory by its attributes, and none by its name")
    if kind not in (0, stat.S_IFREG):
        raise ValueError("is neither a file, a directory nor a link")
    return "file", permissions


def _laid_out(
    entries: list[ZipEntry], directory: int, *, is_tolerant: bool = False
) -> ZipDirectory:
    """Check that entries do not overlap, and give each its end.

    How long its local header really is, is known when that has arrived.
    """
    starts = [entry.offset for entry in entries]
    for entry, end in zip(entries, [*starts[1:], directory], strict=False):
        if entry.end > end:
            overlap = refused(entry.name, "overlaps the next entry, or the directory")
            if not is_tolerant:
                raise overlap
            entry.fault = entry.fault or overlap.message
        entry.end = end
    return ZipDirectory(entries[0].offset if entries else directory, directory, entries)
