"""The header of an encrypted message, read without KMS and without the SDK.

It follows the "AWS Encryption SDK message format reference", versions 1 and 2. Nothing in it is
authentic before the message is decrypted: it serves to recognise messages, and to describe an
artifact. Objects of the Amazon S3 Encryption Client, which cpstage does not decrypt, are recognised
by their metadata.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

HEAD_BYTES = 256 << 10
"""A message is recognised if its header ends in so many bytes."""

_TYPE = 0x80
_NOT_FRAMED, _FRAMED = 1, 2
_IV_BYTES, _TAG_BYTES, _COMMITMENT_BYTES = 12, 16, 32
_MESSAGE_ID_BYTES = {1: 16, 2: 32}
_LONGEST_FRAME = (1 << 31) - 1

_ALGORITHMS = {
    (1, 0x0014): "AES_128_GCM_IV12_TAG16",
    (1, 0x0046): "AES_192_GCM_IV12_TAG16",
    (1, 0x0078): "AES_256_GCM_IV12_TAG16",
    (1, 0x0114): "AES_128_GCM_IV12_TAG16_HKDF_SHA256",
    (1, 0x0146): "AES_192_GCM_IV12_TAG16_HKDF_SHA256",
    (1, 0x0178): "AES_256_GCM_IV12_TAG16_HKDF_SHA256",
    (1, 0x0214): "AES_128_GCM_IV12_TAG16_HKDF_SHA256_ECDSA_P256",
    (1, 0x0346): "AES_192_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
    (1, 0x0378): "AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
    (2, 0x0478): "AES_256_GCM_HKDF_SHA512_COMMIT_KEY",
    (2, 0x0578): "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384",
}
"""The suites by message format version and algorithm id ("Algorithms reference")."""


class Header(NamedTuple):
    """The header of a message, as the message has it.

    Attributes:
        version: The message format version, 1 or 2.
        algorithm: The algorithm suite's name.
        context: The encryption context.
        keys: Under which keys the data key is wrapped: ARNs of KMS keys, and
            ``provider/name`` for others.
        frame_length: Bytes of plaintext in a frame; 0 for a body that is not framed.
        length: Bytes of the header itself.
    """

    version: int
    algorithm: str
    context: Mapping[str, str]
    keys: tuple[str, ...]
    frame_length: int
    length: int

    def document(self) -> dict[str, Any]:
        """Return the header's facts for the manifest and for JSON."""
        return {
            "format": f"AWS Encryption SDK, message format {self.version}",
            "algorithm": self.algorithm,
            "keys": list(self.keys),
            "encryption_context": dict(self.context),
            "frame_length": self.frame_length,
        }


def read_header(head: bytes) -> Header | None:
    """Return the header at the start of an object; None where it is not complete, or not a header.

    The first :data:`HEAD_BYTES` bytes suffice.
    """
    try:
        return _header(_Fields(head[:HEAD_BYTES]))
    except ValueError:
        return None


class _Fields(io.BytesIO):
    """Consecutive big-endian fields; raises ``ValueError`` where the bytes end too early."""

    def take(self, length: int) -> bytes:
        data = self.read(length)
        _require(len(data) == length)
        return data

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def counted(self) -> bytes:
        return self.take(self.number(2))


def _header(fields: _Fields) -> Header:
    version = fields.number(1)
    if version == 1:
        _require(fields.number(1) == _TYPE)
    algorithm = _ALGORITHMS.get((version, fields.number(2)), "")
    _require(algorithm != "")
    fields.take(_MESSAGE_ID_BYTES[version])
    context = _context(fields.counted())
    keys = tuple(_wrapping_key(fields) for _ in range(fields.number(2)))
    _require(len(keys) > 0)
    content_type = fields.number(1)
    if version == 1:
        _require(fields.number(4) == 0 and fields.number(1) == _IV_BYTES)
    frame_length = fields.number(4)
    _require(_is_possible(content_type, frame_length))
    fields.take(_IV_BYTES if version == 1 else _COMMITMENT_BYTES)
    fields.take(_TAG_BYTES)
    return Header(version, algorithm, context, keys, frame_length, fields.tell())


def _context(data: bytes) -> dict[str, str]:
    """Read the encryption context; its field is empty without pairs."""
    if not data:
        return {}
    fields = _Fields(data)
    count = fields.number(2)
    pairs = [(fields.counted().decode(), fields.counted().decode()) for _ in range(count)]
    context = dict(pairs)
    _require(not fields.read() and len(context) == count > 0)
    return context


def _wrapping_key(fields: _Fields) -> str:
    provider, name = fields.counted().decode(), fields.counted()
    fields.counted()
    shown = name.decode(errors="backslashreplace")
    return shown if provider == "aws-kms" else f"{provider}/{shown}"


def _is_possible(content_type: int, frame_length: int) -> bool:
    if content_type == _FRAMED:
        return 0 < frame_length <= _LONGEST_FRAME
    return content_type == _NOT_FRAMED and frame_length == 0


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("a field is cut, or has a value that it cannot have")


_FORMATS = (("x-amz-c", 3), ("x-amz-key-v2", 2), ("x-amz-cek-alg", 2), ("x-amz-key", 1))
"""Metadata names, and the format version that they show (S3 Encryption Client specification,
Content Metadata)."""

S3_CLIENT_HINT = (
    "get it with an Amazon S3 Encryption Client and the key it was encrypted with, or fetch it "
    "as it is with --no-decrypt"
)


def s3_client_object(metadata: Mapping[str, str]) -> str | None:
    """Describe an object of the S3 Encryption Client by its metadata; None for any other object.

    Names of metadata are in lower case, without ``x-amz-meta-``.
    """
    for name, version in _FORMATS:
        if name in metadata:
            return f"encrypted by the Amazon S3 Encryption Client (format version {version})"
    return None
