"""DEFLATE (RFC 1951), gzip (RFC 1952) and CRC-32, by ISA-L where there is a wheel, else by zlib.

ISA-L inflates two to three times as fast as zlib, computes checksums five times as fast, and
deflates at its levels 1 to 3 several times as fast to about the same size. Harder levels are zlib's
everywhere. Inflating gives the same bytes with both; deflated bytes are the same only with the same
library.

A long stream is made of pieces that are deflated independently: each ends on a byte (RFC 1951,
3.2.4), so threads deflate the pieces and the caller joins them in order.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

_fast: Any = zlib
try:
    from isal import isal_zlib

    _fast = isal_zlib
except ImportError:  # no wheel for this machine
    pass

ERRORS: tuple[type[Exception], ...] = (zlib.error, _fast.error)
"""What the decoders raise for damaged data."""

_RAW = -zlib.MAX_WBITS
"""Window bits of a stream without header and trailer, as zip has it."""

_HARDEST_FAST_LEVEL = 0 if _fast is zlib else 3

_HARDEST_UNSTEADY_LEVEL = 2
"""Up to here ISA-L's assembler, at the start of data that nothing precedes, hashes an address of
its own memory for the third byte and those after it (``.write_first_byte``): which matches it finds
differs between processes and threads. So the first byte is stored by itself, and precedes the
rest."""

_FIRST_STORED = b"\0\1\0\xfe\xff"
"""The header of a stored block of one byte that is not the last block (RFC 1951, 3.2.4)."""

DEFAULT_LEVEL = 2
"""ISA-L's, as fast as 1 and a little smaller; 3 deflates two thirds longer for 3% less (measured on
20,000 files of source text, which come out 12% larger than by ``zip -6``)."""

_STORED_BLOCK = struct.Struct("<B2H")
_LONGEST_STORED = 0xFFFF

_SAMPLE = 4 << 10
_SAMPLED_FROM = 64 << 10
"""Below this, deflating costs little more than looking at samples."""

_DENSE = 0.95


def deflated(data: bytes, level: int) -> bytes | None:
    """Return data as a complete stream, or None where that would not be smaller.

    The level is 0, which deflates nothing, to 9.
    """
    if not level or _is_dense(data):
        return None
    packed = _deflate(data, level, zlib.Z_FINISH)
    return packed if len(packed) < len(data) else None


def deflated_piece(data: bytes, level: int, *, last: bool) -> bytes:
    """Return one piece of a stream; where it would not be smaller, in stored blocks (3.2.4).

    The level is 0, which deflates nothing, to 9; ``last`` ends the stream.
    """
    if level and not _is_dense(data):
        packed = _deflate(data, level, zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
        if len(packed) < len(data):
            return packed
    return _stored(data, last=last)


def _is_dense(data: bytes) -> bool:
    """Whether data is compressed or encrypted already, by its start, middle and end."""
    if len(data) < _SAMPLED_FROM:
        return False
    middle = (len(data) - _SAMPLE) // 2
    sample = data[:_SAMPLE] + data[middle : middle + _SAMPLE] + data[-_SAMPLE:]
    return len(_deflate(sample, 1, zlib.Z_FINISH)) > len(sample) * _DENSE


def _deflate(data: bytes, level: int, mode: int) -> bytes:
    """Deflate data at level 1 to 9, the same data to the same bytes.

    The mode ``Z_FINISH`` ends the stream, ``Z_SYNC_FLUSH`` a piece, on a byte.
    """
    if not data or level > _HARDEST_FAST_LEVEL:
        return _flushed(zlib.compressobj(level, zlib.DEFLATED, _RAW), data, mode)
    if level > _HARDEST_UNSTEADY_LEVEL:
        return _flushed(_fast.compressobj(level, zlib.DEFLATED, _RAW), data, mode)
    first = data[:1]
    encoder = _fast.compressobj(level, zlib.DEFLATED, _RAW, zdict=first)
    return _FIRST_STORED + first + _flushed(encoder, memoryview(data)[1:], mode)


def _flushed(encoder: Any, data: bytes | memoryview, mode: int) -> bytes:
    return cast("bytes", encoder.compress(data) + encoder.flush(mode))


def _stored(data: bytes, *, last: bool) -> bytes:
    view = memoryview(data)
    blocks: list[bytes | memoryview] = []
    for start in range(0, max(len(view), 1), _LONGEST_STORED):
        block = view[start : start + _LONGEST_STORED]
        is_final = last and start + len(block) == len(view)
        blocks.append(_STORED_BLOCK.pack(is_final, len(block), len(block) ^ _LONGEST_STORED))
        blocks.append(block)
    return b"".join(blocks)


def crc32(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Return the CRC-32 of data that follows data of the CRC-32 ``value``."""
    return cast("int", _fast.crc32(data, value))


def crc32_of(pieces: Iterable[bytes | bytearray | memoryview]) -> int:
    """Return the CRC-32 of data that comes in pieces."""
    value = 0
    for piece in pieces:
        value = crc32(piece, value)
    return value


def crc32_combine(first: int, second: int, length: int) -> int:
    """Return the CRC-32 of two pieces of data in a row; the second has ``length`` bytes.

    Where the library cannot do it: appending ``length`` bytes to a piece multiplies its CRC by
    ``x ** (8 * length)`` modulo the polynomial; the second piece is added to that.
    """
    if _combine is not None:
        return cast("int", _combine(first, second, length))
    return _multiply(_power_of_x(8 * length), first) ^ second


_combine: Any = getattr(_fast, "crc32_combine", None)

_POLYNOMIAL = 0xEDB88320
"""CRC-32 (ISO 3309), its bits reversed: the highest bit is the coefficient of ``x ** 0``."""

_ONE = 1 << 31


def _multiply(first: int, second: int) -> int:
    product = 0
    while first:
        if first & _ONE:
            product ^= second
        first = (first << 1) & 0xFFFFFFFF
        second = second >> 1 ^ _POLYNOMIAL if second & 1 else second >> 1
    return product


def _power_of_x(exponent: int) -> int:
    power, square = _ONE, _ONE >> 1
    while exponent:
        if exponent & 1:
            power = _multiply(square, power)
        square = _multiply(square, square)
        exponent >>= 1
    return power


class Inflater(Protocol):
    """A stream being inflated, as ``zlib.decompressobj`` makes it."""

    eof: bool
    unused_data: bytes
    unconsumed_tail: bytes

    def decompress(self, data: bytes | memoryview, max_length: int = 0, /) -> bytes:
        """Inflate; at most ``max_length`` bytes come out, unless that is 0."""


def inflater() -> Inflater:
    """Return the decoder of a raw stream."""
    return cast("Inflater", _fast.decompressobj(_RAW))


class Damaged(Exception):
    """A stream violates its format; the reader of the archive adds where."""


class Forward:
    """A stream of bytes that is read forwards; empty blocks are skipped."""

    __slots__ = ("_at", "_before", "_block", "_blocks")

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._at = self._before = 0

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self._before + self._at

    def read(self, count: int) -> bytes:
        """Return the next bytes: fewer than asked for only at the end of the stream."""
        start, end = self._at, self._at + count
        if end <= len(self._block):
            self._at = end
            return self._block[start:end]
        pieces: list[bytes] = []
        while count and (piece := self.some(count)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def some(self, most: int) -> bytes:
        """Return buffered next bytes, ``most`` at most; none only at the end of the stream."""
        if self._at == len(self._block):
            self._before += self._at
            self._block, self._at = next(filter(None, self._blocks), b""), 0
        piece = self._block[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def glance(self, count: int) -> bytes:
        """Return buffered next bytes, ``count`` at most, without consuming them."""
        return self._block[self._at : self._at + count]

    def window(self, most: int) -> memoryview:
        """Return the next bytes without consuming them: fewer than ``most`` only at the end."""
        blocks, size = [self._block[self._at :]], len(self._block) - self._at
        while size < most and (block := next(filter(None, self._blocks), b"")):
            blocks.append(block)
            size += len(block)
        self._before += self._at
        self._block, self._at = b"".join(blocks), 0
        return memoryview(self._block)

    def back(self, count: int) -> None:
        """Go back, within what the last call of :meth:`some` returned."""
        self._at -= count


_MOST_STEPS = 256
"""That go into a block: handing each of a million small members to another thread took 40 s."""

_FIRST_INPUT, _INPUT = 1 << 10, 256 << 10
"""A member is read in growing pieces: what a decoder does not use is copied. An empty member takes
3 µs so, and 60 µs otherwise."""

_OUTPUT = 1 << 20
"""With steps of a quarter of that, threads lost 10 % more time to the interpreter's lock."""

_LONGEST_TEXT = 1 << 20
"""Bytes of a name or comment in a header, about."""

_GZIP_HEADER, _GZIP_TRAILER = struct.Struct("<2sBB6x"), struct.Struct("<2L")
_MAGIC, _METHOD = b"\x1f\x8b", 8
_HAS_HEADER_CRC, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0


def gunzip(data: bytes) -> bytes:
    """Return the contents of a gzip file.

    Raises:
        OSError: It is cut or damaged.
    """
    try:
        return b"".join(inflated(Forward(iter([data]))))
    except Damaged as error:
        raise OSError(f"the gzip file is damaged: {error}") from error


def inflated(source: Forward) -> Iterator[bytes]:
    """Return the contents of all members of a gzip stream, in blocks of at most 1 MiB.

    Every trailer is verified, and nothing but zeros may follow the last member. The work between
    two blocks is bounded for any input, so that a caller can stop at each; some are empty.

    Raises:
        Damaged: It is not gzip, is damaged or cut off, or other data follows it.
    """
    steps: list[bytes] = []
    size = 0
    try:
        for step in _inflated(source):
            if size + len(step) > _OUTPUT or len(steps) == _MOST_STEPS:
                yield b"".join(steps)
                steps, size = [], 0
            steps.append(step)
            size += len(step)
    except Damaged:
        yield b"".join(steps)  # so that the reader of the archive knows where the damage is
        raise
    yield b"".join(steps)


def _inflated(source: Forward) -> Iterator[bytes]:
    """Inflate in steps of bounded time."""
    _pass_header(source, source.read(_GZIP_HEADER.size))
    yield from _member(source)
    while head := source.read(_GZIP_HEADER.size):
        if not head.strip(b"\0"):
            yield from _zeros(source)
            return
        if not head.startswith(_MAGIC):
            raise Damaged("there is data after the end of the gzip stream")
        _pass_header(source, head)
        yield from _member(source)


def _member(source: Forward) -> Iterator[bytes]:
    """Inflate the data of a member, and compare it with the trailer (2.3.1)."""
    decoder = inflater()
    crc = size = 0
    data, most = b"", _FIRST_INPUT
    while not decoder.eof:
        if not data:
            data, most = source.some(most), min(4 * most, _INPUT)
        try:
            block = decoder.decompress(data, _OUTPUT)
        except ERRORS as error:
            raise Damaged(f"the gzip stream cannot be inflated: {error}") from error
        if not (data or block or decoder.eof):
            raise Damaged("the gzip stream is cut off")
        crc = crc32(block, crc)
        size += len(block)
        data = decoder.unconsumed_tail
        yield block
    source.back(len(decoder.unused_data))
    trailer = _exactly(source, _GZIP_TRAILER.size, "trailer")
    if _GZIP_TRAILER.unpack(trailer) != (crc, size & 0xFFFFFFFF):
        raise Damaged("the gzip stream does not have the CRC-32 and length that it declares")


def _pass_header(source: Forward, header: bytes) -> None:
    """Skip the rest of a header (2.3) whose fixed part is given."""
    if len(header) < _GZIP_HEADER.size:
        raise _cut_off("header")
    magic, method, flags = _GZIP_HEADER.unpack(header)
    if magic != _MAGIC or method != _METHOD or flags & _RESERVED:
        raise Damaged("the gzip stream begins with no header")
    if flags & _HAS_EXTRA:
        length = _exactly(source, 2)
        header += length + _exactly(source, int.from_bytes(length, "little"))
    for flag in (_HAS_NAME, _HAS_COMMENT):
        if flags & flag:
            header += _text(source)
    if flags & _HAS_HEADER_CRC:
        declared = int.from_bytes(_exactly(source, 2), "little")
        if declared != crc32(header) & 0xFFFF:
            raise Damaged("the header of the gzip stream does not have the CRC that it declares")


def _exactly(source: Forward, count: int, part: str = "header") -> bytes:
    data = source.read(count)
    if len(data) < count:
        raise _cut_off(part)
    return data


def _cut_off(part: str) -> Damaged:
    return Damaged(f"the {part} of the gzip stream is cut off")


def _text(source: Forward) -> bytes:
    """Read a name or comment, which ends with a zero."""
    text = b""
    while len(text) <= _LONGEST_TEXT:
        piece = source.some(_INPUT)
        if not piece:
            raise _cut_off("header")
        length = piece.find(b"\0") + 1
        if length:
            source.back(len(piece) - length)
            return text + piece[:length]
        text += piece
    raise Damaged(f"the header of the gzip stream is over {_LONGEST_TEXT:,} bytes long")


def _zeros(source: Forward) -> Iterator[bytes]:
    """Read padding to its end, as the writers of tapes leave it."""
    while piece := source.some(_INPUT):
        if piece.strip(b"\0"):
            raise Damaged("there is data after the end of the gzip stream")
        yield b""
