"""Decrypt one message of the AWS Encryption SDK, frame by frame.

Every frame is authenticated before it is returned. The message is complete after the last frame:
publish the plaintext only when the iterator has ended.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from cpstage.encryption.encrypt import MOST_KEYS
from cpstage.encryption.keys import AllowedKeys
from cpstage.encryption.kms import Clients, Kms
from cpstage.errors import ArtifactRejected

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
