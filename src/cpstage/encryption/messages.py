"""Encrypt a stream into one message of the AWS Encryption SDK, or decrypt one, frame by frame.

Memory holds one frame. The encryption context binds the message to its place in a pipeline. Every
frame is authenticated before it is returned. The message is complete after the last frame: publish
the plaintext only when the iterator has ended.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from cpstage.encryption.header import Header, read_header
from cpstage.encryption.kms import AllowedKeys, Clients, Kms, check_new
from cpstage.errors import ArtifactRejected, ConfigurationError, InternalError

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


LONGEST_FRAME = 16 << 20
"""Bytes. A frame, or the body of a message without frames, is held in memory."""


def decrypt(
    source: BinaryIO,
    *,
    context: Mapping[str, str],
    key_ids: Sequence[str],
    account_id: str | None = None,
    partition: str = "aws",
    region: str | None = None,
    kms: Clients,
    requires_commitment: bool = True,
) -> Iterator[bytes]:
    """Return the plaintext of a message, to be published only after the iterator has ended.

    Args:
        source: The message, with no bytes after it; read once, in order.
        context: Pairs that the message's encryption context must have.
        key_ids: The keys that may decrypt it: ARNs, bare ids or aliases.
        account_id: An account whose keys may decrypt it too.
        partition: The partition of that account.
        region: Where replicas of multi-region keys are asked first.
        kms: Returns the KMS client of a region; None is the pipeline's region.
        requires_commitment: Whether a message without key commitment is refused.

    Raises:
        ArtifactRejected: The message was changed, cut or extended, is bound to another artifact, or
            is over a limit.
        AccessDenied: It is encrypted under another key, or KMS refuses; with KMS's own code.
        ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
    """
    from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient

    from cpstage.encryption.materials import KmsMaterials

    require, allow = (
        CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
        CommitmentPolicy.REQUIRE_ENCRYPT_ALLOW_DECRYPT,
    )
    client = EncryptionSDKClient(
        commitment_policy=require if requires_commitment else allow,
        max_encrypted_data_keys=MOST_KEYS,
    )
    allowed = AllowedKeys(key_ids, account_id, partition, region)
    stream = client.stream(
        mode="d",
        source=source,
        materials_manager=KmsMaterials(Kms(kms), allowed, context),
        max_body_length=LONGEST_FRAME,
    )
    try:
        with _refusals():
            # A read of one frame's length is one frame: longer ones are sliced over again.
            length = stream.header.frame_length or LONGEST_FRAME
            chunk = stream.read(length)
        while chunk:
            yield chunk
            with _refusals():
                chunk = stream.read(length)
        with _refusals():
            stream.close()  # raises before the last frame was reached
        if source.read(1):
            raise ArtifactRejected("bytes follow the end of the encrypted message")
    finally:
        # Without this, the SDK complains on stderr about a message that was not read to its end.
        io.IOBase.close(stream)


@contextmanager
def _refusals() -> Iterator[None]:
    """Translate the exceptions of the SDK for a changed message."""
    from aws_encryption_sdk.exceptions import (
        ActionNotAllowedError,
        AWSEncryptionSDKClientError,
        CustomMaximumValueExceeded,
        MaxEncryptedDataKeysExceeded,
    )
    from cryptography.exceptions import InvalidSignature, InvalidTag

    try:
        yield
    except MaxEncryptedDataKeysExceeded as error:
        raise ArtifactRejected(
            f"the message is encrypted under more than {MOST_KEYS} keys"
        ) from error
    except CustomMaximumValueExceeded as error:
        raise ArtifactRejected(
            f"the encrypted message has frames of more than {LONGEST_FRAME >> 20} MiB"
        ) from error
    except InvalidTag as error:
        raise ArtifactRejected("the encrypted message was changed") from error
    except InvalidSignature as error:
        raise ArtifactRejected("the signature of the encrypted message is wrong") from error
    except ActionNotAllowedError as error:  # of the commitment policy
        raise ArtifactRejected(
            "the message is encrypted without key commitment",
            hint="if it is from a writer that you trust, allow it with "
            "--commitment-policy require-encrypt-allow-decrypt",
        ) from error
    except AWSEncryptionSDKClientError as error:
        why = error.args[0] if error.args else type(error).__name__
        raise ArtifactRejected(
            f"the encrypted message is damaged or cut: {why}".rstrip(".")
        ) from error
    except (LookupError, ValueError) as error:  # a field that the SDK read without looking at it
        raise ArtifactRejected(f"the encrypted message is damaged: {error}") from error
