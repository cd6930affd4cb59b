"""A stream that comes in blocks, read forwards and by number of bytes.

This module knows nothing of what the bytes mean, nor of where they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Damaged(Exception):
    """A stream is not what its format says; whoever knows the archive says where."""


class Forward:
    """The bytes of a stream, in order.

    Args:
        blocks: The stream; an empty block says nothing.
    """

    __slots__ = ("_at", "_block", "_blocks")

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._at = 0

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
            self._block, self._at = next(filter(None, self._blocks), b""), 0
        piece = self._block[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def back(self, count: int) -> None:
        """Go back, within what the last call of :meth:`some` returned."""
        self._at -= count
