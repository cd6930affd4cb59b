"""The central directory of a zip archive (PKWARE APPNOTE 6.3.10, sections 4.3.12 to 4.3.16).

It is read and validated before anything else of the archive: its end, counts, names, methods,
sizes, and where each entry lies. An archive that two readers could understand differently is
refused. Names are validated elsewhere (:mod:`cpstage.archive.members`).
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
from cpstage.archive.members import MemberKind, bytes_of, printable_text, text_of
from cpstage.archive.options import ZIP_RECORD_ROOM, Budget
from cpstage.archive.paths import refused
from cpstage.archive.zip_format import (
    DEFLATE64,
    DESCRIPTOR_FOLLOWS,
    DOS_DIRECTORY,
    ENCRYPTED,
    END,
    END64,
    END64_FIELDS,
    END_FIELDS,
    LOCAL_BYTES,
    LOCATOR64,
    LOCATOR64_FIELDS,
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
    ZipEntry,
    damaged,
    extra_fields,
    large_values,
    unicode_path,
)
from cpstage.errors import ArtifactRejected, extra_hint
from cpstage.progress import Advance, counted

_RECORD = struct.Struct("<4s6H3L5H2L")
_SMALLEST_DESCRIPTOR = 12

_SHORTEST_TAIL, _LONGEST_TAIL = 256 << 10, 4 << 20
_TAIL_SHARE = 20
"""Bytes that are read at once from the end, and their share of the archive: with small files, as in
source code, the directory is some twentieth of it."""

_UNIX_HOSTS = {UNIX, OS_X}

_MOST_COMMENT = MAX16
_PADDING = b"\0\r\n\t "
"""What may follow the EOCD: padding, and the line end of an editor or a shell."""


@dataclass(frozen=True)
class ZipTail:
    """The end of an archive: its bytes, where they begin in it, and what its end records say.

    Attributes:
        count: Records of the directory.
        size: Bytes of the directory.
        start: Where the directory begins in the archive.
        shift: How much later everything is than the archive says, behind a self-extractor.
    """

    offset: int
    data: bytes
    count: int
    size: int
    start: int
    shift: int


def read_tail(blob: Blob, budget: Budget) -> ZipTail:
    """Read the end of an archive, as much as its directory is likely to take.

    Raises:
        ArtifactRejected: It is not a zip, is cut, its end records contradict themselves, or it has
            more entries or longer headers than the limits allow.
    """
    length = min(max(blob.size // _TAIL_SHARE, _SHORTEST_TAIL), _LONGEST_TAIL, blob.size)
    offset = blob.size - length
    tail = _read_ends(blob.read(offset, length), offset)
    budget.expect_entries(tail.count)
    budget.check_header(tail.size - tail.count * ZIP_RECORD_ROOM)
    return tail


def _read_ends(tail: bytes, offset: int) -> ZipTail:
    """Find the EOCD (4.3.16), and the zip64 records (4.3.14, 4.3.15) where there are any.

    Other readers search for the record backwards and take the first that they find; here there has
    to be exactly one, and all that it says has to agree.
    """
    at = tail.rfind(END, max(0, len(tail) - END_FIELDS.size - _MOST_COMMENT - END_FIELDS.size))
    if at < 0 or at + END_FIELDS.size > len(tail):
        raise damaged("it has no end of central directory record: it is cut off, or not a zip")
    _, disk, first_disk, here, count, size, start, comment = END_FIELDS.unpack_from(tail, at)
    after = at + END_FIELDS.size + comment
    if tail[after:].strip(_PADDING) or after > len(tail):
        raise damaged("data follows its end of central directory record, or its comment is cut off")
    _refuse_another_end(tail, at)
    end, shift = at, None
    if tail[max(0, at - LOCATOR64_FIELDS.size) : at].startswith(LOCATOR64):
        large, end, shift = _read_end64(tail, offset, at)
        small = (disk, first_disk, here, count, size, start)
        limits = (MAX16,) * 4 + (MAX32,) * 2
        if any(s not in (value, most) for s, value, most in zip(small, large, limits, strict=True)):
            raise damaged("its end of central directory record and its zip64 record disagree")
        disk, first_disk, here, count, size, start = large
    if disk or first_disk or here != count:
        raise damaged("it is a part of a multi-disk archive")
    begin = offset + end - size
    if begin < start or shift not in (None, begin - start):
        raise damaged("its central directory is not at the offset that its EOCD gives")
    return ZipTail(offset, tail, count, size, begin, begin - start)


def _read_end64(tail: bytes, offset: int, at: int) -> tuple[tuple[int, ...], int, int]:
    """Read the zip64 locator and the record it points to.

    Returns:
        Disk, first disk, two counts, size and start of the directory; where the record begins in
        the tail; and how much less than that, from the start of the blob, the locator says.
    """
    locator = at - LOCATOR64_FIELDS.size
    _, disk, declared, disks = LOCATOR64_FIELDS.unpack_from(tail, locator)
    record = declared - offset
    if tail[max(0, record) : record + 4] != END64 or record < 0:
        # Behind a self-extractor that was put before an archive, places have shifted.
        record = locator - END64_FIELDS.size
    is_there = record >= 0 and tail[record : record + 4] == END64
    if disk or disks > 1 or not is_there or record + END64_FIELDS.size > len(tail):
        raise damaged("its zip64 locator does not point to its record")
    _, length, _, _, *values = END64_FIELDS.unpack_from(tail, record)
    if record + 12 + length != locator or length != END64_FIELDS.size - 12:
        raise damaged("its zip64 end of central directory record has a wrong length")
    return tuple(values), record, offset + record - declared


def _refuse_another_end(tail: bytes, at: int) -> None:
    """Refuse a second EOCD that reaches to the end too: readers would differ."""
    other = tail.find(END, max(0, len(tail) - END_FIELDS.size - _MOST_COMMENT))
    while 0 <= other < at:
        if other + END_FIELDS.size <= len(tail):
            comment = END_FIELDS.unpack_from(tail, other)[-1]
            if other + END_FIELDS.size + comment == len(tail):
                raise damaged("it has several end of central directory records")
        other = tail.find(END, other + 1)


def read_directory(
    blob: Blob, tail: ZipTail, *, is_tolerant: bool = False, advance: Advance | None = None
) -> list[ZipEntry]:
    """Read the central directory of a zip archive, and validate it.

    Read tolerantly, an entry that cannot be read gets a ``fault``, instead of an error.

    Returns:
        The entries in the order of their data, which do not overlap.

    Raises:
        ArtifactRejected: It is damaged or ambiguous; an entry is encrypted, packed by an unknown
            method, overlaps another one, or is not a file, directory or link.
    """
    missing = max(0, tail.offset - tail.start)
    records = blob.read(tail.start, min(missing, tail.size)) if missing else b""
    begin = max(0, tail.start - tail.offset)
    records += tail.data[begin : begin + tail.size - len(records)]
    found = counted(_entries(records, tail, _tolerated if is_tolerant else _entry), advance)
    entries = sorted(found, key=attrgetter("offset"))
    _lay_out(entries, tail.start, is_tolerant=is_tolerant)
    return entries


def _entries(records: bytes, tail: ZipTail, make: Callable[..., ZipEntry]) -> Iterator[ZipEntry]:
    at, length, shared = 0, len(records), _Shared()
    for _ in range(tail.count):
        fields = _RECORD.unpack_from(records, at) if at + _RECORD.size <= length else (b"",)
        if fields[0] != RECORD:
            raise damaged("its central directory has other or fewer records than its EOCD says")
        name_at = at + _RECORD.size
        extra_at = name_at + fields[10]
        comment_at = extra_at + fields[11]
        at = comment_at + fields[12]
        if at > length:
            raise damaged("a record of its central directory is cut off")
        name, extra = records[name_at:extra_at], records[extra_at:comment_at]
        yield make(fields, name, extra, tail.shift, shared)
    if at != length:
        raise damaged("its central directory has more records than its EOCD says")


class _Shared(dict[int, int]):
    """Equal numbers as one object: 100,000 entries with their own take 15 MB more."""

    _MOST = 20_000

    def __missing__(self, number: int) -> int:
        if len(self) < self._MOST:
            self[number] = number
        return number


def _tolerated(
    fields: tuple[Any, ...], raw_name: bytes, extra: bytes, shift: int, shared: _Shared
) -> ZipEntry:
    """Describe an entry; one that is refused as far as its record can be understood."""
    try:
        return _entry(fields, raw_name, extra, shift, shared)
    except ArtifactRejected as error:
        made_by, _, flags, method, dos_time, dos_date, crc, packed, size = fields[1:10]
        name, _ = _name(raw_name, flags & UTF8_NAME, made_by >> 8, {})
        kind: MemberKind = "directory" if name.endswith("/") else "file"
        times = (None, dos_date << 16 | dos_time)
        place = fields[16] + shift
        head = (name, raw_name, kind, 0, *times, flags, method, crc, packed, size, place)
        least = place + _least(raw_name, packed, flags)
        return ZipEntry(*head, least, fault=error.message)


def _entry(
    fields: tuple[Any, ...], raw_name: bytes, extra: bytes, shift: int, shared: _Shared
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
        if printable_text(name) != name:
            raise refused(name, "has an unsafe name: it is not UTF-8")
    if MAX32 in (packed, size, offset) or disk == MAX16:
        eight = ((size, MAX32, 8), (packed, MAX32, 8), (offset, MAX32, 8))
        size, packed, offset, disk = large_values(name, parts, (*eight, (disk, MAX16, 4)))
    if disk:
        raise refused(name, "is on another disk of a multi-disk archive")
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
    place = offset + shift
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


_DEVICES = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)
_KNOWN_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, *_DEVICES)


@lru_cache(1024)  # most entries of an archive are alike in all of it
def _nature(  # noqa: PLR0917 (keywords would be slower)
    host: int, flags: int, method: int, attributes: int, slash: bool, from_pipe: bool
) -> tuple[MemberKind, int]:
    """Return the kind of an entry, on which its name and mode have to agree, and permission bits.

    Raises:
        ValueError: The entry cannot be read, or its type cannot be unpacked; the text says why.
    """
    if flags & ENCRYPTED:
        raise ValueError("is encrypted, which is not supported")
    if flags & PATCHED:
        raise ValueError("is a patch, which is not supported")
    if method not in READABLE_METHODS:
        what = METHOD_NAMES.get(method, f"method {method}")
        needs = f"; {extra_hint('deflate64')}" if method == DEFLATE64 else ""
        raise ValueError(f"is compressed with {what}, which is not supported{needs}")
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


def _lay_out(entries: list[ZipEntry], directory: int, *, is_tolerant: bool) -> None:
    """Check that entries do not overlap, and give each its end.

    How long its local file header really is, is known when that has arrived.
    """
    starts = [entry.offset for entry in entries]
    for entry, end in zip(entries, [*starts[1:], directory], strict=False):
        if entry.end > end:
            overlap = refused(entry.name, "overlaps the next entry, or the central directory")
            if not is_tolerant:
                raise overlap
            entry.fault = entry.fault or overlap.message
        entry.end = end
