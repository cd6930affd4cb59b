"""Zip archives byte by byte (PKWARE APPNOTE 6.3.10, section 4.3): any field can be made wrong.

What is not given is right: lengths, offsets, CRCs, counts and the values of zip64 extra fields
follow from the data. A field that is given is written as it stands, and nothing else follows from
it. Where each field lies is kept, for tests that damage them one by one.
"""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Fields = Mapping[str, int | bytes]
"""Values of fields by name: integers in the field's width, or its bytes as they are."""

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14

ENCRYPTED, LZMA_END_MARKER, DESCRIPTOR, PATCHED = 1 << 0, 1 << 1, 1 << 3, 1 << 5
STRONG, UTF8, MASKED = 1 << 6, 1 << 11, 1 << 13
"""General purpose bits (4.4.4)."""

FAT, UNIX, OS_X = 0, 3, 19
"""Hosts that an entry can be made by (4.4.2.2)."""

MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF

LOCAL_LAYOUT = {
    "signature": 4,
    "needed": 2,
    "flags": 2,
    "method": 2,
    "time": 2,
    "date": 2,
    "crc": 4,
    "packed": 4,
    "size": 4,
    "name_length": 2,
    "extra_length": 2,
}
CENTRAL_LAYOUT = {
    "signature": 4,
    "minor": 1,
    "host": 1,
    **{name: width for name, width in LOCAL_LAYOUT.items() if name != "signature"},
    "comment_length": 2,
    "disk": 2,
    "internal": 2,
    "external": 4,
    "offset": 4,
}
END_LAYOUT = {
    "signature": 4,
    "disk": 2,
    "first_disk": 2,
    "here": 2,
    "count": 2,
    "size": 4,
    "offset": 4,
    "comment_length": 2,
}
END64_LAYOUT = {
    "signature": 4,
    "length": 8,
    "minor": 1,
    "host": 1,
    "needed": 2,
    "disk": 4,
    "first_disk": 4,
    "here": 8,
    "count": 8,
    "size": 8,
    "offset": 8,
}
LOCATOR_LAYOUT = {"signature": 4, "disk": 4, "offset": 8, "disks": 4}
ZIP64_WIDTHS = {"size": 8, "packed": 8, "offset": 8, "disk": 4}

DescriptorForm = Literal["none", "signed", "bare", "signed64", "bare64"]
DESCRIPTOR_FORMS: tuple[DescriptorForm, ...] = ("none", "signed", "bare", "signed64", "bare64")


@dataclass(frozen=True)
class Entry:
    """One entry, right in all that is not given.

    Attributes:
        name: A text is written as UTF-8, with bit 11 where it is not ASCII; bytes as they are.
        data: What it unpacks to.
        method: How that is packed.
        stream: Its bytes in the archive, where they are not what the method makes of the data.
        mode: POSIX type and permissions.
        host: What it was made by.
        flags: General purpose bits to be set in both headers.
        descriptor: The form of its data descriptor.
        zip64: Which of size, packed, offset and disk are in the zip64 extra field instead.
        extra: Extra fields of both headers.
        local: Fields of the local header, ``name`` and ``extra`` among them.
        central: Fields of the directory record, ``name``, ``extra`` and ``comment`` among them.
        described: Fields of the descriptor.
        before: Bytes between the entry before and this one.
        hidden: Whether the directory has no record of it.
        absent: Whether there is no more of it than a record in the directory.
    """

    name: str | bytes
    data: bytes = b""
    method: int = STORED
    stream: bytes | None = None
    mode: int = stat.S_IFREG | 0o644
    host: int = UNIX
    flags: int = 0
    descriptor: DescriptorForm = "none"
    zip64: tuple[str, ...] = ()
    extra: bytes = b""
    local: Fields | None = None
    central: Fields | None = None
    described: Fields | None = None
    before: bytes = b""
    hidden: bool = False
    absent: bool = False

    @property
    def packed(self) -> bytes:
        return compress(self.method, self.data) if self.stream is None else self.stream

    @property
    def raw_name(self) -> bytes:
        return self.name.encode() if isinstance(self.name, str) else self.name

    @property
    def bits(self) -> int:
        text = isinstance(self.name, str) and not self.name.isascii()
        chosen = self.flags | (UTF8 if text else 0)
        chosen |= LZMA_END_MARKER if self.method == LZMA and self.stream is None else 0
        return chosen | (0 if self.descriptor == "none" else DESCRIPTOR)

    @property
    def shared(self) -> dict[str, int | bytes]:
        """The fields that both headers have."""
        return {
            "needed": 45 if self.zip64 else 20,
            "flags": self.bits,
            "method": self.method,
            "time": 0x6000,
            "date": 0x5A21,
            "crc": zlib.crc32(self.data),
            "packed": len(self.packed),
            "size": len(self.data),
            "name": self.raw_name,
            "extra": self.extra,
        }


def file(name: str | bytes, data: bytes = b"content", method: int = STORED) -> Entry:
    return Entry(name, data, method)


def directory(name: str | bytes) -> Entry:
    return Entry(name, mode=stat.S_IFDIR | 0o755)


def link(name: str | bytes, target: bytes) -> Entry:
    return Entry(name, target, mode=stat.S_IFLNK | 0o777)


@dataclass(frozen=True)
class Field:
    """Where a field of an archive lies; the entry is -1 for records of the whole archive."""

    record: str
    entry: int
    name: str
    start: int
    stop: int


class Archive(bytes):
    """The bytes of an archive, and the place of each field in them."""

    fields: tuple[Field, ...] = ()


def zip_bytes(
    *entries: Entry,
    prefix: bytes = b"",
    shift: int | None = None,
    order: Sequence[int] | None = None,
    gap: bytes = b"",
    zip64: bool = False,
    end64: Fields | None = None,
    locator: Fields | None = None,
    end: Fields | None = None,
    comment: bytes = b"",
    trailing: bytes = b"",
) -> Archive:
    """Return an archive.

    Args:
        entries: In the order of their data.
        prefix: What stands before the first entry.
        shift: What all offsets count from: 0 where they take the prefix into account, its length
            where they do not.
        order: The order of the directory, as indexes of the entries.
        gap: What stands between the last entry and the directory.
        zip64: Whether there are zip64 end records, and the end record refers to them.
        end64: Fields of the zip64 end record.
        locator: Fields of the zip64 end record's locator.
        end: Fields of the end record.
        comment: The comment of the archive.
        trailing: What stands after the end record.
    """
    out = _Writer()
    base = 0 if shift is None else shift
    out.raw("prefix", -1, prefix)
    offsets = [_add_local(out, number, entry) for number, entry in enumerate(entries)]
    out.raw("gap", -1, gap)
    start = len(out.body)
    listed = [index for index in order or range(len(entries)) if not entries[index].hidden]
    for index in listed:
        _add_central(out, index, entries[index], offsets[index] - base)
    counted: Fields = {
        "here": len(listed),
        "count": len(listed),
        "size": len(out.body) - start,
        "offset": start - base,
    }
    if zip64:
        at = len(out.body) - base
        fixed: Fields = {"signature": b"PK\6\6", "length": 44, "host": UNIX, "minor": 45}
        out.record("end64", -1, END64_LAYOUT, {"needed": 45, **fixed, **counted, **(end64 or {})})
        found: Fields = {"signature": b"PK\6\7", "offset": at, "disks": 1, **(locator or {})}
        out.record("locator", -1, LOCATOR_LAYOUT, found)
        counted = {"here": MAX16, "count": MAX16, "size": MAX32, "offset": MAX32}
    last = {"signature": b"PK\5\6", "comment_length": len(comment), **counted, **(end or {})}
    out.record("end", -1, END_LAYOUT, last)
    out.raw("comment", -1, comment)
    out.raw("trailing", -1, trailing)
    archive = Archive(out.body)
    archive.fields = tuple(out.fields)
    return archive


def zip64_extra(**values: int) -> bytes:
    """Return a zip64 extra field (4.5.3) of these members, in this order."""
    return extra_field(
        1, b"".join(v.to_bytes(ZIP64_WIDTHS[k], "little") for k, v in values.items())
    )


def extra_field(kind: int, data: bytes) -> bytes:
    """Return one part of an extra field (4.5.1)."""
    return struct.pack("<2H", kind, len(data)) + data


def unicode_path(name: bytes, raw_name: bytes, version: int = 1, crc: int | None = None) -> bytes:
    """Return an Info-ZIP Unicode Path extra field (4.6.9) for a name in the header."""
    checksum = zlib.crc32(raw_name) if crc is None else crc
    return extra_field(0x7075, struct.pack("<BL", version, checksum) + name)


def local_header(entry: Entry) -> bytes:
    """Return the local header of an entry, without its data."""
    out = _Writer()
    _add_local_header(out, 0, entry)
    return bytes(out.body)


def compress(method: int, data: bytes) -> bytes:
    return _COMPRESS.get(method, bytes)(data)


def deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()


def lzma_stream(data: bytes) -> bytes:
    """Return LZMA data after the header that zip has for it (5.8.8), with an end marker."""
    whole = lzma.compress(data, lzma.FORMAT_ALONE)
    return b"\x09\x14\x05\x00" + whole[:5] + whole[13:]


_COMPRESS: Mapping[int, Callable[[bytes], bytes]] = {
    DEFLATED: deflate,
    BZIP2: bz2.compress,
    LZMA: lzma_stream,
}


class _Writer:
    def __init__(self) -> None:
        self.body = bytearray()
        self.fields: list[Field] = []

    def raw(self, record: str, entry: int, data: bytes, name: str = "") -> None:
        if data:
            start = len(self.body)
            self.body += data
            self.fields.append(Field(record, entry, name or record, start, len(self.body)))

    def record(self, record: str, entry: int, layout: Mapping[str, int], values: Fields) -> None:
        for name, width in layout.items():
            value = values.get(name, 0)
            data = value if isinstance(value, bytes) else value.to_bytes(width, "little")
            self.raw(record, entry, data, name)


def _add_local(out: _Writer, number: int, entry: Entry) -> int:
    out.raw("before", number, entry.before)
    at = len(out.body)
    if entry.absent:
        return at
    _add_local_header(out, number, entry)
    out.raw("data", number, entry.packed)
    if entry.descriptor != "none":
        wide = 8 if entry.descriptor.endswith("64") else 4
        layout = {"signature": 4, "crc": 4, "packed": wide, "size": wide}
        signature = b"PK\7\x08" if entry.descriptor.startswith("signed") else b""
        values = {"signature": signature, **entry.shared, **(entry.described or {})}
        out.record("descriptor", number, layout, values)
    return at


def _add_local_header(out: _Writer, number: int, entry: Entry) -> None:
    values = dict(entry.shared)
    if entry.descriptor != "none":
        values.update(crc=0, packed=0, size=0)
    if {"size", "packed"} & set(entry.zip64):
        # 4.5.3: both of them have to be in the extra field of a local header.
        large = {name: _number(values[name]) for name in ("size", "packed")}
        values.update(size=MAX32, packed=MAX32, extra=zip64_extra(**large) + entry.extra)
    values.update(entry.local or {})
    _add_named(out, "local", number, LOCAL_LAYOUT, {"signature": b"PK\3\4", **values})


def _add_central(out: _Writer, number: int, entry: Entry, offset: int) -> None:
    slash = entry.raw_name.endswith(b"/")
    values: dict[str, int | bytes] = {
        "signature": b"PK\1\2",
        "minor": 30,
        "host": entry.host,
        **entry.shared,
        "external": entry.mode << 16 | (0x10 if slash else 0),
        "offset": offset,
    }
    if entry.zip64:
        large = {name: _number(values.get(name, 0)) for name in ZIP64_WIDTHS if name in entry.zip64}
        values.update({name: MAX16 if name == "disk" else MAX32 for name in large})
        values["extra"] = zip64_extra(**large) + entry.extra
    values.update(entry.central or {})
    _add_named(out, "central", number, CENTRAL_LAYOUT, values)


def _add_named(
    out: _Writer, record: str, number: int, layout: Mapping[str, int], values: Fields
) -> None:
    """Write a header and the fields of variable length after it, whose lengths are in it."""
    parts = {name: _bytes(values.get(name, b"")) for name in ("name", "extra", "comment")}
    lengths = {f"{name}_length": len(part) for name, part in parts.items()}
    out.record(record, number, layout, {**lengths, **values})
    for name, part in parts.items():
        out.raw(record, number, part, name)


def _number(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value
