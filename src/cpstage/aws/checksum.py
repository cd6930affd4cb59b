"""The checksum that S3 keeps of a whole object, computed again over the bytes that came.

S3 sends no checksum with a part of an object, so nobody but the reader can tell whether what it put
together is what was uploaded. Which algorithms can be computed depends on what is installed: CRC32
and SHA always, CRC32C and CRC64NVME with ``awscrt`` (the extra ``crt``).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from cpstage._deflate import crc32
from cpstage.errors import ArtifactRejected

_Crc = Callable[[bytes, int], int]


class Checksum:
    """A checksum of a whole object, as S3 has it: ``x-amz-checksum-crc32`` and its likes.

    Args:
        algorithm: Its name, such as ``CRC64NVME``.
        value: Base64 of it.
    """

    def __init__(self, algorithm: str, value: str) -> None:
        self.algorithm = algorithm
        self.value = value

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    def begin(self) -> RunningChecksum | None:
        """Begin to compute it again; None where the algorithm is not installed."""
        if self.algorithm in ("SHA1", "SHA256"):
            return _RunningHash(self)
        crc = _crc(self.algorithm)
        return _RunningCrc(self, crc) if crc else None


def crc32_checksum(crc: int) -> Checksum:
    """Return a CRC-32 as S3 is given it."""
    return Checksum("CRC32", base64.b64encode(crc.to_bytes(4, "big")).decode())


class RunningChecksum:
    """A checksum being computed over an object's bytes, in their order."""

    def __init__(self, expected: Checksum) -> None:
        self.expected = expected

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        raise NotImplementedError

    def digest(self) -> bytes:
        """Return the checksum of what was taken."""
        raise NotImplementedError

    def verify(self) -> None:
        """Compare, after the last byte.

        Raises:
            ArtifactRejected: What came is not what S3 keeps.
        """
        found = base64.b64encode(self.digest()).decode()
        if found != self.expected.value:
            raise ArtifactRejected(
                f"the bytes that S3 sent have the {self.expected.algorithm} {found}, and the "
                f"object has {self.expected.value}",
                hint="something on the way changed them: run the command again",
            )


class _RunningHash(RunningChecksum):
    def __init__(self, expected: Checksum) -> None:
        super().__init__(expected)
        self._hash = hashlib.new(expected.algorithm.lower(), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        return self._hash.digest()


class _RunningCrc(RunningChecksum):
    def __init__(self, expected: Checksum, crc: _Crc) -> None:
        super().__init__(expected)
        self._crc = crc
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._crc(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(8 if "64" in self.expected.algorithm else 4, "big")


def full_object_checksum(answer: Mapping[str, Any]) -> Checksum | None:
    """Return the checksum of the whole object that an answer of S3 has, if it has one.

    A composite one, of the checksums of parts, is of no use to who does not know the parts.
    """
    if answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for algorithm in ("CRC32", "CRC64NVME", "CRC32C", "SHA256", "SHA1"):
        value = answer.get(f"Checksum{algorithm}")
        if value and "-" not in value:
            return Checksum(algorithm, value)
    return None


def _crc(algorithm: str) -> _Crc | None:
    if algorithm == "CRC32":
        return crc32
    try:
        from awscrt import checksums
    except ImportError:
        return None
    found: _Crc | None = getattr(checksums, algorithm.lower(), None)
    return found
