"""Reading zip entries (PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.9), all of them in one pass.

The bytes of the archive come in order and once. Entries that are close together are handed on as
groups, each with its own bytes, for threads to decode; the data of a large one is decoded as it
comes. An entry is compared with its central directory record as its bytes arrive: local file
header, length, CRC-32, and what follows the data. Where they disagree, or data is damaged,
:class:`ArtifactRejected` is raised. What may be written, and where, is not decided here.
"""

from __future__ import annotations

import bz2
import lzma
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from cpstage._deflate import ERRORS, crc32, inflater
from cpstage.archive.blob import READ_SIZE, Blob, ReadAhead
from cpstage.archive.members import CHUNK, text_of
from cpstage.archive.options import Budget
from cpstage.archive.paths import LONGEST_TARGET, check_target_length, refused
from cpstage.archive.zip_directory import ZipTail, read_directory, read_tail
from cpstage.archive.zip_format import (
    BZIP2,
    DEFLATE64,
    DEFLATED,
    DESCRIPTOR_FOLLOWS,
    LOCAL_BYTES,
    LONGEST_DESCRIPTOR,
    LZMA,
    SIGNATURES,
    STORED,
    ZipEntry,
    check_end,
    data_start,
    refuse_hidden,
)
from cpstage.errors import ArtifactRejected
from cpstage.progress import Advance

_GROUP = 1 << 20
"""Bytes of one unit of work: milliseconds of it, a hundred times what handing it over costs."""

_LONGEST_LINK = LOCAL_BYTES + 2 * 0xFFFF + LONGEST_TARGET

_NEAR = 256 << 10
"""Links that lie no further apart than this are read at once."""

_MANY = 50_000
"""Entries that take so much memory (0.5 KB each) that blocks of the archive have to be smaller."""

_OVERLAP = len(SIGNATURES[0]) - 1


class EntryGroup(NamedTuple):
    """Neighbours, and all their bytes, from the first local file header to the end of the last."""

    entries: list[ZipEntry]
    data: memoryview

    def slots(self) -> Iterator[tuple[ZipEntry, memoryview]]:
        """Share the bytes out to the entries."""
        start = self.entries[0].offset
        for entry in self.entries:
            yield entry, self.data[entry.offset - start : entry.end - start]


class ZipReader:
    """A zip archive; its end is read first, which has the count of entries, then its directory."""

    def __init__(self, stream: ReadAhead, budget: Budget) -> None:
        self._stream = stream
        if stream.is_far():
            stream.fetch_ahead()
        self._tail: ZipTail | None = read_tail(stream.blob, budget)
        self.count, self._start = self._tail.count, self._tail.start
        self._entries: list[ZipEntry] = []

    def read_directory(self, advance: Advance | None = None) -> list[ZipEntry]:
        """Read the directory once, begin to fetch what is before it, and return its entries."""
        if self.count >= _MANY:
            self._stream.read_size = READ_SIZE // 2
        self._stream.fetch_ahead()  # nearby not before: the directory waits for the end alone
        if self._tail:
            self._entries = read_directory(self._stream.blob, self._tail, advance=advance)
            self._tail = None
        return self._entries

    def groups(self) -> Iterator[EntryGroup | ZipEntry]:
        """Go through the archive: groups of entries with their bytes, and large entries alone.

        A large entry is read by :func:`entry_chunks` before the next step. Bytes that belong to no
        entry may not hold records of another archive.
        """
        entries = self._entries
        start = entries[0].offset if entries else self._start
        _pass_over(self._stream, start, "before the first entry")
        first, count = 0, len(entries)
        while first < count:
            start = entries[first].offset
            if entries[first].end - start > READ_SIZE:
                yield entries[first]
                first += 1
                continue
            last = first
            while last + 1 < count and entries[last + 1].end - start <= _GROUP:
                last += 1
            data = self._stream.take(entries[last].end - start)
            yield EntryGroup(entries[first : last + 1], data)
            first = last + 1


def entry_chunks(stream: ReadAhead, entry: ZipEntry) -> Iterator[bytes | memoryview]:
    """Return the data of an entry, as it comes, from a stream that is at its local file header."""
    take = stream.take
    head = bytes(take(LOCAL_BYTES))
    head += take(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"))
    start = data_start(entry, head)
    yield from decoded(entry, stream.pieces(entry.packed))
    rest = entry.end - entry.offset - start - entry.packed
    after = bytes(take(rest if rest <= READ_SIZE else LONGEST_DESCRIPTOR))
    check_end(entry, after)
    where = f"after the entry {entry.name!r}"
    _pass_over(stream, rest - len(after), where, after[-_OVERLAP:])


def link_targets(
    blob: Blob, entries: Iterable[ZipEntry], *, is_tolerant: bool = False
) -> Iterator[tuple[ZipEntry, str]]:
    """Read the targets of those entries that are links.

    Read tolerantly, a link whose target cannot be read gets a ``fault`` instead of an error.
    """
    links = [entry for entry in entries if entry.kind == "link" and not entry.fault]
    for entry in links:
        length = max(entry.size, entry.packed)
        if not is_tolerant:
            check_target_length(entry.name, length)
        elif length > LONGEST_TARGET:
            entry.fault = f"the link has a target over {LONGEST_TARGET:,} bytes"
    for entry, slot in _read_slots(blob, [one for one in links if not one.fault]):
        try:
            start = data_start(entry, slot)
            target = b"".join(decoded(entry, (slot[start : start + entry.packed],)))
        except ArtifactRejected as error:
            if not is_tolerant:
                raise
            entry.fault = error.message
        else:
            yield entry, text_of(target)


def _read_slots(blob: Blob, entries: list[ZipEntry]) -> Iterator[tuple[ZipEntry, memoryview]]:
    """Read the first bytes of some entries, neighbours at once."""
    start, data = 0, memoryview(b"")
    for index, entry in enumerate(entries):
        end = _end_of_link(entry)
        if end > start + len(data):
            for near in entries[index + 1 :]:
                if near.offset > end + _NEAR or _end_of_link(near) > entry.offset + READ_SIZE:
                    break
                end = _end_of_link(near)
            start, data = entry.offset, memoryview(blob.read(entry.offset, end - entry.offset))
        yield entry, data[entry.offset - start : _end_of_link(entry) - start]


def _end_of_link(entry: ZipEntry) -> int:
    return min(entry.end, entry.offset + _LONGEST_LINK)


def _pass_over(stream: ReadAhead, length: int, where: str, before: bytes = b"") -> None:
    """Pass over bytes that belong to no entry, and look for records in them."""
    for piece in [stream.take(length)] if length <= READ_SIZE else stream.pieces(length):
        gap = before + bytes(piece)
        refuse_hidden(gap, where)
        before = gap[-_OVERLAP:]


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


def unpacked(entry: ZipEntry, slot: memoryview) -> Iterable[bytes | memoryview]:
    """Return the data of an entry. The slot is all bytes from its local header to the next entry.

    The data of a small one has been checked. An entry without an mtime gets that of its local
    header.
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
    """Decode the data of an entry, and compare its length and CRC-32 with the directory."""
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
