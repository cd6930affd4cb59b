"""Random access to immutable bytes: the one thing that readers of archives read from.

An S3 object, a local file and a decrypted temporary are the same to them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from cpstage.errors import LocalIOError, local_reason

if TYPE_CHECKING:
    from pathlib import Path


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
