"""A portion of what goes into a zip, read and deflated: what comes of it depends on it alone.

Where in the archive it will be is not known here, nor who does the work.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from cpstage.archive.compression import deflated, deflated_piece
from cpstage.archive.portions import Block, Group
from cpstage.archive.zip.fields import DEFLATED, STORED
from cpstage.archive.zip.headers import record, small_headers
from cpstage.deflate import crc32
from cpstage.walk import Entry, read


class PackedGroup(NamedTuple):
    """Small entries.

    Attributes:
        data: Their local headers and data.
        directory: Their directory headers, with offsets from the start of the group.
    """

    data: bytes
    directory: bytes


class PackedBlock(NamedTuple):
    """A part of a large file, and the CRC-32 of what it was."""

    data: bytes
    crc: int


Packed: TypeAlias = "PackedGroup | PackedBlock"


def pack_portion(portion: Group | Block, level: int) -> Packed:
    """Read and deflate a portion.

    Args:
        portion: What of the list.
        level: How hard to deflate, from 0 (not at all) to 9.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    if isinstance(portion, Group):
        return _packed_group(portion, level)
    data = read(portion.entry, portion.offset, portion.size)
    packed = deflated_piece(data, level, last=portion.is_last)
    return PackedBlock(packed, crc32(data))


def _packed_group(group: Group, level: int) -> PackedGroup:
    pieces: list[bytes] = []
    directory = []
    offset = 0
    for entry in group.entries:
        data = _content(entry)
        packed = deflated(data, level) if entry.kind == "file" else None
        method, body = (STORED, data) if packed is None else (DEFLATED, packed)
        described = record(entry, method, crc32(data), len(body), len(data))
        local, header = small_headers(described, offset)
        pieces += (local, body)
        directory.append(header)
        offset += len(local) + len(body)
    return PackedGroup(b"".join(pieces), b"".join(directory))


def _content(entry: Entry) -> bytes:
    return read(entry, 0, entry.size) if entry.kind == "file" else entry.target.encode()
