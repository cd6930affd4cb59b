"""The full-object checksum of S3, computed again over the downloaded bytes.

S3 sends no checksum with a range of an object, so the reader of many ranges compares the checksum
of the whole. cpstage always computes CRC32 and SHA; CRC32C and CRC64NVME need ``awscrt`` (the extra
``crt``).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from cpstage._deflate import crc32
from cpstage.errors import ArtifactRejected

_Crc = Callable[[bytes, int], int]


_ALGORITHMS = ("CRC32", "SHA256", "SHA1", "CRC64NVME", "CRC32C")


class Checksum:
    """The checksum of a whole object, from a header such as ``x-amz-checksum-crc32``.

    Args:
        algorithm: The name of the algorithm, such as ``CRC64NVME``.
        value: The checksum in base64.
    """

    def __init__(self, algorithm: str, value: str) -> None:
        self.algorithm = algorithm
        self.value = value

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @property
    def is_computable(self) -> bool:
        """Whether the algorithm is installed."""
        return self.begin() is not None

    def begin(self) -> RunningChecksum | None:
        """Begin to compute the checksum; return None where the algorithm is not installed."""
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
        """Add the next bytes."""
        raise NotImplementedError

    def digest(self) -> bytes:
        """Return the checksum of the added bytes."""
        raise NotImplementedError

    def verify(self) -> None:
        """Compare, after the last byte.

        Raises:
            ArtifactRejected: The checksums differ.
        """
        found = base64.b64encode(self.digest()).decode()
        if found != self.expected.value:
            raise ArtifactRejected(
                f"the bytes that S3 sent have the {self.expected.algorithm} {found}, and the "
                f"object has {self.expected.value}",
                hint="the network or a proxy changed them: run the command again",
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
    """Return the checksum of the whole object from an answer of S3; None where it has none.

    One that can be computed here comes first. A composite checksum cannot be compared: it is made
    of the checksums of parts, whose sizes are unknown.
    """
    if answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    values = {name: answer.get(f"Checksum{name}") or "-" for name in _ALGORITHMS}
    found = [Checksum(name, value) for name, value in values.items() if "-" not in value]
    return next((one for one in found if one.is_computable), found[0] if found else None)


def _crc(algorithm: str) -> _Crc | None:
    if algorithm == "CRC32":
        return crc32
    try:
        from awscrt import checksums
    except ImportError:
        return None
    found: _Crc | None = getattr(checksums, algorithm.lower(), None)
    return found
