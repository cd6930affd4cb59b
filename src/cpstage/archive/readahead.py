"""A seekable file over a blob that fetches ahead of its reader, in parallel and within bounds.

Threads and buffers of the reading side live here and nowhere else. This module knows nothing of
archive formats.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from cpstage.archive.blob import Blob

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 8 << 20
"""Bytes of one read of the blob: large enough that the time to its first byte does not matter."""

_AHEAD = 3
"""How many blocks are on their way while one is being consumed."""


class ReadAhead(io.RawIOBase):
    """A read-only file over a blob.

    Args:
        blob: What to read.
        consumed: Is told of every byte that was read, once, as its block is first reached.
    """

    def __init__(self, blob: Blob, consumed: Callable[[int], object] = lambda _: None) -> None:
        self._blob = blob
        self._consumed = consumed
        self._position = 0
        self._blocks: dict[int, Future[bytes]] = {}
        self._seen: set[int] = set()
        self._pool = ThreadPoolExecutor(_AHEAD + 1, thread_name_prefix="cpstage-read")

    def readable(self) -> bool:
        """A blob can be read."""
        return True

    def seekable(self) -> bool:
        """A blob can be read anywhere."""
        return True

    def tell(self) -> int:
        """Return the offset of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the start, the position or the end.

        Raises:
            OSError: EINVAL, where that is before the start, as lseek(2) has it.
        """
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._blob.size}
        target = origin[whence] + offset
        if target < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = target
        return target

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the current block goes."""
        view = memoryview(buffer).cast("B")
        if self._position >= self._blob.size or not view:
            return 0
        index, start = divmod(self._position, BLOCK)
        block = self._block(index)
        piece = memoryview(block)[start : start + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        """Drop the buffers; reads that are on their way end when they end, and nobody waits."""
        if not self.closed:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._blocks.clear()
        super().close()

    def _block(self, index: int) -> bytes:
        last = (self._blob.size - 1) // BLOCK
        wanted = range(index, min(index + _AHEAD, last) + 1)
        for behind in [known for known in self._blocks if known not in wanted]:
            self._blocks.pop(behind).cancel()
        for ahead in wanted:
            if ahead not in self._blocks:
                self._blocks[ahead] = self._pool.submit(self._fetch, ahead)
        block = self._blocks[index].result()
        if index not in self._seen:
            self._seen.add(index)
            self._consumed(len(block))
        return block

    def _fetch(self, index: int) -> bytes:
        offset = index * BLOCK
        return self._blob.read(offset, min(BLOCK, self._blob.size - offset))
