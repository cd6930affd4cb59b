"""Extra fields of zip (PKWARE APPNOTE 6.3.10, sections 4.5 and 4.6), of both headers of an entry.

Two of them count: one has the values that are too large for a header, the other a name in Unicode.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from cpstage.archive.names import refused, text_of
from cpstage.archive.zip.fields import UNICODE_PATH, ZIP64
from cpstage.deflate import crc32

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXTRA = struct.Struct("<2H")


def extra_fields(extra: bytes, name: str | bytes) -> Mapping[int, bytes]:
    """Take an extra field apart (4.5.1), by the ids of its parts.

    Raises:
        ArtifactRejected: A part is cut off, or one that counts is there twice.
    """
    try:
        return _extra_fields(extra)
    except ValueError as error:
        raise refused(name if isinstance(name, str) else text_of(name), str(error)) from None


@lru_cache(4096)  # most hold times, and files of one tree have been written in the same seconds
def _extra_fields(extra: bytes) -> Mapping[int, bytes]:
    parts: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        at += 4 + length
        if kind in (ZIP64, UNICODE_PATH) and kind in parts:
            raise ValueError(f"has the extra field {kind:#06x} twice")
        parts[kind] = extra[at - length : at]
    if at > len(extra) or extra[at:].strip(b"\0"):
        # Up to three zeros pad an archive that was aligned.
        raise ValueError("has an extra field that is cut off")
    return MappingProxyType(parts)


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
