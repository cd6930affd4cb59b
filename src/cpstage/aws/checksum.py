"""The full-object checksum of S3, computed again over the downloaded bytes.

S3 sends no checksum with a range of an object, so the reader of many ranges compares the checksum
of the whole. cpstage always computes CRC32 and SHA; CRC32C and CRC64NVME need ``awscrt`` (the extra
``crt``).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cpstage._deflate import crc32
from cpstage.errors import ArtifactRejected

_ALGORITHMS = ("CRC32", "SHA256", "SHA1", "CRC64NVME", "CRC32C")


class Checksum(NamedTuple):
    """The checksum of a whole object, from a header such as ``x-amz-checksum-crc32``.

    Attributes:
        algorithm: The name of the algorithm, such as ``CRC64NVME``.
        value: The checksum in base64.
    """

    algorithm: str
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    def begin(self) -> RunningChecksum | None:
        """Begin to compute the checksum; return None where the algorithm is not installed."""
        if self.algorithm in ("SHA1", "SHA256"):
            return RunningChecksum(self, hashlib.new(self.algorithm.lower(), usedforsecurity=False))
        crc: Callable[[bytes, int], int] | None = crc32
        if self.algorithm != "CRC32":
            try:
                from awscrt import checksums
            except ImportError:
                return None
            crc = getattr(checksums, self.algorithm.lower(), None)
        size = 8 if "64" in self.algorithm else 4
        return RunningChecksum(self, _Crc(crc, size)) if crc else None


def crc32_checksum(crc: int) -> Checksum:
    """Return a CRC-32 as S3 is given it."""
    return Checksum("CRC32", base64.b64encode(crc.to_bytes(4, "big")).decode())


def full_object_checksum(answer: Mapping[str, Any]) -> Checksum | None:
    """Return the checksum of the whole object from an answer of S3; None where it has none.

    One that can be computed here comes first. A composite checksum cannot be compared: it is made
    of the checksums of parts, whose sizes are unknown.
    """
    if answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    values = {name: answer.get(f"Checksum{name}") or "-" for name in _ALGORITHMS}
    found = [Checksum(name, value) for name, value in values.items() if "-" not in value]
    return next((one for one in found if one.begin()), found[0] if found else None)


class _Crc:
    """A CRC in the form of ``hashlib``."""

    def __init__(self, crc: Callable[[bytes, int], int], size: int) -> None:
        self._crc = crc
        self._size = size
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._crc(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class RunningChecksum(NamedTuple):
    """A checksum being computed over an object's bytes, in their order.

    Attributes:
        expected: The checksum of the object.
        running: What computes it: an object of ``hashlib``, or one like it.
    """

    expected: Checksum
    running: Any

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        self.running.update(data)

    def verify(self) -> None:
        """Compare, after the last byte.

        Raises:
            ArtifactRejected: The checksums differ.
        """
        found = base64.b64encode(self.running.digest()).decode()
        if found != self.expected.value:
            raise ArtifactRejected(
                f"the bytes that S3 sent have the {self.expected.algorithm} {found}, and the "
                f"object has {self.expected.value}",
                hint="the network or a proxy changed them: run the command again",
            )
