"""Random access to immutable bytes (:class:`Blob`), and reading them forwards (:class:`ReadAhead`).

Archive readers take an S3 object, a local file and a decrypted temporary file alike. A
:class:`ReadAhead` reads a blob once, from its start to its end, in blocks that several threads
fetch in parallel and within bounds; bytes are handed on without a copy as far as they lie in one
block.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cpstage.errors import ArtifactRejected, LocalIOError, local_reason

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Blob(Protocol):
    """Random access to immutable bytes; ``read`` may be called from several threads at once."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly the bytes ``[offset, offset + length)``, which lie inside."""


class BytesBlob:
    """Bytes in memory as a :class:`Blob`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``."""
        return self._data[offset : offset + length]


class FileBlob:
    """A local file as a :class:`Blob`.

    Args:
        path: Where it is.
        descriptor: One of it that is open, where it has no name.

    Raises:
        LocalIOError: It cannot be read, or it became shorter meanwhile.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self._path = path
        try:
            self._descriptor = (
                os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if descriptor is None
                else os.dup(descriptor)
            )
        except OSError as error:
            raise self._unreadable(local_reason(error)) from error
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``."""
        try:
            chunk = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise self._unreadable(local_reason(error)) from error
        if len(chunk) != length:
            raise self._unreadable("it became shorter while it was read")
        return chunk

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _unreadable(self, why: str) -> LocalIOError:
        return LocalIOError(f"cannot read {self._path}: {why}")


READ_SIZE = 8 << 20
"""Bytes of one read of the blob: large enough that the time to its first byte does not matter."""

_FIRST = 1 << 20
"""Bytes of the first read: what is in the archive can be told by its start, long before 8 MiB are
there."""

_FETCHERS = 4
"""Blocks that are on their way or waiting, besides the one being consumed."""


class Digest(Protocol):
    """Something that is computed over a stream, and compared at its end."""

    def update(self, data: bytes) -> None:
        """Take the next bytes."""

    def verify(self) -> None:
        """Complain where what was taken is not what it should be."""


class ReadAhead(io.RawIOBase):
    """A file over a blob that is read forwards only; fetching of its start begins at once.

    Args:
        blob: What to read.
        consumed: Is told of every byte once, as its block is reached.
        digest: Is given every byte, in order.

    Attributes:
        read_size: Bytes of one read of the blob, a divisor of :data:`READ_SIZE`.
    """

    def __init__(
        self,
        blob: Blob,
        consumed: Callable[[int], object] = lambda _: None,
        digest: Digest | None = None,
    ) -> None:
        if blob.size <= READ_SIZE:
            blob = BytesBlob(blob.read(0, blob.size))  # so that random access has it too
        self.blob = blob
        self.read_size = READ_SIZE
        self._consumed = consumed
        self._digest = digest
        self._block = memoryview(b"")
        self._left = blob.size
        self._wanted = 0
        self._coming: deque[Future[bytes]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        if blob.size > READ_SIZE:
            self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="cpstage-read")
            self._fetch(self._pool, _FIRST)

    @property
    def left(self) -> int:
        """How many bytes there are from here to the end of the blob."""
        return self._left

    def readable(self) -> bool:
        """A blob can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the current block goes."""
        view = memoryview(buffer).cast("B")
        piece = self._some(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def peek(self, length: int) -> bytes:
        """Return bytes without moving on: fewer than asked for only at the end of the block."""
        self._reach()
        return bytes(self._block[:length])

    def take(self, length: int) -> memoryview:
        """Move on by a number of bytes, and return them.

        Raises:
            ArtifactRejected: There are fewer.
        """
        piece = self._some(length)
        if len(piece) == length:
            return piece
        return memoryview(b"".join([piece, *self.pieces(length - len(piece))]))

    def pieces(self, length: int) -> Iterator[memoryview]:
        """Move on by a number of bytes, and return them as they come.

        Raises:
            ArtifactRejected: There are fewer.
        """
        while length:
            piece = self._some(length)
            if not piece:
                raise ArtifactRejected("the archive ends in the middle of its data")
            length -= len(piece)
            yield piece

    def finish(self) -> None:
        """Read what is left, and compare all that was read with the digest, if there is one.

        Raises:
            ArtifactRejected: They differ.
        """
        for _ in self.pieces(self._left):
            pass
        if self._digest:
            self._digest.verify()

    def close(self) -> None:
        """Drop the buffers; reads that are on their way end when they end, and nobody waits."""
        if not self.closed and self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._coming.clear()
        self._block = memoryview(b"")
        super().close()

    def fetch_ahead(self) -> None:
        """Fetch as much ahead as there is room for; reading does so by itself."""
        while self._pool and len(self._coming) < _FETCHERS and self._wanted < self.blob.size:
            # Stores keep large objects in pieces of such sizes: reads across two cost them both.
            self._fetch(self._pool, self.read_size - self._wanted % self.read_size)

    def _some(self, length: int) -> memoryview:
        """Move on by as much as the current block has."""
        if length and self._left:
            self._reach()
            self.fetch_ahead()
        piece = self._block[:length]
        self._block = self._block[len(piece) :]
        self._left -= len(piece)
        return piece

    def _reach(self) -> None:
        """Make the next block the current one, if that is used up."""
        if self._block or not self._left:
            return
        whole = self.blob.read
        block = self._coming.popleft().result() if self._pool else whole(0, self.blob.size)
        self._block = memoryview(block)
        if self._digest:
            self._digest.update(block)
        self._consumed(len(block))

    def _fetch(self, pool: ThreadPoolExecutor, most: int) -> None:
        length = min(most, self.blob.size - self._wanted)
        self._coming.append(pool.submit(self.blob.read, self._wanted, length))
        self._wanted += length
