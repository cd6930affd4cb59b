"""Sparse files in tar (GNU tar manual, "Sparse Formats"): where their data belongs.

Two forms are read: the old one of GNU tar in headers of its own, and 1.0 in pax headers, which
libarchive writes wherever a file has holes. Forms 0.0 and 0.1 have not been written since 2006.
What comes out are the bytes of the file, the zeros of its holes among them.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from cpstage.archive.flow.forward import Damaged
from cpstage.archive.member import CHUNK
from cpstage.archive.tar.header import BLOCK, decimal, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ZEROS = bytes(CHUNK)
_PREFIX = b"GNU.sparse."
SPARSE_NAME, _REAL_SIZE = _PREFIX + b"name", _PREFIX + b"realsize"
_FORM = {_PREFIX + b"major": b"1", _PREFIX + b"minor": b"0"}
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
    return key.startswith(_PREFIX) or key in _OTHER_FORMS


def sparse_of_header(block: bytes, read: Callable[[], bytes]) -> Sparse:
    """Read the old form, of type ``S``: four extents in the header, 21 in each block after it.

    Args:
        block: The header.
        read: Returns the next block; it does not for ever.
    """
    fields, more = [block[386:482]], block[482]
    while more:
        following = read()
        fields.append(following[:504])
        more = following[504]
    used = (field[at : at + 24] for field in fields for at in range(0, len(field), 24))
    extents = [
        (number(extent[:12], "offset"), number(extent[12:], "length"))
        for extent in used
        if extent.strip(b"\0")
    ]
    return Sparse(number(block[483:495], "size"), extents)


def sparse_of_records(records: Mapping[bytes, bytes], read: Callable[[], bytes]) -> Sparse:
    """Read form 1.0: a pax header, and the map in lines of digits before the data.

    Args:
        records: The records of the header.
        read: Returns the next block of the data.
    """
    if any(records.get(key) != value for key, value in _FORM.items()):
        raise Damaged("a sparse file is of a form that is not supported")
    size = decimal(records.get(_REAL_SIZE, b""), "size of a sparse file")
    blocks = [read()]
    count = decimal(blocks[0].partition(b"\n")[0], "map of a sparse file")
    lines = blocks[0].count(b"\n")
    while lines < 2 * count + 1:
        blocks.append(read())
        lines += blocks[-1].count(b"\n")
    digits = b"".join(blocks).split(b"\n")[1 : 2 * count + 1]
    numbers = iter([decimal(one, "map of a sparse file") for one in digits])
    return Sparse(size, list(zip(numbers, numbers, strict=True)))
