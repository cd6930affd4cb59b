"""Encrypt a stream into one message of the AWS Encryption SDK, frame by frame.

Memory holds one frame. The encryption context binds the message to its place in a pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpstage.encryption.header import Header, read_header
from cpstage.encryption.keys import AllowedKeys, check_new
from cpstage.encryption.kms import Clients, Kms
from cpstage.errors import ConfigurationError, InternalError

MOST_KEYS = 5
"""Encrypted data keys of one message: each can cost the reader a call to KMS."""

FRAME_LENGTH = 256 << 10
"""Measured by tools/benchmarks/envelope.py: almost twice as fast as 64 KiB, since each frame has
a cost in the SDK; longer frames are no faster. A reader holds one frame in memory."""


class EncryptedMessage(NamedTuple):
    """A message that is being encrypted.

    Attributes:
        header: The header; KMS has returned the data keys.
        chunks: The bytes of the message, an iterator to be read once.
    """

    header: Header
    chunks: Iterator[bytes]


def encrypt(
    chunks: Iterable[bytes],
    *,
    key_ids: Sequence[str],
    context: Mapping[str, str],
    kms: Clients,
    frame_length: int = FRAME_LENGTH,
) -> EncryptedMessage:
    """Encrypt a stream under KMS keys, with a key-committing suite without signature.

    KMS is called before this function returns: an unusable key stops an upload before its start.

    Args:
        chunks: The plaintext. An exception of the iterator is passed on.
        key_ids: The keys, each of which can decrypt the message: ARNs, bare ids or aliases, of
            any region and account. The first makes the data key.
        context: The encryption context.
        kms: Returns the KMS client of a region; None is the pipeline's region.
        frame_length: Bytes of plaintext in a frame.

    Raises:
        AccessDenied: KMS refuses a key; the message has KMS's own code.
        ConfigurationError: There are no keys or too many, or the context is invalid.
        ServiceUnavailable: KMS could not be reached.
    """
    from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
    from aws_encryption_sdk.exceptions import SerializationError
    from aws_encryption_sdk.identifiers import AlgorithmSuite

    from cpstage.encryption.materials import KmsMaterials

    if not 0 < len(key_ids) <= MOST_KEYS:
        raise ConfigurationError(
            f"cannot encrypt under {len(key_ids)} KMS keys", hint=f"give 1 to {MOST_KEYS} of them"
        )
    check_new(context)
    client = EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
        max_encrypted_data_keys=MOST_KEYS,
    )
    stream = client.stream(
        mode="e",
        source=_Source(chunks),
        materials_manager=KmsMaterials(Kms(kms), AllowedKeys(key_ids), {}),
        encryption_context=dict(context),
        algorithm=AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
        frame_length=frame_length,
    )
    try:
        _ = stream.header  # calls KMS, and writes the header into the buffer
    except SerializationError as error:
        raise ConfigurationError(f"cannot encrypt with this encryption context: {error}") from error
    header = read_header(stream.output_buffer)
    if header is None:
        raise InternalError("the SDK wrote a header that cannot be read")
    return EncryptedMessage(header, _ciphertext(stream, frame_length))


def _ciphertext(stream: Any, frame_length: int) -> Iterator[bytes]:
    # A read of one frame's length takes one frame of plaintext: more would be sliced over again.
    while chunk := stream.read(frame_length):
        yield chunk
        # Otherwise the overhead of each frame stays in the SDK's buffer and is copied again.
        if rest := stream.read(len(stream.output_buffer)):
            yield rest


class _Source:
    """An iterator of bytes as the file object that the SDK reads."""

    closed = False

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, length: int) -> bytes:
        """Return up to ``length`` bytes; no bytes at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:length], self._rest[length:]
        return bytes(taken)
