"""Sparse files in tar (GNU tar manual, "Sparse Formats"): where their data belongs.

Four forms are read: the old one of GNU tar in headers of its own, and 0.0, 0.1 and 1.0 in pax
headers. What comes out are the bytes of the file, the zeros of its holes among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import NamedTuple

from cpstage.archive.forward import Damaged
from cpstage.archive.limits import HEADER_BYTES
from cpstage.archive.member import CHUNK
from cpstage.archive.tarheader import BLOCK, Record, decimal, number

_ZEROS = bytes(CHUNK)
PREFIX = b"GNU.sparse."
"""Of the keys of all pax records that are read here."""

_OTHER_FORMS = (b"SCHILY.realsize", b"SUN.holesdata")
"""Keys of star and of Solaris, of which libarchive knows."""


class Sparse(NamedTuple):
    """A sparse file.

    Attributes:
        size: How many bytes it has.
        extents: The offset and length of each piece of data; all else are holes.
    """

    size: int
    extents: list[tuple[int, int]]

    def check(self, stored: int) -> None:
        """Check that the pieces of data follow one another, and are what is stored.

        All but the last are whole blocks: of what is not, GNU tar takes the rest of the block for
        padding, and libarchive takes it for the next piece. The last ends where the file does, if
        it is an empty piece: GNU tar would make the file shorter otherwise.

        Raises:
            Damaged: They do not.
        """
        at = total = 0
        for offset, length in self.extents:
            if offset < at:
                raise Damaged("the map of a sparse file overlaps")
            if length and total % BLOCK:
                raise Damaged("the map of a sparse file has a piece that ends within a block")
            at, total = offset + length, total + length
        if at != self.size or total != stored:
            raise Damaged("the map of a sparse file does not fit its size")

    def content(self, pieces: Callable[[int], Iterator[bytes]]) -> Iterator[bytes]:
        """Return the bytes of the file; the data comes from ``pieces``, by number of bytes."""
        at = 0
        for offset, length in self.extents:
            yield from _hole(offset - at)
            yield from pieces(length)
            at = offset + length
        yield from _hole(self.size - at)


def _hole(length: int) -> Iterator[bytes]:
    yield from repeat(_ZEROS, length // CHUNK)
    yield _ZEROS[: length % CHUNK]


def is_about_holes(key: bytes) -> bool:
    """Tell whether a pax record says that a file is sparse."""
    return key.startswith(PREFIX) or key in _OTHER_FORMS


def sparse_of_header(block: bytes, read: Callable[[], bytes]) -> Sparse:
    """Read the old form, of type ``S``: four extents in the header, 21 in each block after it.

    Args:
        block: The header.
        read: Returns the next block.
    """
    extents = _extents(block[386:482])
    more, size = block[482], number(block[483:495], "size")
    length = 0
    while more:
        length += BLOCK
        _check_length(length)
        block = read()
        extents += _extents(block[:504])
        more = block[504]
    return Sparse(size, extents)


def _extents(fields: bytes) -> list[tuple[int, int]]:
    numbers = [fields[at : at + 12] for at in range(0, len(fields), 12)]
    return [
        (number(offset, "offset"), number(length, "length"))
        for offset, length in zip(numbers[::2], numbers[1::2], strict=True)
        if (offset + length).strip(b"\0")
    ]


def sparse_of_records(records: list[Record], read: Callable[[], bytes]) -> Sparse:
    """Read one of the forms in a pax header.

    Args:
        records: The records.
        read: Returns the next block of the data, where 1.0 has its map.
    """
    last = {key.removeprefix(PREFIX): value for key, value in records if key.startswith(PREFIX)}
    size = last.get(b"size", b"")
    if (last.get(b"major"), last.get(b"minor")) == (b"1", b"0"):
        numbers, size = _map_in_data(read), last.get(b"realsize", b"")
        offsets, lengths = numbers[::2], numbers[1::2]
    elif b"major" in last or not last:
        raise Damaged("a sparse file is of an unknown form")
    elif b"map" in last:
        numbers = last[b"map"].split(b",") if last[b"map"] else []
        offsets, lengths = numbers[::2], numbers[1::2]
    else:
        offsets = [value for key, value in records if key == PREFIX + b"offset"]
        lengths = [value for key, value in records if key == PREFIX + b"numbytes"]
    if len(offsets) != len(lengths):
        raise Damaged("the map of a sparse file ends early")
    extents = [
        (decimal(offset, "map of a sparse file"), decimal(length, "map of a sparse file"))
        for offset, length in zip(offsets, lengths, strict=True)
    ]
    return Sparse(decimal(size, "size of a sparse file"), extents)


def _map_in_data(read: Callable[[], bytes]) -> list[bytes]:
    """Read lines of digits: how many extents there are, then the offset and length of each."""
    blocks = [read()]
    count = decimal(blocks[0].partition(b"\n")[0], "map of a sparse file")
    lines = blocks[0].count(b"\n")
    while lines < 2 * count + 1:
        _check_length(len(blocks) * BLOCK)
        blocks.append(read())
        lines += blocks[-1].count(b"\n")
    return b"".join(blocks).split(b"\n")[1 : 2 * count + 1]


def _check_length(length: int) -> None:
    if length > HEADER_BYTES:
        raise Damaged(f"the map of a sparse file is over {HEADER_BYTES:,} bytes long")
