"""Sealing: a stream of bytes in, one message of the AWS Encryption SDK out.

The stream goes through frame by frame; nothing of it is kept. This module knows no pipeline: what
a message is bound to comes as an encryption context.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpstage.encryption.header import Header, read_header
from cpstage.encryption.keys import Trust, check_new
from cpstage.encryption.kms import Clients, Kms
from cpstage.errors import ConfigurationError, InternalError

MOST_KEYS = 5
"""How many wrapped data keys a message may have: each can cost who opens it a call to KMS."""

FRAME_LENGTH = 256 << 10
"""Measured by tools/benchmarks/envelope.py: almost twice as fast as 64 KiB, since the SDK does much
for each frame, and longer ones gain no more. Who opens a message holds a frame in memory."""


@dataclass(frozen=True)
class EncryptedMessage:
    """A message under way.

    Attributes:
        header: Its header; KMS has answered.
        chunks: Its bytes, made as they are taken, once.
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
    """Seal a stream under KMS keys, with a committing suite without signature.

    KMS is asked before this returns, so that a key that cannot be used stops an upload before it
    begins.

    Args:
        chunks: The plaintext. An error out of it goes through as it is.
        key_ids: The keys, each of which can open the message alone: ARNs, bare ids or aliases, of
            any region and account. The first makes the data key.
        context: The encryption context.
        kms: Gives KMS in a region; None asks for the pipeline's, where bare ids are.
        frame_length: Bytes of plaintext in a frame.

    Raises:
        AccessDenied: KMS refuses a key; the message has KMS's own code.
        ConfigurationError: Too many keys or none, or a context that cannot be.
        ServiceUnavailable: KMS could not be reached.
    """
    from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
    from aws_encryption_sdk.exceptions import SerializationError
    from aws_encryption_sdk.identifiers import AlgorithmSuite

    from cpstage.encryption.materials import KmsMaterials

    if not 0 < len(key_ids) <= MOST_KEYS:
        raise ConfigurationError(
            f"cannot seal under {len(key_ids)} KMS keys", hint=f"give 1 to {MOST_KEYS} of them"
        )
    check_new(context)
    client = EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
        max_encrypted_data_keys=MOST_KEYS,
    )
    stream = client.stream(
        mode="e",
        source=_Source(chunks),
        materials_manager=KmsMaterials(Kms(kms), Trust(key_ids), {}),
        encryption_context=dict(context),
        algorithm=AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
        frame_length=frame_length,
    )
    try:
        _ = stream.header  # asks KMS, and puts the header into the buffer
    except SerializationError as error:
        raise ConfigurationError(f"cannot seal with this encryption context: {error}") from error
    header = read_header(stream.output_buffer)
    if header is None:
        raise InternalError("the SDK wrote a header that cannot be read")
    return EncryptedMessage(header, _ciphertext(stream, frame_length))


def _ciphertext(stream: Any, frame_length: int) -> Iterator[bytes]:
    # A read of one frame's length takes one frame of plaintext: more would be sliced over again.
    while chunk := stream.read(frame_length):
        yield chunk
        # What sealing adds to a frame would pile up in the SDK, and be copied with every frame.
        if rest := stream.read(len(stream.output_buffer)):
            yield rest


class _Source:
    """An iterator of bytes as the file that the SDK reads from."""

    closed = False

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, length: int) -> bytes:
        """Return that many bytes, or fewer at a chunk's end; none at the end of all."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:length], self._rest[length:]
        return bytes(taken)
