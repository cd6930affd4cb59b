"""Reading gzip (RFC 1952): the content of all members in a row, every trailer verified.

The work between two steps is bounded for any input, so that a caller can stop at each step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cpstage._deflate import ERRORS, crc32, inflater
from cpstage.archive.options import HEADER_BYTES

_MOST_STEPS = 256
"""That go into a block: handing each of a million small members to another thread took 40 s."""

_FIRST_INPUT, _INPUT = 1 << 10, 256 << 10
"""A member is read in growing pieces: what a decoder does not use is copied. An empty member takes
3 µs so, and 60 µs otherwise."""

_OUTPUT = 1 << 20
"""With steps of a quarter of that, threads lost 10 % more time to the interpreter's lock."""

_FIXED = struct.Struct("<2sBB6x")
_TRAILER = struct.Struct("<2L")
_MAGIC = b"\x1f\x8b"
_DEFLATE = 8
_HAS_HEADER_CRC, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0


def inflated(source: Forward) -> Iterator[bytes]:
    """Return what all members of a gzip stream hold, in blocks of 1 MiB at most; some are empty.

    Nothing but zeros may follow the last member.

    Args:
        source: The stream, from its first byte to its last.

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
    """Inflate step by step, all of them of bounded time."""
    _pass_header(source, source.read(_FIXED.size))
    yield from _member(source)
    while head := source.read(_FIXED.size):
        if not head.strip(b"\0"):
            yield from _zeros(source)
            return
        if not head.startswith(_MAGIC):
            raise Damaged("there is data after the end of the gzip stream")
        _pass_header(source, head)
        yield from _member(source)


def _member(source: Forward) -> Iterator[bytes]:
    """Inflate the data of a member, and hold it against its trailer (2.3.1)."""
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
    trailer = source.read(_TRAILER.size)
    if len(trailer) < _TRAILER.size:
        raise Damaged("the trailer of the gzip stream is cut off")
    if _TRAILER.unpack(trailer) != (crc, size & 0xFFFFFFFF):
        raise Damaged("the gzip stream does not have the CRC-32 and length that it declares")


def _pass_header(source: Forward, header: bytes) -> None:
    """Read the rest of a header (2.3) whose fixed part is given; nothing in it is of use here."""
    if len(header) < _FIXED.size:
        raise Damaged("the header of the gzip stream is cut off")
    magic, method, flags = _FIXED.unpack(header)
    if magic != _MAGIC or method != _DEFLATE or flags & _RESERVED:
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


def _exactly(source: Forward, count: int) -> bytes:
    data = source.read(count)
    if len(data) < count:
        raise Damaged("the header of the gzip stream is cut off")
    return data


def _text(source: Forward) -> bytes:
    """Read a name or comment, which ends with a zero."""
    text = b""
    while len(text) <= HEADER_BYTES:
        piece = source.some(_INPUT)
        if not piece:
            raise Damaged("the header of the gzip stream is cut off")
        length = piece.find(b"\0") + 1
        if length:
            source.back(len(piece) - length)
            return text + piece[:length]
        text += piece
    raise Damaged(f"the header of the gzip stream is over {HEADER_BYTES:,} bytes long")


def _zeros(source: Forward) -> Iterator[bytes]:
    """Read padding to its end, as the writers of tapes leave it."""
    while piece := source.some(_INPUT):
        if piece.strip(b"\0"):
            raise Damaged("there is data after the end of the gzip stream")
        yield b""


class Damaged(Exception):
    """A stream violates its format; the reader of the archive adds where."""


class Forward:
    """A stream of bytes that is read forwards.

    Args:
        blocks: The stream; an empty block says nothing.
    """

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
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[bytes]:
        """Return the next bytes as they come: fewer than asked for only at the end."""
        while count and (piece := self.some(count)):
            count -= len(piece)
            yield piece

    def some(self, most: int) -> bytes:
        """Return what is at hand of the next bytes; nothing only at the end of the stream."""
        if self._at == len(self._block):
            self._before += self._at
            self._block, self._at = next(filter(None, self._blocks), b""), 0
        piece = self._block[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def glance(self, count: int) -> bytes:
        """Return those of the next bytes that are at hand, without going on."""
        return self._block[self._at : self._at + count]

    def window(self, most: int) -> memoryview:
        """Return the next bytes without going on: fewer than ``most`` only at the end."""
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
