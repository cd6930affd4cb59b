"""The data of zip entries (PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.9).

An entry is compared with its central directory record as its bytes arrive: local file header,
length, CRC-32, and what follows the data. Callers supply the bytes and write the output.
"""

from __future__ import annotations

import bz2
import lzma
import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from cpstage._deflate import ERRORS, crc32, inflater
from cpstage.archive.members import CHUNK
from cpstage.archive.paths import refused
from cpstage.archive.zip_directory import LOCAL_BYTES, ZipEntry
from cpstage.archive.zip_format import (
    BZIP2,
    DEFLATE64,
    DEFLATED,
    DESCRIPTOR,
    DESCRIPTOR_FOLLOWS,
    ENCRYPTED,
    LOCAL,
    LZMA,
    MAX32,
    NO_EXTRA,
    PATCHED,
    SIGNATURES,
    STORED,
    UNICODE_PATH,
    UTF8_NAME,
    extra_fields,
    large_values,
    unicode_path,
)
from cpstage.errors import ArtifactRejected

_LOCAL = struct.Struct("<4s5H3L2H")
_FLAGS_THAT_COUNT = ENCRYPTED | DESCRIPTOR_FOLLOWS | PATCHED | UTF8_NAME
LONGEST_DESCRIPTOR = 24

_LZMA_HEADER = struct.Struct("<2xHBL")
_LZMA_END_MARKER = 0x2
"""General purpose bit 1, for LZMA: the stream says where it ends."""

_INPUT64 = 1 << 10
"""Bytes of Deflate64 data of which at most 64 KiB times as many bits come out at once."""

_LARGEST_DICTIONARY = 64 << 20
"""Of LZMA: the decoder reserves as much memory as the header of the data says."""

_DECODER_ERRORS: tuple[type[Exception], ...] = (
    *ERRORS,
    lzma.LZMAError,
    EOFError,
    OSError,  # of bz2: it has no errno, unlike an error of the system
    ValueError,  # of inflate64
)
"""Too little memory (MemoryError) is not the fault of an archive: dictionaries have a limit."""


def data_start(entry: ZipEntry, head: bytes | memoryview) -> int:
    """Compare a local file header with the central directory, and return where the data begins.

    Args:
        entry: The entry, as the directory has it.
        head: The header and what follows, as far as they have been read.

    Raises:
        ArtifactRejected: The header is missing, or the two disagree.
    """
    if len(head) < LOCAL_BYTES:
        raise refused(entry.name, "has no room for a local header")
    signature, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack_from(head)
    if signature != LOCAL:
        raise refused(entry.name, "has no local header where the directory says")
    start: int = LOCAL_BYTES + name + extra
    if head[LOCAL_BYTES : LOCAL_BYTES + name] != entry.raw_name:
        raise refused(entry.name, "has another name in its local header")
    differing = (flags ^ entry.flags) & _FLAGS_THAT_COUNT
    if differing == UTF8_NAME and entry.raw_name.isascii():
        differing = 0  # an ASCII name is the same with and without it
    if differing or method != entry.method:
        raise refused(entry.name, "has other flags or another method in its local header")
    parts = _extra_parts(entry, bytes(head[start - extra : start])) if extra else NO_EXTRA.parts
    if UNICODE_PATH in parts and not flags & UTF8_NAME:
        other = unicode_path(entry.raw_name, parts)
        if other is not None and other.replace("\\", "/") != entry.name.replace("\\", "/"):
            raise refused(entry.name, "has another name in the extra field of its local header")
    if (crc, packed, size) != (entry.crc, entry.packed, entry.size):
        if MAX32 in (packed, size):
            size, packed = large_values(entry.name, parts, ((size, MAX32, 8), (packed, MAX32, 8)))
        said = ((crc, entry.crc), (packed, entry.packed), (size, entry.size))
        later = bool(flags & DESCRIPTOR_FOLLOWS)
        if any(value != known and (value or not later) for value, known in said):
            raise refused(entry.name, "has other sizes or another CRC-32 in its local header")
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


def unpacked(entry: ZipEntry, slot: memoryview) -> Iterable[bytes | memoryview]:
    """Return the data of an entry that is there as a whole; that of a small one has been checked.

    Args:
        entry: The entry; it gets the mtime of its local header, if the directory has none.
        slot: All bytes from its local header to the next entry.

    Raises:
        ArtifactRejected: It is not as the directory says.
    """
    start = data_start(entry, slot)
    end = start + entry.packed
    if len(slot) > end or entry.flags & DESCRIPTOR_FOLLOWS:
        check_end(entry, slot[end:])
    data = slot[start:end]
    if entry.method == DEFLATED and entry.size <= CHUNK and data:
        return (_at_once(entry, data),)
    return decoded(entry, (data,))


def _at_once(entry: ZipEntry, data: memoryview) -> bytes:
    """Inflate a small entry in one call: of 20,000 of them, four iterators each were a fifth."""
    stream = inflater()
    try:
        # One byte more than is declared, so that what is longer is noticed.
        chunk = stream.decompress(data, entry.size + 1)
    except ERRORS as error:
        raise refused(entry.name, f"is damaged: {error}") from error
    if len(chunk) <= entry.size:
        if not stream.eof:
            raise _cut_off(entry)
        if stream.unused_data:
            raise _goes_on(entry)
    _verify(entry, len(chunk), crc32(chunk))
    return chunk


def decoded(entry: ZipEntry, pieces: Iterable[memoryview]) -> Iterator[bytes | memoryview]:
    """Decode the data of an entry, in pieces of 1 MiB at most.

    Raises:
        ArtifactRejected: It is damaged, or has another length or CRC-32 than the directory says.
    """
    crc = length = 0
    for chunk in _cut(pieces) if entry.method == STORED else _decompressed(entry, pieces):
        crc = crc32(chunk, crc)
        length += len(chunk)
        if length > entry.size:
            break
        yield chunk
    _verify(entry, length, crc)


def _verify(entry: ZipEntry, length: int, crc: int) -> None:
    """Compare the length and the CRC-32 of the output with the central directory."""
    if length != entry.size:
        more = "more" if length > entry.size else "fewer"
        raise refused(entry.name, f"unpacks to {more} than the {entry.size:,} bytes it declares")
    if crc != entry.crc:
        raise refused(entry.name, "does not have the CRC-32 that it declares")


def check_end(entry: ZipEntry, after: bytes | memoryview) -> None:
    """Check what follows the data of an entry: its descriptor, if it has one, and no other entry.

    Raises:
        ArtifactRejected: The descriptor says something else than the directory, or an entry
            follows that the directory does not have.
    """
    length = _descriptor_length(entry, after) if entry.flags & DESCRIPTOR_FOLLOWS else 0
    if len(after) > length:
        refuse_hidden(bytes(after[length:]), f"after the entry {entry.name!r}")


def refuse_hidden(gap: bytes, where: str) -> None:
    """Check that bytes which belong to no entry hold none that the directory leaves out.

    Raises:
        ArtifactRejected: They do.
    """
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
        said = struct.pack("<L", entry.crc) + struct.pack(layout, entry.packed, entry.size)
        for descriptor in (DESCRIPTOR + said, said):
            if after[: len(descriptor)] == descriptor:
                return len(descriptor)
    raise refused(entry.name, "has a data descriptor that disagrees with the directory, or none")


def _cut(pieces: Iterable[memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        for at in range(0, len(piece), CHUNK):
            yield piece[at : at + CHUNK]


def _decompressed(entry: ZipEntry, pieces: Iterable[memoryview]) -> Iterator[bytes]:
    if not entry.packed and not entry.size:
        return  # some writers give empty files a method, and no data to go with it
    try:
        if entry.method == DEFLATED:
            yield from _inflated(entry, pieces)
        elif entry.method == DEFLATE64:
            yield from _inflated64(entry, pieces)
        else:
            yield from _expanded(entry, pieces)
    except _DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise refused(entry.name, f"is damaged: {error}") from error


def _inflated(entry: ZipEntry, pieces: Iterable[memoryview]) -> Iterator[bytes]:
    stream = inflater()
    # One byte more than is declared, so that what is longer is noticed.
    room = min(CHUNK, entry.size + 1)
    # Cut small: what a call leaves over of its input is copied.
    for piece in _cut(pieces):
        data: bytes | memoryview = piece
        while data or not stream.eof:
            if stream.eof:
                raise _goes_on(entry)
            chunk = stream.decompress(data, room)
            if chunk:
                yield chunk
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            if not data and len(chunk) < room:
                break
    if not stream.eof:
        raise _cut_off(entry)


def _inflated64(entry: ZipEntry, pieces: Iterable[memoryview]) -> Iterator[bytes]:
    """Inflate Deflate64 in small steps: the decoder does not bound the output of a step.

    It does not return unused data either. So the last byte is a separate step: the stream
    has to end there.
    """
    import inflate64

    stream = inflate64.Inflater()
    for step in _steps64(entry, pieces):
        if stream.eof:
            raise _goes_on(entry)
        yield stream.inflate(step)
    if not stream.eof:
        raise _cut_off(entry)


def _steps64(entry: ZipEntry, pieces: Iterable[memoryview]) -> Iterator[bytes]:
    left = entry.packed - 1
    for piece in pieces:
        at = 0
        while at < len(piece):
            length = min(_INPUT64, max(left, 1), len(piece) - at)
            yield bytes(piece[at : at + length])
            at += length
            left -= length


def _goes_on(entry: ZipEntry) -> ArtifactRejected:
    return refused(entry.name, "has data after the end of its deflate stream")


def _cut_off(entry: ZipEntry) -> ArtifactRejected:
    return refused(entry.name, "ends in the middle of its deflate stream")


def _expanded(entry: ZipEntry, pieces: Iterable[memoryview]) -> Iterator[bytes]:
    """Decode bzip2 and LZMA, whose decoders of the standard library are of one kind."""
    left = iter(pieces)
    stream, first = _lzma(entry, left) if entry.method == LZMA else (bz2.BZ2Decompressor(), b"")
    has_end = entry.method == BZIP2 or bool(entry.flags & _LZMA_END_MARKER)
    length = 0
    for part in chain((first,), left):
        piece: bytes | memoryview = part
        if stream.eof and piece:
            raise refused(entry.name, "has data after the end of its stream")
        while not stream.eof:
            # Without an end marker the decoder would go on behind the last byte.
            room = CHUNK if has_end else min(CHUNK, entry.size - length)
            chunk = stream.decompress(piece, room) if room or piece else b""
            piece, length = b"", length + len(chunk)
            if chunk:
                yield chunk
            if stream.needs_input or not (chunk or room):
                break
    if stream.unused_data:
        raise refused(entry.name, "has data after the end of its stream")
    if not stream.eof and has_end:
        raise refused(entry.name, "ends in the middle of its stream")


def _lzma(
    entry: ZipEntry, pieces: Iterator[memoryview]
) -> tuple[lzma.LZMADecompressor, bytes | memoryview]:
    """Read the header of LZMA data (5.8.8), and return the decoder and what follows."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= _LZMA_HEADER.size:
            break
    if len(head) < _LZMA_HEADER.size:
        raise refused(entry.name, "is damaged: its LZMA header is cut off")
    length, properties, dictionary = _LZMA_HEADER.unpack_from(head)
    if length != 5 or properties >= 9 * 5 * 5 or dictionary > _LARGEST_DICTIONARY:
        raise refused(entry.name, "has an LZMA header that is not supported")
    numbers = {"lc": properties % 9, "lp": properties // 9 % 5, "pb": properties // 45}
    chosen = {"id": lzma.FILTER_LZMA1, "dict_size": dictionary, **numbers}
    stream = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chosen])
    return stream, head[_LZMA_HEADER.size :]
